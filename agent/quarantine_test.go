package agent

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"yakumo/block/files"
	"yakumo/channel/channeltest"
	"yakumo/fault"
	"yakumo/hypervisor/fake"
	"yakumo/model"
)

// asideWorld is a host with a server and a local volume that it was told of in generation 5.
type asideWorld struct {
	*volumeHost
	c      *cloud
	s      *model.HostServer
	p      *model.HostPort
	v      *model.HostVolume
	now    time.Time
	change func(*Config)
}

func newAsideWorld(t *testing.T) *asideWorld {
	h := newVolumeHost(t, newWorld(t.TempDir(), fake.HostConfig{}), channeltest.NewAuthority(t), t.TempDir())
	w := &asideWorld{volumeHost: h, c: newCloud(h.side), v: volume(1), now: time.Now()}
	w.s, w.p = w.c.server()
	h.gen = 4
	return w
}

// live starts an agent.
func (w *asideWorld) live(change func(*Config)) *running {
	return w.begin(func(c *Config) {
		c.Quarantine, c.Now = time.Hour, func() time.Time { return w.now }
		if change != nil {
			change(c)
		}
	})
}

// settle tells the host of both, and waits until they are there.
func (w *asideWorld) settle() {
	w.tell(append(w.c.base(), w.s, w.p, w.v)...)
	w.ready(w.v)
	w.settled(w.t, w.s.ID, 1, model.PhaseReady, model.PowerRunning)
}

// left waits until nothing of either is where it was.
func (w *asideWorld) left(a *running) {
	w.t.Helper()
	waitFor(w.t, "both to be gone from where they were", func() bool {
		return !isThere(filepath.Join(w.dir, "servers", w.s.ID)) && !isThere(filepath.Join(w.cfg.Dir, w.v.ID)) && len(a.ledger.servers())+len(a.ledger.volumeIDs()) == 0
	})
}

func isThere(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// aside gives the paths of what was laid aside of both.
func (w *asideWorld) aside() (server, volume string) {
	return filepath.Join(w.dir, "quarantine", "server-"+w.s.ID, "data", "disk.qcow2"),
		filepath.Join(w.cfg.Dir, ".quarantine", "volume-"+w.v.ID, "data", "disk.qcow2")
}

// asideOf gives what is laid aside of a kind.
func asideOf(t *testing.T, a *running, kind model.RowKind) laidAside {
	t.Helper()
	for _, x := range a.quarantine.list() {
		if x.Kind == kind {
			return x
		}
	}
	t.Fatalf("no %s is laid aside", kind)
	return laidAside{}
}

// TestQuarantine: what the store has forgotten is laid aside, and erased when its time is over; what it took away, erased at once.
func TestQuarantine(t *testing.T) {
	for name, c := range map[string]struct {
		batch   func(w *asideWorld) model.HostBatch
		erased  bool
		restart bool
	}{
		"old backup": {batch: func(w *asideWorld) model.HostBatch {
			return model.HostBatch{Full: true, Generation: 1000, Told: 4, Upserts: w.c.base()}
		}},
		"another store": {batch: func(w *asideWorld) model.HostBatch {
			return model.HostBatch{Full: true, Generation: 1000, Upserts: w.c.base()}
		}, restart: true},
		"old backup, as a change": {batch: func(w *asideWorld) model.HostBatch {
			return model.HostBatch{Generation: 1000, Told: 4, Removes: []model.RowID{w.s.RowID(), w.p.RowID(), w.v.RowID()}}
		}},
		"ordered while away": {batch: func(w *asideWorld) model.HostBatch {
			return model.HostBatch{Full: true, Generation: 1000, Told: 5, Upserts: w.c.base()}
		}, erased: true, restart: true},
		"ordered": {batch: func(w *asideWorld) model.HostBatch {
			return model.HostBatch{Generation: 1000, Told: 5, Removes: []model.RowID{w.s.RowID(), w.p.RowID(), w.v.RowID()}}
		}, erased: true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newAsideWorld(t)
			a := w.live(nil)
			w.settle()
			if c.restart {
				a.stop(t)
				a = w.live(nil)
			}
			w.side.apply(t, c.batch(w))
			w.left(a)
			server, volume := w.aside()
			if isThere(server) == c.erased || isThere(volume) == c.erased {
				t.Fatalf("laid aside: %v %v", isThere(server), isThere(volume))
			}
			inv, err := a.inventory(t.Context(), struct{}{})
			if err != nil || len(inv.Quarantined) != map[bool]int{false: 2}[c.erased] {
				t.Fatalf("inventory %+v, %v", inv.Quarantined, err)
			}
			for _, q := range inv.Quarantined {
				if q.ID != w.s.ID && q.ID != w.v.ID || !q.Until.Equal(w.now.UTC().Add(time.Hour)) {
					t.Errorf("quarantined %+v", q)
				}
			}
			if c.erased {
				a.stop(t)
				return
			}
			x := asideOf(t, a, model.RowServer)
			if x.Kind != model.RowServer || x.Blob != w.s.Image.BlobID || !strings.Contains(string(x.Row), w.s.Name) || !a.images.used()[x.Blob] {
				t.Errorf("record %+v", x)
			}
			a.stop(t)
			w.now = w.now.Add(59 * time.Minute)
			a = w.live(nil)
			a.quarantine.sweep()
			if !isThere(server) || !isThere(volume) {
				t.Error("erased too early")
			}
			a.stop(t)
			w.now = w.now.Add(2 * time.Minute)
			a = w.live(nil)
			waitFor(t, "both to be erased", func() bool { return len(a.quarantine.list()) == 0 })
			waitFor(t, "their folders to be gone", func() bool {
				return !isThere(filepath.Dir(filepath.Dir(server))) && !isThere(filepath.Dir(filepath.Dir(volume)))
			})
			a.stop(t)
		})
	}
}

