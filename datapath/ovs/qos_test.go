package ovs_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os/exec"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"yakumo/datapath/dptest"
	"yakumo/model"
	"yakumo/openflow"
)

var iperfPorts atomic.Int32

// serveIperf runs an iperf3 server in a guest until stop, and gives its port. A server is of one transfer: one whose client was
// killed may wait for that for long.
func serveIperf(t testing.TB, g *kernelGuest) (port string, stop func()) {
	t.Helper()
	port = strconv.Itoa(5201 + int(iperfPorts.Add(1)))
	stop = start(t, exec.Command("ip", "netns", "exec", g.ns, "iperf3", "-s", "-B", g.addr().String(), "-p", port))
	dptest.WaitFor(t, "the iperf3 server", func() bool {
		out, err := exec.Command("ip", "netns", "exec", g.ns, "ss", "-Hltn", "sport = :"+port).Output()
		return err == nil && len(out) > 0
	})
	return port, stop
}

// start starts a command that runs until stop.
func start(t testing.TB, cmd *exec.Cmd) (stop func()) {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
	}
}

// received gives the bytes of all frames that a guest's device has got, Ethernet headers included.
func (g *kernelGuest) received(t testing.TB) float64 {
	t.Helper()
	out, err := exec.Command("ip", "-n", g.ns, "-s", "-j", "link", "show", "dev", "eth0").Output()
	var links []struct {
		Stats struct {
			RX struct{ Bytes float64 } `json:"rx"`
		} `json:"stats64"`
	}
	if err != nil || json.Unmarshal(out, &links) != nil || len(links) != 1 {
		t.Fatalf("statistics of %s: %v: %s", g.ns, err, out)
	}
	return links[0].Stats.RX.Bytes
}

// transfer sends from a to b until the test, or the part of it, ends, and returns when it has used up any burst.
func transfer(t testing.TB, a, b *kernelGuest, args ...string) (stop func()) {
	t.Helper()
	port, end := serveIperf(t, b)
	client := func() *exec.Cmd {
		return exec.Command("ip", append([]string{"netns", "exec", a.ns, "iperf3", "-c", b.addr().String(), "-p", port, "-t", "600"}, args...)...)
	}
	leave := start(t, client())
	first, began := b.received(t), time.Now()
	dptest.WaitFor(t, "the transfer to begin", func() bool {
		if time.Since(began) > 15*time.Second { // its control connection may have met the limit at its worst
			leave()
			end()
			port, end = serveIperf(t, b)
			leave, began = start(t, client()), time.Now()
		}
		return b.received(t) > first+100_000
	})
	<-time.After(2 * time.Second)
	return func() { leave(); end() }
}

// rate gives the bits a second that arrive within a window.
func (g *kernelGuest) rate(t testing.TB, window time.Duration) float64 {
	t.Helper()
	start, before := time.Now(), g.received(t)
	<-time.After(window)
	bytes, took := g.received(t)-before, time.Since(start)
	return bytes * 8 / took.Seconds()
}

// qosGuests is two guests of one host; set changes what limits the first's or the second's traffic.
func qosGuests(t testing.TB) (a, b *kernelGuest, set func(*kernelGuest, model.HostQoS)) {
	h := newFabric(t).newHost(t)
	pa, pb := dptest.NewPort("net", 70000, "a", 5, "all"), dptest.NewPort("net", 70000, "b", 6, "all")
	prune(t, h, []model.HostRow{dptest.NewNetwork("net", 70000), dptest.AllowAll("all"), pa, pb})
	a, b = bootKernel(t, h, pa, 1450), bootKernel(t, h, pb, 1450)
	return a, b, func(g *kernelGuest, q model.HostQoS) {
		t.Helper()
		p := *g.port
		p.QoS = q
		if err := h.drv.Apply(context.Background(), []model.HostRow{&p}, nil); err != nil {
			t.Fatal(err)
		}
		h.Settle(t)
	}
}

// Twice as much as the limits, and no more: a busy machine must be able to send it.
var udp = []string{"-u", "-l", "1400", "-b", "20M"}

