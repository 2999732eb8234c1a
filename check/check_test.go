package check_test

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"testing"
	"time"

	"yakumo/check"
	"yakumo/model"
	"yakumo/placement"
	"yakumo/store"
	"yakumo/store/storetest"
)

// world is a cloud of two hosts in which everything agrees: a server with a port and a volume, one that moves, and one
// in a group.
type world struct {
	t    *testing.T
	st   *store.Store
	have map[model.ID]*model.Inventory
	h1   *model.Host
	h2   *model.Host
	s    *model.Server
	p    *model.Port
	v    *model.Volume
	move *model.Server
	mig  *model.Migration
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, st: storetest.New(t), have: map[model.ID]*model.Inventory{}}
	now := time.Now().UTC()
	host := func(name string) *model.Host {
		return &model.Host{Meta: model.NewMeta("", name, now), Capacity: model.HostCapacity{VCPUs: 4, MemoryMiB: 4096, DiskGiB: 100}}
	}
	server := func(name string, h *model.Host) *model.Server {
		return &model.Server{Meta: model.NewMeta("p", name, now), Flavor: model.Flavor{VCPUs: 1, MemoryMiB: 256, DiskGiB: 1}, Host: h.ID, Power: model.PowerRunning,
			Status: model.ServerStatus{Phase: model.PhaseReady, Power: model.PowerRunning, LaunchedAt: now}}
	}
	w.h1, w.h2 = host("h1"), host("h2")
	n := &model.Network{Meta: model.NewMeta("p", "n", now), VNI: 1}
	w.s, w.move = server("s", w.h1), server("m", w.h1)
	g := &model.ServerGroup{ID: model.NewID(), ProjectID: "p", Policy: "affinity"}
	w.s.GroupID = g.ID
	w.p = &model.Port{Meta: model.NewMeta("p", "", now), NetworkID: n.ID, MAC: "fa:16:3e:00:00:01", DeviceID: w.s.ID, DeviceOwner: "compute:nova", Owned: true, Host: w.h1.ID}
	w.s.Ports = []model.ID{w.p.ID}
	w.v = &model.Volume{Meta: model.NewMeta("p", "v", now), SizeGiB: 1, Engine: "local", Host: w.h1.ID, Status: model.VolumeStatus{State: "in-use"},
		Attachments: []model.Attachment{{ID: model.NewID(), ServerID: w.s.ID, State: "attached"}}}
	w.s.Volumes = []model.VolumeUse{{VolumeID: w.v.ID, AttachmentID: w.v.Attachments[0].ID}}
	w.mig = &model.Migration{ID: model.NewID(), Number: 1, ServerID: w.move.ID, Status: "running", Source: w.h1.ID, Target: w.h2.ID}
	w.move.Move = &model.Move{ID: w.mig.ID, Kind: model.MoveLive, Stage: model.MoveRunning, Source: w.h1.ID, Target: w.h2.ID}
	w.put(func(tx *store.Tx) error {
		return errors.Join(store.Hosts.Put(tx, w.h1), store.Hosts.Put(tx, w.h2), store.Networks.Put(tx, n), store.Servers.Put(tx, w.s), store.Servers.Put(tx, w.move),
			store.ServerGroups.Put(tx, g), store.Ports.Put(tx, w.p), store.Volumes.Put(tx, w.v), store.Migrations.Put(tx, w.mig),
			store.Heartbeats.Put(tx, &model.Heartbeat{HostID: w.h1.ID, At: now}), store.Heartbeats.Put(tx, &model.Heartbeat{HostID: w.h2.ID, At: now}))
	})
	running := func(s *model.Server) model.GuestAt { return model.GuestAt{ID: s.ID, Power: model.PowerRunning} }
	w.have[w.h1.ID] = &model.Inventory{Guests: []model.GuestAt{running(w.s), running(w.move)}, Folders: []model.ID{w.s.ID, w.move.ID}, Taps: []string{model.TapName(w.p.ID)}, Volumes: []model.ID{w.v.ID}}
	w.have[w.h2.ID] = &model.Inventory{Guests: []model.GuestAt{{ID: w.move.ID, Power: model.PowerPaused}}, Folders: []model.ID{w.move.ID}}
	return w
}

