package check

import (
	"fmt"
	"slices"
	"strings"

	"yakumo/model"
	"yakumo/placement"
	"yakumo/store"
)

// walk looks at the rows of one snapshot.
type walk struct {
	snap   store.Snapshot
	ratios placement.Ratios
	r      Report
}

func (w *walk) find(rule, kind, id, format string, args ...any) {
	w.r.Findings = append(w.r.Findings, Finding{Rule: rule, Kind: kind, ID: id, Detail: fmt.Sprintf(format, args...)})
}

func (w *walk) servers() {
	for s := range store.Servers.All(w.snap) {
		w.r.Rows++
		if s.Host != "" {
			if _, ok := store.Hosts.Get(w.snap, s.Host); !ok && !s.Deleted {
				w.find("server-host-exists", "server", s.ID, "its host %s is not in the cloud", s.Host)
			}
		}
		switch s.Status.Phase {
		case model.PhaseFetching, model.PhaseStarting, model.PhaseReady:
			if s.Host == "" {
				w.find("server-has-host", "server", s.ID, "it is in phase %s without a host", s.Status.Phase)
			}
		case model.PhasePlacing, model.PhaseShelved:
			if s.Host != "" {
				w.find("server-has-no-host", "server", s.ID, "it is in phase %s on host %s", s.Status.Phase, s.Host)
			}
		}
		if s.Deleted != (s.Status.Phase == model.PhaseDeleting) {
			w.find("server-deleting", "server", s.ID, "deleted is %v in phase %s", s.Deleted, s.Status.Phase)
		}
		if s.Status.Task != "" && s.Status.Action == "" {
			w.find("server-task-has-action", "server", s.ID, "task %s belongs to no action", s.Status.Task)
		}
		for _, id := range s.Ports {
			p, ok := store.Ports.Get(w.snap, id)
			switch {
			case !ok:
				w.find("server-port-exists", "server", s.ID, "its port %s does not exist", id)
			case p.DeviceID != s.ID:
				w.find("server-port-is-its-own", "server", s.ID, "its port %s belongs to %q", id, p.DeviceID)
			case p.Host != s.Host:
				w.find("server-port-on-host", "server", s.ID, "its port %s is on host %q, it is on %q", id, p.Host, s.Host)
			}
		}
		for _, v := range s.Volumes {
			row, ok := store.Volumes.Get(w.snap, v.VolumeID)
			if !ok {
				w.find("server-volume-exists", "server", s.ID, "its volume %s does not exist", v.VolumeID)
			} else if !slices.ContainsFunc(row.Attachments, func(a model.Attachment) bool { return a.ServerID == s.ID }) {
				w.find("server-volume-attached", "server", s.ID, "its volume %s has no attachment to it", v.VolumeID)
			}
		}
		if s.GroupID != "" {
			if _, ok := store.ServerGroups.Get(w.snap, s.GroupID); !ok {
				w.find("server-group-exists", "server", s.ID, "its group %s does not exist", s.GroupID)
			}
		}
		if m := s.Move; m != nil {
			if mig, ok := store.Migrations.Get(w.snap, m.ID); !ok {
				w.find("move-has-migration", "server", s.ID, "its move %s has no record", m.ID)
			} else if mig.ServerID != s.ID {
				w.find("move-has-migration", "server", s.ID, "its move %s is recorded for server %s", m.ID, mig.ServerID)
			}
			if s.Host != m.Source && s.Host != m.Target {
				w.find("move-has-the-host", "server", s.ID, "it is on %s, and moves from %s to %s", s.Host, m.Source, m.Target)
			}
		}
	}
}