// held says whether a rate within 5 % of want arrives. TCP swings around a policer's rate over seconds, and other
// work on the machine may keep a sender from its rate for a while: one window of two seconds or more, however
// long, must be right.
func (g *kernelGuest) held(t testing.TB, want float64) {
	t.Helper()
	type sample struct {
		at    time.Time
		bytes float64
	}
	var seen []sample
	var got []string
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); <-time.After(500 * time.Millisecond) {
		now := sample{time.Now(), g.received(t)}
		for _, from := range seen {
			took := now.at.Sub(from.at)
			if took < 2*time.Second {
				break
			}
			f := (now.bytes - from.bytes) * 8 / took.Seconds()
			if math.Abs(f/want-1) <= 0.05 {
				t.Logf("%.2f Mbit/s over %v, want %.2f", f/1e6, took.Round(time.Millisecond), want/1e6)
				return
			}
		}
		if n := len(seen); n > 0 {
			last := seen[n-1]
			got = append(got, fmt.Sprintf("%.2f", (now.bytes-last.bytes)*8/now.at.Sub(last.at).Seconds()/1e6))
		}
		seen = append(seen, now)
	}
	t.Errorf("got %v Mbit/s in windows of half a second, want %.2f", got, want/1e6)
}

// A limit is held within 5 %, both ways, for TCP and for UDP.
func TestBandwidth(t *testing.T) {
	t.Parallel()
	a, b, set := qosGuests(t)
	const wire = (1400 + 28 + 14) * 8 // bits of one UDP frame
	for _, c := range []struct {
		name string
		on   *kernelGuest
		qos  model.HostQoS
		args []string
		want float64 // bits a second
	}{
		{"sent TCP", a, model.HostQoS{EgressKbps: 10_000}, nil, 10e6},
		{"sent UDP", a, model.HostQoS{EgressKbps: 10_000}, udp, 10e6},
		{"received TCP", b, model.HostQoS{IngressKbps: 10_000}, nil, 10e6},
		{"received UDP", b, model.HostQoS{IngressKbps: 5_000}, udp, 5e6},
		{"packets sent", a, model.HostQoS{EgressPps: 500}, udp, 500 * wire},
		{"packets received", b, model.HostQoS{IngressPps: 800}, udp, 800 * wire},
	} {
		t.Run(c.name, func(t *testing.T) {
			set(c.on, c.qos)
			defer set(c.on, model.HostQoS{})
			defer transfer(t, a, b, c.args...)()
			b.held(t, c.want)
		})
	}
	t.Run("no limit", func(t *testing.T) {
		defer transfer(t, a, b)()
		dptest.WaitFor(t, "more than any of the limits to arrive", func() bool { return b.rate(t, time.Second) > 15e6 })
		c, err := openflow.Dial(t.Context(), a.host.sw.Mgmt("br-int"), openflow.Config{})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		meters, err := c.Meters(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range meters {
			if m.ID >= 1<<17 {
				t.Errorf("the meter %d of a limit is left", m.ID)
			}
		}
	})
}

// BenchmarkBandwidth measures limits over 3 s each: off-% is how far from the limit the rate was.
func BenchmarkBandwidth(b *testing.B) {
	x, y, set := qosGuests(b)
	for _, mbit := range []int{5, 50, 200} {
		for _, dir := range []string{"sent", "received"} {
			for name, args := range map[string][]string{"TCP": nil, "UDP": {"-u", "-l", "1400", "-b", fmt.Sprintf("%dM", mbit*3/2)}} {
				b.Run(fmt.Sprintf("%s/%s/%d", dir, name, mbit), func(b *testing.B) {
					on, q := x, model.HostQoS{EgressKbps: mbit * 1000}
					if dir == "received" {
						on, q = y, model.HostQoS{IngressKbps: mbit * 1000}
					}
					set(on, q)
					defer set(on, model.HostQoS{})
					defer transfer(b, x, y, args...)()
					for b.Loop() {
						f := y.rate(b, 3*time.Second) / 1e6
						b.ReportMetric(f, "Mbit/s")
						b.ReportMetric((f/float64(mbit)-1)*100, "off-%")
					}
				})
			}
		}
	}
}
