package ovs_test

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"yakumo/datapath"
	"yakumo/datapath/dptest"
	"yakumo/datapath/ovs"
	"yakumo/datapath/pipeline"
	"yakumo/datapath/pipeline/sim"
	"yakumo/fault"
	"yakumo/model"
)

func TestConformance(t *testing.T) {
	t.Parallel() // they wait more than they work
	dptest.Run(t, newFabric(t))
}

func discover(t *testing.T, p *model.HostPort) []byte {
	t.Helper()
	mac, err := pipeline.ParseMAC(p.MAC)
	if err != nil {
		t.Fatal(err)
	}
	m, err := dhcpv4.NewDiscovery(mac[:])
	if err != nil {
		t.Fatal(err)
	}
	f := sim.Packet{EthSrc: mac, EthDst: pipeline.MAC{255, 255, 255, 255, 255, 255}, EthType: pipeline.TypeIPv4, Src: netip.MustParseAddr("0.0.0.0"),
		Dst: netip.MustParseAddr("255.255.255.255"), Proto: pipeline.ProtoUDP, SrcPort: 68, DstPort: 67, Payload: m.ToBytes()}
	return f.Frame()
}

func expect(t *testing.T, what string, nic dptest.NIC, is func(sim.Packet) bool) {
	t.Helper()
	deadline := time.After(dptest.Patience)
	for {
		select {
		case f := <-nic.Frames():
			p, err := sim.Parse(f)
			if err != nil {
				t.Fatal(err)
			}
			if is(p) {
				return
			}
		case <-deadline:
			t.Fatalf("no %s", what)
		}
	}
}

// wire attaches a new device to a port and gives the guest's end.
func wire(t *testing.T, h *host, port string) dptest.NIC {
	t.Helper()
	nic := h.NewNIC(t)
	ctx, cancel := context.WithTimeout(t.Context(), dptest.Patience)
	defer cancel()
	if err := h.drv.Attach(ctx, port, nic.Device()); err != nil {
		t.Fatal(err)
	}
	if !h.drv.Installed(port) {
		t.Fatalf("port %s is not installed after Attach", port)
	}
	h.Settle(t)
	return nic
}

// One guest that floods the agent is held to its rate, and another is served meanwhile.
func TestResponderRate(t *testing.T) {
	h := newFabric(t).newHost(t)
	loud, quiet := dptest.NewPort("n", 70000, "loud", 5, "all"), dptest.NewPort("n", 70000, "quiet", 6, "all")
	prune(t, h, []model.HostRow{dptest.NewNetwork("n", 70000), dptest.AllowAll("all"), loud, quiet})
	a, b := wire(t, h, "loud"), wire(t, h, "quiet")
	asked := make(chan struct{})
	var once sync.Once
	h.events = func(e datapath.Event) {
		if e == (datapath.Event{Port: "quiet", Kind: datapath.Asked}) {
			once.Do(func() { close(asked) })
		}
	}
	start := time.Now()
	const sent = 3000
	frame := discover(t, loud)
	for range sent {
		a.Send(t, frame)
	}
	b.Send(t, discover(t, quiet))
	expect(t, "DHCP answer to quiet", b, func(p sim.Packet) bool { return p.SrcPort == 67 })
	select {
	case <-asked:
	case <-time.After(dptest.Patience):
		t.Error("nobody was told that quiet asked")
	}
	// The answer to this comes behind the whole flood.
	mac, err := pipeline.ParseMAC(loud.MAC)
	if err != nil {
		t.Fatal(err)
	}
	ask := sim.Packet{EthSrc: mac, EthDst: pipeline.MAC{255, 255, 255, 255, 255, 255}, EthType: pipeline.TypeARP, ARPOp: pipeline.ARPRequest, ARPSHA: mac,
		ARPSPA: loud.FixedIPs[0].Address, ARPTPA: pipeline.ServiceAddr}
	// While the flood waits in the device's buffer there may be no room for the question: then it is lost, and asked again.
	dptest.WaitFor(t, "ARP answer to loud", func() bool {
		a.Send(t, ask.Frame())
		again := time.After(100 * time.Millisecond)
		for {
			select {
			case f := <-a.Frames():
				if p, err := sim.Parse(f); err == nil && p.ARPOp == pipeline.ARPReply {
					return true
				}
			case <-again:
				return false
			}
		}
	})
	// 10 at once and 10 a second by default; the switch counts in steps.
	limit := uint64(10+10*(time.Since(start).Seconds()+1)) + 10
	if n := h.drv.Counters().PacketIns; n < 2 || n > limit {
		t.Errorf("%d of %d packets reached the agent, want %d at most", n, sent, limit)
	}
}

