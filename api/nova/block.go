package nova

import (
	"net/http"
	"strings"

	"yakumo/api"
	"yakumo/compute"
	"yakumo/fault"
	"yakumo/launch"
	"yakumo/model"
	"yakumo/store"
	"yakumo/volume"
)

// bootFrom reads what a server's disks are made of: an image on a disk of its host, or volumes, in the new form or the older.
func (w *wanted) bootFrom(o object) error {
	older, _ := o["block_device_mapping"].([]any)
	newer, _ := o["block_device_mapping_v2"].([]any)
	if len(older) > 0 && len(newer) > 0 {
		return badRequest("Using different block_device_mapping syntaxes is not allowed in the same request.")
	}
	roots := 0
	for _, x := range newer {
		root, err := w.mapping(x.(object))
		if err != nil {
			return err
		}
		if root {
			roots++
		}
	}
	for i, x := range older {
		b, ok := x.(object)
		if !ok {
			return badRequest("Invalid input for field/attribute block_device_mapping. Value: %s. %s is not of type 'object'", api.Quoted(x), api.Quoted(x))
		}
		root, err := w.olderMapping(b, i)
		if err != nil {
			return err
		}
		if root {
			roots++
		}
	}
	if w.ImageID != "" && !w.Local { // an image without a mapping of its own is the root disk
		if len(w.Disks) > 0 && roots == 1 && w.BootDisk() != nil && w.BootDisk().Source == "image" && w.BootDisk().ID == w.ImageID {
			w.ImageID = "" // it is said twice
		} else {
			roots++
		}
	}
	switch {
	case roots != 1 && (len(newer) > 0 || len(older) > 0):
		return launch.BadMapping(launch.BadSequence)
	case w.ImageID == "" && w.BootDisk() == nil, w.ImageID != "" && !uuidRE.MatchString(w.ImageID):
		return badRequest("Invalid imageRef provided.")
	case len(w.Disks) > compute.MaxVolumes:
		return launch.BadMapping("%d volumes; a server has at most %d.", len(w.Disks), compute.MaxVolumes)
	}
	return nil
}

// mapping reads one mapping; root tells that it is the root disk.
func (w *wanted) mapping(b object) (root bool, err error) {
	no, isBool := b["no_device"].(bool)
	return w.Map(launch.Mapping{
		NoDevice: isBool && no || b["no_device"] != nil && b["no_device"] != false && b["no_device"] != "", Source: str(b, "source_type"),
		Destination: str(b, "destination_type"), ID: str(b, "uuid"), VolumeID: str(b, "volume_id"), SnapshotID: str(b, "snapshot_id"), ImageID: str(b, "image_id"),
		SizeGiB: num(b, "volume_size", 0), BootIndex: num(b, "boot_index", -1), Remove: truth(b, "delete_on_termination"), Tag: str(b, "tag"),
		Type: str(b, "volume_type"), Device: str(b, "device_name"),
	})
}

// olderMapping reads one mapping of the older form: without an image the first is the root disk.
func (w *wanted) olderMapping(b object, at int) (root bool, err error) {
	if _, ok := b["no_device"]; ok && b["no_device"] != nil && b["no_device"] != false {
		return false, nil
	}
	d := launch.Disk{Source: "volume", Remove: truth(b, "delete_on_termination"), Boot: at == 0 && w.ImageID == ""}
	if d.ID, _ = b["volume_id"].(string); d.ID == "" {
		d.Source = "snapshot"
		d.ID, _ = b["snapshot_id"].(string)
	}
	if n, ok := number64(b["volume_size"]); ok && n > 0 && n <= volume.MaxSizeGiB {
		d.SizeGiB = int(n)
	}
	device, _ := b["device_name"].(string)
	if err := launch.CheckDevice(device); err != nil {
		return false, err
	}
	if !uuidRE.MatchString(d.ID) {
		return false, launch.BadMapping("Unrecognized legacy format.")
	}
	w.Disks = append(w.Disks, d)
	return d.Boot, nil
}

// number64 reads a number as older clients send it: also in a string.
func number64(v any) (int64, bool) {
	if v == nil {
		return 0, false
	}
	o := object{"n": v}
	if integer(0, 1<<31)("n", v) != nil {
		return 0, false
	}
	return int64(num(o, "n", 0)), true
}

func volumeScope(c *api.Context) volume.Scope {
	return volume.Scope{ProjectID: c.Caller.ProjectID, UserID: c.Caller.UserID, Admin: c.Caller.CloudAdmin, RequestID: c.RequestID}
}

