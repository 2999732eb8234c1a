package hypertest

import (
	"context"
	"net"
	"testing"
	"time"

	"yakumo/fault"
	"yakumo/hypervisor"
)

// testDisplay looks at a guest's screen, twice at once, and wants none of a guest without one.
func testDisplay(t *testing.T, h Host) {
	d, g, ctx := h.Open(t), h.Guest(t), testContext(t)
	show, ok := d.(hypervisor.Displayer)
	if !ok {
		return // a hypervisor may have none
	}
	_, err := show.Display(ctx, g.ID)
	wantKind(t, err, fault.NotFound)
	g.Display = true
	define(t, d, g)
	_, err = show.Display(ctx, g.ID)
	wantKind(t, err, fault.Conflict)
	must(t, d.Start(ctx, g.ID))
	waitLog(t, d, g.ID, greetings(1))
	for range 2 {
		short, cancel := context.WithCancel(ctx)
		c, err := show.Display(short, g.ID)
		cancel() // a display outlives the context that it was opened with
		must(t, err)
		t.Cleanup(func() { c.Close() })
		if dl, ok := c.(net.Conn); ok {
			dl.SetDeadline(time.Now().Add(Deadline))
		}
		s, err := Look(c)
		must(t, err)
		if s.Width < 16 || s.Height < 16 || s.Colours < 2 {
			t.Errorf("the screen is %+v", s)
		}
	}
	must(t, d.Stop(ctx, g.ID, 0))

	blind := h.Guest(t)
	define(t, d, blind)
	must(t, d.Start(ctx, blind.ID))
	_, err = show.Display(ctx, blind.ID)
	wantKind(t, err, fault.Conflict)
}
