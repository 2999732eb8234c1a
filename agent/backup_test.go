package agent

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"yakumo/block"
	"yakumo/channel/channeltest"
	"yakumo/hypervisor/fake"
	"yakumo/link"
	"yakumo/model"
)

// store keeps what was sent as a backup where hosts fetch it.
func (s *serverSide) storeBackup(b model.HostBlob) {
	data := s.sentBytes(b.ID)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.blobs[b.BlobID] = data
}

func chunksOf(below ...model.HostBlob) model.HostBlob {
	return model.HostBlob{ID: model.NewID(), BlobID: model.NewID(), Format: model.BackupChunks, Backup: true, Below: below}
}

// TestBackupChain: a whole backup, one of what changed, and one of a snapshot; each is restored to a new volume and over one that is there. Where a backup below is damaged or gone, that is
// told, of a restore and of the next backup.
func TestBackupChain(t *testing.T) {
	h := newVolumeHost(t, newWorld(t.TempDir(), fake.HostConfig{}), channeltest.NewAuthority(t), t.TempDir())
	r := h.begin(nil)
	defer r.stop(t)
	row := volume(1)
	row.Guests = []model.ID{h.id}
	h.tell(row)
	h.ready(row)
	write := func(commands ...string) { t.Helper(); io1(t, h.disk(r, row.ID), append(commands, "flush")...) }
	send := func(b model.HostBlob) model.UploadReport {
		t.Helper()
		row = bump(row, func(n *model.HostVolume) { n.Uploads = []model.HostBlob{b} })
		h.tell(row)
		h.waitReport(row.ID, "a backup", func(r model.VolumeReport) bool {
			return r.Generation == row.Generation && len(r.Uploads) == 1 && r.Uploads[0].ID == b.ID
		})
		h.side.storeBackup(b)
		return h.side.volume(row.ID).Uploads[0]
	}
	write("write -P 1 0 2M", "write -P 2 1023M 1M")
	whole := chunksOf()
	if u := send(whole); !u.Done || u.Bytes < 3<<20 || u.Bytes > 3<<20+64<<10 || u.Bytes != int64(len(h.side.sentBytes(whole.ID))) {
		t.Errorf("a whole backup: %+v", u)
	}
	snap := model.NewID()
	row = bump(row, func(n *model.HostVolume) { n.Snapshots = []model.HostSnapshot{{ID: snap}} })
	h.tell(row)
	h.ready(row)
	write("write -P 3 512M 4k", "write -z 0 1M")
	part := chunksOf(whole)
	if u := send(part); !u.Done || u.Bytes < 1<<20 || u.Bytes > 1<<20+64<<10 {
		t.Errorf("what has changed: %+v", u)
	}
	old := chunksOf(part)
	old.SnapshotID = snap
	if u := send(old); !u.Done || u.Bytes > 1<<20+64<<10 {
		t.Errorf("a snapshot: %+v", u)
	}
	first := []string{"read -P 1 0 2M", "read -P 0 512M 1M", "read -P 2 1023M 1M"}
	then := []string{"read -P 0 0 1M", "read -P 1 1M 1M", "read -P 3 512M 4k", "read -P 0 513M 1M", "read -P 2 1023M 1M"}
	chain := func(b model.HostBlob, below ...model.HostBlob) *model.HostBlob { b.Below = below; return &b }
	restore := func(b *model.HostBlob) *model.HostVolume {
		n := volume(2)
		n.Backup, n.Guests = b, []model.ID{h.id}
		h.tell(n)
		return n
	}
	for _, c := range []struct {
		b    *model.HostBlob
		want []string
	}{{chain(whole), first}, {chain(part, whole), then}, {chain(old, whole, part), first}} {
		n := restore(c.b)
		h.ready(n)
		io1(t, h.disk(r, n.ID), append(c.want, "read -P 0 1024M 1M")...)
		over := bump(n, func(n *model.HostVolume) { n.Backup, n.Fills, n.Guests = chain(part, whole), 1, nil })
		h.tell(over)
		h.ready(over)
		over = bump(over, func(n *model.HostVolume) { n.Guests = []model.ID{h.id} })
		h.tell(over)
		h.ready(over)
		io1(t, h.disk(r, n.ID), then...)
		h.tell(bump(over, func(n *model.HostVolume) { n.Deleted, n.Guests = true, nil }))
		h.waitReport(n.ID, "the end", func(r model.VolumeReport) bool { return r.Gone })
	}
	spoil := func(b model.HostBlob, f func([]byte) []byte) {
		h.side.mu.Lock()
		defer h.side.mu.Unlock()
		h.side.blobs[b.BlobID] = f(slices.Clone(h.side.blobs[b.BlobID]))
		if h.side.blobs[b.BlobID] == nil {
			delete(h.side.blobs, b.BlobID)
		}
	}
	for _, c := range []struct {
		f         func([]byte) []byte
		text, now string
	}{
		{func(b []byte) []byte { b[len(b)-1] ^= 1; return b }, "Backup " + whole.ID + " cannot be used: The backup is damaged: a piece of it has another digest.", ""},
		{func(b []byte) []byte { b[60] ^= 1; return b }, "Backup " + whole.ID + " cannot be used: The backup is damaged: its index", "its index"},
		{func([]byte) []byte { return nil }, "The bytes of backup " + whole.ID + " are gone.", "are gone"},
	} {
		spoil(whole, c.f)
		n := restore(chain(part, whole))
		h.waitReport(n.ID, "a fault", func(r model.VolumeReport) bool { return r.Fault != nil })
		if got := h.side.volume(n.ID).Fault.Message; !strings.HasPrefix(got, c.text) {
			t.Errorf("%q, want %q", got, c.text)
		}
		if c.now == "" {
			continue // its index is whole: it can be built on
		}
		if u := send(chunksOf(whole)); u.Done || u.Fault == nil || !strings.Contains(u.Fault.Message, c.now) {
			t.Errorf("on a backup like that: %+v", u)
		}
	}
	if scratch, err := os.ReadDir(filepath.Join(h.dir, "volumes")); err != nil || len(scratch) != 0 {
		t.Errorf("copies are left: %v, %v", scratch, err)
	}
}

