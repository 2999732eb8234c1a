package hostview

import (
	"cmp"
	"iter"
	"reflect"
	"slices"

	"yakumo/model"
	"yakumo/store"
)

// places gives the hosts that a server is at: its own, and in a move both ends, each once.
func places(s *model.Server) []model.ID {
	at := []model.ID{s.Host}
	if m := s.Move; m != nil {
		at = append(at, m.Source, m.Target)
	}
	slices.Sort(at)
	at = slices.Compact(at)
	return slices.DeleteFunc(at, func(h model.ID) bool { return h == "" })
}

// openers gives the hosts whose guests have the volume, or are to have it, sorted. One that is to let go of it
// counts until its host has said that it did.
func openers(snap store.Snapshot, volume model.ID) []model.ID {
	var out []model.ID
	for s := range store.Servers.List(snap, "volume", volume) {
		if !letGo(snap, s, volume) {
			out = append(out, places(s)...)
		}
	}
	if v, ok := store.Volumes.Get(snap, volume); ok && v.Move != nil {
		out = append(out, v.Move.Host) // it reads it
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// opens tells whether a guest of the host has the volume, or is to have it.
func opens(snap store.Snapshot, volume, host model.ID) bool {
	for s := range store.Servers.List(snap, "volume", volume) {
		if slices.Contains(places(s), host) && !letGo(snap, s, volume) {
			return true
		}
	}
	return false
}

// letGo tells whether a server that is being rebuilt has said that it is off, and waits for the volume to be filled anew.
func letGo(snap store.Snapshot, s *model.Server, volume model.ID) bool {
	v, ok := store.Volumes.Get(snap, volume)
	return ok && s.Status.Rebuilds >= s.Rebuilds && slices.ContainsFunc(s.Volumes, func(u model.VolumeUse) bool { return u.VolumeID == volume && u.Fill > v.Status.Fills })
}

// volumeRow is a volume as the host needs it: all of it where the host works on it, and for another that only opens
// it, what that takes. Nil where the host has no part in it.
func volumeRow(snap store.Snapshot, id, host model.ID) model.HostRow {
	v, ok := store.Volumes.Get(snap, id)
	if !ok {
		return nil
	}
	r := &model.HostVolume{ID: v.ID, ProjectID: v.ProjectID, Engine: v.Engine, Generation: v.Generation, SizeGiB: v.SizeGiB}
	r.Seat, r.Place = v.Seat, placeAt(snap, v, host)
	if v.Move != nil && v.Move.Host == host { // it comes here
		r.Mine, r.Fills = true, v.Fills
		if h, ok := store.Hosts.Get(snap, v.Host); ok {
			r.Owner = model.HostAt{HostID: h.ID, Name: h.Name, Channel: h.Channel}
		}
		return r
	}
	if v.Host != host {
		if !opens(snap, id, host) && r.Place == nil {
			return nil
		}
		if h, ok := store.Hosts.Get(snap, v.Host); ok {
			r.Owner = model.HostAt{HostID: h.ID, Name: h.Name, Channel: h.Channel}
		}
		if v.Engine == model.EngineLocal {
			r.SizeGiB = v.Status.SizeGiB // its own host makes it larger, and says so
		}
		return r
	}
	r.Mine, r.Deleted, r.Fills = true, v.Deleted && v.Relocation == nil, v.Fills // nothing of it is left elsewhere then
	r.Guests = openers(snap, id)
	if v.Engine == model.EngineNFS {
		for _, g := range r.Guests {
			if h, ok := store.Hosts.Get(snap, g); ok && g != host {
				r.Holders = append(r.Holders, model.HostAt{HostID: h.ID, Name: h.Name, Channel: h.Channel})
			}
		}
	}
	switch c := v.Change; {
	case c == nil:
	case c.Clear:
		r.Clear = c.Engine
	default:
		r.Copy = c.Engine
	}
	from := v.Filling()
	switch {
	case from.ImageID != "":
		image := from.Image
		r.Image = &image
	case from.SnapshotID != "":
		r.Snapshot = from.SnapshotID
		if s, ok := store.VolumeSnapshots.Get(snap, from.SnapshotID); ok {
			r.Origin = s.VolumeID
		}
	case from.VolumeID != "":
		r.Origin = from.VolumeID
	case from.BackupID != "":
		r.Backup = &model.HostBlob{ID: from.BackupID, Backup: true}
		if b, ok := store.VolumeBackups.Get(snap, from.BackupID); ok {
			r.Backup.BlobID, r.Backup.Format, r.Backup.Below = b.BlobID, cmp.Or(b.Format, oldBackup), below(snap, b, mostBelow)
		}
	}
	for s := range store.VolumeSnapshots.List(snap, "volume", id) {
		r.Snapshots = append(r.Snapshots, model.HostSnapshot{ID: s.ID, Deleted: s.Deleted})
	}
	slices.SortFunc(r.Snapshots, func(a, b model.HostSnapshot) int { return cmp.Compare(a.ID, b.ID) })
	for b := range store.VolumeBackups.List(snap, "volume", id) {
		if b.State == "creating" && !b.Deleted {
			r.Uploads = append(r.Uploads, model.HostBlob{ID: b.ID, BlobID: b.BlobID, SnapshotID: b.SnapshotID, Format: cmp.Or(b.Format, oldBackup), Backup: true, Below: below(snap, b, 1)})
		}
	}
	r.Uploads = append(r.Uploads, v.Uploads...)
	slices.SortFunc(r.Uploads, func(a, b model.HostBlob) int { return cmp.Compare(a.ID, b.ID) })
	return r
}

// placeAt gives what the host is to have of a volume in another place, nil for nothing.
func placeAt(snap store.Snapshot, v *model.Volume, host model.ID) *model.HostPlace {
	n := v.Relocation
	if n == nil || n.Host != host {
		return nil
	}
	p := &model.HostPlace{Number: n.Number, Engine: n.Engine, Clear: n.Stage == model.RelocateClearing}
	if !p.Clear {
		p.Guests = openers(snap, v.ID)
	}
	return p
}

// diskTo gives where a server's disk is to go, nil where it stays.
func diskTo(snap store.Snapshot, v *model.Volume, s *model.Server) *model.DiskTo {
	n := v.Relocation
	if n == nil || n.ServerID != s.ID || n.Stage != model.RelocateCopying && n.Stage != model.RelocateTurning {
		return nil
	}
	to := &model.DiskTo{Number: n.Number, Engine: n.Engine, Turn: n.Stage == model.RelocateTurning}
	if h, ok := store.Hosts.Get(snap, n.Host); ok && n.Engine == model.EngineLocal && s.Host != n.Host {
		to.Owner = model.HostAt{HostID: h.ID, Name: h.Name, Channel: h.Channel}
	}
	return to
}

// oldBackup is what backups were kept as that do not say.
const oldBackup = "qcow2"

// mostBelow is more backups than any builds on.
const mostBelow = 1 << 12

// below gives the newest n backups that a backup builds on, the oldest first.
func below(snap store.Snapshot, b *model.VolumeBackup, n int) []model.HostBlob {
	var out []model.HostBlob
	for len(out) < n && b.ParentID != "" {
		parent, ok := store.VolumeBackups.Get(snap, b.ParentID)
		if !ok {
			out = append(out, model.HostBlob{ID: b.ParentID, Backup: true}) // which the host cannot find either
			break
		}
		out = append(out, model.HostBlob{ID: parent.ID, BlobID: parent.BlobID, Format: cmp.Or(parent.Format, oldBackup), Backup: true})
		b = parent
	}
	slices.Reverse(out)
	return out
}

// disksOf gives the volumes of a server as its host needs them.
func disksOf(snap store.Snapshot, s *model.Server) []model.HostDisk {
	var out []model.HostDisk
	for _, u := range s.Volumes {
		if u.Detaching {
			continue
		}
		d := model.HostDisk{VolumeID: u.VolumeID, Boot: u.Boot, ReadOnly: u.ReadOnly, Device: u.Device, Tag: u.Tag, Limits: u.Limits}
		if v, ok := store.Volumes.Get(snap, u.VolumeID); ok {
			d.Shared, d.ReadOnly = v.MultiAttach, d.ReadOnly || v.ReadOnly
			d.Wait = u.Fill > v.Status.Fills
			d.Failed = d.Wait && v.Status.State == "error"
			d.To = diskTo(snap, v, s)
		}
		out = append(out, d)
	}
	return out
}

// volumesAt gives the volumes that a host has a part in; some twice.
func volumesAt(snap store.Snapshot, host model.ID) iter.Seq[model.ID] {
	return func(yield func(model.ID) bool) {
		for v := range store.Volumes.List(snap, "host", host) {
			if !yield(v.ID) {
				return
			}
		}
		for s := range store.Servers.List(snap, "host", host) {
			for _, u := range s.Volumes {
				if !yield(u.VolumeID) {
					return
				}
			}
		}
	}
}

// volume marks a volume where it is known and where it should be.
func (c change) volume(id model.ID) {
	c.concern(row(model.RowVolume, id), row(model.RowVolume, id))
	if v, ok := store.Volumes.Get(c.now, id); ok {
		c.host(v.Host, row(model.RowVolume, id))
	}
	for _, h := range openers(c.now, id) {
		c.host(h, row(model.RowVolume, id))
	}
	if v, ok := store.Volumes.Get(c.now, id); ok && v.Relocation != nil {
		c.host(v.Relocation.Host, row(model.RowVolume, id))
	}
}

// volumeChanged marks a volume, and the servers that are told how they have it.
func (c change) volumeChanged(id model.ID, rs []*model.Volume) {
	c.volume(id)
	type inServers struct {
		shared, readOnly, failed bool
		fills                    int64
		to                       model.Relocation
	}
	if !differ(rs, func(v *model.Volume) inServers {
		in := inServers{shared: v.MultiAttach, readOnly: v.ReadOnly, failed: v.Status.State == "error", fills: v.Status.Fills}
		if v.Relocation != nil {
			in.to = *v.Relocation
		}
		return in
	}) {
		return
	}
	for s := range store.Servers.List(c.now, "volume", id) {
		for _, h := range places(s) {
			c.host(h, row(model.RowServer, s.ID))
		}
	}
}

// snapshotChanged marks the volumes whose rows name a snapshot: its own, and those made of it.
func (c change) snapshotChanged(id model.ID, rs []*model.VolumeSnapshot) {
	for _, s := range rs {
		c.volume(s.VolumeID)
	}
	if len(rs) == 2 {
		return // it is always of the volume that it began with
	}
	for v := range store.Volumes.List(c.now, "snapshot", id) {
		c.volume(v.ID)
	}
}

// backupChanged marks the volumes whose rows name a backup: that which it is made of, those filled from it, and those of backups that build on it.
func (c change) backupChanged(id model.ID, rs []*model.VolumeBackup) {
	for _, b := range rs {
		c.volume(b.VolumeID)
	}
	seen := map[model.ID]bool{}
	for wait := []model.ID{id}; len(wait) > 0; wait = wait[1:] {
		if seen[wait[0]] {
			continue
		}
		seen[wait[0]] = true
		for v := range store.Volumes.List(c.now, "backup", wait[0]) {
			c.volume(v.ID)
		}
		for b := range store.VolumeBackups.List(c.now, "parent", wait[0]) {
			c.volume(b.VolumeID)
			wait = append(wait, b.ID)
		}
	}
}

// used marks the volumes of a server that has others now, or is elsewhere.
func (c change) used(rs []*model.Server) {
	if len(rs) == 2 && reflect.DeepEqual(rs[0].Volumes, rs[1].Volumes) && rs[0].Rebuilds == rs[1].Rebuilds && rs[0].Status.Rebuilds == rs[1].Status.Rebuilds && slices.Equal(places(rs[0]), places(rs[1])) {
		return
	}
	for _, s := range rs {
		for _, u := range s.Volumes {
			c.volume(u.VolumeID)
		}
	}
}

// reached marks the volumes that a host whose channel is elsewhere now has a part in.
func (c change) reached(host model.ID, rs []*model.Host) {
	if len(rs) == 2 && rs[0].Channel == rs[1].Channel && rs[0].Name == rs[1].Name {
		return
	}
	for v := range volumesAt(c.now, host) {
		c.volume(v)
		if x, ok := store.Volumes.Get(c.now, v); ok && x.Relocation != nil && x.Relocation.Host == host { // its guest's host is told where that is
			for s := range store.Servers.List(c.now, "volume", v) {
				for _, h := range places(s) {
					c.host(h, row(model.RowServer, s.ID))
				}
			}
		}
	}
}
