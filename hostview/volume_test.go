package hostview_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"yakumo/model"
	"yakumo/store"
	"yakumo/store/storetest"
)

// volumeActions are what may happen to volumes, their snapshots and backups, and to servers that use them.
func volumeActions(c cloud, hosts []model.ID) map[string]func(*rapid.T) {
	vols, servers := ids("v", 3), ids("u", 3)
	maybe := append([]string{""}, hosts...)
	return map[string]func(*rapid.T){
		"put volume": func(rt *rapid.T) {
			v := &model.Volume{Meta: model.Meta{ID: rapid.SampledFrom(vols).Draw(rt, "volume")}, Engine: rapid.SampledFrom([]string{"local", "nfs"}).Draw(rt, "engine"), SizeGiB: rapid.IntRange(1, 3).Draw(rt, "size"),
				Host: rapid.SampledFrom(maybe).Draw(rt, "host"), MultiAttach: rapid.Bool().Draw(rt, "multi"), Deleted: rapid.Bool().Draw(rt, "deleted")}
			switch rapid.IntRange(0, 3).Draw(rt, "from") {
			case 0:
				v.Source.SnapshotID = fmt.Sprintf("z%d", rapid.IntRange(1, 2).Draw(rt, "snapshot"))
			case 1:
				v.Source.BackupID = fmt.Sprintf("b%d", rapid.IntRange(1, 2).Draw(rt, "backup"))
			case 2:
				v.Fills, v.Refill = 1, &model.VolumeSource{VolumeID: rapid.SampledFrom(vols).Draw(rt, "of")}
			}
			if rapid.Bool().Draw(rt, "changes") {
				v.Change = &model.EngineChange{Engine: "nfs", Clear: rapid.Bool().Draw(rt, "clear")}
			} else if rapid.Bool().Draw(rt, "elsewhere") {
				v.Relocation = &model.Relocation{Number: 1, ServerID: rapid.SampledFrom(servers).Draw(rt, "user"), Host: rapid.SampledFrom(hosts).Draw(rt, "place"), Engine: rapid.SampledFrom([]string{"local", "nfs"}).Draw(rt, "other engine"),
					Stage: rapid.SampledFrom([]model.RelocationStage{model.RelocateMaking, model.RelocateCopying, model.RelocateTurning, model.RelocateClearing}).Draw(rt, "stage")}
			}
			c.do(func(tx *store.Tx) error { return store.Volumes.Put(tx, v) })
		},
		"delete volume": func(rt *rapid.T) {
			id := rapid.SampledFrom(vols).Draw(rt, "volume")
			c.do(func(tx *store.Tx) error { return store.Volumes.Delete(tx, id) })
		},
		"put volume snapshot": func(rt *rapid.T) {
			n := rapid.IntRange(1, 2).Draw(rt, "n")
			s := &model.VolumeSnapshot{Meta: model.Meta{ID: fmt.Sprintf("z%d", n)}, VolumeID: vols[n], Deleted: rapid.Bool().Draw(rt, "deleted")}
			c.do(func(tx *store.Tx) error { return store.VolumeSnapshots.Put(tx, s) })
		},
		"delete volume snapshot": func(rt *rapid.T) {
			id := fmt.Sprintf("z%d", rapid.IntRange(1, 2).Draw(rt, "n"))
			c.do(func(tx *store.Tx) error { return store.VolumeSnapshots.Delete(tx, id) })
		},
		"put backup": func(rt *rapid.T) {
			n := rapid.IntRange(1, 2).Draw(rt, "n")
			b := &model.VolumeBackup{Meta: model.Meta{ID: fmt.Sprintf("b%d", n)}, VolumeID: vols[n], BlobID: fmt.Sprint("blob", rapid.IntRange(1, 2).Draw(rt, "blob")), ParentID: rapid.SampledFrom([]string{"", fmt.Sprintf("b%d", n-1)}).Draw(rt, "parent"),
				State: rapid.SampledFrom([]string{"creating", "available"}).Draw(rt, "state")}
			c.do(func(tx *store.Tx) error { return store.VolumeBackups.Put(tx, b) })
		},
		"delete backup": func(rt *rapid.T) {
			id := fmt.Sprintf("b%d", rapid.IntRange(1, 2).Draw(rt, "n"))
			c.do(func(tx *store.Tx) error { return store.VolumeBackups.Delete(tx, id) })
		},
		"put guest": func(rt *rapid.T) {
			s := &model.Server{Meta: model.Meta{ID: rapid.SampledFrom(servers).Draw(rt, "server")}, Host: rapid.SampledFrom(maybe).Draw(rt, "host")}
			for _, v := range rapid.SliceOfNDistinct(rapid.SampledFrom(vols), 0, 2, rapid.ID[string]).Draw(rt, "volumes") {
				s.Volumes = append(s.Volumes, model.VolumeUse{VolumeID: v, Device: "/dev/vdb", Detaching: rapid.Bool().Draw(rt, "detaching")})
			}
			if rapid.Bool().Draw(rt, "moves") {
				s.Move = &model.Move{ID: "m", Kind: model.MoveLive, Stage: model.MovePreparing, Source: s.Host, Target: rapid.SampledFrom(maybe).Draw(rt, "target")}
			}
			c.do(func(tx *store.Tx) error { return store.Servers.Put(tx, s) })
		},
		"delete guest": func(rt *rapid.T) {
			id := rapid.SampledFrom(servers).Draw(rt, "server")
			c.do(func(tx *store.Tx) error { return store.Servers.Delete(tx, id) })
		},
		"move channel": func(rt *rapid.T) {
			id := rapid.SampledFrom(hosts).Draw(rt, "host")
			port := uint16(rapid.IntRange(1, 2).Draw(rt, "port"))
			c.do(func(tx *store.Tx) error {
				old, _ := store.Hosts.Get(tx, id)
				h := *old
				h.Channel = netip.AddrPortFrom(h.TunnelIP, port)
				return store.Hosts.Put(tx, &h)
			})
		},
	}
}