// volumeRoutes adds the routes of a server's volumes.
func (d *dialect) volumeRoutes(route adder) {
	const path = "/servers/{id}/os-volume_attachments"
	route(http.MethodGet, path, api.Reader, 1, func(c *api.Context) error {
		if err := unknownQuery(c, 75, "limit", "offset"); err != nil {
			return err
		}
		_, s, err := d.serverOf(c)
		if err != nil {
			return err
		}
		pg, err := page(c.Query())
		if err != nil {
			return err
		}
		uses, _, err := api.Cut(s.Volumes, pg, func(u model.VolumeUse) string { return u.VolumeID })
		if err != nil {
			return badRequest("marker [%s] not found", api.Clip(pg.Marker))
		}
		out := []object{}
		for i := range uses {
			out = append(out, useShown(c, s, &uses[i]))
		}
		return c.JSON(http.StatusOK, object{"volumeAttachments": out})
	})
	route(http.MethodGet, path+"/{volume}", api.Reader, 1, func(c *api.Context) error {
		_, s, err := d.serverOf(c)
		if err != nil {
			return err
		}
		for i := range s.Volumes {
			if s.Volumes[i].VolumeID == c.Param("volume") {
				return c.JSON(http.StatusOK, object{"volumeAttachment": useShown(c, s, &s.Volumes[i])})
			}
		}
		return fault.New(fault.NotFound, "Instance %s is not attached to volume %s", s.ID, api.Clip(c.Param("volume")))
	})
	route(http.MethodPost, path, api.Member, 1, d.attachVolume)
	route(http.MethodPut, path+"/{volume}", api.Member, 1, d.updateVolume)
	route(http.MethodDelete, path+"/{volume}", api.Member, 1, func(c *api.Context) error {
		if _, err := c.Store().Update(c.R.Context(), func(tx *store.Tx) error {
			_, err := d.c.DetachVolume(tx, scope(c), c.Param("id"), c.Param("volume"))
			return err
		}); err != nil {
			return err
		}
		return c.Empty(http.StatusAccepted)
	})
}

func useShown(c *api.Context, s *model.Server, u *model.VolumeUse) object {
	o := object{"volumeId": u.VolumeID, "serverId": s.ID, "device": u.Device}
	if at(c, 89) {
		o["attachment_id"], o["bdm_uuid"] = u.AttachmentID, u.AttachmentID
	} else {
		o["id"] = u.VolumeID
	}
	if at(c, 70) {
		o["tag"] = nil
		if u.Tag != "" {
			o["tag"] = u.Tag
		}
	}
	if at(c, 79) {
		o["delete_on_termination"] = u.DeleteWithServer
	}
	return o
}

func (d *dialect) attachVolume(c *api.Context) error {
	m := members{"volumeId": uuid, "device": nullOr(text(0, 255))}
	if at(c, 49) {
		m["tag"] = matching(tagRE, 1, 60)
	}
	if at(c, 79) {
		m["delete_on_termination"] = boolean
	}
	body, err := decode(c, exactly(members{"volumeAttachment": exactly(m, "volumeId")}, "volumeAttachment"))
	if err != nil {
		return err
	}
	o := body["volumeAttachment"].(object)
	if err := launch.CheckDevice(str(o, "device")); err != nil {
		return err
	}
	if d.vols == nil {
		return d.owned(notOffered("Attaching a volume"))(c)
	}
	var s *model.Server
	var u *model.VolumeUse
	if _, err := c.Store().Update(c.R.Context(), func(tx *store.Tx) (err error) {
		old, err := compute.Get(tx, scope(c), c.Param("id"))
		if err != nil {
			return err
		}
		v, err := volume.Get(tx, volumeScope(c), str(o, "volumeId"))
		switch state := compute.State(old); {
		case err != nil:
			return err
		case v.ProjectID != old.ProjectID && !c.Caller.CloudAdmin:
			return fault.New(fault.NotFound, "Volume %s could not be found.", v.ID)
		case v.MultiAttach && !at(c, 60):
			return badRequest("Multiattach volumes are only supported starting with compute API version 2.60.")
		case (state == compute.Shelved || state == compute.ShelvedOffloaded) && !at(c, 20):
			return fault.New(fault.Conflict, "Cannot 'attach_volume' instance %s while it is in vm_state %s", old.ID, state)
		}
		s, u, err = d.c.AttachVolume(tx, scope(c), old.ID, compute.NewUse{VolumeID: v.ID, Tag: str(o, "tag"), DeleteWithServer: truth(o, "delete_on_termination")})
		return err
	}); err != nil {
		return err
	}
	return c.JSON(http.StatusOK, object{"volumeAttachment": useShown(c, s, u)})
}

// updateVolume changes whether a volume goes with its server. Exchanging it for another is refused: the guest's data is copied by nobody here.
func (d *dialect) updateVolume(c *api.Context) error {
	m := members{"volumeId": uuid}
	if at(c, 85) {
		for k, s := range (members{"device": nullOr(text(0, 255)), "tag": nullOr(text(0, 60)), "delete_on_termination": boolean, "serverId": uuid, "id": uuid, "attachment_id": uuid, "bdm_uuid": uuid}) {
			m[k] = s
		}
	}
	body, err := decode(c, exactly(members{"volumeAttachment": exactly(m, "volumeId")}, "volumeAttachment"))
	if err != nil {
		return err
	}
	o := body["volumeAttachment"].(object)
	if _, _, err := d.serverOf(c); err != nil {
		return err
	}
	if !strings.EqualFold(str(o, "volumeId"), c.Param("volume")) || !at(c, 85) {
		if !c.Caller.CloudAdmin {
			return fault.New(fault.Forbidden, "Policy doesn't allow os_compute_api:os-volumes-attachments:swap to be performed.")
		}
		return notOffered("Exchanging a server's volume for another")
	}
	if _, there := o["delete_on_termination"]; !there {
		return badRequest("The 'delete_on_termination' of the volume attachment is needed.")
	}
	if _, err := c.Store().Update(c.R.Context(), func(tx *store.Tx) error {
		_, err := d.c.KeepVolume(tx, scope(c), c.Param("id"), c.Param("volume"), truth(o, "delete_on_termination"))
		return err
	}); err != nil {
		return err
	}
	return c.Empty(http.StatusAccepted)
}