func (w *world) put(f func(tx *store.Tx) error) {
	w.t.Helper()
	if _, err := w.st.Update(w.t.Context(), f); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) checker() *check.Checker {
	return &check.Checker{Store: w.st, Again: time.Millisecond, Ratios: placement.Ratios{VCPU: 1, Memory: 1, ReservedMiB: -1}, Ask: func(_ context.Context, host model.ID, name string, _ []byte) ([]byte, error) {
		if name != "inventory" || w.have[host] == nil {
			return nil, errors.New("it does not answer")
		}
		return json.Marshal(w.have[host])
	}}
}

func rules(r check.Report) []string {
	var out []string
	for _, f := range r.Findings {
		out = append(out, f.Rule)
	}
	return out
}

// TestRules breaks every rule once, and looks that it is the one that is found.
func TestRules(t *testing.T) {
	sound := newWorld(t)
	if r, err := sound.checker().World(t.Context()); err != nil || len(r.Findings) != 0 || r.Hosts != 2 || r.Rows == 0 {
		t.Fatalf("a sound cloud: %+v, %v", r, err)
	}
	for rule, spoil := range map[string]func(w *world, tx *store.Tx) error{
		"server-host-exists": func(w *world, tx *store.Tx) error { w.s.Host = "gone"; return store.Servers.Put(tx, w.s) },
		"server-has-host":    func(w *world, tx *store.Tx) error { w.s.Host = ""; return store.Servers.Put(tx, w.s) },
		"server-has-no-host": func(w *world, tx *store.Tx) error {
			w.s.Status.Phase = model.PhaseShelved
			return store.Servers.Put(tx, w.s)
		},
		"server-deleting":           func(w *world, tx *store.Tx) error { w.s.Deleted = true; return store.Servers.Put(tx, w.s) },
		"server-task-has-action":    func(w *world, tx *store.Tx) error { w.s.Status.Task = "pausing"; return store.Servers.Put(tx, w.s) },
		"server-port-exists":        func(w *world, tx *store.Tx) error { return store.Ports.Delete(tx, w.p.ID) },
		"server-port-is-its-own":    func(w *world, tx *store.Tx) error { w.p.DeviceID = w.move.ID; return store.Ports.Put(tx, w.p) },
		"server-port-on-host":       func(w *world, tx *store.Tx) error { w.p.Host = w.h2.ID; return store.Ports.Put(tx, w.p) },
		"server-volume-exists":      func(w *world, tx *store.Tx) error { return store.Volumes.Delete(tx, w.v.ID) },
		"server-volume-attached":    func(w *world, tx *store.Tx) error { w.v.Attachments = nil; return store.Volumes.Put(tx, w.v) },
		"server-group-exists":       func(w *world, tx *store.Tx) error { return store.ServerGroups.Delete(tx, w.s.GroupID) },
		"move-has-migration":        func(w *world, tx *store.Tx) error { return store.Migrations.Delete(tx, w.mig.ID) },
		"move-has-the-host":         func(w *world, tx *store.Tx) error { w.move.Move.Source = "gone"; return store.Servers.Put(tx, w.move) },
		"port-network-exists":       func(w *world, tx *store.Tx) error { return store.Networks.Delete(tx, w.p.NetworkID) },
		"port-host-exists":          func(w *world, tx *store.Tx) error { w.p.Host = "gone"; return store.Ports.Put(tx, w.p) },
		"port-next-host-is-a-move":  func(w *world, tx *store.Tx) error { w.p.NextHost = w.h2.ID; return store.Ports.Put(tx, w.p) },
		"port-has-server":           func(w *world, tx *store.Tx) error { return store.Servers.Delete(tx, w.s.ID) },
		"port-group-exists":         func(w *world, tx *store.Tx) error { w.p.Groups = []model.ID{"gone"}; return store.Ports.Put(tx, w.p) },
		"migration-has-move":        func(w *world, tx *store.Tx) error { w.move.Move = nil; return store.Servers.Put(tx, w.move) },
		"attachment-has-server":     func(w *world, tx *store.Tx) error { return store.Servers.Delete(tx, w.s.ID) },
		"attachment-is-the-servers": func(w *world, tx *store.Tx) error { w.s.Volumes = nil; return store.Servers.Put(tx, w.s) },
		"volume-in-use":             func(w *world, tx *store.Tx) error { w.v.Attachments = nil; return store.Volumes.Put(tx, w.v) },
		"volume-available":          func(w *world, tx *store.Tx) error { w.v.Status.State = "available"; return store.Volumes.Put(tx, w.v) },
		"host-not-overfull":         func(w *world, tx *store.Tx) error { w.s.Flavor.VCPUs = 4; return store.Servers.Put(tx, w.s) },
		"snapshot-has-volume": func(w *world, tx *store.Tx) error {
			return store.VolumeSnapshots.Put(tx, &model.VolumeSnapshot{Meta: model.NewMeta("p", "", time.Now()), VolumeID: "gone"})
		},
		"no-orphan-guest": func(w *world, _ *store.Tx) error {
			w.have[w.h2.ID].Guests = append(w.have[w.h2.ID].Guests, model.GuestAt{ID: "stray"})
			return nil
		},
		"power-is-told":  func(w *world, _ *store.Tx) error { w.have[w.h1.ID].Guests[0].Power = model.PowerOff; return nil },
		"guest-is-there": func(w *world, _ *store.Tx) error { w.have[w.h1.ID].Guests = w.have[w.h1.ID].Guests[1:]; return nil },
		"no-orphan-disk": func(w *world, _ *store.Tx) error {
			w.have[w.h2.ID].Folders = append(w.have[w.h2.ID].Folders, w.s.ID)
			return nil
		},
		"no-orphan-tap":    func(w *world, _ *store.Tx) error { w.have[w.h2.ID].Taps = []string{"yk0123456789abc"}; return nil },
		"no-orphan-volume": func(w *world, _ *store.Tx) error { w.have[w.h2.ID].Volumes = []model.ID{w.v.ID}; return nil },
		"nothing-laid-aside": func(w *world, _ *store.Tx) error {
			w.have[w.h1.ID].Quarantined = []model.Quarantined{{Kind: model.RowVolume, ID: "v", Folder: "/q/volume-v"}}
			return nil
		},
		"cpu-is-one-guests": func(w *world, _ *store.Tx) error {
			w.have[w.h1.ID].Guests[0].CPUs, w.have[w.h1.ID].Guests[1].CPUs = []int{1, 2}, []int{2, 3}
			return nil
		},
		"one-run": func(w *world, _ *store.Tx) error { w.have[w.h2.ID].Guests[0].Power = model.PowerRunning; return nil },
	} {
		t.Run(rule, func(t *testing.T) {
			w := newWorld(t)
			w.put(func(tx *store.Tx) error { return spoil(w, tx) })
			r, err := w.checker().World(t.Context())
			if err != nil || !slices.Contains(rules(r), rule) {
				t.Errorf("found %v, %v", r.Findings, err)
			}
			for _, f := range r.Findings {
				if f.ID == "" || f.Detail == "" || f.String() == "" {
					t.Errorf("it says too little: %+v", f)
				}
			}
		})
	}
}

// TestSilentHosts: of a host that is down or does not answer nothing is said but that.
func TestSilentHosts(t *testing.T) {
	w := newWorld(t)
	w.put(func(tx *store.Tx) error { return store.Heartbeats.Delete(tx, w.h1.ID) })
	delete(w.have, w.h2.ID)
	r, err := w.checker().World(t.Context())
	if err != nil || len(r.Findings) != 0 || r.Hosts != 0 || !slices.Equal(r.Silent, []string{"h1", "h2"}) {
		t.Errorf("%+v, %v", r, err)
	}
}