// TestVolumesReachWhoWorksOnThemAndWhoOpensThem: the volume's host has all of it, with the hosts that may open it; those have
// what they need to open it, also the target of a move and a guest that has not let go yet; a server's row has its volumes.
func TestVolumesReachWhoWorksOnThemAndWhoOpensThem(t *testing.T) {
	st := storetest.New(t)
	at := func(n byte) netip.AddrPort { return netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, n}), 7000) }
	if _, err := st.Update(t.Context(), func(tx *store.Tx) error {
		for i, h := range []string{"h1", "h2", "h3", "h4"} {
			if err := store.Hosts.Put(tx, &model.Host{Meta: model.Meta{ID: h, Name: "name-" + h}, Channel: at(byte(i + 1))}); err != nil {
				return err
			}
		}
		for _, v := range []*model.Volume{
			{Meta: model.Meta{ID: "v1", Generation: 3}, Engine: "local", Host: "h1", SizeGiB: 2, Status: model.VolumeStatus{SizeGiB: 1}, MultiAttach: true, Source: model.VolumeSource{SnapshotID: "z2"}, Uploads: []model.HostBlob{{ID: "i1", Format: "raw"}}},
			{Meta: model.Meta{ID: "v2"}, Engine: "local", Host: "h1", SizeGiB: 1, Status: model.VolumeStatus{SizeGiB: 1}, Fills: 1, Refill: &model.VolumeSource{BackupID: "b2"}},
		} {
			if err := store.Volumes.Put(tx, v); err != nil {
				return err
			}
		}
		for _, s := range []*model.VolumeSnapshot{{Meta: model.Meta{ID: "z1"}, VolumeID: "v1", Deleted: true}, {Meta: model.Meta{ID: "z2"}, VolumeID: "v2"}} {
			if err := store.VolumeSnapshots.Put(tx, s); err != nil {
				return err
			}
		}
		for _, b := range []*model.VolumeBackup{{Meta: model.Meta{ID: "b1"}, VolumeID: "v1", SnapshotID: "z1", BlobID: "x1", State: "creating"}, {Meta: model.Meta{ID: "b2"}, VolumeID: "v1", BlobID: "x2", State: "available"}} {
			if err := store.VolumeBackups.Put(tx, b); err != nil {
				return err
			}
		}
		return store.Servers.Put(tx, &model.Server{Meta: model.Meta{ID: "s1"}, Host: "h2", Move: &model.Move{ID: "m", Source: "h2", Target: "h3"},
			Volumes: []model.VolumeUse{{VolumeID: "v1", Device: "/dev/vdb", Tag: "data"}, {VolumeID: "v2", Detaching: true}}})
	}); err != nil {
		t.Fatal(err)
	}
	volumes := func(host model.ID) map[string]string {
		out := map[string]string{}
		for id, body := range full(t, st, host) {
			if id.Kind == model.RowVolume {
				out[id.Key] = body
			}
		}
		return out
	}
	mine := map[string]string{
		"v1": `{"id":"v1","project_id":"","engine":"local","generation":3,"size":2,"snapshot":"z2","origin":"v2","snapshots":[{"id":"z1","deleted":true}],"uploads":[{"id":"b1","blob_id":"x1","snapshot_id":"z1","format":"qcow2","backup":true},{"id":"i1","format":"raw"}],"owner":{"host_id":"","name":"","channel":""},"mine":true,"guests":["h2","h3"]}`,
		"v2": `{"id":"v2","project_id":"","engine":"local","generation":0,"size":1,"backup":{"id":"b2","blob_id":"x2","format":"qcow2","backup":true},"snapshots":[{"id":"z2"}],"fills":1,"owner":{"host_id":"","name":"","channel":""},"mine":true,"guests":["h2","h3"]}`,
	}
	theirs := map[string]string{
		"v1": `{"id":"v1","project_id":"","engine":"local","generation":3,"size":1,"owner":{"host_id":"h1","name":"name-h1","channel":"192.0.2.1:7000"},"mine":false}`,
		"v2": `{"id":"v2","project_id":"","engine":"local","generation":0,"size":1,"owner":{"host_id":"h1","name":"name-h1","channel":"192.0.2.1:7000"},"mine":false}`,
	}
	for host, want := range map[model.ID]map[string]string{"h1": mine, "h2": theirs, "h3": theirs, "h4": {}} {
		got := volumes(host)
		for id, body := range want {
			if got[id] != body {
				t.Errorf("host %s is told of volume %s\n%s\nwant\n%s", host, id, got[id], body)
			}
		}
		if len(got) != len(want) {
			t.Errorf("host %s is told of %d volumes, want %d", host, len(got), len(want))
		}
	}
	body := full(t, st, "h2")[model.RowID{Kind: model.RowServer, Key: "s1"}]
	row := decode[model.HostServer](t, body)
	if want := []model.HostDisk{{VolumeID: "v1", Device: "/dev/vdb", Tag: "data", Shared: true}}; !slices.Equal(row.Volumes, want) {
		t.Errorf("the server's row has the volumes %v, want %v", row.Volumes, want)
	}
}