// The database comes back, and the driver with it: rows and devices are taken as before.
// (Open vSwitch itself answers no OpenFlow while its database is away.)
func TestDatabaseRestart(t *testing.T) {
	h := newFabric(t).newHost(t)
	p, q := dptest.NewPort("n", 70000, "p", 5, "all"), dptest.NewPort("n", 70000, "q", 6, "all")
	prune(t, h, []model.HostRow{dptest.NewNetwork("n", 70000), dptest.AllowAll("all"), p})
	wire(t, h, "p")
	h.sw.KillDB()
	h.sw.StartDB()
	ctx, cancel := context.WithTimeout(t.Context(), dptest.Patience)
	defer cancel()
	if err := datapath.Ensure(ctx, h.drv, q); err != nil {
		t.Fatalf("apply after the database came back: %v", err)
	}
	wire(t, h, "q")
	if !h.drv.Installed("p") {
		t.Error("port p is not installed any more")
	}
}

// A switch that is away is an error that says so; the rows are kept and installed later,
// and events tell of the ports.
func TestSwitchAway(t *testing.T) {
	h := newFabric(t).newHost(t)
	events := make(chan datapath.Event, 16)
	if err := h.drv.Close(); err != nil {
		t.Fatal(err)
	}
	h.events = func(e datapath.Event) { events <- e }
	h.start(t)
	want := func(k datapath.EventKind) {
		t.Helper()
		select {
		case e := <-events:
			if e != (datapath.Event{Port: "p", Kind: k}) {
				t.Fatalf("event %+v, want %v of p", e, k)
			}
		case <-time.After(dptest.Patience):
			t.Fatalf("no event %v", k)
		}
	}
	p := dptest.NewPort("n", 70000, "p", 5, "all")
	prune(t, h, []model.HostRow{dptest.NewNetwork("n", 70000), dptest.AllowAll("all"), p})
	wire(t, h, "p")
	want(datapath.Wired)
	h.sw.Kill()
	want(datapath.Unwired)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	q := dptest.NewPort("n", 70000, "q", 6, "all")
	if err := datapath.Ensure(ctx, h.drv, q); !fault.Is(err, fault.Unavailable) {
		t.Fatalf("got %v, want unavailable", err)
	}
	h.sw.Restart()
	want(datapath.Wired)
	found := false
	for _, f := range h.flows(t) {
		found = found || strings.Contains(f.Match.String(), "dl_src=fa:16:3e:00:00:06") || strings.Contains(f.Match.String(), "eth_src=fa:16:3e:00:00:06")
	}
	if !found {
		t.Error("the row that came while the switch was away is not installed")
	}
}

// A device that does not exist is the caller's error, and mends itself with a second call.
func TestAttachErrors(t *testing.T) {
	h := newFabric(t).newHost(t)
	prune(t, h, []model.HostRow{dptest.NewNetwork("n", 70000), dptest.AllowAll("all"), dptest.NewPort("n", 70000, "p", 5, "all")})
	if err := h.drv.Attach(t.Context(), "p", "no-such-dev"); err == nil || h.drv.Installed("p") {
		t.Fatalf("attached a device that does not exist: %v", err)
	}
	wire(t, h, "p") // another device takes the first's place
	if list := h.sw.Vsctl("list-ports", "br-int"); strings.Contains(list, "no-such-dev") {
		t.Errorf("ports %q", list)
	}
}

func TestConfig(t *testing.T) {
	ord := datapath.NewMemoryOrdinals()
	ip := netip.MustParseAddr("192.0.2.1")
	for name, c := range map[string]ovs.Config{
		"no ordinals":        {TunnelIP: ip},
		"no tunnel address":  {Ordinals: ord},
		"IPv6 tunnel":        {Ordinals: ord, TunnelIP: netip.MustParseAddr("2001:db8::1")},
		"odd datapath":       {Ordinals: ord, TunnelIP: ip, Datapath: "quantum"},
		"odd metadata range": {Ordinals: ord, TunnelIP: ip, Env: pipeline.Env{MetadataPrefix: netip.MustParsePrefix("169.254.0.0/16"), MetadataListener: netip.MustParseAddrPort("169.254.0.1:80")}},
	} {
		if d, err := ovs.Open(c); err == nil {
			t.Errorf("%s: opened", name)
			err = errors.Join(err, d.Close())
		}
	}
}
