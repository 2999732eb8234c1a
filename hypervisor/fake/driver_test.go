package fake_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"yakumo/fault"
	"yakumo/hypervisor"
	"yakumo/hypervisor/fake"
	"yakumo/hypervisor/hypertest"
)

// host is a fake host as the suite wants it.
type host struct {
	*fake.Host
	taps         int
	broken, deaf []string // IDs made beforehand, as a fake's data are fixed when it is made
}

func newHost() *host {
	h := &host{}
	cfg := fake.HostConfig{
		Guests:  fake.Behaviour{Greeting: hypertest.Greeting},
		ByGuest: map[string]fake.Behaviour{},
	}
	for range 4 {
		deaf, broken := hypertest.NewID(), hypertest.NewID()
		cfg.ByGuest[deaf] = fake.Behaviour{Greeting: hypertest.Greeting, ShutdownFor: -1, LetGoFor: -1}
		cfg.Faults = append(cfg.Faults, fake.Fault{Op: fake.Start, Guest: broken,
			Err: fmt.Errorf("start guest %s: no such disk", broken)})
		h.deaf, h.broken = append(h.deaf, deaf), append(h.broken, broken)
	}
	h.Host = fake.NewHost(cfg)
	return h
}

func guest(id string) hypervisor.Guest {
	return hypervisor.Guest{
		ID: id, Name: "yk-" + id, VCPUs: 1, MemoryMiB: 64,
		Disks:      []hypervisor.Disk{{Path: "/guests/" + id + "/disk", Format: "qcow2", BootOrder: 1, Serial: "root"}},
		ConsoleLog: "/guests/" + id + "/console.log",
	}
}

func (h *host) Open(*testing.T) hypervisor.Driver              { return fake.New(fake.Config{Host: h.Host}) }
func (h *host) Guest(*testing.T) hypervisor.Guest              { return guest(hypertest.NewID()) }
func (h *host) KillDaemon(*testing.T)                          { h.Disconnect() }
func (h *host) StartDaemon(*testing.T)                         { h.Connect() }
func (h *host) Foreign(*testing.T) (string, func() bool, bool) { return "", nil, false }

func (h *host) Broken(*testing.T) hypervisor.Guest {
	id := h.broken[0]
	h.broken = h.broken[1:]
	return guest(id)
}

func (h *host) Deaf(*testing.T) hypervisor.Guest {
	id := h.deaf[0]
	h.deaf = h.deaf[1:]
	return guest(id)
}

func (h *host) Busy(*testing.T) hypervisor.Guest { return guest(hypertest.NewID()) }

func (h *host) Whole(t *testing.T, path string) {
	if data, err := os.ReadFile(path); err != nil || !strings.HasPrefix(string(data), "disk root of guest ") {
		t.Errorf("the copy holds %q, %v", data, err)
	}
}

func (h *host) Places(t *testing.T) []hypervisor.Disk {
	return []hypervisor.Disk{h.Disk(t), {Format: "raw", Network: &hypervisor.NetworkDisk{Protocol: "nbd", Socket: "/" + hypertest.NewID(), Name: "v"}}, h.Disk(t)}
}

// Count has the guest write, where it can, before it counts.
func (h *host) Count(_ *testing.T, id string, d hypervisor.Disk) uint32 {
	h.Write(id, "root", []byte{1})
	return uint32(len(h.Content(d)))
}

func (h *host) Disk(*testing.T) hypervisor.Disk {
	id := hypertest.NewID()
	return hypervisor.Disk{Path: "/volumes/" + id, Format: "raw", Serial: id}
}

func (h *host) Size(_ *testing.T, id string, d hypervisor.Disk) int64 {
	return h.Host.Size(id, d.Serial)
}

func (h *host) Tap(*testing.T) string {
	h.taps++
	return fmt.Sprint("tap", h.taps)
}

func (h *host) Crash(t *testing.T, id string) {
	if !h.Host.Crash(id) {
		t.Fatalf("guest %s does not run", id)
	}
}

func TestConformance(t *testing.T) { hypertest.Run(t, newHost()) }