func (w *walk) ports() {
	for p := range store.Ports.All(w.snap) {
		w.r.Rows++
		if _, ok := store.Networks.Get(w.snap, p.NetworkID); !ok {
			w.find("port-network-exists", "port", p.ID, "its network %s does not exist", p.NetworkID)
		}
		for _, h := range []model.ID{p.Host, p.NextHost} {
			if h == "" {
				continue
			}
			if _, ok := store.Hosts.Get(w.snap, h); !ok {
				w.find("port-host-exists", "port", p.ID, "its host %s is not in the cloud", h)
			}
		}
		s, of := store.Servers.Get(w.snap, p.DeviceID)
		if p.NextHost != "" && (!of || s.Move == nil || s.Move.Target != p.NextHost) {
			w.find("port-next-host-is-a-move", "port", p.ID, "host %s makes ready for it, and its server does not move there", p.NextHost)
		}
		if p.Owned && !of && strings.HasPrefix(p.DeviceOwner, "compute:") {
			w.find("port-has-server", "port", p.ID, "it was made for server %s, which is gone", p.DeviceID)
		}
		for _, g := range p.Groups {
			if _, ok := store.SecurityGroups.Get(w.snap, g); !ok {
				w.find("port-group-exists", "port", p.ID, "its group %s does not exist", g)
			}
		}
	}
}

// over are the statuses of a migration that has ended.
var over = []string{"completed", "confirmed", "reverted", "cancelled", "error", "failed", "done"}

func (w *walk) migrations() {
	for m := range store.Migrations.All(w.snap) {
		w.r.Rows++
		if slices.Contains(over, m.Status) {
			continue
		}
		if s, ok := store.Servers.Get(w.snap, m.ServerID); !ok || s.Move == nil || s.Move.ID != m.ID {
			w.find("migration-has-move", "migration", m.ID, "it is %s, and server %s is not in it", m.Status, m.ServerID)
		}
	}
}

func (w *walk) volumes() {
	for v := range store.Volumes.All(w.snap) {
		w.r.Rows++
		for _, a := range v.Attachments {
			if a.ServerID == "" {
				continue
			}
			s, ok := store.Servers.Get(w.snap, a.ServerID)
			switch {
			case !ok:
				w.find("attachment-has-server", "volume", v.ID, "it is attached to server %s, which is gone", a.ServerID)
			case a.State == "attached" && !slices.ContainsFunc(s.Volumes, func(u model.VolumeUse) bool { return u.VolumeID == v.ID }):
				w.find("attachment-is-the-servers", "volume", v.ID, "server %s does not have it", a.ServerID)
			}
		}
		if v.Status.State == "in-use" && len(v.Attachments) == 0 {
			w.find("volume-in-use", "volume", v.ID, "it is in-use without an attachment")
		}
		if v.Status.State == "available" && slices.ContainsFunc(v.Attachments, func(a model.Attachment) bool { return a.State == "attached" }) {
			w.find("volume-available", "volume", v.ID, "it is available and attached")
		}
	}
	for s := range store.VolumeSnapshots.All(w.snap) {
		w.r.Rows++
		if _, ok := store.Volumes.Get(w.snap, s.VolumeID); !ok {
			w.find("snapshot-has-volume", "snapshot", s.ID, "its volume %s does not exist", s.VolumeID)
		}
	}
}

// hosts checks that no host was promised away twice.
func (w *walk) hosts() {
	promised := store.Promises(w.snap)
	for h := range store.Hosts.All(w.snap) {
		w.r.Rows++
		if h.Switch != nil || h.Capacity.VCPUs == 0 { // it has not said yet what it has
			continue
		}
		var used placement.Size
		for s := range store.Servers.List(w.snap, "host", h.ID) {
			used = used.Add(placement.SizeOn(s, h.ID))
		}
		limit := placement.Limit(placement.CapacityOf(&h.Capacity), w.ratios)
		for _, x := range []struct {
			what      string
			used, max int
		}{{"vCPUs", used.VCPUs, limit.VCPUs}, {"MiB of memory", used.MemoryMiB, limit.MemoryMiB}, {"GiB of disk", used.DiskGiB, limit.DiskGiB},
			{"CPUs for single servers", used.PCPUs, limit.PCPUs}, {"MiB in pages of 2 MiB", used.PagesMiB[0], limit.PagesMiB[0]}, {"MiB in pages of 1 GiB", used.PagesMiB[1], limit.PagesMiB[1]}} {
			if x.used > x.max {
				w.find("host-not-overfull", "host", h.ID, "%d %s are promised of %d", x.used, x.what, x.max)
			}
		}
		for t, n := range promised[h.ID] {
			if n > h.Bandwidth[t.Network] {
				w.find("host-bandwidth", "host", h.ID, "%d of %d are promised on %s %s", n, h.Bandwidth[t.Network], t.Network, t.Direction)
			}
		}
	}
}
