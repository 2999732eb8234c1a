package libvirt_test

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"yakumo/fault"
	"yakumo/hypervisor"
	"yakumo/hypervisor/hypertest"
	"yakumo/hypervisor/libvirt"
	"yakumo/hypervisor/libvirt/libvirttest"
)

// narrow lets 64 KiB pass each 50 ms, until wide is closed or it is cut.
type narrow struct {
	io.ReadWriteCloser
	wide chan struct{}
	cut  *atomic.Bool
}

func (n narrow) Write(b []byte) (int, error) {
	for done := 0; done < len(b); {
		if n.cut.Load() {
			return done, errors.Join(errors.New("the cable was cut"), n.Close())
		}
		select {
		case <-n.wide:
		case <-time.After(50 * time.Millisecond): // the width of the way, not a wait for something
		}
		k, err := n.ReadWriteCloser.Write(b[done:min(len(b), done+64<<10)])
		if done += k; err != nil {
			return done, err
		}
	}
	return len(b), nil
}

// TestPostCopy: a guest whose move is hurried with leave for post-copy runs at the other end before its memory is there, where its QEMU can
// move it while it runs. Where it cannot, the move ends all the same. A way that breaks meanwhile is the guest's end; then it is at the
// other end, and nowhere else.
func TestPostCopy(t *testing.T) {
	t.Parallel() // its daemons are its own
	a, b := movingHost{host{libvirttest.Start(t)}}, movingHost{host{libvirttest.Start(t)}}
	from, to := a.driver(t), b.driver(t)
	for _, cut := range []bool{false, true} {
		ctx, cancel := context.WithTimeout(t.Context(), hypertest.Deadline)
		defer cancel()
		g := a.guest(t, libvirttest.Sector{Greeting: hypertest.Greeting})
		g.MemoryMiB = 128
		if err := errors.Join(from.Ensure(ctx, g), from.Start(ctx, g.ID)); err != nil {
			t.Fatal(err)
		}
		running, err := from.Definition(ctx, g.ID)
		if err != nil {
			t.Fatal(err)
		}
		can := libvirt.TracksWrites(running)
		twin := b.Twin(t, g)
		r, err := to.Receive(ctx, twin)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		arrived, err := to.Watch(ctx)
		if err != nil {
			t.Fatal(err)
		}
		wide, begun := make(chan struct{}), make(chan struct{}, 1)
		var broken atomic.Bool
		sent := make(chan error, 1)
		go func() {
			sent <- from.Send(ctx, g.ID, hypervisor.Passage{Guest: twin, CopyDisks: []string{twin.Disks[0].Serial}, PostCopy: true,
				Dial: func(ctx context.Context, kind string) (io.ReadWriteCloser, error) {
					c, err := r.Dial(ctx, kind)
					if err == nil && kind == "memory" {
						c = narrow{c, wide, &broken}
						select {
						case begun <- struct{}{}:
						default:
						}
					}
					return c, err
				}})
		}()
		select {
		case <-begun:
		case err := <-sent:
			t.Fatalf("the move ended before it had begun: %v", err)
		}
		for tick := time.NewTicker(20 * time.Millisecond); ; <-tick.C {
			if err = from.Hurry(ctx, g.ID); !fault.Is(err, fault.Conflict) {
				break
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		if can {
			for s := range arrived {
				if s.Power == hypervisor.Running {
					if s.Reason != "post-copy" {
						t.Errorf("it runs there: %s", s.Reason)
					}
					break
				}
			}
		}
		if cut && can {
			broken.Store(true)
		} else {
			close(wide)
		}
		err = <-sent
		switch lost := cut && can; {
		case lost != errors.Is(err, hypervisor.ErrUncertain), !lost && err != nil:
			t.Errorf("cut %v: Send says %v", cut, err)
		}
		here, err1 := from.List(ctx)
		there, err2 := to.List(ctx)
		runs := func(l []hypervisor.State) bool {
			return slices.ContainsFunc(l, func(s hypervisor.State) bool { return s.ID == g.ID && s.Power == hypervisor.Running })
		}
		if runs(here) || !runs(there) || !cut && len(here) > 0 {
			t.Errorf("cut %v: here it is %+v, there %+v", cut, here, there)
		}
		if err := errors.Join(err1, err2, from.Remove(ctx, g.ID), to.Remove(ctx, g.ID)); err != nil {
			t.Error(err)
		}
	}
}

// TestTracksWrites: which guests may run while their memory is copied.
func TestTracksWrites(t *testing.T) {
	for machine, want := range map[string]bool{"pc-q35-10.0": true, "pc-q35-9.0": true, "pc-q35-9.1": true, "pc-q35-8.2": false, "pc-q35-7.2": false, "pc-q35-noble": false, "q35": false, "": false} {
		text := `<domain type='qemu'><os><type arch='x86_64' machine='` + machine + `'>hvm</type></os></domain>`
		if got := libvirt.TracksWrites(text); got != want {
			t.Errorf("an emulated %q: %v", machine, got)
		}
		if !libvirt.TracksWrites(strings.Replace(text, "qemu", "kvm", 1)) {
			t.Errorf("%q with hardware virtualisation stands still", machine)
		}
	}
	if libvirt.TracksWrites("<domain") {
		t.Error("what cannot be read runs on")
	}
}
