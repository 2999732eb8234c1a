package launch

import (
	"encoding/json"
	"maps"
	"strings"

	"yakumo/compute"
	"yakumo/fault"
	"yakumo/images"
	"yakumo/model"
	"yakumo/store"
	"yakumo/volume"
)

// NewImage is an image that is to be made of a server.
type NewImage struct {
	ID       model.ID
	Name     string
	Metadata map[string]string // the client's properties
	More     map[string]string // properties that the client has no say in
	Roles    []string          // names of the client's roles, which Nova keeps with an image
}

// Save makes an image of a server of the scope's: of its root disk, which its host sends; where it boots from a volume, of snapshots of all its
// volumes, which the image names.
//
// Errors: fault.NotFound; fault.Conflict where its state does not allow it; fault.OverQuota.
func (l *Launcher) Save(tx *store.Tx, sc compute.Scope, server model.ID, n NewImage) error {
	s, err := compute.Get(tx, sc, server)
	if err != nil {
		return err
	}
	if compute.VolumeBacked(s) {
		return l.imageOfVolumes(tx, sc, server, n)
	}
	if s, err = l.c.CreateImage(tx, sc, s.ID, n.ID); err != nil {
		return err
	}
	return l.AddImage(tx, sc, s, n)
}

// AddImage adds the row of an image that is to be made of a server, with the properties that Nova gives it. Those of the image that the server
// was made from go with it, but for what says who made that.
//
// Errors: fault.OverQuota; those of images.Add.
func (l *Launcher) AddImage(tx *store.Tx, sc compute.Scope, s *model.Server, n NewImage) error {
	if limit := l.c.Quota(tx, s.ProjectID)[compute.QuotaMetadata]; limit >= 0 && len(n.Metadata) > limit {
		return fault.New(fault.OverQuota, "Image metadata limit exceeded")
	}
	props := map[string]string{}
	want := model.Image{Meta: model.Meta{ID: n.ID, ProjectID: s.ProjectID, Name: n.Name}, Visibility: model.VisibilityPrivate, DiskFormat: "qcow2",
		ContainerFormat: "bare", MinDiskGiB: s.Flavor.DiskGiB}
	if base, ok := store.Images.Get(tx, s.ImageID); ok {
		for k, v := range base.Properties {
			if !strings.HasPrefix(k, "image_") && !strings.HasPrefix(k, "instance_") && k != images.PropertyBackup && k != "cache_in_nova" && k != "signature_verified" {
				props[k] = v
			}
		}
		want.MinRAMMiB = base.MinRAMMiB
	}
	maps.Copy(props, n.Metadata)
	maps.Copy(props, map[string]string{images.PropertyType: "snapshot", images.PropertyServer: s.ID, "base_image_ref": s.ImageID,
		"user_id": sc.UserID, "boot_roles": strings.Join(n.Roles, ",")})
	maps.Copy(props, n.More)
	want.Properties = props
	if props[images.PropertyMapping] != "" {
		want.DiskFormat, want.MinDiskGiB = "raw", 0
		_, err := l.img.AddMapping(tx, images.Caller{ProjectID: sc.ProjectID, Admin: sc.Admin}, want)
		return err
	}
	_, err := l.img.Add(tx, images.Caller{ProjectID: sc.ProjectID, Admin: sc.Admin}, want)
	return err
}

// imageOfVolumes makes an image of a server that boots from a volume, as Nova does: snapshots of all its volumes, and an image of no bytes that
// names them.
func (l *Launcher) imageOfVolumes(tx *store.Tx, sc compute.Scope, server model.ID, n NewImage) error {
	s, err := l.c.CreateVolumeImage(tx, sc, server)
	if err != nil {
		return err
	}
	vsc := volume.Scope{ProjectID: sc.ProjectID, UserID: sc.UserID, Admin: sc.Admin, RequestID: sc.RequestID}
	type object = map[string]any
	list := []object{}
	for _, u := range s.Volumes {
		if u.Detaching {
			continue
		}
		snap, err := l.vols.CreateSnapshot(tx, vsc, volume.NewSnapshot{VolumeID: u.VolumeID, Name: "snapshot for " + n.Name, Force: true})
		if fault.Is(err, fault.OverQuota) {
			return err
		}
		if err != nil {
			return AsInvalid(err)
		}
		b := object{"source_type": "snapshot", "destination_type": "volume", "snapshot_id": snap.ID, "volume_size": snap.SizeGiB, "device_name": u.Device, "boot_index": nil,
			"delete_on_termination": u.DeleteWithServer, "device_type": "disk", "disk_bus": "virtio", "guest_format": nil, "image_id": nil, "no_device": nil, "volume_id": nil,
			"volume_type": nil, "tag": nil}
		if u.Boot {
			b["boot_index"] = 0
		}
		list = append(list, b)
	}
	b, err := json.Marshal(list)
	if err != nil {
		return err
	}
	n.More = map[string]string{images.PropertyMapping: string(b), images.PropertyMappingNew: "True", images.PropertyRoot: "/dev/vda"}
	return l.AddImage(tx, sc, s, n)
}
