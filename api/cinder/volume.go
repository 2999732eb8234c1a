package cinder

import (
	"cmp"
	"net/http"
	"strconv"
	"strings"

	"yakumo/api"
	"yakumo/fault"
	"yakumo/images"
	"yakumo/model"
	"yakumo/store"
	"yakumo/volume"
)

func (d *dialect) volumeRoutes(route adder) {
	l := volumeListing()
	route(http.MethodGet, "/volumes", api.Reader, 0, func(c *api.Context) error {
		snap := c.Snapshot()
		return l.answer(c, snap, owned(c, snap, store.Volumes), func(c *api.Context, _ store.Reader, x *model.Volume) object {
			return object{"id": x.ID, "name": x.Name, "links": links(c, "volumes/"+x.ID)}
		})
	})
	route(http.MethodGet, "/volumes/detail", api.Reader, 0, func(c *api.Context) error {
		snap := c.Snapshot()
		return l.answer(c, snap, owned(c, snap, store.Volumes), l.show)
	})
	route(http.MethodGet, "/volumes/summary", api.Reader, 12, d.summary)
	route(http.MethodPost, "/volumes", api.Member, 0, d.createVolume)
	route(http.MethodGet, "/volumes/{id}", api.Reader, 0, func(c *api.Context) error {
		snap := c.Snapshot()
		x, err := volume.Get(snap, scope(c), c.Param("id"))
		if err != nil {
			return err
		}
		return c.JSON(http.StatusOK, object{"volume": volumeShown(c, snap, x)})
	})
	route(http.MethodPut, "/volumes/{id}", api.Member, 0, d.updateVolume)
	route(http.MethodDelete, "/volumes/{id}", api.Member, 0, func(c *api.Context) error {
		cascade, _ := truth(c.Query().Get("cascade"))
		force, _ := truth(c.Query().Get("force"))
		if force = force && at(c, 23); force {
			if err := adminOnly(c, "volume:force_delete"); err != nil {
				return err
			}
		}
		if err := do(c, func(tx *store.Tx) error { return d.v.Delete(tx, scope(c), c.Param("id"), cascade, force) }); err != nil {
			return err
		}
		return c.Empty(http.StatusAccepted)
	})
	route(http.MethodPost, "/volumes/{id}/action", api.Member, 0, d.act)
	route(http.MethodGet, "/volumes/{id}/encryption", api.Reader, 0, func(c *api.Context) error {
		if _, err := volume.Get(c.Snapshot(), scope(c), c.Param("id")); err != nil {
			return err
		}
		return c.JSON(http.StatusOK, object{"encryption_key_id": nil})
	})
	metadataOf[model.Volume]{noun: "Volume " + "Metadata",
		get: func(c *api.Context) (map[string]string, error) {
			x, err := volume.Get(c.Snapshot(), scope(c), c.Param("id"))
			if err != nil {
				return nil, err
			}
			return x.Metadata, nil
		},
		set: func(tx *store.Tx, c *api.Context, f func(map[string]string) (map[string]string, error)) (*model.Volume, error) {
			return d.v.SetMetadata(tx, scope(c), c.Param("id"), f)
		},
		of: func(x *model.Volume) map[string]string { return x.Metadata },
	}.routes(route, "/volumes/{id}/metadata")
}

func volumeListing() *listing[model.Volume] {
	return &listing[model.Volume]{name: "volumes", path: "/volumes", meta: func(x *model.Volume) *model.Meta { return &x.Meta }, show: volumeShown,
		number: func(x *model.Volume, name string) (int64, bool) {
			switch name {
			case "size":
				return int64(x.SizeGiB), true
			case "created_at":
				return x.CreatedAt.UnixMicro(), true
			case "updated_at":
				return x.UpdatedAt.UnixMicro(), true
			}
			return 0, false
		},
		field: func(r store.Reader, x *model.Volume, name string) (string, bool) {
			switch name {
			case "id":
				return x.ID, true
			case "name":
				return x.Name, true
			case "status":
				return x.Status.State, true
			case "size":
				return strconv.Itoa(x.SizeGiB), true
			case "created_at":
				return x.CreatedAt.UTC().Format("2006-01-02T15:04:05.000000"), true
			case "updated_at":
				return x.UpdatedAt.UTC().Format("2006-01-02T15:04:05.000000"), true
			case "bootable":
				return pythonBool(x.Bootable), true
			case "multiattach":
				return pythonBool(x.MultiAttach), true
			case "availability_zone":
				return x.Zone, true
			case "volume_type_id":
				return x.TypeID, true
			case "project_id":
				return x.ProjectID, true
			case "user_id":
				return x.UserID, true
			case "attach_status":
				if len(x.Attachments) > 0 {
					return "attached", true
				}
				return "detached", true
			case "snapshot_id":
				return x.Source.SnapshotID, true
			case "source_volid":
				return x.Source.VolumeID, true
			case "volume_type":
				if r == nil {
					return "", true
				}
				return volume.TypeName(r, x.TypeID), true
			case "host":
				if r == nil {
					return "", true
				}
				return hostOf(r, x), true
			}
			if k, ok := strings.CutPrefix(name, "metadata:"); ok {
				return x.Metadata[k], true
			}
			return "", false
		},
	}
}

