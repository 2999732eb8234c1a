package launch

import (
	"cmp"
	"encoding/json"
	"regexp"

	"yakumo/compute"
	"yakumo/fault"
	"yakumo/images"
	"yakumo/model"
	"yakumo/store"
	"yakumo/volume"
)

// Disk is a volume that a server gets: one that is there, or a new one.
type Disk struct {
	Source  string // volume, snapshot, image, blank
	ID      string // of the source; "" of blank
	SizeGiB int    // of a new one; 0: that of the source
	Boot    bool   // it is the root disk
	Remove  bool   // with the server
	Tag     string // of the device
	Type    string // of a new one; "": that of the source, or the default
	Device  string // how it is shown in the server; "": as it comes
}

// Mapping is a block device mapping as Nova has it, read but not understood.
type Mapping struct {
	NoDevice            bool   // it takes away what an image maps: nothing, here
	Source, Destination string // volume, snapshot, image, blank; local, volume; "": what the ids say
	ID                  string
	// The ids of older clients.
	VolumeID, SnapshotID, ImageID string
	SizeGiB                       int
	BootIndex                     int // 0: the root disk
	Remove                        bool
	Tag, Type, Device             string
}

var (
	uuidRE   = regexp.MustCompile(`^[0-9a-fA-F]{8}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{12}$`)
	deviceRE = regexp.MustCompile(`^(/dev/)?(x?[a-z]?d?)([a-z]+)[0-9]*$`)
)

// CheckDevice refuses a device's name that is none. The guest's own names are chosen by its hypervisor, as in Nova with libvirt.
//
// Errors: fault.Invalid.
func CheckDevice(name string) error {
	if name != "" && !deviceRE.MatchString(name) {
		return invalid("The supplied device path (%s) is invalid.", clip(name))
	}
	return nil
}

// BadMapping refuses a block device mapping.
func BadMapping(format string, args ...any) error {
	return invalid("Block Device Mapping is Invalid: "+format, args...)
}

// BadSequence is what BadMapping says of disks of which not one is the root disk.
const BadSequence = "Boot sequence for the instance and image/block device mapping combination is not valid."

// Map adds what a mapping says; root tells that it is the root disk.
//
// Errors: fault.Invalid.
func (r *Request) Map(m Mapping) (root bool, err error) {
	if m.NoDevice {
		return false, nil
	}
	d := Disk{Source: m.Source, ID: cmp.Or(m.ID, m.VolumeID, m.SnapshotID, m.ImageID), SizeGiB: m.SizeGiB, Boot: m.BootIndex == 0, Remove: m.Remove, Tag: m.Tag, Type: m.Type}
	if d.Source == "" { // the older members within the new form
		switch {
		case m.VolumeID != "":
			d.Source = "volume"
		case m.SnapshotID != "":
			d.Source = "snapshot"
		case m.ImageID != "":
			d.Source = "image"
		default:
			d.Source = "blank"
		}
	}
	dest := m.Destination
	if dest == "" {
		dest = "local"
		if d.Source == "volume" || d.Source == "snapshot" {
			dest = "volume"
		}
	}
	if err := CheckDevice(m.Device); err != nil {
		return false, err
	}
	switch {
	case d.Source != "blank" && d.ID == "":
		return false, BadMapping("Missing device UUID.")
	case d.Source == "blank" && dest == "local":
		return false, invalid("Ephemeral and swap disks in block_device_mapping_v2 are not offered by this cloud yet; choose a flavor that has them.")
	case d.Source == "image" && dest == "local":
		if !d.Boot {
			return false, BadMapping("Mapping image to local is not supported.")
		}
		if r.ImageID != "" && r.ImageID != d.ID {
			return false, BadMapping("it names another image than imageRef.")
		}
		r.ImageID, r.Local = d.ID, true
		return true, nil
	case dest == "local":
		return false, BadMapping("Mapping %s to local is not supported.", d.Source)
	case d.Source == "image" && d.SizeGiB == 0:
		return false, BadMapping("Images with destination_type 'volume' need to have a non-zero size specified")
	case d.Source == "blank" && d.SizeGiB == 0:
		return false, BadMapping("Blank volumes (source: 'blank', dest: 'volume') need to have non-zero size.")
	case d.Source == "blank" && d.Boot:
		return false, BadMapping(BadSequence)
	}
	r.Disks = append(r.Disks, d)
	return d.Boot, nil
}

// BootDisk gives the volume that is the root disk; nil: none is.
func (r *Request) BootDisk() *Disk {
	for i := range r.Disks {
		if r.Disks[i].Boot {
			return &r.Disks[i]
		}
	}
	return nil
}

