package ec2

import (
	"iter"
	"regexp"
	"slices"
	"strconv"

	"yakumo/api"
	"yakumo/compute"
	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
	"yakumo/volume"
)

func (d *dialect) volumeOperations(add adder) {
	add("CreateVolume", api.Member, d.createVolume, "Size", "SnapshotId", "AvailabilityZone", "VolumeType", "TagSpecification", "ClientToken", "Encrypted", "MultiAttachEnabled")
	add("DescribeVolumes", api.Reader, d.describeVolumes, "VolumeId", "Filter", "MaxResults", "NextToken")
	add("DeleteVolume", api.Member, d.deleteVolume, "VolumeId")
	add("AttachVolume", api.Member, d.attachVolume, "VolumeId", "InstanceId", "Device")
	add("DetachVolume", api.Member, d.detachVolume, "VolumeId", "InstanceId", "Device", "Force")
	add("ModifyVolume", api.Member, d.modifyVolume, "VolumeId", "Size", "VolumeType")
	add("DescribeVolumesModifications", api.Reader, d.describeModifications, "VolumeId", "Filter", "MaxResults", "NextToken")
	add("DescribeVolumeStatus", api.Reader, d.describeVolumeStatus, "VolumeId", "Filter", "MaxResults", "NextToken")
	add("DescribeVolumeAttribute", api.Reader, d.describeVolumeAttribute, "VolumeId", "Attribute")
}

type volumeShown struct {
	ID          string               `xml:"volumeId"`
	Size        int                  `xml:"size"`
	Snapshot    string               `xml:"snapshotId"`
	Zone        string               `xml:"availabilityZone"`
	Status      string               `xml:"status"`
	Created     string               `xml:"createTime"`
	Attachments set[attachmentShown] `xml:"attachmentSet"`
	Tags        set[tag]             `xml:"tagSet"`
	Type        string               `xml:"volumeType"`
	Encrypted   bool                 `xml:"encrypted"`
	MultiAttach bool                 `xml:"multiAttachEnabled"`
}

type attachmentShown struct {
	Volume   string `xml:"volumeId"`
	Instance string `xml:"instanceId,omitempty"`
	Device   string `xml:"device"`
	Status   string `xml:"status"`
	At       string `xml:"attachTime,omitempty"`
	Remove   bool   `xml:"deleteOnTermination"`
}

// volumeStatus gives EC2's word for a volume's state.
func volumeStatus(v *model.Volume) string {
	switch v.Status.State {
	case volume.Creating, volume.Downloading:
		if len(v.Attachments) == 0 {
			return "creating"
		}
	case volume.Deleting:
		return "deleting"
	case volume.Errored, volume.ErrorDeleting, volume.ErrorExtending, volume.ErrorRestoring:
		return "error"
	}
	if len(v.Attachments) > 0 {
		return "in-use"
	}
	return "available"
}

func attachmentStatus(a *model.Attachment) string {
	if a.State == volume.Reserved {
		return "attaching"
	}
	return a.State
}

func showAttachment(r store.Reader, v *model.Volume, a *model.Attachment) attachmentShown {
	out := attachmentShown{Volume: volumeID.id(v.ID), Device: a.MountPoint, Status: attachmentStatus(a)}
	if a.ServerID != "" {
		out.Instance = instanceID.id(a.ServerID)
		if s, ok := store.Servers.Get(r, a.ServerID); ok {
			out.Remove = slices.ContainsFunc(s.Volumes, func(u model.VolumeUse) bool { return u.VolumeID == v.ID && u.DeleteWithServer })
		}
	}
	if !a.AttachedAt.IsZero() {
		out.At = stamp(a.AttachedAt)
	}
	return out
}

func showVolume(r store.Reader, v *model.Volume) volumeShown {
	out := volumeShown{ID: volumeID.id(v.ID), Size: v.SizeGiB, Zone: v.Zone, Status: volumeStatus(v), Created: stamp(v.CreatedAt), Tags: tagSet(tagged(&v.Meta, v.Metadata)),
		Type: volume.TypeName(r, v.TypeID), MultiAttach: v.MultiAttach}
	if v.Source.SnapshotID != "" {
		out.Snapshot = snapshotID.id(v.Source.SnapshotID)
	}
	for i := range v.Attachments {
		out.Attachments.Items = append(out.Attachments.Items, showAttachment(r, v, &v.Attachments[i]))
	}
	return out
}

func volumeProject(v *model.Volume) model.ID { return v.ProjectID }

// volumeOf gives the caller's volume.
func (q *request) volumeOf(r store.Reader, id string) (*model.Volume, error) {
	return find(r, store.Volumes, volumeID, id, func(v *model.Volume) bool { return q.mine(v.ProjectID) })
}