// hostOf names a volume's host as Cinder does: host@backend#pool.
func hostOf(r store.Reader, x *model.Volume) string {
	h, ok := store.Hosts.Get(r, x.Host)
	if !ok {
		return ""
	}
	return h.Name + "@" + x.Engine + "#" + x.Engine
}

func attachmentsOf(r store.Reader, x *model.Volume) []object {
	out := []object{}
	for _, a := range x.Attachments {
		if a.State == volume.Reserved || a.State == volume.Attaching {
			continue
		}
		host := a.HostName
		if s, ok := store.Servers.Get(r, a.ServerID); ok && a.ServerID != "" && host == "" {
			if h, ok := store.Hosts.Get(r, s.Host); ok {
				host = h.Name
			}
		}
		out = append(out, object{"id": x.ID, "attachment_id": a.ID, "volume_id": x.ID, "server_id": orNull(a.ServerID), "host_name": orNull(host),
			"device": orNull(a.MountPoint), "attached_at": stamp(a.AttachedAt)})
	}
	return out
}

// shown gives the metadata of a volume with what its flags add.
func metadataShown(x *model.Volume) map[string]string {
	if len(x.AdminMetadata) == 0 {
		return orEmpty(x.Metadata)
	}
	out := map[string]string{}
	for _, m := range []map[string]string{x.Metadata, x.AdminMetadata} {
		for k, v := range m {
			out[k] = v
		}
	}
	return out
}

func volumeShown(c *api.Context, r store.Reader, x *model.Volume) object {
	attachments := attachmentsOf(r, x)
	if !c.Caller.CloudAdmin {
		for _, a := range attachments { // where a guest is, is not its owner's business
			a["host_name"] = nil
		}
	}
	o := object{
		"id": x.ID, "name": orNull(x.Name), "description": orNull(x.Description), "status": x.Status.State, "size": x.SizeGiB,
		"availability_zone": x.Zone, "bootable": strings.ToLower(pythonBool(x.Bootable)), "encrypted": false, "multiattach": x.MultiAttach,
		"created_at": stamp(x.CreatedAt), "updated_at": changed(&x.Meta), "attachments": attachments, "metadata": metadataShown(x),
		"links": links(c, "volumes/"+x.ID), "user_id": x.UserID, "volume_type": orNull(volume.TypeName(r, x.TypeID)),
		"snapshot_id": orNull(x.Source.SnapshotID), "source_volid": orNull(x.Source.VolumeID), "consistencygroup_id": nil,
		"replication_status": nil, "migration_status": orNull(x.Status.Migration), "os-vol-tenant-attr:tenant_id": x.ProjectID,
	}
	if len(x.ImageMetadata) > 0 {
		o["volume_image_metadata"] = x.ImageMetadata
	}
	if c.Caller.CloudAdmin {
		o["os-vol-host-attr:host"] = orNull(hostOf(r, x))
		o["os-vol-mig-status-attr:migstat"], o["os-vol-mig-status-attr:name_id"] = orNull(x.Status.Migration), nil
	}
	if at(c, 13) {
		o["group_id"] = nil
	}
	if at(c, 21) && c.Caller.CloudAdmin {
		o["provider_id"] = nil
	}
	if at(c, 47) && x.Filling().BackupID != "" {
		o["backup_id"] = x.Filling().BackupID
	}
	if at(c, 48) {
		o["service_uuid"], o["shared_targets"] = orNull(x.Host), false
	}
	if at(c, 61) && c.Caller.CloudAdmin {
		o["cluster_name"] = nil
	}
	if at(c, 63) {
		o["volume_type_id"] = orNull(x.TypeID)
	}
	if at(c, 65) {
		o["consumes_quota"] = true
	}
	return o
}