// TestVolumesOnTheirWay: a volume's host is told to which engine it goes and from which it is to be gone, and of backups those that they build on: all to restore one, the newest to make one.
func TestVolumesOnTheirWay(t *testing.T) {
	st := storetest.New(t)
	do := func(f func(tx *store.Tx) error) {
		t.Helper()
		if _, err := st.Update(t.Context(), f); err != nil {
			t.Fatal(err)
		}
	}
	row := func() *model.HostVolume {
		t.Helper()
		r := decode[model.HostVolume](t, full(t, st, "h1")[model.RowID{Kind: model.RowVolume, Key: "v1"}])
		return &r
	}
	do(func(tx *store.Tx) error {
		if err := store.Hosts.Put(tx, &model.Host{Meta: model.Meta{ID: "h1", Name: "h1"}}); err != nil {
			return err
		}
		parent := ""
		for _, id := range []string{"b1", "b2", "b3"} {
			b := &model.VolumeBackup{Meta: model.Meta{ID: id}, VolumeID: "v1", BlobID: "x" + id, State: "available", Format: model.BackupChunks, ParentID: parent}
			if parent = id; id == "b3" {
				b.State, b.BlobID = "creating", ""
			}
			if err := store.VolumeBackups.Put(tx, b); err != nil {
				return err
			}
		}
		return nil
	})
	for _, c := range []struct {
		change      *model.EngineChange
		copy, clear string
	}{{nil, "", ""}, {&model.EngineChange{Engine: "nfs", TypeID: "t"}, "nfs", ""}, {&model.EngineChange{Engine: "nfs", Clear: true}, "", "nfs"}} {
		do(func(tx *store.Tx) error {
			return store.Volumes.Put(tx, &model.Volume{Meta: model.Meta{ID: "v1"}, Engine: "local", Host: "h1", Source: model.VolumeSource{BackupID: "b2"}, Change: c.change})
		})
		r := row()
		if r.Engine != "local" || r.Copy != c.copy || r.Clear != c.clear {
			t.Errorf("%+v: it is told %+v", c.change, r)
		}
		below := func(b model.HostBlob) (out []string) {
			for _, x := range b.Below {
				out = append(out, x.ID+" "+x.BlobID+" "+x.Format)
			}
			return out
		}
		if got := below(*r.Backup); !slices.Equal(got, []string{"b1 xb1 chunks"}) || r.Backup.Format != model.BackupChunks {
			t.Errorf("to restore it is told %v", got)
		}
		if len(r.Uploads) != 1 || !slices.Equal(below(r.Uploads[0]), []string{"b2 xb2 chunks"}) {
			t.Errorf("to make one it is told %+v", r.Uploads)
		}
	}
	do(func(tx *store.Tx) error { return store.VolumeBackups.Delete(tx, "b1") })
	if got := row().Backup.Below; len(got) != 1 || got[0].ID != "b1" || got[0].BlobID != "" {
		t.Errorf("of one that is gone it is told %+v", got)
	}
}

