package ovs_test

import (
	"slices"
	"testing"
	"time"

	"yakumo/datapath/dptest"
)

// TestFullResyncLosesNothing: a driver that comes back to a switch of more than 10,000 entries
// writes them all again under flowing packets, none of which is lost.
func TestFullResyncLosesNothing(t *testing.T) {
	a, b, rows := twoKernelGuests(t)
	many := append(slices.Clone(rows[0]), benchRows(600)...)
	prune(t, a.host, many)
	stop := make(chan struct{})
	type loss struct {
		sent, got int
		out       string
	}
	pings := make(chan loss, 1)
	go func() {
		var all loss
		for {
			sent, got, out := a.ping(t, "-c", "500", "-i", "0.002", b.addr().String())
			all.sent, all.got = all.sent+sent, all.got+got
			if sent != got {
				all.out = out[max(0, len(out)-300):]
			}
			select {
			case <-stop:
				pings <- all
				return
			default:
			}
		}
	}()
	for range 2 {
		a.host.RestartDriver(t)
		dptest.WaitFor(t, "connection", func() bool { return a.host.drv.Counters().Connected })
		began := time.Now()
		prune(t, a.host, many)
		took := time.Since(began)
		n := a.host.drv.Counters().Entries
		if n < 10_000 {
			t.Fatalf("%d entries only", n)
		}
		t.Logf("%d entries written and confirmed in %s: %.0f a second", n, took.Round(time.Millisecond), float64(n)/took.Seconds())
	}
	close(stop)
	if l := <-pings; l.sent != l.got || l.sent < 500 {
		t.Errorf("%d of %d came back\n%s", l.got, l.sent, l.out)
	} else {
		t.Logf("%d packets and %d answers meanwhile", l.sent, l.got)
	}
}