func (d *dialect) summary(c *api.Context) error {
	snap := c.Snapshot()
	count, size := 0, 0
	metadata := map[string][]string{}
	for x := range owned(c, snap, store.Volumes) {
		count, size = count+1, size+x.SizeGiB
		for k, v := range x.Metadata {
			metadata[k] = append(metadata[k], v)
		}
	}
	o := object{"total_count": count, "total_size": size}
	if at(c, 36) {
		o["metadata"] = metadata
	}
	return c.JSON(http.StatusOK, object{"volume-summary": o})
}

func (d *dialect) createVolume(c *api.Context) error {
	if err := needProject(c); err != nil {
		return err
	}
	o, err := readAll(c)
	if err != nil {
		return err
	}
	b := (&body{o: o}).inner("volume")
	if _, ok := o["volume"].(object); !ok {
		return badRequest("Missing required element 'volume' in request body.")
	}
	n := volume.Spec{Name: cmp.Or(b.text("name"), b.text("display_name")), Description: cmp.Or(b.text("description"), b.text("display_description")),
		SizeGiB: b.number("size", 1, volume.MaxSizeGiB, 0), Type: b.text("volume_type"), Zone: b.text("availability_zone"), MultiAttach: b.truth("multiattach"),
		Metadata: b.strings("metadata"), SnapshotID: b.text("snapshot_id"), SourceID: b.text("source_volid")}
	image := cmp.Or(b.text("imageRef"), b.text("image_id"))
	if at(c, 47) {
		n.BackupID = b.text("backup_id")
	}
	if b.err() != nil {
		return b.err()
	}
	sources := 0
	for _, s := range []string{image, n.SnapshotID, n.SourceID, n.BackupID} {
		if s != "" {
			sources++
		}
	}
	switch {
	case sources > 1:
		return badRequest("Invalid input received: A volume is made of one of an image, a snapshot, a volume and a backup, not of several.")
	case len(n.Metadata) > volume.MaxMetadata:
		return badRequest("Invalid input received: a volume has at most %d metadata items.", volume.MaxMetadata)
	case b.has("consistencygroup_id") || b.has("group_id"):
		return badRequest("Invalid input received: Groups of volumes are not offered by this cloud.")
	case b.has("source_replica"):
		return badRequest("Invalid input received: Replication is not offered by this cloud.")
	case n.SizeGiB == 0 && sources == 0:
		return badRequest("Invalid input for field/attribute size. Value: None. None is not of type 'integer'")
	}
	var x *model.Volume
	if _, err := c.Store().Update(c.R.Context(), func(tx *store.Tx) error {
		n := n
		if image != "" {
			img, err := d.image(tx, c, image)
			if err != nil {
				return err
			}
			n.Image, n.Copy = img, images.Copy(img)
		}
		x, err = d.v.Create(tx, scope(c), n)
		return err
	}); err != nil {
		return err
	}
	c.W.Header().Set("Location", c.URL("/v3/volumes/"+x.ID))
	return c.JSON(http.StatusAccepted, object{"volume": volumeShown(c, c.Snapshot(), x)})
}

// image gives an image that a volume may be made of, by id or, as older clients do, by name.
func (d *dialect) image(tx *store.Tx, c *api.Context, id string) (*model.Image, error) {
	img, err := d.img.Bootable(tx, images.Caller{ProjectID: c.Caller.ProjectID, Admin: c.Caller.CloudAdmin}, id)
	if fault.Is(err, fault.NotFound) {
		return nil, badRequest("Invalid image identifier or unable to access requested image.")
	}
	if text, ok := fault.Text(err); err != nil && ok {
		return nil, badRequest("Invalid input received: %s", text)
	}
	return img, err
}

func (d *dialect) updateVolume(c *api.Context) error {
	b, err := read(c, "volume")
	if err != nil {
		return err
	}
	u := volume.Update{Name: b.optional("name"), Description: b.optional("description"), Metadata: b.strings("metadata")}
	if u.Name == nil {
		u.Name = b.optional("display_name")
	}
	if u.Description == nil {
		u.Description = b.optional("display_description")
	}
	if b.err() != nil {
		return b.err()
	}
	if u.Name == nil && u.Description == nil && u.Metadata == nil {
		return badRequest("Invalid input for field/attribute volume. Value: {}. {} does not have enough properties")
	}
	x, err := update(c, func(tx *store.Tx) (*model.Volume, error) { return d.v.Update(tx, scope(c), c.Param("id"), u) })
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, object{"volume": volumeShown(c, c.Snapshot(), x)})
}
