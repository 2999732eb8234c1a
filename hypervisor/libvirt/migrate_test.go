package libvirt_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"yakumo/hypervisor"
	"yakumo/hypervisor/hypertest"
	"yakumo/hypervisor/libvirt/libvirttest"
)

// Guest gives a guest with a second disk that holds something.
func (h movingHost) Guest(t *testing.T) hypervisor.Guest {
	t.Helper()
	g := h.host.Guest(t)
	data := make([]byte, 2<<20)
	rand.Read(data)
	return withData(t, g, data)
}

func withData(t testing.TB, g hypervisor.Guest, data []byte) hypervisor.Guest {
	t.Helper()
	path := filepath.Join(filepath.Dir(g.Disks[0].Path), "data")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	g.Disks = append(g.Disks[:1:1], hypervisor.Disk{Path: path, Format: "raw", Serial: "data"})
	return g
}

// movingHost is a private libvirtd whose guests can move to another.
type movingHost struct{ host }

// Twin implements hypertest.MoveHost.
func (h movingHost) Twin(t *testing.T, g hypervisor.Guest) hypervisor.Guest {
	t.Helper()
	return h.twin(t, g)
}

func (h movingHost) twin(t testing.TB, g hypervisor.Guest) hypervisor.Guest {
	dir := filepath.Join(h.Dir(), "guests", g.ID)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	twin := g
	twin.ConsoleLog = filepath.Join(dir, "console.log")
	twin.Disks = nil
	for _, d := range g.Disks {
		info, err := os.Stat(d.Path)
		if err != nil {
			t.Fatal(err)
		}
		d.Path = filepath.Join(dir, filepath.Base(d.Path))
		if err := os.WriteFile(d.Path, make([]byte, info.Size()), 0o600); err != nil {
			t.Fatal(err)
		}
		twin.Disks = append(twin.Disks, d)
	}
	return twin
}

func TestMoves(t *testing.T) {
	hypertest.RunMoves(t, movingHost{host{libvirttest.Start(t)}}, movingHost{host{libvirttest.Start(t)}})
}

// deafened loses the answer to the call that makes the receiver run the guest.
type deafened struct {
	io.ReadWriteCloser
	told atomic.Bool
}

func (d *deafened) Write(b []byte) (int, error) {
	// REMOTE_PROGRAM, version 1, REMOTE_PROC_DOMAIN_MIGRATE_FINISH3_PARAMS
	if bytes.Contains(b, []byte{0x20, 0, 0x80, 0x86, 0, 0, 0, 1, 0, 0, 1, 0x32}) {
		d.told.Store(true)
	}
	return d.ReadWriteCloser.Write(b)
}

func (d *deafened) Read(b []byte) (int, error) {
	n, err := d.ReadWriteCloser.Read(b)
	if d.told.Load() {
		d.Close()
		return 0, io.ErrUnexpectedEOF
	}
	return n, err
}

// TestMoveWithoutAnAnswer: where nobody can tell whether the guest runs at the other end, it is held here.
func TestMoveWithoutAnAnswer(t *testing.T) {
	a, b := movingHost{host{libvirttest.Start(t)}}, movingHost{host{libvirttest.Start(t)}}
	from, to := a.driver(t), b.driver(t)
	ctx, cancel := context.WithTimeout(context.Background(), hypertest.Deadline)
	defer cancel()
	g := a.Guest(t)
	if err := errors.Join(from.Ensure(ctx, g), from.Start(ctx, g.ID)); err != nil {
		t.Fatal(err)
	}
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
	err = from.Send(ctx, g.ID, hypervisor.Passage{Guest: twin, CopyDisks: []string{twin.Disks[0].Serial, "data"},
		Dial: func(ctx context.Context, kind string) (io.ReadWriteCloser, error) {
			c, err := r.Dial(ctx, kind)
			if err == nil && kind == "control" {
				c = &deafened{ReadWriteCloser: c}
			}
			return c, err
		}})
	if !errors.Is(err, hypervisor.ErrUncertain) {
		t.Fatalf("Send says %v", err)
	}
	for s := range arrived {
		if s.Power == hypervisor.Running {
			break
		}
	}
	states, err := from.List(ctx)
	if err != nil || len(states) != 1 || states[0].Power != hypervisor.Paused {
		t.Errorf("where it was the guest is %+v (%v)", states, err)
	}
	if err := errors.Join(from.Remove(ctx, g.ID), to.Remove(ctx, g.ID)); err != nil {
		t.Error(err)
	}
}