// TestBackupKilled kills the agent at each call of making an incremental backup and restoring it: the next one goes on to the same end.
func TestBackupKilled(t *testing.T) {
	for calls := int64(1); calls <= 8; calls++ {
		t.Run(fmt.Sprint(calls), func(t *testing.T) {
			w := newWorld(t.TempDir(), fake.HostConfig{})
			k := &kept{whole: map[string][]byte{}, half: map[string]bool{}}
			row := volume(1)
			content := bytes.Repeat([]byte{7}, 3<<20)
			k.whole[row.ID] = content
			base, part := chunksOf(), chunksOf()
			part.Below = []model.HostBlob{base}
			life := func(f *fuse, row *model.HostVolume, ok func(model.VolumeReport) bool) {
				t.Helper()
				dead := make(chan struct{})
				f.blow = func() { close(dead) }
				a := w.start(t, func(c *Config) {
					c.Engines = map[string]block.Engine{model.EngineLocal: mortalEngine{kept: k, f: f}}
					attach := c.Link
					c.Link = func(h link.Handler) Link { return mortalLink{attach(h), f} }
				})
				closed := make(chan error, 1)
				go func() { <-dead; closed <- a.ledger.close() }()
				if err := a.Apply(context.Background(), full(row.Generation, row)); err != nil && f.left.Load() > 0 {
					t.Fatal(err)
				}
				waitFor(t, "its death or the end of its work", func() bool {
					select {
					case <-dead:
						return true
					default:
						return ok(w.side.volume(row.ID))
					}
				})
				f.left.Store(0)
				f.once.Do(f.blow)
				<-closed
				a.cancel()
				<-a.ended
				if err := a.dp.Close(); err != nil {
					t.Fatal(err)
				}
			}
			done := func(row *model.HostVolume, b model.HostBlob) func(model.VolumeReport) bool {
				return func(r model.VolumeReport) bool {
					return r.Generation == row.Generation && len(r.Uploads) == 1 && r.Uploads[0].ID == b.ID && r.Uploads[0].Done
				}
			}
			for _, b := range []model.HostBlob{base, part} {
				row = bump(row, func(n *model.HostVolume) { n.Uploads = []model.HostBlob{b} })
				for _, n := range []int64{calls, 1 << 40} {
					life(newFuse(n), row, done(row, b))
				}
				w.side.storeBackup(b)
				content = slices.Clone(content)
				content[2<<20+5]++
				k.whole[row.ID] = content
			}
			content[2<<20+5]-- // as it was when the second one was made
			copied := volume(1)
			copied.Generation, copied.Backup = row.Generation+1, &part
			for _, n := range []int64{calls, 1 << 40} {
				life(newFuse(n), copied, func(r model.VolumeReport) bool { return r.Generation == copied.Generation && r.Ready })
			}
			if got, whole := k.holds(copied.ID); !whole || !bytes.Equal(got, content) {
				t.Errorf("restored are %d bytes that differ", len(got))
			}
			if left, err := os.ReadDir(filepath.Join(w.dir, "volumes")); err != nil || len(left) != 0 {
				t.Errorf("copies are left: %v, %v", left, err)
			}
		})
	}
}
