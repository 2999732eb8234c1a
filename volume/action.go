package volume

import (
	"slices"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// ResetStates are the states that an administrator may set a volume to.
var ResetStates = []string{Available, Creating, Deleting, Attaching, Detaching, InUse, Maintenance, Errored, ErrorDeleting, ErrorRestoring, ErrorExtending, Reserved, AwaitingTransfer}

// Reset sets a volume's state, without the host's doing anything; of administrators. attach "detached" also
// forgets who uses it, but for servers of this cloud, which let go by themselves.
func (v *Volumes) Reset(tx *store.Tx, id model.ID, state, attach string) (*model.Volume, error) {
	return v.change(tx, Scope{Admin: true}, id, true, func(x *model.Volume) error {
		if x.Deleted {
			return fault.New(fault.Invalid, "Invalid volume: Volume %s is being deleted.", id)
		}
		if state != "" && !slices.Contains(ResetStates, state) {
			return fault.New(fault.Invalid, "Invalid input received: Must specify a valid status. '%s' is none.", clip(state))
		}
		switch attach {
		case "":
		case "detached":
			if used := guestOf(tx, x); used != "" {
				return fault.New(fault.Conflict, "Detach volume from instance %s using the Compute API", used)
			}
			x.Attachments = nil
		case Attached:
		default:
			return fault.New(fault.Invalid, "Invalid input received: attach_status is 'attached' or 'detached'.")
		}
		if state != "" {
			if x.Relocating() {
				if x.Relocation.Stage == model.RelocateTurning && !lostUser(tx, x) {
					return fault.New(fault.Conflict, "Invalid volume: Volume %s is being exchanged under its server at this moment. Try again.", id)
				}
				v.notRelocated(x, nil)
			}
			if x.Move != nil { // whoever copies it lets go
				x.Move, x.Status.Migration = nil, MigrationFailed
			}
			if c := x.Change; c != nil && !c.Clear {
				x.Change, x.Status.Migration = &model.EngineChange{Engine: c.Engine, Clear: true}, MigrationFailed
			}
			x.Status.State = state
			if state != Errored {
				x.Status.Fault = nil
			}
		}
		return nil
	})
}

// SetBootable says whether servers may boot from the volume.
func (v *Volumes) SetBootable(tx *store.Tx, sc Scope, id model.ID, bootable bool) (*model.Volume, error) {
	return v.change(tx, sc, id, false, func(x *model.Volume) error {
		x.Bootable = bootable
		return nil
	})
}

// SetReadOnly says whether guests may write to the volume, from their next use of it on.
func (v *Volumes) SetReadOnly(tx *store.Tx, sc Scope, id model.ID, readOnly bool) (*model.Volume, error) {
	return v.change(tx, sc, id, false, func(x *model.Volume) error {
		if x.Status.State != Available {
			return fault.New(fault.Invalid, "Invalid volume: Volume %s status must be available to update readonly flag, but current status is: %s.", x.ID, x.Status.State)
		}
		x.ReadOnly = readOnly
		m := cloneMap(x.AdminMetadata)
		if m == nil {
			m = map[string]string{}
		}
		if m["readonly"] = "False"; readOnly {
			m["readonly"] = "True"
		}
		x.AdminMetadata = m
		return nil
	})
}

// Upload makes an image of a volume: its host fills the image, which the caller makes in the same transaction.
func (v *Volumes) Upload(tx *store.Tx, sc Scope, id, image model.ID, format string, force bool) (*model.Volume, error) {
	return v.change(tx, sc, id, true, func(x *model.Volume) error {
		switch {
		case x.Status.State != Available && !(force && x.Status.State == InUse):
			return fault.New(fault.Invalid, "Invalid volume: Volume %s status must be available or in-use, but current status is: %s.", x.ID, x.Status.State)
		case format != "raw" && format != "qcow2":
			return fault.New(fault.Invalid, "Invalid input received: The disk format '%s' cannot be made; raw and qcow2 can.", clip(format))
		}
		x.Uploads = append(x.Uploads, model.HostBlob{ID: image, Format: format})
		x.Status.State = Uploading
		return nil
	})
}
