package agent

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"yakumo/block"
	"yakumo/channel/channeltest"
	"yakumo/fault"
	"yakumo/hypervisor/fake"
	"yakumo/model"
)

// TestVolumeChangesEngine takes a volume from files of a host to a shared folder and back, with an agent that is started anew before each step.
func TestVolumeChangesEngine(t *testing.T) {
	h := newVolumeHost(t, newWorld(t.TempDir(), fake.HostConfig{}), channeltest.NewAuthority(t), t.TempDir())
	row := volume(1)
	r := h.begin(nil)
	h.tell(row)
	h.ready(row)
	open := func(row *model.HostVolume) *model.HostVolume {
		return bump(row, func(n *model.HostVolume) { n.Guests = []model.ID{h.id} })
	}
	row = open(row)
	h.tell(row)
	h.ready(row)
	io1(t, h.disk(r, row.ID), "write -P 5 0 1M", "write -P 6 1023M 1M", "flush")
	for _, to := range []string{"nfs", model.EngineLocal} {
		from := row.Engine
		row = bump(row, func(n *model.HostVolume) { n.Guests, n.Copy = nil, to })
		h.tell(row)
		h.waitReport(row.ID, "a copy", func(r model.VolumeReport) bool { return r.Generation == row.Generation && r.Copied == to })
		r.stop(t)
		r = h.begin(nil)
		row = bump(row, func(n *model.HostVolume) { n.Engine, n.Copy, n.Clear, n.Guests = to, "", from, []model.ID{h.id} })
		h.tell(row)
		h.waitReport(row.ID, "the end of what was", func(r model.VolumeReport) bool {
			return r.Ready && r.Generation == row.Generation && r.Cleared == from
		})
		io1(t, h.disk(r, row.ID), "read -P 5 0 1M", "read -P 0 1M 1M", "read -P 6 1023M 1M", "write -P 5 0 1M")
		for name, e := range r.cfg.Engines {
			if l, err := e.List(t.Context()); err != nil || len(l) != 0 && name != to || len(l) != 1 && name == to {
				t.Errorf("in %s: the engine %s has %v, %v", to, name, l, err)
			}
		}
	}
	// What is asked for before the host has seen that it is there is done there.
	c := newCloud(h.side)
	row = bump(row, func(n *model.HostVolume) { n.Guests, n.Clear, n.Copy = nil, "", "nfs" })
	h.tell(row)
	h.waitReport(row.ID, "a copy", func(r model.VolumeReport) bool { return r.Generation == row.Generation && r.Copied == "nfs" })
	row = bump(row, func(n *model.HostVolume) {
		n.Engine, n.Copy, n.Clear, n.Fills, n.Image = "nfs", "", model.EngineLocal, 1, &c.image
	})
	h.tell(row)
	h.waitReport(row.ID, "the end of what was", func(r model.VolumeReport) bool {
		return r.Ready && r.Generation == row.Generation && r.Cleared == model.EngineLocal
	})
	io1(t, h.disk(r, row.ID), fmt.Sprintf("read -P %d 0 1", h.side.blobs[c.image.BlobID][0]), "write -P 5 0 1M")
	// To an engine that the host has not, it does not get; and it is what it was.
	row = bump(row, func(n *model.HostVolume) { n.Guests, n.Clear, n.Copy = nil, "", "tape" })
	h.tell(row)
	h.waitReport(row.ID, "a fault", func(r model.VolumeReport) bool { return r.Generation == row.Generation && r.Fault != nil })
	row = open(bump(row, func(n *model.HostVolume) { n.Copy = "" }))
	h.tell(row)
	h.ready(row)
	io1(t, h.disk(r, row.ID), "read -P 5 0 1M")
	row = bump(row, func(n *model.HostVolume) { n.Guests, n.Clear, n.Deleted = nil, model.EngineLocal, true })
	h.tell(row)
	h.waitReport(row.ID, "the end", func(r model.VolumeReport) bool { return r.Gone })
	r.stop(t)
}

// kept is what an engine of the test's has, however often its agent dies: whole volumes with what they hold, and ids of half made ones.
type kept struct {
	mu    sync.Mutex
	name  string
	whole map[string][]byte
	half  map[string]bool
}

