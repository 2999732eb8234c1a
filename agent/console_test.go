package agent

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"yakumo/fault"
	"yakumo/hypervisor"
	"yakumo/hypervisor/fake"
	"yakumo/hypervisor/hypertest"
	"yakumo/model"
)

func (a *running) stream(t testing.TB, service string, id model.ID) (io.ReadWriteCloser, error) {
	t.Helper()
	args, err := json.Marshal(model.ConsoleQuery{ServerID: id})
	if err != nil {
		t.Fatal(err)
	}
	c, err := a.Open(t.Context(), service, args)
	if err == nil {
		t.Cleanup(func() { c.Close() })
	}
	return c, err
}

// heard reads until the text has come.
func heard(t testing.TB, r io.Reader, text string) {
	t.Helper()
	var got strings.Builder
	buf := make([]byte, 256)
	for !strings.Contains(got.String(), text) {
		n, err := r.Read(buf)
		got.Write(buf[:n])
		if err != nil {
			t.Fatalf("after %q: %v, want %q", got.String(), err, text)
		}
	}
}

// TestSerialIsShared: two people at one terminal see the same; who leaves does not end it for the other; a guest
// that stops ends it for all, and it can be opened again once the guest runs.
func TestSerialIsShared(t *testing.T) {
	w := newWorld(t.TempDir(), fake.HostConfig{Guests: fake.Behaviour{Greeting: "hello\n"}})
	c := newCloud(w.side)
	a := w.startFor(t)
	s, p := c.server()
	w.side.apply(t, full(5, append(c.base(), s, p)...))
	w.settled(t, s.ID, 1, model.PhaseReady, model.PowerRunning)
	one, err := a.stream(t, "serial", s.ID)
	if err != nil {
		t.Fatal(err)
	}
	two, err := a.stream(t, "serial", s.ID)
	if err != nil {
		t.Fatal(err)
	}
	one.Write([]byte("ls\n"))
	heard(t, one, "ls\n")
	heard(t, two, "ls\n")
	one.Close()
	if _, err := one.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a closed end reads: %v", err)
	}
	two.Write([]byte("pwd\n"))
	heard(t, two, "pwd\n")

	h := fake.New(fake.Config{Host: w.host})
	if err := h.Stop(t.Context(), s.ID, 0); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(two); err != nil {
		t.Errorf("a stopped guest's console ends with %q, %v", rest, err)
	}
	if _, err := two.Write([]byte("x")); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("a write to a stopped guest: %v", err)
	}
	if _, err := a.stream(t, "serial", s.ID); !fault.Is(err, fault.Conflict) {
		t.Errorf("the console of a stopped guest: %v", err)
	}
	if err := h.Start(t.Context(), s.ID); err != nil {
		t.Fatal(err)
	}
	again, err := a.stream(t, "serial", s.ID)
	if err != nil {
		t.Fatal(err)
	}
	again.Write([]byte("id\n"))
	heard(t, again, "id\n")
	// The last one that leaves lets go of the port.
	again.Close()
	waitFor(t, "the port is free", func() bool {
		con, err := h.Console(t.Context(), s.ID)
		if err == nil {
			con.Close()
		}
		return err == nil
	})
}

// TestSerialLosesForTheSlowOnly: one who does not read holds up nobody and loses what does not fit.
func TestSerialLosesForTheSlowOnly(t *testing.T) {
	near, far := net.Pipe()
	a := &Agent{cfg: Config{Hypervisor: onePort{port: near}}}
	s := newSerials(a)
	slow, err := s.open(t.Context(), "g")
	if err != nil {
		t.Fatal(err)
	}
	quick, err := s.open(t.Context(), "g")
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, serialBacklog/8)
	for i := range 32 {
		go far.Write(buf)
		if _, err := io.ReadFull(quick, make([]byte, len(buf))); err != nil {
			t.Fatalf("the quick one, after %d times: %v", i, err)
		}
	}
	far.Close()
	if n, err := io.Copy(io.Discard, slow); err != nil || n != serialBacklog {
		t.Errorf("the slow one got %d bytes, %v", n, err)
	}
	slow.Close()
	quick.Close()
	if len(s.lines) != 0 {
		t.Errorf("%d lines are left", len(s.lines))
	}
}

// onePort is a hypervisor whose guests have one console.
type onePort struct {
	hypervisor.Driver
	port io.ReadWriteCloser
}

func (o onePort) Console(context.Context, string) (io.ReadWriteCloser, error) { return o.port, nil }

func (o onePort) ConsoleLog(context.Context, string, int64) ([]byte, error) { return nil, nil }

func TestDisplayAndRefusals(t *testing.T) {
	w := newWorld(t.TempDir(), fake.HostConfig{})
	c := newCloud(w.side)
	a := w.startFor(t)
	s, p := c.server()
	w.side.apply(t, full(5, append(c.base(), s, p)...))
	w.settled(t, s.ID, 1, model.PhaseReady, model.PowerRunning)
	d, err := a.stream(t, "display", s.ID)
	if err != nil {
		t.Fatal(err)
	}
	if screen, err := hypertest.Look(d); err != nil || screen.Colours != 2 {
		t.Errorf("the screen: %+v, %v", screen, err)
	}
	for _, tc := range []struct {
		service string
		id      model.ID
		kind    fault.Kind
	}{
		{"serial", model.NewID(), fault.NotFound}, {"display", model.NewID(), fault.NotFound}, {"shell", s.ID, fault.NotImplemented},
	} {
		if _, err := a.stream(t, tc.service, tc.id); !fault.Is(err, tc.kind) {
			t.Errorf("%s of %s: %v", tc.service, tc.id, err)
		}
	}
	if _, err := a.Open(t.Context(), "serial", []byte("{")); !fault.Is(err, fault.Invalid) {
		t.Errorf("malformed: %v", err)
	}
	a.cfg.NoDisplay = true
	if _, err := a.stream(t, "display", s.ID); !fault.Is(err, fault.NotImplemented) {
		t.Errorf("a host without displays: %v", err)
	}
}