// A thing without a row that the ledger never heard of is laid aside too: the ledger was lost. What is half made is erased.
func TestQuarantineUnknown(t *testing.T) {
	w := newAsideWorld(t)
	a := w.live(nil)
	w.settle()
	a.stop(t)
	if err := os.Remove(filepath.Join(w.dir, "ledger.db")); err != nil {
		t.Fatal(err)
	}
	half, base := filepath.Join(w.cfg.Dir, model.NewID()), model.NewID()
	if err := errors.Join(os.MkdirAll(half, 0o700), os.WriteFile(filepath.Join(half, "disk.qcow2.new"), []byte("half"), 0o600),
		os.WriteFile(filepath.Join(w.dir, "servers", w.s.ID, "disk.qcow2"), overlayOf("/x/images/"+base), 0o600)); err != nil {
		t.Fatal(err)
	}
	a = w.live(nil)
	w.side.apply(t, model.HostBatch{Full: true, Generation: 1000, Told: 999, Upserts: w.c.base()})
	w.left(a)
	waitFor(t, "what is half made to be gone", func() bool { return !isThere(half) })
	server, volume := w.aside()
	if !isThere(server) || !isThere(volume) || len(a.quarantine.list()) != 2 {
		t.Errorf("laid aside: %+v", a.quarantine.list())
	}
	if x := asideOf(t, a, model.RowServer); x.Blob != base {
		t.Errorf("record %+v", x)
	}
	a.stop(t)
}