// mortalEngine is a life of an engine that ends in the middle of a call; what a call did until then stays.
type mortalEngine struct {
	block.Engine
	*kept
	f *fuse
}

func (m mortalEngine) Make(_ context.Context, id string, _ int64, from block.Source) error {
	if _, there := m.whole[id]; there {
		return nil
	}
	if err := m.f.call(func() error { m.mu.Lock(); defer m.mu.Unlock(); m.half[id] = true; return nil }); err != nil {
		return err
	}
	var data []byte
	if from.File != "" {
		var err error
		if data, err = os.ReadFile(from.File); err != nil {
			return err
		}
	}
	return m.f.call(func() error {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.half[id] = false
		m.whole[id] = data
		return nil
	})
}

func (m mortalEngine) Open(_ context.Context, id string) (block.Access, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, there := m.whole[id]; !there {
		return block.Access{}, block.NoVolume(id)
	}
	return block.Access{File: m.path(id), Format: "raw", Everywhere: true}, nil
}

func (m *kept) path(id string) string { return "/" + m.name + "/" + id }

func (m mortalEngine) Grow(_ context.Context, id string, _ int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, there := m.whole[id]; !there {
		return block.NoVolume(id)
	}
	return nil
}

func (m mortalEngine) Remove(_ context.Context, id string) error {
	for _, part := range []func(){func() { delete(m.whole, id); m.half[id] = true }, func() { delete(m.half, id) }} {
		if err := m.f.call(func() error { m.mu.Lock(); defer m.mu.Unlock(); part(); return nil }); err != nil {
			return err
		}
	}
	return nil
}

func (m mortalEngine) Export(_ context.Context, id, _, _, path string) error {
	m.mu.Lock()
	data, there := m.whole[id]
	m.mu.Unlock()
	if !there {
		return block.NoVolume(id)
	}
	return m.f.call(func() error { return os.WriteFile(path, data, 0o600) })
}

func (m mortalEngine) List(context.Context) ([]block.Entry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []block.Entry
	for id := range m.whole {
		out = append(out, block.Entry{ID: id, Whole: true})
	}
	for id, half := range m.half {
		if _, whole := m.whole[id]; half && !whole {
			out = append(out, block.Entry{ID: id})
		}
	}
	return out, nil
}

func (m *kept) holds(id string) ([]byte, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	data, whole := m.whole[id]
	return data, whole || m.half[id]
}

