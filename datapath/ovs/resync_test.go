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
	stop := exchange(t, a, b)
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
	t.Logf("%d packets and as many answers meanwhile", stop())
}