// serverOf gives the caller's instance.
func (q *request) serverOf(r store.Reader, id string) (*model.Server, error) {
	return find(r, store.Servers, instanceID, id, func(s *model.Server) bool { return q.mine(s.ProjectID) })
}

// volumeErrors are EC2's codes for what package volume answers.
var volumeErrors = recoding{fault.Invalid: "IncorrectState", fault.NotFound: "InvalidVolume.NotFound", fault.OverQuota: "VolumeLimitExceeded"}

// volumeTypeOf gives the volume type that a request names.
func (q *request) volumeTypeOf(r store.Reader, name string) (*model.VolumeType, error) {
	t, err := volume.FindType(r, q.volumeScope(), name)
	if fault.Is(err, fault.NotFound) {
		return nil, fault.Coded(fault.Invalid, "UnknownVolumeType", "The volume type '%s' does not exist.", api.Clip(name))
	}
	return t, volumeErrors.of(err)
}

// unencrypted refuses a request for encryption.
func (q *request) unencrypted() error {
	encrypted, _, err := q.params.truth("Encrypted")
	if err == nil && encrypted {
		err = unsupported("Encrypted volumes are not offered by this cloud.")
	}
	return err
}

// maxToken is how long a client's token may be.
const maxToken = 64

func (d *dialect) createVolume(q *request) (any, error) {
	size, err := q.params.number("Size", 1, volume.MaxSizeGiB, 0)
	if err != nil {
		return nil, err
	}
	tags, err := q.tagSpec("volume")
	if err != nil {
		return nil, err
	}
	if err := q.unencrypted(); err != nil {
		return nil, err
	}
	multi, _, err := q.params.truth("MultiAttachEnabled")
	if err != nil {
		return nil, err
	}
	token := q.str("ClientToken")
	switch {
	case size == 0 && q.str("SnapshotId") == "":
		return nil, fault.Coded(fault.Invalid, "MissingParameter", "The request must contain the parameter size/snapshot")
	case len(token) > maxToken:
		return nil, badValue("The client token has at most %d characters.", maxToken)
	}
	name, metadata := named(tags)
	spec := volume.Spec{Name: name, Metadata: metadata, SizeGiB: size, Zone: q.str("AvailabilityZone"), MultiAttach: multi, Token: token}
	var out volumeShown
	err = q.update(func(tx *store.Tx) error {
		n := spec
		if id := q.str("SnapshotId"); id != "" {
			s, err := q.snapshotOf(tx, id)
			switch {
			case err != nil:
				return err
			case s.State != volume.Available:
				return incorrect("Snapshot '%s' is in the '%s' state.", id, snapshotState(s))
			case size != 0 && size < s.SizeGiB:
				return badValue("The volume size is invalid for this volume: %d GiB is less than the %d GiB of the snapshot.", size, s.SizeGiB)
			}
			n.SnapshotID = s.ID
		}
		if t := q.str("VolumeType"); t != "" {
			found, err := q.volumeTypeOf(tx, t)
			if err != nil {
				return err
			}
			n.Type = found.ID
		}
		if !knownZone(tx, d.vols, n.Zone) {
			return unknownZone(n.Zone)
		}
		v, err := d.vols.Create(tx, q.volumeScope(), n)
		if fault.Is(err, fault.Conflict) {
			return recoding{fault.Conflict: "IdempotentParameterMismatch"}.of(err)
		}
		if err != nil {
			return recoding{fault.Invalid: "InvalidParameterValue", fault.OverQuota: "VolumeLimitExceeded", fault.NotFound: "InvalidSnapshot.NotFound"}.of(err)
		}
		out = showVolume(tx, v)
		return nil
	})
	return out, err
}

// knownZone tells whether volumes may be of the zone; "" is the default.
func knownZone(r store.Reader, v *volume.Volumes, name string) bool {
	if name == "" || name == v.Zone() {
		return true
	}
	for h := range store.Hosts.All(r) {
		if h.Zone == name {
			return true
		}
	}
	return false
}

func (d *dialect) describeVolumes(q *request) (any, error) {
	filters, err := q.filters("volume-id", "status", "size", "snapshot-id", "availability-zone", "volume-type", "create-time", "encrypted", "multi-attach-enabled",
		"attachment.instance-id", "attachment.device", "attachment.status", "attachment.delete-on-termination", "tag-key", "tag:")
	if err != nil {
		return nil, err
	}
	r := q.Snapshot()
	rows, err := chosen(q, r, store.Volumes, volumeID, q.strs("VolumeId"), volumeProject)
	if err != nil {
		return nil, err
	}
	var all []volumeShown
	for _, v := range rows {
		x := showVolume(r, v)
		if passes(filters, func(name string) []string { return volumeAttribute(v, &x, name) }) {
			all = append(all, x)
		}
	}
	var body struct {
		Volumes set[volumeShown] `xml:"volumeSet"`
		Next    string           `xml:"nextToken,omitempty"`
	}
	body.Volumes.Items, body.Next, err = paged(q, all, func(v volumeShown) string { return v.ID })
	return body, err
}