// TestEngineChangeKilled kills the agent at random calls of a volume's way to another engine and back, some of which are given up meanwhile: the engine that it is in has it whole at
// all times, and in the end no other has anything of it.
func TestEngineChangeKilled(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("", "agent")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		w := newWorld(dir, fake.HostConfig{})
		engines := map[string]*kept{}
		for _, name := range []string{model.EngineLocal, "nfs"} {
			engines[name] = &kept{whole: map[string][]byte{}, half: map[string]bool{}}
		}
		row := volume(1)
		want := bytes.Repeat([]byte{byte(rapid.IntRange(0, 255).Draw(t, "content"))}, 1<<20+1000)
		engines[row.Engine].whole[row.ID] = want
		set := func(f func(*model.HostVolume)) { row = bump(row, f) }
		// turn is what the server makes of what the host says; it gives whether anything is under way.
		turn := func() bool {
			r := w.side.volume(row.ID)
			if data, there := engines[row.Engine].holds(row.ID); !there || !bytes.Equal(data, want) {
				t.Fatalf("the volume is lost in %s: %+v", row.Engine, row)
			}
			switch {
			case r.Generation != row.Generation:
			case row.Copy != "" && r.Fault != nil:
				set(func(n *model.HostVolume) { n.Copy, n.Clear = "", n.Copy })
			case row.Copy != "" && r.Copied == row.Copy:
				set(func(n *model.HostVolume) { n.Engine, n.Copy, n.Clear = n.Copy, "", n.Engine })
			case row.Clear != "" && r.Cleared == row.Clear:
				set(func(n *model.HostVolume) { n.Clear = "" })
			}
			return row.Copy+row.Clear != "" || r.Generation != row.Generation
		}
		for range rapid.IntRange(1, 3).Draw(t, "lives") {
			f := newFuse(int64(rapid.IntRange(1, 25).Draw(t, "calls")))
			dead := make(chan struct{})
			f.blow = func() { close(dead) }
			a := w.start(t, func(c *Config) {
				c.Engines = map[string]block.Engine{}
				for name, k := range engines {
					c.Engines[name] = mortalEngine{kept: k, f: f}
				}
			})
			closed := make(chan error, 1)
			go func() { <-dead; closed <- a.ledger.close() }()
			for range rapid.IntRange(1, 3).Draw(t, "acts") {
				switch {
				case row.Copy+row.Clear == "":
					to := "nfs"
					if row.Engine == to {
						to = model.EngineLocal
					}
					set(func(n *model.HostVolume) { n.Copy = to })
				case row.Copy != "" && rapid.IntRange(0, 3).Draw(t, "give up") == 0:
					set(func(n *model.HostVolume) { n.Copy, n.Clear = "", n.Copy })
				}
				told := int64(-1)
				waitFor(t, "its death or the end of its work", func() bool {
					if told != row.Generation {
						told = row.Generation
						if err := a.Apply(context.Background(), full(row.Generation, row)); err != nil && f.left.Load() > 0 {
							t.Fatalf("batch: %v", err)
						}
					}
					select {
					case <-dead:
						return true
					default:
						return !turn()
					}
				})
			}
			f.left.Store(0)
			f.once.Do(f.blow)
			<-closed
			a.cancel()
			<-a.ended
			if err := a.dp.Close(); err != nil {
				t.Fatal(err)
			}
		}
		forever := newFuse(1 << 40)
		forever.blow = func() {}
		a := w.start(t, func(c *Config) {
			c.Engines = map[string]block.Engine{}
			for name, k := range engines {
				c.Engines[name] = mortalEngine{kept: k, f: forever}
			}
		})
		defer a.stop(t)
		told := int64(-1)
		waitFor(t, "the end of its work", func() bool {
			if told != row.Generation {
				told = row.Generation
				w.side.apply(t, full(row.Generation, row))
			}
			return !turn()
		})
		for name, k := range engines {
			if _, there := k.holds(row.ID); there != (name == row.Engine) {
				t.Errorf("the volume is in %s; in %s: %v", row.Engine, name, there)
			}
		}
		if left, err := os.ReadDir(filepath.Join(dir, "volumes")); err != nil || len(left) != 0 {
			t.Errorf("copies are left: %v, %v", left, err)
		}
	})
}

// falseEngine keeps something else than it is given.
type falseEngine struct{ mortalEngine }

func (e falseEngine) Export(_ context.Context, _, _, _, path string) error {
	return os.WriteFile(path, []byte("something else"), 0o600)
}

// TestCopyCompared: a copy that differs is a fault, and no copy.
func TestCopyCompared(t *testing.T) {
	w := newWorld(t.TempDir(), fake.HostConfig{})
	f := newFuse(1 << 40)
	f.blow = func() {}
	row := volume(1)
	row.Copy = "nfs"
	from, to := &kept{whole: map[string][]byte{row.ID: []byte("what it holds")}, half: map[string]bool{}}, &kept{whole: map[string][]byte{}, half: map[string]bool{}}
	a := w.start(t, func(c *Config) {
		c.Engines = map[string]block.Engine{model.EngineLocal: mortalEngine{kept: from, f: f}, "nfs": falseEngine{mortalEngine{kept: to, f: f}}}
	})
	defer a.stop(t)
	w.side.apply(t, full(1, row))
	waitFor(t, "a fault", func() bool { r := w.side.volume(row.ID); return r.Fault != nil && r.Copied == "" })
	if text := w.side.volume(row.ID).Fault.Message; text != fmt.Sprintf("The copy of volume %s holds something else than the volume.", row.ID) {
		t.Errorf("%q", text)
	}
	if err := a.keeper.elsewhere(t.Context(), a.cfg.Engines[model.EngineLocal], &model.HostVolume{ID: row.ID, Clear: "tape"}, &volumeProgress{}); !fault.Is(err, fault.Unavailable) {
		t.Errorf("an engine that is not there is cleared: %v", err)
	}
	if l := slices.Collect(func(yield func(string) bool) {
		for id := range from.whole {
			if !yield(id) {
				return
			}
		}
	}); len(l) != 1 {
		t.Errorf("the volume is gone: %v", l)
	}
}
