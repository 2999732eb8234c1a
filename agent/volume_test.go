package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"yakumo/block"
	"yakumo/block/blocktest"
	"yakumo/block/files"
	"yakumo/channel/channeltest"
	"yakumo/fault"
	"yakumo/hypervisor"
	"yakumo/hypervisor/fake"
	"yakumo/link"
	"yakumo/model"
	"yakumo/netspace/netspacetest"
)

// volumeSide keeps what is said of volumes, and what is sent.
type volumeSide struct {
	mu      sync.Mutex
	reports map[model.ID]model.VolumeReport
}

// ReportVolumes implements Link.
func (s *serverSide) ReportVolumes(rs []model.VolumeReport) {
	s.volumes.mu.Lock()
	defer s.volumes.mu.Unlock()
	if s.volumes.reports == nil {
		s.volumes.reports = map[model.ID]model.VolumeReport{}
	}
	for _, r := range rs {
		s.volumes.reports[r.VolumeID] = r
	}
}

func (s *serverSide) volume(id model.ID) model.VolumeReport {
	s.volumes.mu.Lock()
	defer s.volumes.mu.Unlock()
	return s.volumes.reports[id]
}

// sentBytes gives what was uploaded as a backup or an image.
func (s *serverSide) sentBytes(id model.ID) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, kind := range []string{link.UploadBackup, link.UploadImage} {
		if b, ok := s.uploads[kind+"/"+id]; ok {
			return []byte(b)
		}
	}
	return nil
}

// volumeHost is a world with an engine of files.
type volumeHost struct {
	*world
	t       testing.TB
	cfg     files.Config
	shared  files.Config // of the engine "nfs"
	run     string
	channel netip.AddrPort
	creds   *channeltest.Credentials
	id      model.ID
	rows    map[model.RowID]model.HostRow
	gen     int64
}

func newVolumeHost(t testing.TB, w *world, ca *channeltest.Authority, shared string) *volumeHost {
	run, err := os.MkdirTemp("", "ykv") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	h := &volumeHost{world: w, t: t, run: run, id: model.NewID(), rows: map[model.RowID]model.HostRow{},
		cfg: files.Config{Dir: filepath.Join(w.dir, "vol"), Run: filepath.Join(run, "d")}, shared: files.Config{Dir: shared, Shared: true}}
	h.creds = ca.Host(h.id)
	w.side.Credentials = h.creds
	h.channel = netspacetest.Loopback(t) // for all lives of the agent
	t.Cleanup(func() {
		e := h.engine()
		l, err := e.List(context.Background())
		if err != nil {
			t.Error(err)
		}
		for _, x := range l {
			// One that the agent has just told to end answers nobody, and a later look finds that it has ended.
			waitFor(t, "the daemon of volume "+x.ID+" to end", func() bool {
				err := e.(block.Closer).Close(context.Background(), x.ID)
				if err != nil && !fault.Is(err, fault.Unavailable) {
					t.Error(err)
				}
				return !fault.Is(err, fault.Unavailable)
			})
		}
		relay, err := files.OpenRelay(filepath.Join(run, "y"))
		if err != nil {
			t.Error(err)
		}
		for id := range h.rows {
			if err := relay.Close(context.Background(), id.Key); err != nil {
				t.Error(err)
			}
		}
		os.RemoveAll(run)
	})
	return h
}

func (h *volumeHost) engine() block.Engine {
	h.t.Helper()
	e, err := files.Open(h.cfg)
	if err != nil {
		h.t.Fatal(err)
	}
	return e
}

func (h *volumeHost) at() model.HostAt {
	return model.HostAt{HostID: h.id, Name: "h", Channel: h.channel}
}

