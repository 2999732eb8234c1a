package e2e_test

import (
	"context"
	"fmt"
	"testing"
	"time"
)

// TestRenumber gives a host another underlay address under its running guests, and the old one
// back: guests on either side are untouched, and their traffic heals by itself.
func TestRenumber(t *testing.T) {
	w := shared(t)
	p := w.blue2.ping(t, w.blue1.addr)
	for _, addr := range []string{"100.64.0.77", "100.64.0.11"} {
		began := time.Now()
		if _, err := command(t.Context(), "lab", "--dir", fix.lab.Dir(), "renumber", "host1", addr); err != nil {
			t.Fatal(err)
		}
		await(t, "host1 to tell its new address", 30*time.Second, func(ctx context.Context) string {
			hosts, _, err := fix.lab.Inventory(ctx)
			if err != nil {
				return err.Error()
			}
			for _, h := range hosts {
				if h.Name == "host1" && h.TunnelIP == addr && h.Up {
					return ""
				}
			}
			return fmt.Sprint(hosts)
		})
		told := time.Since(began)
		p.more(t, 10)
		measured(t, "host1 renumbered to %s: told after %.2f s; so far %s", addr, told.Seconds(), p.sum(t))
	}
	w.blue1.opens(t, w.blue2.addr)
	l := p.stop(t)
	measured(t, "ping across hosts while one was renumbered twice: %s", l)
	if l.gap > 10*time.Second {
		t.Errorf("traffic was away for %s", l.gap)
	}
}
