package volume

import (
	"cmp"
	"slices"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// guestOf gives a server of this cloud that uses the volume by its own row; "": none. Such uses begin and end
// through the server alone.
func guestOf(r store.Reader, x *model.Volume) model.ID {
	for i := range x.Attachments {
		if ofGuest(r, &x.Attachments[i]) {
			return x.Attachments[i].ServerID
		}
	}
	return ""
}

// ofGuest tells whether a server of this cloud has the attachment in its row.
func ofGuest(r store.Reader, a *model.Attachment) bool {
	if a.ServerID == "" {
		return false
	}
	s, ok := store.Servers.Get(r, a.ServerID)
	return ok && slices.ContainsFunc(s.Volumes, func(u model.VolumeUse) bool { return u.AttachmentID == a.ID })
}

// attachable refuses a volume that cannot have one more use.
func attachable(x *model.Volume) error {
	switch {
	case x.Status.State == Available || x.Status.State == Downloading:
	case x.MultiAttach && (x.Status.State == InUse || x.Status.State == Reserved || x.Status.State == Attaching):
	default:
		return fault.New(fault.Invalid, "Invalid volume: Volume %s status must be available or downloading to reserve, but the current status is %s.", x.ID, x.Status.State)
	}
	return nil
}

// MaxAttachments is how many uses a volume has at once.
const MaxAttachments = 128

// UseVolume reserves a volume for a server, whose row the caller writes in the same transaction; it gives the attachment.
// A volume that is being made may be reserved by the server that it is made for.
//
// Errors: fault.NotFound; fault.Invalid for another state, for a volume that is used and not multiattach, and, where it is
// to be booted from, for one that is not bootable.
func (v *Volumes) UseVolume(tx *store.Tx, project model.ID, admin bool, id, server model.ID, device string, boot bool) (*model.Volume, model.ID, error) {
	att := ""
	x, err := v.change(tx, Scope{ProjectID: project, Admin: admin}, id, true, func(x *model.Volume) error {
		if slices.ContainsFunc(x.Attachments, func(a model.Attachment) bool { return a.ServerID == server }) {
			return fault.New(fault.Invalid, "Invalid volume: volume %s already attached to instance %s", x.ID, server)
		}
		switch fresh := x.Status.State == Creating && len(x.Attachments) == 0; {
		case x.Deleted || !fresh && attachable(x) != nil:
			return attachable(x)
		case boot && !x.Bootable:
			return fault.New(fault.Invalid, "Block Device %s is not bootable.", x.ID)
		case len(x.Attachments) >= MaxAttachments:
			return fault.New(fault.Invalid, "Invalid volume: Volume %s has %d attachments, as many as a volume may have.", x.ID, MaxAttachments)
		}
		mode := "rw"
		if x.ReadOnly {
			mode = "ro"
		}
		a := model.Attachment{ID: model.NewID(), ServerID: server, MountPoint: device, Mode: mode, State: Attaching}
		att = a.ID
		x.Attachments = append(x.Attachments, a)
		if x.Status.State != Creating {
			x.Status.State = settled(x)
		}
		return nil
	})
	return x, att, err
}

// VolumeUsed records that a server's guest has the volume; absent is success.
func (v *Volumes) VolumeUsed(tx *store.Tx, id, attachment model.ID) error {
	return v.attachment(tx, id, attachment, func(x *model.Volume, at int) {
		if a := &x.Attachments[at]; a.State != Detaching {
			a.State, a.AttachedAt = Attached, v.now()
		}
	})
}

// VolumeLeaving records that a server's guest is to let go of the volume.
func (v *Volumes) VolumeLeaving(tx *store.Tx, id, attachment model.ID) error {
	return v.attachment(tx, id, attachment, func(x *model.Volume, at int) { x.Attachments[at].State = Detaching })
}

// VolumeReleased ends a server's use of a volume; absent is success. remove deletes the volume, where nobody else uses it.
func (v *Volumes) VolumeReleased(tx *store.Tx, id, attachment model.ID, remove bool) error {
	if err := v.attachment(tx, id, attachment, func(x *model.Volume, at int) {
		if x.Relocating() { // whoever could say that it got there is gone
			v.notRelocated(x, &model.Fault{Code: 409, Message: "The server that had the volume has ended."})
		}
		x.Attachments = slices.Delete(x.Attachments, at, at+1)
	}); err != nil {
		return err
	}
	x, ok := store.Volumes.Get(tx, id)
	if !ok || !remove || x.Deleted || len(x.Attachments) > 0 {
		return nil
	}
	for range store.VolumeSnapshots.List(tx, "volume", id) {
		v.log.Warn("a volume stays after its server, as it has snapshots", "volume", id)
		return nil
	}
	tx.Guard(sourceMark(id))
	if copying(tx, id) {
		v.log.Warn("a volume stays after its server, as it is being copied", "volume", id)
		return nil
	}
	return v.remove(tx, x, x.RequestID)
}

// ReimageVolume has the volume that a server boots from filled with an image once its guest is off; it gives the count of the filling.
//
// Errors: fault.Invalid for another state, or where the image is too large.
func (v *Volumes) ReimageVolume(tx *store.Tx, id model.ID, img *model.Image, copied model.ImageCopy) (int64, error) {
	x, err := v.change(tx, Scope{Admin: true}, id, true, func(x *model.Volume) error {
		need := int((max(img.VirtualSize, img.Size) + 1<<30 - 1) >> 30)
		switch {
		case x.Status.State != InUse && x.Status.State != Errored:
			return fault.New(fault.Invalid, "Invalid volume: Volume %s status must be in-use to be reimaged, but current status is: %s.", x.ID, x.Status.State)
		case len(x.Attachments) > 1:
			return fault.New(fault.Invalid, "Invalid volume: Volume %s is in use by several servers.", x.ID)
		case need > x.SizeGiB:
			return fault.New(fault.Invalid, "Size of specified image %dGB is larger than volume size %dGB.", need, x.SizeGiB)
		case img.MinDiskGiB > x.SizeGiB:
			return fault.New(fault.Invalid, "Volume size %dGB cannot be smaller than the image minDisk size %dGB.", x.SizeGiB, img.MinDiskGiB)
		}
		x.Fills++
		x.Refill = &model.VolumeSource{ImageID: img.ID, Image: copied}
		x.ImageMetadata, x.Status.State, x.Status.Fault = imageMetadata(img), Downloading, nil
		return nil
	})
	if err != nil {
		return 0, err
	}
	return x.Fills, nil
}

// attachment lets f change the attachment of a volume; absent is success.
func (v *Volumes) attachment(tx *store.Tx, id, attachment model.ID, f func(x *model.Volume, at int)) error {
	old, ok := store.Volumes.Get(tx, id)
	if !ok {
		return nil
	}
	at := slices.IndexFunc(old.Attachments, func(a model.Attachment) bool { return a.ID == attachment })
	if at < 0 {
		return nil
	}
	before := old.Attachments[at].State
	x := copyOf(old)
	f(x, at)
	if len(x.Attachments) == len(old.Attachments) && x.Attachments[at].State == before {
		return nil
	}
	// What its host is told: who may open it. What is done to it besides goes on.
	x.Touch(v.now())
	switch x.Status.State {
	case Available, Reserved, Attaching, Detaching, InUse:
		x.Status.State = settled(x)
	}
	return store.Volumes.Put(tx, x)
}

// GetAttachment gives an attachment that the scope may see, and its volume.
func GetAttachment(r store.Reader, sc Scope, id model.ID) (*model.Volume, *model.Attachment, error) {
	for x := range store.Volumes.List(r, "attachment", id) {
		if x, err := Get(r, sc, x.ID); err == nil {
			for i := range x.Attachments {
				if x.Attachments[i].ID == id {
					return x, &x.Attachments[i], nil
				}
			}
		}
	}
	return nil, nil, fault.New(fault.NotFound, "Volume attachment could not be found with filter: attachment_id = %s.", clip(id))
}

// NewAttachment is what a request of the Block Storage API wants of a new attachment, for a system outside this cloud.
type NewAttachment struct {
	VolumeID, ServerID model.ID
	HostName           string
	MountPoint, Mode   string
	Connector          map[string]string // nil: reserved only
	State              string            // reserved or attached; with a connector attaching
}

// Attach makes an attachment.
//
// Errors: fault.NotFound; fault.Invalid for another state, or a mode that the volume does not allow.
func (v *Volumes) Attach(tx *store.Tx, sc Scope, n NewAttachment) (*model.Volume, *model.Attachment, error) {
	var out *model.Attachment
	x, err := v.change(tx, sc, n.VolumeID, false, func(x *model.Volume) error {
		// os-attach follows os-reserve, which left an attachment without a user.
		if n.State == Attached {
			if at := slices.IndexFunc(x.Attachments, func(a model.Attachment) bool {
				return a.State == Reserved && a.ServerID == "" && a.HostName == ""
			}); at >= 0 {
				x.Attachments = slices.Delete(x.Attachments, at, at+1)
				x.Status.State = settled(x)
			}
		}
		if err := attachable(x); err != nil {
			return err
		}
		if len(x.Attachments) >= MaxAttachments {
			return fault.New(fault.Invalid, "Invalid volume: Volume %s has %d attachments, as many as a volume may have.", x.ID, MaxAttachments)
		}
		a := model.Attachment{ID: model.NewID(), ServerID: n.ServerID, HostName: n.HostName, MountPoint: n.MountPoint, Mode: n.Mode, State: cmp.Or(n.State, Reserved)}
		if err := connect(x, &a, n.Connector, n.Mode); err != nil {
			return err
		}
		if a.State == Attached {
			a.AttachedAt = v.now()
		}
		x.Attachments = append(x.Attachments, a)
		x.Status.State = settled(x)
		out = &x.Attachments[len(x.Attachments)-1]
		return nil
	})
	return x, out, err
}

// connect says of an attachment what another system said of itself.
func connect(x *model.Volume, a *model.Attachment, connector map[string]string, mode string) error {
	if mode == "" {
		if mode = cmp.Or(a.Mode, "rw"); x.ReadOnly && a.Mode == "" {
			mode = "ro"
		}
	}
	if mode != "rw" && mode != "ro" {
		return fault.New(fault.Invalid, "Invalid volume: attaching mode '%s' is neither rw nor ro.", clip(mode))
	}
	if x.ReadOnly && mode == "rw" {
		return fault.New(fault.Invalid, "Invalid volume: attaching a read-only volume %s with mode rw is not allowed.", x.ID)
	}
	a.Mode = mode
	if connector != nil {
		a.Connector, a.HostName, a.MountPoint = cloneMap(connector), cmp.Or(connector["host"], a.HostName), cmp.Or(connector["mountpoint"], a.MountPoint)
		if a.State == Reserved {
			a.State = Attaching
		}
	}
	return nil
}

// foreign lets f change an attachment of a system outside this cloud.
func (v *Volumes) foreign(tx *store.Tx, sc Scope, id model.ID, f func(x *model.Volume, at int) error) (*model.Volume, *model.Attachment, error) {
	x, a, err := GetAttachment(tx, sc, id)
	if err != nil {
		return nil, nil, err
	}
	if ofGuest(tx, a) {
		return nil, nil, fault.New(fault.Conflict, "Detach volume from instance %s using the Compute API", a.ServerID)
	}
	var out model.Attachment
	x, err = v.change(tx, sc, x.ID, false, func(x *model.Volume) error {
		at := slices.IndexFunc(x.Attachments, func(a model.Attachment) bool { return a.ID == id })
		if err := f(x, at); err != nil {
			return err
		}
		if at < len(x.Attachments) && x.Attachments[at].ID == id {
			out = x.Attachments[at]
		}
		switch x.Status.State {
		case Available, Reserved, Attaching, Detaching, InUse:
			x.Status.State = settled(x)
		}
		return nil
	})
	return x, &out, err
}

// Connect gives an attachment its connector.
func (v *Volumes) Connect(tx *store.Tx, sc Scope, id model.ID, connector map[string]string) (*model.Volume, *model.Attachment, error) {
	return v.foreign(tx, sc, id, func(x *model.Volume, at int) error {
		return connect(x, &x.Attachments[at], connector, connector["mode"])
	})
}

// Complete says that what an attachment was made for is done.
func (v *Volumes) Complete(tx *store.Tx, sc Scope, id model.ID) error {
	_, _, err := v.foreign(tx, sc, id, func(x *model.Volume, at int) error {
		a := &x.Attachments[at]
		if a.State != Attaching && a.State != Attached {
			return fault.New(fault.Invalid, "Invalid volume: Volume %s status must be attaching, but its attachment is %s.", x.ID, a.State)
		}
		a.State, a.AttachedAt = Attached, v.now()
		return nil
	})
	return err
}

// Detach ends an attachment.
func (v *Volumes) Detach(tx *store.Tx, sc Scope, id model.ID) (*model.Volume, error) {
	x, _, err := v.foreign(tx, sc, id, func(x *model.Volume, at int) error {
		x.Attachments = slices.Delete(x.Attachments, at, at+1)
		return nil
	})
	return x, err
}

// Reserve keeps a volume from others (os-reserve); Unreserve undoes it.
func (v *Volumes) Reserve(tx *store.Tx, sc Scope, id model.ID) error {
	_, _, err := v.Attach(tx, sc, NewAttachment{VolumeID: id})
	return err
}

// Unreserve undoes Reserve; where nothing is reserved, that is success.
func (v *Volumes) Unreserve(tx *store.Tx, sc Scope, id model.ID) error {
	x, err := Get(tx, sc, id)
	if err != nil {
		return err
	}
	for i := range x.Attachments {
		if a := &x.Attachments[i]; a.State == Reserved && a.ServerID == "" && a.HostName == "" {
			_, err := v.Detach(tx, sc, a.ID)
			return err
		}
	}
	return nil
}

// BeginDetaching says that a volume's only user is about to let go of it; RollDetaching that it does not.
func (v *Volumes) BeginDetaching(tx *store.Tx, sc Scope, id model.ID) error {
	return v.flip(tx, sc, id, Attached, Detaching, InUse)
}

// RollDetaching undoes BeginDetaching.
func (v *Volumes) RollDetaching(tx *store.Tx, sc Scope, id model.ID) error {
	return v.flip(tx, sc, id, Detaching, Attached, Detaching)
}

func (v *Volumes) flip(tx *store.Tx, sc Scope, id model.ID, from, to, state string) error {
	x, err := Get(tx, sc, id)
	if err != nil {
		return err
	}
	if x.Status.State != state {
		return fault.New(fault.Invalid, "Invalid volume: Unable to detach volume. Volume status must be '%s' and attach_status must be 'attached' to detach, but it is %s.", state, x.Status.State)
	}
	if used := guestOf(tx, x); used != "" {
		return fault.New(fault.Conflict, "Detach volume from instance %s using the Compute API", used)
	}
	_, err = v.change(tx, sc, id, false, func(x *model.Volume) error {
		for i := range x.Attachments {
			if x.Attachments[i].State == from {
				x.Attachments[i].State = to
			}
		}
		x.Status.State = settled(x)
		return nil
	})
	return err
}

// DetachAny ends the attachment of the id, or where it is "" the only one (os-detach).
func (v *Volumes) DetachAny(tx *store.Tx, sc Scope, id, attachment model.ID) error {
	x, err := Get(tx, sc, id)
	if err != nil {
		return err
	}
	switch {
	case attachment == "" && len(x.Attachments) == 0:
		return fault.New(fault.Invalid, "Invalid volume: Volume %s is not attached.", id)
	case attachment == "" && len(x.Attachments) > 1:
		return fault.New(fault.Invalid, "Invalid volume: Detach volume failed: More than one attachment, but no attachment_id provided.")
	case attachment == "":
		attachment = x.Attachments[0].ID
	}
	if !slices.ContainsFunc(x.Attachments, func(a model.Attachment) bool { return a.ID == attachment }) {
		return fault.New(fault.NotFound, "Volume attachment could not be found with filter: attachment_id = %s.", clip(attachment))
	}
	_, err = v.Detach(tx, sc, attachment)
	return err
}
