package volume

import (
	"cmp"
	"slices"
	"strconv"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// Spec is what a request wants of a new volume. At most one of Image, SnapshotID, SourceID and BackupID is set.
type Spec struct {
	ProjectID   model.ID // "": the scope's
	Name        string
	Description string
	SizeGiB     int    // 0: that of the source
	Type        string // name or id; "": that of the source, or the default
	Zone        string
	MultiAttach bool
	Metadata    map[string]string
	Image       *model.Image
	Copy        model.ImageCopy
	SnapshotID  model.ID
	SourceID    model.ID
	BackupID    model.ID
	// Token, where not "", is the client's own name for the request: a volume that was made with it is given again.
	Token string
}

// Limits of a volume.
const (
	MaxMetadata = 128     // items
	MaxSizeGiB  = 1 << 20 // 1 PiB
)

// imageMetadata is what is shown of an image at a volume made of it, as Cinder does.
func imageMetadata(img *model.Image) map[string]string {
	out := map[string]string{"image_id": img.ID, "image_name": img.Name, "disk_format": img.DiskFormat, "container_format": img.ContainerFormat,
		"checksum": img.Checksum, "size": strconv.FormatInt(img.Size, 10), "min_disk": strconv.Itoa(img.MinDiskGiB), "min_ram": strconv.Itoa(img.MinRAMMiB)}
	for k, x := range img.Properties {
		if len(out) < MaxMetadata {
			out[k] = x
		}
	}
	return out
}

// Create makes a volume that waits for its host.
//
// Errors: fault.NotFound for a source or a type that is not the scope's; fault.Invalid where the size is too
// small for the source, or the source is in another state than one to copy from; fault.OverQuota; fault.Conflict where the
// request's token was that of another request.
func (v *Volumes) Create(tx *store.Tx, sc Scope, n Spec) (*model.Volume, error) {
	if n.Token != "" {
		if made, err := again(tx, cmp.Or(n.ProjectID, sc.ProjectID), n); made != nil || err != nil {
			return made, err
		}
	}
	now := v.now()
	x := &model.Volume{Meta: model.NewMeta(cmp.Or(n.ProjectID, sc.ProjectID), n.Name, now), UserID: sc.UserID, SizeGiB: n.SizeGiB, Zone: cmp.Or(n.Zone, v.zoneOf(tx, cmp.Or(n.ProjectID, sc.ProjectID))),
		MultiAttach: n.MultiAttach, Metadata: cloneMap(n.Metadata), Token: n.Token, RequestID: sc.RequestID, Status: model.VolumeStatus{State: Creating}}
	x.Description = n.Description
	if err := v.fromSource(tx, sc, x, n); err != nil {
		return nil, err
	}
	t, err := v.typeOf(tx, sc, cmp.Or(n.Type, x.TypeID))
	if err != nil {
		return nil, err
	}
	name := ""
	engine := v.cfg.Engine
	if t != nil {
		x.TypeID, name = t.ID, t.Name
		engine = cmp.Or(EngineOf(t), v.cfg.Engine)
		x.MultiAttach = x.MultiAttach || MultiAttach(t)
	}
	switch {
	// A snapshot or a volume is copied by the engine that has it.
	case x.Engine != "" && x.Engine != engine:
		return nil, fault.New(fault.Invalid, "Invalid input received: Invalid volume type provided: %s (requested type is not compatible; either match source volume, or omit type argument).", clip(n.Type))
	case x.MultiAttach && (t == nil || !MultiAttach(t)):
		return nil, fault.New(fault.Invalid, "Invalid input received: multiattach parameter has been removed. The default behavior is to use multiattach enabled volume types. Contact your administrator to create a multiattach enabled volume type and use it to create multiattach volumes.")
	case x.SizeGiB <= 0 || x.SizeGiB > MaxSizeGiB:
		return nil, fault.New(fault.Invalid, "Invalid input received: Volume size '%d' must be an integer and greater than 0", x.SizeGiB)
	}
	x.Engine = engine
	if err := v.zone(tx, x.Zone); err != nil {
		return nil, err
	}
	if err := v.spend(tx, x.ProjectID, name, want{QuotaVolumes: 1, QuotaGigabytes: x.SizeGiB}); err != nil {
		return nil, err
	}
	if t != nil {
		tx.Mark(typeMark(t.ID))
	}
	return x, store.Volumes.Put(tx, x)
}

// again gives the volume that an earlier request with the same token made; nil: there was none.
func again(tx *store.Tx, project model.ID, n Spec) (*model.Volume, error) {
	mark := "volume-token," + project + "," + n.Token // two at once are put in order
	tx.Mark(mark)
	tx.Guard(mark)
	for x := range store.Volumes.List(tx, "token", project+","+n.Token) {
		switch {
		case n.SizeGiB != 0 && n.SizeGiB != x.SizeGiB, n.SnapshotID != x.Source.SnapshotID, n.Zone != "" && n.Zone != x.Zone:
			return nil, fault.New(fault.Conflict, "The volume %s was made with the same token and other parameters.", x.ID)
		default:
			return x, nil
		}
	}
	return nil, nil
}

// fromSource checks what the volume is filled from, and takes of it what the request leaves open.
func (v *Volumes) fromSource(tx *store.Tx, sc Scope, x *model.Volume, n Spec) error {
	switch {
	case n.Image != nil:
		x.Source = model.VolumeSource{ImageID: n.Image.ID, Image: n.Copy}
		x.Bootable, x.ImageMetadata = true, imageMetadata(n.Image)
		need := int((max(n.Image.VirtualSize, n.Image.Size) + 1<<30 - 1) >> 30)
		if x.SizeGiB == 0 {
			x.SizeGiB = max(need, n.Image.MinDiskGiB, 1)
		}
		switch {
		case need > x.SizeGiB:
			return fault.New(fault.Invalid, "Invalid input received: Size of specified image %dGB is larger than volume size %dGB.", need, x.SizeGiB)
		case n.Image.MinDiskGiB > x.SizeGiB:
			return fault.New(fault.Invalid, "Invalid input received: Volume size %dGB cannot be smaller than the image minDisk size %dGB.", x.SizeGiB, n.Image.MinDiskGiB)
		}
	case n.SnapshotID != "":
		s, err := GetSnapshot(tx, sc, n.SnapshotID)
		if err != nil {
			return err
		}
		o, ok := store.Volumes.Get(tx, s.VolumeID)
		switch {
		case !ok || s.State != Available || s.Deleted:
			return fault.New(fault.Invalid, "Invalid snapshot: Originating snapshot status must be one of 'available' values")
		case x.SizeGiB == 0:
			x.SizeGiB = s.SizeGiB
		case x.SizeGiB < s.SizeGiB:
			return fault.New(fault.Invalid, "Invalid input received: Volume size '%d'GB cannot be smaller than the snapshot size %dGB. They must be >= original snapshot size.", x.SizeGiB, s.SizeGiB)
		}
		x.Source = model.VolumeSource{SnapshotID: s.ID}
		inherit(x, o)
		tx.Mark(sourceMark(s.ID))
	case n.SourceID != "":
		o, err := Get(tx, sc, n.SourceID)
		if err != nil {
			return err
		}
		switch {
		case o.Status.State != Available && o.Status.State != InUse:
			return fault.New(fault.Invalid, "Invalid volume: Unable to create a volume from an originating source volume when its status is not one of ('available', 'in-use') values")
		case x.SizeGiB == 0:
			x.SizeGiB = o.SizeGiB
		case x.SizeGiB < o.SizeGiB:
			return fault.New(fault.Invalid, "Invalid input received: Volume size '%d'GB cannot be smaller than original volume size %dGB. They must be >= original volume size.", x.SizeGiB, o.SizeGiB)
		}
		x.Source = model.VolumeSource{VolumeID: o.ID}
		inherit(x, o)
		tx.Mark(sourceMark(o.ID))
	case n.BackupID != "":
		b, err := GetBackup(tx, sc, n.BackupID)
		if err != nil {
			return err
		}
		if b.State != Available {
			return fault.New(fault.Invalid, "Invalid backup: Backup status must be available")
		}
		if x.SizeGiB == 0 {
			x.SizeGiB = b.SizeGiB
		}
		if x.SizeGiB < b.SizeGiB {
			return fault.New(fault.Invalid, "Invalid volume: Volume size %d GB is too small to restore backup of size %d GB.", x.SizeGiB, b.SizeGiB)
		}
		x.Source = model.VolumeSource{BackupID: b.ID}
	}
	return nil
}

// inherit takes over what a copy has of its original. It is made where that is.
func inherit(x, o *model.Volume) {
	x.Engine, x.Host, x.TypeID = o.Engine, o.Host, o.TypeID
	x.Bootable, x.ImageMetadata, x.Zone = o.Bootable, o.ImageMetadata, o.Zone
}

// zone refuses an availability zone that no host is of.
func (v *Volumes) zone(r store.Reader, name string) error {
	if name == v.cfg.Zone {
		return nil
	}
	for h := range store.Hosts.All(r) {
		if h.Zone == name {
			return nil
		}
	}
	return fault.New(fault.Invalid, "Availability zone '%s' is invalid.", clip(name))
}

// sourceMark is what making a copy marks, and removing the original guards.
func sourceMark(id model.ID) string { return "volume-source," + id }

// Update is what a request changes of a volume, a snapshot or a backup; nil: nothing.
type Update struct {
	Name, Description *string
	Metadata          map[string]string // nil: nothing; else in the place of what is there
}

func (u Update) apply(m *model.Meta, metadata *map[string]string) {
	if u.Name != nil {
		m.Name = *u.Name
	}
	if u.Description != nil {
		m.Description = *u.Description
	}
	if u.Metadata != nil && metadata != nil {
		*metadata = cloneMap(u.Metadata)
	}
}

// Update changes a volume's names and metadata.
func (v *Volumes) Update(tx *store.Tx, sc Scope, id model.ID, u Update) (*model.Volume, error) {
	return v.change(tx, sc, id, false, func(x *model.Volume) error {
		u.apply(&x.Meta, &x.Metadata)
		return metadataFits(x.Metadata)
	})
}

func metadataFits(m map[string]string) error {
	if len(m) > MaxMetadata {
		return fault.New(fault.Invalid, "Metadata property count exceeds the limit of %d.", MaxMetadata)
	}
	return nil
}

// SetMetadata lets f make the new metadata of a volume from the old, which it may change.
func (v *Volumes) SetMetadata(tx *store.Tx, sc Scope, id model.ID, f func(map[string]string) (map[string]string, error)) (*model.Volume, error) {
	return v.change(tx, sc, id, false, func(x *model.Volume) (err error) {
		if x.Metadata, err = remade(x.Metadata, f); err != nil {
			return err
		}
		return metadataFits(x.Metadata)
	})
}

// SetImageMetadata does the same with what is known of the image that the volume was made of.
func (v *Volumes) SetImageMetadata(tx *store.Tx, sc Scope, id model.ID, f func(map[string]string) (map[string]string, error)) (*model.Volume, error) {
	return v.change(tx, sc, id, false, func(x *model.Volume) (err error) {
		if x.ImageMetadata, err = remade(x.ImageMetadata, f); err != nil {
			return err
		}
		return metadataFits(x.ImageMetadata)
	})
}

func remade(m map[string]string, f func(map[string]string) (map[string]string, error)) (map[string]string, error) {
	c := cloneMap(m)
	if c == nil {
		c = map[string]string{}
	}
	return f(c)
}

// Delete wants a volume gone. One that never got a host, or whose host was removed from the cloud, goes
// at once; otherwise its host removes it and says so. cascade takes its snapshots with it; force does
// not ask for its state.
//
// Errors: fault.NotFound; fault.Invalid where it is used, has snapshots, or is in another state.
func (v *Volumes) Delete(tx *store.Tx, sc Scope, id model.ID, cascade, force bool) error {
	old, err := Get(tx, sc, id)
	if err != nil {
		return err
	}
	if old.Deleted {
		return nil
	}
	snapshots := slices.Collect(store.VolumeSnapshots.List(tx, "volume", id))
	switch {
	case len(old.Attachments) > 0 && force, len(snapshots) > 0 && !cascade, !force && !removable(old):
		return fault.New(fault.Invalid, "Invalid volume: Volume status must be available or error or error_restoring or error_extending or error_managing and must not be migrating, attached, belong to a group, have snapshots, awaiting a transfer, or be disassociated from snapshots after volume transfer.")
	}
	for _, s := range snapshots {
		if s.State != Available && s.State != Errored && s.State != ErrorDeleting && !force {
			return fault.New(fault.Invalid, "Invalid volume: Volume status must be available or error, and all its snapshots too: snapshot %s is %s.", s.ID, s.State)
		}
		if copied(tx, s.ID) {
			return fault.New(fault.Invalid, "Invalid snapshot: Snapshot %s is being copied to a volume.", s.ID)
		}
	}
	tx.Guard(sourceMark(id))
	if copying(tx, id) {
		return fault.New(fault.Invalid, "Invalid volume: Volume %s is being copied to another.", id)
	}
	return v.remove(tx, old, sc.RequestID)
}

// removable tells whether nothing is done to the volume and nobody uses it.
func removable(x *model.Volume) bool {
	switch x.Status.State {
	case Available, Errored, ErrorRestoring, ErrorExtending, ErrorDeleting:
		return len(x.Attachments) == 0 && x.Relocation == nil
	}
	return false
}

// remove is Delete without its questions.
func (v *Volumes) remove(tx *store.Tx, old *model.Volume, request string) error {
	x := copyOf(old)
	x.Deleted, x.Status.State, x.RequestID, x.Move = true, Deleting, request, nil
	if c := x.Change; c != nil { // wherever it is, it goes
		x.Change = &model.EngineChange{Engine: c.Engine, Clear: true}
	}
	x.Touch(v.now())
	for _, s := range slices.Collect(store.VolumeSnapshots.List(tx, "volume", x.ID)) {
		c := *s
		c.Deleted, c.State, c.Since = true, Deleting, x.Generation
		c.Touch(v.now())
		if err := store.VolumeSnapshots.Put(tx, &c); err != nil {
			return err
		}
	}
	if _, there := store.Hosts.Get(tx, x.Host); !there {
		return v.gone(tx, x)
	}
	return store.Volumes.Put(tx, x)
}

// copying tells whether a volume that is being made needs this one.
func copying(r store.Reader, id model.ID) bool {
	for x := range store.Volumes.List(r, "source", id) {
		if x.Status.State == Creating && !x.Deleted {
			return true
		}
	}
	return false
}

// copied tells the same of a snapshot.
func copied(r store.Reader, id model.ID) bool {
	for x := range store.Volumes.List(r, "snapshot", id) {
		if x.Status.State == Creating && !x.Deleted {
			return true
		}
	}
	return false
}

// Extend makes a volume larger; one that a guest uses too, while it runs.
//
// Errors: fault.Invalid for a size that is not larger, another state, or an engine that cannot do so while a guest has
// the volume; fault.OverQuota.
func (v *Volumes) Extend(tx *store.Tx, sc Scope, id model.ID, size int, online bool) (*model.Volume, error) {
	return v.change(tx, sc, id, true, func(x *model.Volume) error {
		if x.Status.State != Available && !(online && x.Status.State == InUse) {
			expected := Available
			if online {
				expected = "available or in-use"
			}
			return fault.New(fault.Invalid, "Invalid volume: Volume %s status must be '%s' to extend, currently %s.", x.ID, expected, x.Status.State)
		}
		if x.Status.State == InUse && x.Engine == model.EngineLocal && len(x.Attachments) > 1 {
			// Its host holds the one guest that has it meanwhile; of several, some may be on their way elsewhere.
			return fault.New(fault.Invalid, "Invalid volume: Volume %s is in use by several servers, and a volume of the engine %s grows under one at most. Detach it from the others first.", x.ID, x.Engine)
		}
		if size <= x.SizeGiB || size > MaxSizeGiB {
			return fault.New(fault.Invalid, "Invalid input received: New size for extend must be greater than current size. (current: %d, extended: %d).", x.SizeGiB, size)
		}
		if err := v.spend(tx, x.ProjectID, TypeName(tx, x.TypeID), want{QuotaGigabytes: size - x.SizeGiB}); err != nil {
			return err
		}
		x.SizeGiB, x.Status.State, x.Status.Fault = size, Extending, nil
		return nil
	})
}