func volumeAttribute(v *model.Volume, x *volumeShown, name string) (out []string) {
	for _, a := range x.Attachments.Items {
		switch name {
		case "attachment.instance-id":
			out = append(out, a.Instance)
		case "attachment.device":
			out = append(out, a.Device)
		case "attachment.status":
			out = append(out, a.Status)
		case "attachment.delete-on-termination":
			out = append(out, strconv.FormatBool(a.Remove))
		}
	}
	switch name {
	case "volume-id":
		return []string{x.ID}
	case "status":
		return []string{x.Status}
	case "size":
		return []string{strconv.Itoa(x.Size)}
	case "snapshot-id":
		return []string{x.Snapshot}
	case "availability-zone":
		return []string{x.Zone}
	case "volume-type":
		return []string{x.Type}
	case "create-time":
		return []string{x.Created}
	case "encrypted":
		return []string{"false"}
	case "multi-attach-enabled":
		return []string{strconv.FormatBool(x.MultiAttach)}
	case "tag-key":
		return tagValues(name, tagged(&v.Meta, v.Metadata))
	}
	return append(out, tagValues(name, tagged(&v.Meta, v.Metadata))...)
}

func (d *dialect) deleteVolume(q *request) (any, error) {
	id, err := q.must("VolumeId")
	if err != nil {
		return nil, err
	}
	return done{true}, q.update(func(tx *store.Tx) error {
		v, err := q.volumeOf(tx, id)
		switch {
		case err != nil:
			return err
		case len(v.Attachments) > 0 && v.Attachments[0].ServerID != "":
			return fault.Coded(fault.Conflict, "VolumeInUse", "Volume %s is currently attached to %s", id, instanceID.id(v.Attachments[0].ServerID))
		case len(v.Attachments) > 0:
			return fault.Coded(fault.Conflict, "VolumeInUse", "Volume %s is currently in use", id)
		case !v.Deleted && store.VolumeSnapshots.Count(tx, "volume", v.ID) > 0:
			return fault.Coded(fault.Conflict, "DependencyViolation", "Volume %s has snapshots, which this cloud keeps with the volume: delete them first.", id)
		}
		return volumeErrors.of(d.vols.Delete(tx, q.volumeScope(), v.ID, false, false))
	})
}

var deviceRE = regexp.MustCompile(`^(/dev/)?(xvd|sd|vd|hd)[a-z]{1,2}[0-9]{0,2}$`)

func (d *dialect) attachVolume(q *request) (any, error) {
	id, err := q.must("VolumeId")
	if err != nil {
		return nil, err
	}
	instance, err := q.must("InstanceId")
	if err != nil {
		return nil, err
	}
	device, err := q.must("Device")
	if err != nil {
		return nil, err
	}
	if !deviceRE.MatchString(device) {
		return nil, badValue("Value (%s) for parameter device is invalid. %s is not a valid EBS device name.", api.Clip(device), api.Clip(device))
	}
	var out attachmentShown
	err = q.update(func(tx *store.Tx) error {
		v, err := q.volumeOf(tx, id)
		if err != nil {
			return err
		}
		s, err := q.serverOf(tx, instance)
		switch {
		case err != nil:
			return err
		case len(v.Attachments) > 0 && !v.MultiAttach:
			return fault.Coded(fault.Conflict, "VolumeInUse", "%s is already attached to an instance", id)
		case v.Status.State != volume.Available && len(v.Attachments) == 0:
			return incorrect("Volume '%s' is in the '%s' state.", id, volumeStatus(v))
		case slices.ContainsFunc(s.Volumes, func(u model.VolumeUse) bool { return u.Device == device }):
			return badValue("Invalid value '%s' for unixDevice. Attachment point %s is already in use", device, device)
		case slices.ContainsFunc(s.Volumes, func(u model.VolumeUse) bool { return u.VolumeID == v.ID }):
			return fault.Coded(fault.Conflict, "VolumeInUse", "%s is already attached to %s", id, instance)
		}
		_, _, err = d.c.AttachVolume(tx, q.scope(), s.ID, compute.NewUse{VolumeID: v.ID, Device: device})
		if err != nil {
			return recoding{fault.Invalid: "IncorrectState", fault.Conflict: "IncorrectState", fault.Forbidden: "AttachmentLimitExceeded"}.of(err)
		}
		if v, err = q.volumeOf(tx, id); err != nil {
			return err
		}
		for i := range v.Attachments {
			if v.Attachments[i].ServerID == s.ID {
				out = showAttachment(tx, v, &v.Attachments[i])
			}
		}
		if out.At == "" {
			out.At = stamp(v.UpdatedAt)
		}
		return nil
	})
	return out, err
}