func (h *volumeHost) begin(change func(*Config)) *running {
	h.t.Helper()
	nfs, err := files.Open(h.shared)
	if err != nil {
		h.t.Fatal(err)
	}
	return h.start(h.t, func(c *Config) {
		c.Engines, c.Run = map[string]block.Engine{model.EngineLocal: h.engine(), "nfs": nfs}, filepath.Join(h.run, "r")
		c.Channel = h.channel
		relay, err := files.OpenRelay(filepath.Join(h.run, "y"))
		if err != nil {
			h.t.Fatal(err)
		}
		c.Relay = relay
		c.Log = quiet(h.t)
		if change != nil {
			change(c)
		}
	})
}

// tell applies what the host is to know from now on.
func (h *volumeHost) tell(rows ...model.HostRow) {
	h.t.Helper()
	for _, r := range rows {
		h.rows[r.RowID()] = r
	}
	h.gen++
	h.side.apply(h.t.(worldT), model.HostBatch{Full: true, Generation: h.gen, Upserts: slices.Collect(maps.Values(h.rows))})
}

func (h *volumeHost) drop(rows ...model.HostRow) {
	h.t.Helper()
	for _, r := range rows {
		delete(h.rows, r.RowID())
	}
	h.tell()
}

func (h *volumeHost) waitReport(id model.ID, what string, ok func(model.VolumeReport) bool) {
	h.t.Helper()
	end := time.Now().Add(patience)
	for !ok(h.side.volume(id)) {
		if time.Now().After(end) {
			h.t.Fatalf("waited too long for %s; volume %s is %+v", what, id, h.side.volume(id))
		}
		<-time.After(2 * time.Millisecond)
	}
}

func (h *volumeHost) ready(row *model.HostVolume) {
	h.t.Helper()
	h.waitReport(row.ID, fmt.Sprintf("generation %d", row.Generation), func(r model.VolumeReport) bool { return r.Ready && r.Generation == row.Generation })
}

// access gives how a guest opens the volume.
func access(d hypervisor.Disk) block.Access {
	if d.Network == nil {
		return block.Access{File: d.Path, Format: d.Format}
	}
	return block.Access{Socket: d.Network.Socket, Export: d.Network.Name}
}

func (h *volumeHost) disk(r *running, id model.ID) block.Access {
	h.t.Helper()
	d, err := r.volumes.disk(context.Background(), "s", model.HostDisk{VolumeID: id})
	if err != nil {
		h.t.Fatal(err)
	}
	if d.Serial != id {
		h.t.Errorf("the disk of volume %s has the serial number %q", id, d.Serial)
	}
	return access(d)
}

func bump(r *model.HostVolume, f func(*model.HostVolume)) *model.HostVolume {
	n := *r
	n.Generation++
	f(&n)
	return &n
}

func volume(size int) *model.HostVolume {
	return &model.HostVolume{ID: model.NewID(), Engine: model.EngineLocal, Generation: 1, SizeGiB: size, Mine: true}
}

func io1(t testing.TB, a block.Access, commands ...string) {
	t.Helper()
	// What was open for nobody is closed once the row that said so has been acted on.
	end := time.Now().Add(patience)
	for {
		err := blocktest.IO(context.Background(), a, commands...)
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
		<-time.After(10 * time.Millisecond)
	}
}