func TestThirdStartFails(t *testing.T) {
	full := errors.New("no memory")
	d := fake.New(fake.Config{Host: fake.NewHost(fake.HostConfig{
		Faults: []fake.Fault{{Op: fake.Start, Nth: 3, Times: 2, Err: full}},
	})})
	ctx := t.Context()
	for i, want := range []error{nil, nil, full, full, nil} {
		g := guest(hypertest.NewID())
		if err := d.Ensure(ctx, g); err != nil {
			t.Fatal(err)
		}
		if err := d.Start(ctx, g.ID); !errors.Is(err, want) || (err == nil) != (want == nil) {
			t.Errorf("start %d: %v, want %v", i+1, err, want)
		}
	}
}

func TestRunsFor2s(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := fake.New(fake.Config{Host: fake.NewHost(fake.HostConfig{
			Guests: fake.Behaviour{StartFor: time.Second, RunFor: 2 * time.Second, Then: hypervisor.Crashed},
		})})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		g := guest(hypertest.NewID())
		if err := d.Ensure(ctx, g); err != nil {
			t.Fatal(err)
		}
		watch, err := d.Watch(ctx)
		if err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		if err := d.Start(ctx, g.ID); err != nil {
			t.Fatal(err)
		}
		for i, want := range []hypervisor.Power{hypervisor.Running, hypervisor.Crashed} {
			s := <-watch
			if at := s.Since.Sub(begin); s.Power != want || at != time.Duration(1+2*i)*time.Second {
				t.Errorf("guest is %v after %v, want %v", s.Power, at, want)
			}
		}
	})
}

func TestStopEndsARunThatWouldEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := fake.NewHost(fake.HostConfig{Guests: fake.Behaviour{RunFor: time.Minute, ShutdownFor: 5 * time.Second}})
		d := fake.New(fake.Config{Host: h})
		g := guest(hypertest.NewID())
		if err := errors.Join(d.Ensure(t.Context(), g), d.Start(t.Context(), g.ID)); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		if err := d.Stop(t.Context(), g.ID, 10*time.Second); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); took != 5*time.Second {
			t.Errorf("the guest shut down in %v", took)
		}
		if err := d.Start(t.Context(), g.ID); err != nil {
			t.Fatal(err)
		}
		// The end of the first run must not end the second.
		time.Sleep(58 * time.Second) // of the bubble's clock
		states, err := d.List(t.Context())
		if err != nil || states[0].Power != hypervisor.Running {
			t.Errorf("%v, %v: the second run ended early", states, err)
		}
	})
}

func TestDelayEndsWithItsContext(t *testing.T) {
	d := fake.New(fake.Config{Host: fake.NewHost(fake.HostConfig{
		Faults: []fake.Fault{{Op: fake.List, Delay: time.Hour}},
	})})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := d.List(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("List: %v", err)
	}
}

func TestDownIsUnavailable(t *testing.T) {
	h := fake.NewHost(fake.HostConfig{})
	d := fake.New(fake.Config{Host: h})
	h.Disconnect()
	if _, err := d.Capacity(t.Context()); !fault.Is(err, fault.Unavailable) {
		t.Errorf("Capacity: %v", err)
	}
	h.Connect()
	if _, err := d.Capacity(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestIdleGuestsHaveNoGoroutine(t *testing.T) {
	before := runtime.NumGoroutine()
	for range 1000 {
		d := fake.New(fake.Config{})
		g := guest(hypertest.NewID())
		if err := errors.Join(d.Ensure(t.Context(), g), d.Start(t.Context(), g.ID)); err != nil {
			t.Fatal(err)
		}
	}
	if n := runtime.NumGoroutine() - before; n > 0 {
		t.Errorf("%d goroutines for 1000 drivers", n)
	}
}

func BenchmarkStartStop(b *testing.B) {
	d := fake.New(fake.Config{})
	ctx := context.Background()
	b.ReportAllocs()
	for b.Loop() {
		g := guest(hypertest.NewID())
		if err := errors.Join(d.Ensure(ctx, g), d.Start(ctx, g.ID), d.Stop(ctx, g.ID, 0), d.Remove(ctx, g.ID)); err != nil {
			b.Fatal(err)
		}
	}
}