func (d *dialect) detachVolume(q *request) (any, error) {
	id, err := q.must("VolumeId")
	if err != nil {
		return nil, err
	}
	if q.flag("Force") {
		return nil, unsupported("A volume is not taken from an instance by force: the guest's host takes it, whatever the guest says.")
	}
	var out attachmentShown
	err = q.update(func(tx *store.Tx) error {
		v, err := q.volumeOf(tx, id)
		if err != nil {
			return err
		}
		var found []int
		for i, a := range v.Attachments {
			if a.ServerID != "" && (q.str("Device") == "" || a.MountPoint == q.str("Device")) {
				found = append(found, i)
			}
		}
		if instance := q.str("InstanceId"); instance != "" {
			s, err := q.serverOf(tx, instance)
			if err != nil {
				return err
			}
			found = slices.DeleteFunc(found, func(i int) bool { return v.Attachments[i].ServerID != s.ID })
			if len(found) == 0 && len(v.Attachments) > 0 {
				return fault.Coded(fault.NotFound, "InvalidAttachment.NotFound", "The volume '%s' is not attached to instance '%s' as device '%s'.", id, instance, api.Clip(q.str("Device")))
			}
		}
		switch {
		case len(v.Attachments) == 0:
			return incorrect("Volume '%s' is in the '%s' state.", id, volumeStatus(v))
		case len(found) == 0:
			return fault.Coded(fault.NotFound, "InvalidAttachment.NotFound", "The volume '%s' is not attached to an instance as device '%s'.", id, api.Clip(q.str("Device")))
		case len(found) > 1:
			return missing("InstanceId")
		}
		a := &v.Attachments[found[0]]
		if a.State == volume.Detaching {
			return incorrect("Volume '%s' is in the 'detaching' state.", id)
		}
		s, err := compute.Get(tx, q.scope(), a.ServerID)
		if fault.Is(err, fault.NotFound) {
			return incorrect("Volume '%s' is not used by an instance of this cloud.", id)
		}
		if err != nil {
			return err
		}
		out = showAttachment(tx, v, a)
		out.Status = volume.Detaching
		if slices.ContainsFunc(s.Volumes, func(u model.VolumeUse) bool { return u.VolumeID == v.ID && u.Boot }) {
			return fault.Coded(fault.Invalid, "OperationNotPermitted", "Unable to detach root volume '%s' from instance '%s'", id, instanceID.id(s.ID))
		}
		if _, err := d.c.DetachVolume(tx, q.scope(), s.ID, v.ID); err != nil {
			return recoding{fault.Invalid: "IncorrectState", fault.Conflict: "IncorrectState", fault.NotFound: "IncorrectState"}.of(err)
		}
		return nil
	})
	return out, err
}

// volumeLabels adds how the tags of volumes and snapshots are kept: as their metadata.
func (d *dialect) volumeLabels(out map[kind]labels) {
	out[volumeID] = labels{resource: "volume",
		all: func(q *request, r store.Reader) iter.Seq2[string, map[string]string] {
			return func(yield func(string, map[string]string) bool) {
				for v := range store.Volumes.List(r, "project", q.Caller.ProjectID) {
					if !yield(volumeID.id(v.ID), tagged(&v.Meta, v.Metadata)) {
						return
					}
				}
			}
		},
		change: func(q *request, tx *store.Tx, id string, f func(map[string]string) error) error {
			v, err := q.volumeOf(tx, id)
			if err != nil {
				return err
			}
			tags := tagged(&v.Meta, v.Metadata)
			if err := relabel(tags, f); err != nil {
				return err
			}
			name, metadata := named(tags)
			_, err = d.vols.Update(tx, q.volumeScope(), v.ID, volume.Update{Name: &name, Metadata: metadata})
			return volumeErrors.of(err)
		}}
	out[snapshotID] = labels{resource: "snapshot",
		all: func(q *request, r store.Reader) iter.Seq2[string, map[string]string] {
			return func(yield func(string, map[string]string) bool) {
				for s := range store.VolumeSnapshots.List(r, "project", q.Caller.ProjectID) {
					if !s.Deleted && !yield(snapshotID.id(s.ID), tagged(&s.Meta, s.Metadata)) {
						return
					}
				}
			}
		},
		change: func(q *request, tx *store.Tx, id string, f func(map[string]string) error) error {
			s, err := q.snapshotOf(tx, id)
			if err != nil {
				return err
			}
			tags := tagged(&s.Meta, s.Metadata)
			if err := relabel(tags, f); err != nil {
				return err
			}
			name, metadata := named(tags)
			_, err = d.vols.UpdateSnapshot(tx, q.volumeScope(), s.ID, volume.Update{Name: &name, Metadata: metadata})
			return volumeErrors.of(err)
		}}
}