// TestVolumeLife goes through what a volume is asked for, with an agent that is started anew before each step.
func TestVolumeLife(t *testing.T) {
	for _, engine := range []string{model.EngineLocal, "nfs"} {
		t.Run(engine, func(t *testing.T) {
			h := newVolumeHost(t, newWorld(t.TempDir(), fake.HostConfig{}), channeltest.NewAuthority(t), t.TempDir())
			c := newCloud(h.side)
			row := volume(1)
			row.Engine, row.Image = engine, &c.image
			step := func(n *model.HostVolume, look func(r *running, got model.VolumeReport)) {
				t.Helper()
				row = n
				r := h.begin(nil)
				h.tell(n)
				h.ready(n)
				if got := h.side.volume(n.ID); got.SizeGiB != n.SizeGiB {
					t.Errorf("the size is told as %d, want %d", got.SizeGiB, n.SizeGiB)
				}
				if look != nil {
					open := *n
					open.Guests = []model.ID{h.id}
					h.tell(&open)
					look(r, h.side.volume(n.ID))
				}
				r.stop(t)
			}
			step(row, func(r *running, _ model.VolumeReport) {
				io1(t, h.disk(r, row.ID), fmt.Sprintf("read -P %d 0 1", h.side.blobs[c.image.BlobID][0]), "read -P 0 1M 1M")
				io1(t, h.disk(r, row.ID), "write -P 7 0 1M")
				inv, err := r.inventory(t.Context(), struct{}{})
				if want := engine == model.EngineLocal; err != nil || slices.Contains(inv.Volumes, row.ID) != want {
					t.Errorf("the host's inventory has the volumes %v, %v", inv.Volumes, err)
				}
			})
			step(bump(row, func(n *model.HostVolume) { n.SizeGiB = 2 }), func(r *running, _ model.VolumeReport) {
				io1(t, h.disk(r, row.ID), "read -P 7 0 1M", "read -P 0 2047M 1M")
			})
			one, two := model.NewID(), model.NewID()
			step(bump(row, func(n *model.HostVolume) { n.Snapshots = []model.HostSnapshot{{ID: one}, {ID: two}} }), func(r *running, got model.VolumeReport) {
				if !slices.Equal(got.Snapshots, slices.Sorted(slices.Values([]model.ID{one, two}))) {
					t.Errorf("snapshots %v", got.Snapshots)
				}
				io1(t, h.disk(r, row.ID), "write -P 8 0 1M")
			})
			step(bump(row, func(n *model.HostVolume) { n.Snapshots = []model.HostSnapshot{{ID: one, Deleted: true}, {ID: two}} }), func(_ *running, got model.VolumeReport) {
				if !slices.Equal(got.Snapshots, []model.ID{two}) {
					t.Errorf("snapshots %v", got.Snapshots)
				}
			})
			clone := volume(2)
			clone.Engine, clone.Origin, clone.Snapshot = engine, row.ID, two
			last := row
			step(clone, func(r *running, _ model.VolumeReport) { io1(t, h.disk(r, clone.ID), "read -P 7 0 1M") })
			row = last
			step(bump(row, func(n *model.HostVolume) { n.Fills, n.Origin, n.Snapshot, n.Image = 1, n.ID, two, nil }), func(r *running, _ model.VolumeReport) {
				io1(t, h.disk(r, row.ID), "read -P 7 0 1M") // by itself: what is tried again must give the same
				io1(t, h.disk(r, row.ID), "write -P 9 0 1M")
			})
			step(bump(row, func(n *model.HostVolume) {}), func(r *running, _ model.VolumeReport) {
				io1(t, h.disk(r, row.ID), "read -P 9 0 1M") // filled once
			})
			backup, image := model.NewID(), model.NewID()
			step(bump(row, func(n *model.HostVolume) {
				n.Uploads = []model.HostBlob{{ID: backup, BlobID: model.NewID(), SnapshotID: two, Format: "qcow2", Backup: true}, {ID: image, Format: "qcow2"}}
			}), func(_ *running, _ model.VolumeReport) {
				h.waitReport(row.ID, "uploads", func(r model.VolumeReport) bool { return len(r.Uploads) == 2 })
				for _, u := range h.side.volume(row.ID).Uploads {
					if !u.Done || u.Bytes != int64(len(h.side.sentBytes(u.ID))) || u.Bytes == 0 {
						t.Errorf("upload %+v, of %d bytes", u, len(h.side.sentBytes(u.ID)))
					}
				}
				for id, value := range map[model.ID]int{backup: 7, image: 9} {
					path := filepath.Join(t.TempDir(), "sent")
					if err := os.WriteFile(path, h.side.sentBytes(id), 0o600); err != nil {
						t.Fatal(err)
					}
					io1(t, block.Access{File: path, Format: "qcow2"}, fmt.Sprintf("read -P %d 0 1M", value))
				}
			})
			sent := h.side.sentBytes(backup)
			h.side.mu.Lock()
			h.side.blobs["the-backup"] = sent
			h.side.mu.Unlock()
			step(bump(row, func(n *model.HostVolume) {
				n.Uploads, n.Fills, n.Origin, n.Snapshot, n.Backup = nil, 2, "", "", &model.HostBlob{ID: backup, BlobID: "the-backup", Format: "qcow2"}
			}), func(r *running, got model.VolumeReport) {
				if len(got.Uploads) != 0 {
					t.Errorf("uploads that are nobody's any more are told: %v", got.Uploads)
				}
				io1(t, h.disk(r, row.ID), "read -P 7 0 1M")
			})
			r := h.begin(nil)
			defer r.stop(t)
			h.tell(bump(row, func(n *model.HostVolume) { n.Deleted = true }))
			h.waitReport(row.ID, "the end", func(r model.VolumeReport) bool { return r.Gone })
			h.drop(row)
			waitFor(t, "nothing to be left", func() bool { _, ok := r.ledger.volumeOf(row.ID); return !ok })
			left, err := r.cfg.Engines[engine].List(t.Context())
			if err != nil || len(left) != 1 || left[0].ID != clone.ID {
				t.Errorf("left are %v, %v; want the clone", left, err)
			}
			if scratch, err := os.ReadDir(filepath.Join(h.dir, "volumes")); err != nil || len(scratch) != 0 {
				t.Errorf("copies are left: %v, %v", scratch, err)
			}
		})
	}
}