// What a ledger of a version before knows is ordered to go when its row is.
func TestQuarantineOfOldLedger(t *testing.T) {
	w := newAsideWorld(t)
	a := w.live(nil)
	w.settle()
	a.stop(t)
	db, err := bbolt.Open(filepath.Join(w.dir, "ledger.db"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		return errors.Join(tx.DeleteBucket(bucketSince), tx.DeleteBucket(bucketDepartures))
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	a = w.live(nil)
	defer a.stop(t)
	w.side.apply(t, model.HostBatch{Full: true, Generation: 1000, Upserts: w.c.base()})
	w.left(a)
	if list := a.quarantine.list(); len(list) != 0 {
		t.Errorf("laid aside: %+v", list)
	}
}

// overlayOf is the beginning of a qcow2 with a backing file (QEMU's docs/interop/qcow2.txt).
func overlayOf(base string) []byte {
	head := make([]byte, 104)
	copy(head, "QFI\xfb\x00\x00\x00\x03")
	head[15], head[19] = 104, byte(len(base))
	return append(head, base...)
}

func TestBacking(t *testing.T) {
	path := filepath.Join(t.TempDir(), "d")
	for content, want := range map[string]string{string(overlayOf("/a/b")): "b", string(make([]byte, 64)): "", "QFI": "", string(overlayOf("")): ""} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := backing(path); got != want || err != nil {
			t.Errorf("backing file of %q: %q, %v", content, got, err)
		}
	}
	if got, err := backing(path + "x"); got != "" || err != nil {
		t.Errorf("of none: %q, %v", got, err)
	}
	short := overlayOf("/a/b")
	if err := os.WriteFile(path, short[:len(short)-1], 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := backing(path); err == nil {
		t.Errorf("of one cut short: %q", got)
	}
}

// What comes back after an ordered departure is begun anew, and what it leaves then is judged by itself; a third life is laid aside beside
// the second.
func TestQuarantineOfSecondLife(t *testing.T) {
	w := newAsideWorld(t)
	a := w.live(nil)
	defer a.stop(t)
	w.settle()
	generation := int64(5)
	for life, told := range []int64{5, 6, 6} {
		if life > 0 {
			generation++
			w.s, w.v = with(w.s, func(*model.HostServer) {}), bump(w.v, func(*model.HostVolume) {})
			w.side.apply(t, model.HostBatch{Generation: generation, Told: told, Upserts: []model.HostRow{w.s, w.p, w.v}})
			w.ready(w.v)
			w.settled(t, w.s.ID, w.s.Generation, model.PhaseReady, model.PowerRunning)
		}
		generation++
		w.side.apply(t, model.HostBatch{Full: true, Generation: generation, Told: told, Upserts: w.c.base()})
		w.left(a)
		if list := a.quarantine.list(); len(list) != 2*life {
			t.Fatalf("after life %d: %+v", life, list)
		}
	}
}

// TestQuarantineKilled ends the agent before every write to its ledger while it lays things aside or erases them, and around each move of
// files; in the end everything is where it should be, once.
func TestQuarantineKilled(t *testing.T) {
	for _, ordered := range []bool{false, true} {
		for at := 1; ; at++ {
			w := newAsideWorld(t)
			a := w.live(nil)
			w.settle()
			a.stop(t)
			calls, dead := 0, make(chan struct{})
			var die = func() error {
				if calls++; calls == at {
					close(dead)
				}
				if calls >= at {
					return fault.Wrap(fault.Unavailable, errKilled, "gone")
				}
				return nil
			}
			turn := make(chan struct{}, 1)
			keep := func() error {
				turn <- struct{}{}
				defer func() { <-turn }()
				return die()
			}
			a = w.live(func(c *Config) {
				c.Keep = keep
				c.Engines[model.EngineLocal] = mortalSider{c.Engines[model.EngineLocal].(*files.Engine), keep}
			})
			told := int64(4)
			if ordered {
				told = 5
			}
			batch := model.HostBatch{Full: true, Generation: 1000, Told: told, Upserts: w.c.base()}
			err := a.Apply(context.Background(), batch)
			over := false
			if err == nil {
				waitFor(t, "its death or the end of its work", func() bool {
					select {
					case <-dead:
						return true
					default:
					}
					over = len(a.ledger.servers())+len(a.ledger.volumeIDs()) == 0
					return over
				})
			}
			a.stop(t)
			a = w.live(nil)
			batch.Generation++
			batch.Told = 999 // the store has learnt of this host since: it cannot undo what was found
			if err != nil {
				batch.Told = told
			}
			w.side.apply(t, batch)
			w.left(a)
			server, volume := w.aside()
			if isThere(server) == ordered || isThere(volume) == ordered {
				t.Fatalf("death %d, ordered %v: laid aside %v %v", at, ordered, isThere(server), isThere(volume))
			}
			if n := len(a.quarantine.list()); n != map[bool]int{false: 2}[ordered] {
				t.Fatalf("death %d, ordered %v: %+v", at, ordered, a.quarantine.list())
			}
			a.stop(t)
			if over {
				break
			}
		}
	}
}

// mortalSider dies before or after a volume is laid aside or removed.
type mortalSider struct {
	*files.Engine
	die func() error
}

func (m mortalSider) LayAside(ctx context.Context, id, path string) error {
	if err := m.die(); err != nil {
		return err
	}
	return errors.Join(m.Engine.LayAside(ctx, id, path), m.die())
}