// TestVolumesGoElsewhere: the host of the place is told of that alone, the guest's host where the guest's disk is to go, and in the end the old host what it is to be rid of.
func TestVolumesGoElsewhere(t *testing.T) {
	st := storetest.New(t)
	v := &model.Volume{Meta: model.Meta{ID: "v1"}, Engine: "local", Host: "h1", SizeGiB: 1, Relocation: &model.Relocation{Number: 7, ServerID: "s1", Host: "h2", Engine: "local"}}
	put := func(stage model.RelocationStage) {
		t.Helper()
		if _, err := st.Update(t.Context(), func(tx *store.Tx) error {
			for _, h := range []string{"h1", "h2", "h3"} {
				if err := store.Hosts.Put(tx, &model.Host{Meta: model.Meta{ID: h, Name: h}}); err != nil {
					return err
				}
			}
			n := *v
			r := *v.Relocation
			r.Stage = stage
			n.Relocation = &r
			if err := store.Volumes.Put(tx, &n); err != nil {
				return err
			}
			return store.Servers.Put(tx, &model.Server{Meta: model.Meta{ID: "s1"}, Host: "h3", Volumes: []model.VolumeUse{{VolumeID: "v1"}}})
		}); err != nil {
			t.Fatal(err)
		}
	}
	told := func(host model.ID) (*model.HostVolume, *model.DiskTo) {
		t.Helper()
		rows := full(t, st, host)
		vol := decode[model.HostVolume](t, rows[model.RowID{Kind: model.RowVolume, Key: "v1"}])
		if body, ok := rows[model.RowID{Kind: model.RowServer, Key: "s1"}]; ok {
			s := decode[model.HostServer](t, body)
			return &vol, s.Volumes[0].To
		}
		return &vol, nil
	}
	for _, stage := range []model.RelocationStage{model.RelocateMaking, model.RelocateCopying, model.RelocateTurning} {
		put(stage)
		if r, _ := told("h1"); !r.Mine || r.Place != nil || !slices.Equal(r.Guests, []model.ID{"h3"}) {
			t.Errorf("%s: its host is told %+v", stage, r)
		}
		if r, _ := told("h2"); r.Mine || r.Place == nil || r.Place.Clear || r.Place.Number != 7 || !slices.Equal(r.Place.Guests, []model.ID{"h3"}) {
			t.Errorf("%s: the host of the place is told %+v", stage, r)
		}
		r, to := told("h3")
		if r.Mine || r.Place != nil || r.Owner.HostID != "h1" || (to != nil) != (stage != model.RelocateMaking) {
			t.Errorf("%s: the guest's host is told %+v, %+v", stage, r, to)
		}
		if to != nil && (to.Number != 7 || to.Owner.HostID != "h2" || to.Turn != (stage == model.RelocateTurning)) {
			t.Errorf("%s: the guest's host is told %+v", stage, to)
		}
	}
	v.Host, v.Seat, v.Relocation.Host, v.Deleted = "h2", 7, "h1", true
	put(model.RelocateClearing)
	if r, _ := told("h1"); r.Mine || r.Place == nil || !r.Place.Clear {
		t.Errorf("its old host is told %+v", r)
	}
	if r, _ := told("h2"); !r.Mine || r.Seat != 7 || r.Deleted {
		t.Errorf("its host is told %+v, before the other is rid of it", r)
	}
	if r, to := told("h3"); r.Seat != 7 || r.Owner.HostID != "h2" || to != nil {
		t.Errorf("the guest's host is told %+v, %+v", r, to)
	}
}