// imageMapping is a mapping as it stands in an image's properties (block_device_mapping).
type imageMapping struct {
	NoDevice    bool        `json:"no_device"`
	Source      string      `json:"source_type"`
	Destination string      `json:"destination_type"`
	ID          string      `json:"uuid"`
	VolumeID    string      `json:"volume_id"`
	SnapshotID  string      `json:"snapshot_id"`
	ImageID     string      `json:"image_id"`
	Size        json.Number `json:"volume_size"`
	BootIndex   json.Number `json:"boot_index"`
	Remove      bool        `json:"delete_on_termination"`
	Tag         string      `json:"tag"`
	Type        string      `json:"volume_type"`
	Device      string      `json:"device_name"`
}

// mapped gives what is wanted where the image has no bytes, but names snapshots that the server's volumes are made of.
func (l *Launcher) mapped(tx *store.Tx, sc compute.Scope, r *Request) (*Request, error) {
	if r.ImageID == "" {
		return r, nil
	}
	img, err := l.img.Get(tx, images.Caller{ProjectID: sc.ProjectID, Admin: sc.Admin}, r.ImageID)
	if err != nil {
		return r, nil // told by who looks whether it can be booted
	}
	text := images.Mapping(img)
	if text == "" {
		return r, nil
	}
	var list []imageMapping
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		return nil, invalid("Image %s has a block device mapping that cannot be read.", img.ID)
	}
	n := *r
	n.ImageID, n.Local, n.Disks = "", false, nil
	for _, b := range list {
		m := Mapping{NoDevice: b.NoDevice, Source: b.Source, Destination: b.Destination, ID: b.ID, VolumeID: b.VolumeID, SnapshotID: b.SnapshotID, ImageID: b.ImageID,
			BootIndex: -1, Remove: b.Remove, Tag: b.Tag, Type: b.Type, Device: b.Device}
		if v, err := b.Size.Int64(); err == nil && v > 0 && v <= volume.MaxSizeGiB {
			m.SizeGiB = int(v)
		}
		if v, err := b.BootIndex.Int64(); err == nil {
			m.BootIndex = int(v)
		}
		if _, err := n.Map(m); err != nil {
			return nil, err
		}
	}
	n.Disks = append(n.Disks, r.Disks...)
	switch {
	case n.ImageID != "" || n.BootDisk() == nil:
		return nil, BadMapping(BadSequence)
	case len(n.Disks) > compute.MaxVolumes:
		return nil, BadMapping("%d volumes; a server has at most %d.", len(n.Disks), compute.MaxVolumes)
	}
	return &n, nil
}

// uses gives the volumes of a new server; those that are yet to be made are made in the transaction.
func (l *Launcher) uses(tx *store.Tx, sc compute.Scope, r *Request) ([]compute.NewUse, error) {
	if len(r.Disks) > 0 && l.vols == nil {
		return nil, fault.New(fault.NotImplemented, "A volume is not offered by this cloud yet.")
	}
	vsc := volume.Scope{ProjectID: sc.ProjectID, UserID: sc.UserID, Admin: sc.Admin, RequestID: sc.RequestID}
	var out []compute.NewUse
	for _, x := range r.Disks {
		id := x.ID
		switch x.Source {
		case "volume":
			v, err := volume.Get(tx, vsc, id)
			if err != nil {
				return nil, BadMapping("failed to get volume %s.", id)
			}
			if v.MultiAttach && !r.MultiAttach {
				return nil, invalid("Multiattach volumes are only supported starting with compute API version 2.60.")
			}
		default:
			v, err := l.make(tx, vsc, sc, x)
			if err != nil {
				return nil, err
			}
			id = v.ID
		}
		out = append(out, compute.NewUse{VolumeID: id, Device: x.Device, Tag: x.Tag, Boot: x.Boot, DeleteWithServer: x.Remove})
	}
	return out, nil
}

// make makes a new volume.
func (l *Launcher) make(tx *store.Tx, vsc volume.Scope, sc compute.Scope, x Disk) (*model.Volume, error) {
	spec := volume.Spec{SizeGiB: x.SizeGiB, Type: x.Type}
	switch x.Source {
	case "snapshot":
		spec.SnapshotID = x.ID
	case "image":
		img, err := l.img.Bootable(tx, images.Caller{ProjectID: sc.ProjectID, Admin: sc.Admin}, x.ID)
		if err != nil {
			return nil, BadMapping("failed to get image %s.", x.ID)
		}
		spec.Image, spec.Copy = img, images.Copy(img)
	}
	v, err := l.vols.Create(tx, vsc, spec)
	if fault.Is(err, fault.NotFound) && x.Source == "snapshot" {
		return nil, BadMapping("failed to get snapshot %s.", x.ID)
	}
	return v, AsInvalid(err)
}