// TestVolumeOrphans: what nobody knows goes once the host has been told what is wanted, and not before; what a guest has stays.
func TestVolumeOrphans(t *testing.T) {
	h := newVolumeHost(t, newWorld(t.TempDir(), fake.HostConfig{}), channeltest.NewAuthority(t), t.TempDir())
	e := h.engine()
	orphan, kept := model.NewID(), model.NewID()
	for _, id := range []model.ID{orphan, kept} {
		if err := e.Make(t.Context(), id, 1<<20, block.Source{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := e.Open(t.Context(), orphan); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	err := e.Make(ctx, model.NewID(), 1<<20, block.Source{Volume: kept}) // likely half made
	cancel()
	t.Log("a volume that was cut off:", err)
	r := h.begin(nil)
	defer r.stop(t)
	r.keeper.lookAll()
	if l, err := e.List(t.Context()); err != nil || !slices.ContainsFunc(l, func(x block.Entry) bool { return x.ID == orphan }) {
		t.Fatalf("before it was told anything the host has %v, %v", l, err)
	}
	c := newCloud(h.side)
	s, p := c.server()
	s.Volumes = []model.HostDisk{{VolumeID: kept}}
	h.tell(append(c.base(), s, p)...)
	waitFor(t, "the orphans to go", func() bool {
		l, err := e.List(t.Context())
		return err == nil && len(l) == 1 && l[0].ID == kept
	})
}

// TestVolumeFault: what can never be is told as a fault of that generation; the next one is tried.
func TestVolumeFault(t *testing.T) {
	h := newVolumeHost(t, newWorld(t.TempDir(), fake.HostConfig{}), channeltest.NewAuthority(t), t.TempDir())
	r := h.begin(nil)
	defer r.stop(t)
	bad := volume(1)
	bad.Origin = model.NewID() // there is none
	h.tell(bad)
	h.waitReport(bad.ID, "a fault", func(r model.VolumeReport) bool { return r.Fault != nil && !r.Ready && r.Generation == 1 })
	if _, err := r.volumes.disk(t.Context(), "s", model.HostDisk{VolumeID: bad.ID}); !errors.Is(err, errWaiting) {
		t.Errorf("a volume that is not there opens: %v", err)
	}
	good := bump(bad, func(n *model.HostVolume) { n.Origin = "" })
	h.tell(good)
	h.ready(good)
	strange := volume(1)
	strange.Engine = "tape"
	h.tell(strange)
	h.waitReport(strange.ID, "a fault", func(r model.VolumeReport) bool { return r.Fault != nil })
	h.side.mu.Lock()
	h.side.refuse["b"] = fault.New(fault.Forbidden, "Not yours.")
	h.side.mu.Unlock()
	up := bump(good, func(n *model.HostVolume) { n.Uploads = []model.HostBlob{{ID: "b", Format: "qcow2"}} })
	h.tell(up)
	h.waitReport(up.ID, "a refused upload", func(r model.VolumeReport) bool {
		return r.Ready && len(r.Uploads) == 1 && r.Uploads[0].Fault != nil && r.Uploads[0].Fault.Message == "Not yours."
	})
	if f, err := r.Facts(t.Context()); err != nil || !slices.Equal(f.Engines, []string{"local", "nfs"}) || f.Rooms["local"].TotalGiB == 0 {
		t.Errorf("facts: engines %v, rooms %v, %v", f.Engines, f.Rooms, err)
	}
}

// twoHosts are a host that has a volume and one whose guests use it.
func twoHosts(t testing.TB) (owner, user *volumeHost) {
	ca := channeltest.NewAuthority(t)
	nfs := t.TempDir()
	return newVolumeHost(t, newWorld(t.TempDir(), fake.HostConfig{}), ca, nfs), newVolumeHost(t, newWorld(t.TempDir(), fake.HostConfig{}), ca, nfs)
}

// theirs is what the user's host is told of a volume of the owner's.
func theirs(row *model.HostVolume, owner *volumeHost) *model.HostVolume {
	return &model.HostVolume{ID: row.ID, Engine: row.Engine, Generation: row.Generation, SizeGiB: row.SizeGiB, Owner: owner.at()}
}

// TestVolumeOfAnotherHost: guests elsewhere reach a local volume while their host may, and no longer.
func TestVolumeOfAnotherHost(t *testing.T) {
	owner, user := twoHosts(t)
	a, b := owner.begin(nil), user.begin(nil)
	defer a.stop(t)
	defer b.stop(t)
	row := volume(1)
	owner.tell(row)
	owner.ready(row)
	user.tell(theirs(row, owner))
	if _, err := b.volumes.disk(t.Context(), "s", model.HostDisk{VolumeID: row.ID}); !fault.Is(err, fault.Unavailable) {
		t.Errorf("a host that may not opens the volume: %v", err)
	}
	row = bump(row, func(n *model.HostVolume) { n.Guests = []model.ID{owner.id, user.id} })
	owner.tell(row)
	owner.ready(row)
	at := user.disk(b, row.ID)
	io1(t, at, "write -P 3 0 4M", "flush")
	io1(t, owner.disk(a, row.ID), "read -P 3 0 4M")
	// A snapshot, a copy and more room while it is open there.
	snap := model.NewID()
	row = bump(row, func(n *model.HostVolume) { n.Snapshots = []model.HostSnapshot{{ID: snap}} })
	owner.tell(row)
	owner.ready(row)
	io1(t, at, "read -P 3 0 4M", "read -P 0 1023M 1M")
	// It grows meanwhile: the relay goes on, and serves the new size once it is begun anew.
	row = bump(row, func(n *model.HostVolume) { n.SizeGiB = 2 })
	owner.tell(row)
	owner.ready(row)
	io1(t, at, "read -P 3 0 4M", "read -P 0 1023M 1M")
	user.tell(theirs(row, owner))
	if err := b.keeper.exchange(t.Context(), theirs(row, owner)); err != nil {
		t.Fatal(err)
	}
	io1(t, at, "read -P 3 0 4M", "write -P 4 2047M 1M", "flush")
	io1(t, owner.disk(a, row.ID), "read -P 4 2047M 1M")
	row = bump(row, func(n *model.HostVolume) { n.Guests = nil })
	owner.tell(row)
	owner.ready(row)
	way, err := b.keeper.reach(row.ID, 0) // the relay would go on trying
	if err != nil {
		t.Fatal(err)
	}
	if err := blocktest.IO(t.Context(), block.Access{Socket: way, Export: row.ID}, "read 0 1M"); err == nil {
		t.Error("a host that may not any more opens the volume")
	}
	user.drop(theirs(row, owner))
	waitFor(t, "the sockets to go", func() bool {
		if _, err := os.Stat(way); err == nil {
			return false
		}
		_, err := os.Stat(at.Socket)
		return errors.Is(err, os.ErrNotExist)
	})
}

// TestVolumeMoves: a host copies a volume from another, also when its agent dies meanwhile, and the other removes it when it is told of it no more.
func TestVolumeMoves(t *testing.T) {
	from, to := twoHosts(t)
	a, b := from.begin(nil), to.begin(nil)
	defer a.stop(t)
	defer func() { b.stop(t) }()
	row := volume(1)
	from.tell(row)
	from.ready(row)
	row = bump(row, func(n *model.HostVolume) { n.Guests = []model.ID{to.id} })
	comes := &model.HostVolume{ID: row.ID, Engine: row.Engine, Generation: row.Generation, SizeGiB: 1, Mine: true, Owner: from.at()}
	// Before its host lets it go it cannot be had.
	to.tell(comes)
	waitFor(t, "a first try", func() bool {
		b.keeper.mu.Lock()
		defer b.keeper.mu.Unlock()
		return b.keeper.tries[row.ID] != nil
	})
	b.stop(t)
	from.tell(row)
	from.ready(row)
	io1(t, from.disk(a, row.ID), "write -P 5 0 1M", "write -P 6 1023M 1M", "flush")
	b = to.begin(nil)
	to.ready(comes)
	here := &model.HostVolume{ID: row.ID, Engine: row.Engine, Generation: row.Generation + 1, SizeGiB: 1, Mine: true, Guests: []model.ID{to.id}}
	to.tell(here)
	from.drop(row)
	waitFor(t, "the old host to have nothing left", func() bool {
		l, err := a.cfg.Engines[model.EngineLocal].List(t.Context())
		return err == nil && len(l) == 0
	})
	to.ready(here)
	io1(t, to.disk(b, row.ID), "read -P 5 0 1M", "read -P 0 1M 1M", "read -P 6 1023M 1M")
}

// TestVolumeCutOff: a connection that is there ends when its host may not have the volume any more.
func TestVolumeCutOff(t *testing.T) {
	owner, user := twoHosts(t)
	a, b := owner.begin(nil), user.begin(nil)
	defer a.stop(t)
	defer b.stop(t)
	row := volume(1)
	row.Guests = []model.ID{user.id}
	owner.tell(row)
	owner.ready(row)
	user.tell(theirs(row, owner))
	way, err := b.keeper.reach(row.ID, 0)
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("unix", way)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	hello := make([]byte, 16) // NBD's greeting
	if _, err := io.ReadFull(c, hello); err != nil || !bytes.HasPrefix(hello, []byte("NBDMAGIC")) {
		t.Fatalf("%q, %v", hello, err)
	}
	row = bump(row, func(n *model.HostVolume) { n.Guests = []model.ID{owner.id} })
	owner.tell(row)
	var ne net.Error
	for {
		if _, err = c.Read(hello); err != nil {
			break
		}
	}
	if errors.As(err, &ne) && ne.Timeout() {
		t.Error("the connection lives on")
	}
	args, _ := json.Marshal(volumeCall{row.ID})
	if err := a.keeper.serve(t.Context(), user.id, args, nil); !fault.Is(err, fault.NotFound) {
		t.Errorf("a host that may not is told %v", err)
	}
}
