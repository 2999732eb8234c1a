package nova

import (
	"encoding/json"
	"maps"
	"net/http"
	"regexp"
	"strconv"
	"strings"

	"yakumo/api"
	"yakumo/compute"
	"yakumo/fault"
	"yakumo/images"
	"yakumo/model"
	"yakumo/store"
	"yakumo/volume"
)

// disk is a block device mapping as read from a body, of a volume.
type disk struct {
	source string // volume, snapshot, image, blank
	id     string
	size   int // GiB; 0: that of the source
	boot   bool
	remove bool // with the server
	tag    string
	kind   string // volume type
}

// badMapping refuses a block device mapping in Nova's words.
func badMapping(format string, args ...any) error {
	return badRequest("Block Device Mapping is Invalid: "+format, args...)
}

const badSequence = "Boot sequence for the instance and image/block device mapping combination is not valid."

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
	if w.image != "" && !w.local { // an image without a mapping of its own is the root disk
		if len(w.disks) > 0 && roots == 1 && w.bootDisk() != nil && w.bootDisk().source == "image" && w.bootDisk().id == w.image {
			w.image = "" // it is said twice
		} else {
			roots++
		}
	}
	switch {
	case roots != 1 && (len(newer) > 0 || len(older) > 0):
		return badMapping(badSequence)
	case w.image == "" && w.bootDisk() == nil, w.image != "" && !uuidRE.MatchString(w.image):
		return badRequest("Invalid imageRef provided.")
	case len(w.disks) > compute.MaxVolumes:
		return badMapping("%d volumes; a server has at most %d.", len(w.disks), compute.MaxVolumes)
	}
	return nil
}

// mapped gives what is wanted where the image has no bytes, but names snapshots that the server's volumes are made of.
func (d *dialect) mapped(tx *store.Tx, sc compute.Scope, w *wanted) (*wanted, error) {
	if w.image == "" {
		return w, nil
	}
	img, err := d.img.Get(tx, images.Caller{ProjectID: sc.ProjectID, Admin: sc.Admin}, w.image)
	if err != nil {
		return w, nil // told by who looks whether it can be booted
	}
	text := images.Mapping(img)
	if text == "" {
		return w, nil
	}
	var list []object
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		return nil, badRequest("Image %s has a block device mapping that cannot be read.", img.ID)
	}
	n := *w
	n.image, n.local, n.disks = "", false, nil
	for _, b := range list {
		b = maps.Clone(b)
		for k, v := range b {
			if f, ok := v.(float64); ok { // a body's numbers are read otherwise
				b[k] = json.Number(strconv.FormatFloat(f, 'f', -1, 64))
			}
		}
		if _, err := n.mapping(b); err != nil {
			return nil, err
		}
	}
	n.disks = append(n.disks, w.disks...)
	switch {
	case n.image != "" || n.bootDisk() == nil:
		return nil, badMapping(badSequence)
	case len(n.disks) > compute.MaxVolumes:
		return nil, badMapping("%d volumes; a server has at most %d.", len(n.disks), compute.MaxVolumes)
	}
	return &n, nil
}

func (w *wanted) bootDisk() *disk {
	for i := range w.disks {
		if w.disks[i].boot {
			return &w.disks[i]
		}
	}
	return nil
}

// mapping reads one mapping; root tells that it is the root disk.
func (w *wanted) mapping(b object) (root bool, err error) {
	if no, isBool := b["no_device"].(bool); isBool && no || b["no_device"] != nil && b["no_device"] != false && b["no_device"] != "" {
		return false, nil
	}
	source, dest := str(b, "source_type"), str(b, "destination_type")
	d := disk{source: source, id: str(b, "uuid"), size: num(b, "volume_size", 0), remove: truth(b, "delete_on_termination"), tag: str(b, "tag"), kind: str(b, "volume_type")}
	if source == "" { // the older members within the new form
		switch {
		case str(b, "volume_id") != "":
			d.source = "volume"
		case str(b, "snapshot_id") != "":
			d.source = "snapshot"
		case str(b, "image_id") != "":
			d.source = "image"
		default:
			d.source = "blank"
		}
	}
	for _, k := range []string{"volume_id", "snapshot_id", "image_id"} {
		if d.id == "" {
			d.id = str(b, k)
		}
	}
	if dest == "" {
		dest = "local"
		if d.source == "volume" || d.source == "snapshot" {
			dest = "volume"
		}
	}
	d.boot = num(b, "boot_index", -1) == 0
	if err := checkDevice(str(b, "device_name")); err != nil {
		return false, err
	}
	switch {
	case d.source != "blank" && d.id == "":
		return false, badMapping("Missing device UUID.")
	case d.source == "blank" && dest == "local":
		return false, badRequest("Ephemeral and swap disks in block_device_mapping_v2 are not offered by this cloud yet; choose a flavor that has them.")
	case d.source == "image" && dest == "local":
		if !d.boot {
			return false, badMapping("Mapping image to local is not supported.")
		}
		if w.image != "" && w.image != d.id {
			return false, badMapping("it names another image than imageRef.")
		}
		w.image, w.local = d.id, true
		return true, nil
	case dest == "local":
		return false, badMapping("Mapping %s to local is not supported.", d.source)
	case d.source == "image" && d.size == 0:
		return false, badMapping("Images with destination_type 'volume' need to have a non-zero size specified")
	case d.source == "blank" && d.size == 0:
		return false, badMapping("Blank volumes (source: 'blank', dest: 'volume') need to have non-zero size.")
	case d.source == "blank" && d.boot:
		return false, badMapping(badSequence)
	}
	w.disks = append(w.disks, d)
	return d.boot, nil
}

// olderMapping reads one mapping of the older form: without an image the first is the root disk.
func (w *wanted) olderMapping(b object, at int) (root bool, err error) {
	if _, ok := b["no_device"]; ok && b["no_device"] != nil && b["no_device"] != false {
		return false, nil
	}
	d := disk{source: "volume", remove: truth(b, "delete_on_termination"), boot: at == 0 && w.image == ""}
	if d.id, _ = b["volume_id"].(string); d.id == "" {
		d.source = "snapshot"
		d.id, _ = b["snapshot_id"].(string)
	}
	if n, ok := number64(b["volume_size"]); ok && n > 0 && n <= volume.MaxSizeGiB {
		d.size = int(n)
	}
	device, _ := b["device_name"].(string)
	if err := checkDevice(device); err != nil {
		return false, err
	}
	if !uuidRE.MatchString(d.id) {
		return false, badMapping("Unrecognized legacy format.")
	}
	w.disks = append(w.disks, d)
	return d.boot, nil
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

var deviceRE = regexp.MustCompile(`^(/dev/)?(x?[a-z]?d?)([a-z]+)[0-9]*$`)

// checkDevice refuses a device's name that is none. The guest's own names are chosen by its hypervisor, as in Nova with libvirt.
func checkDevice(name string) error {
	if name != "" && !deviceRE.MatchString(name) {
		return badRequest("The supplied device path (%s) is invalid.", api.Clip(name))
	}
	return nil
}

// uses gives the volumes of a new server; those that are yet to be made are made in the transaction.
func (d *dialect) uses(tx *store.Tx, c *api.Context, w *wanted) ([]compute.NewUse, error) {
	if len(w.disks) > 0 && d.vols == nil {
		return nil, notOffered("A volume")
	}
	var out []compute.NewUse
	for _, x := range w.disks {
		id := x.id
		switch x.source {
		case "volume":
			v, err := volume.Get(tx, volumeScope(c), id)
			if err != nil {
				return nil, badMapping("failed to get volume %s.", id)
			}
			if v.MultiAttach && !at(c, 60) {
				return nil, badRequest("Multiattach volumes are only supported starting with compute API version 2.60.")
			}
		default:
			spec := volume.Spec{SizeGiB: x.size, Type: x.kind}
			switch x.source {
			case "snapshot":
				spec.SnapshotID = id
			case "image":
				img, err := d.bootable(tx, c, id)
				if err != nil {
					return nil, badMapping("failed to get image %s.", id)
				}
				spec.Image, spec.Copy = img, images.Copy(img)
			}
			v, err := d.vols.Create(tx, volumeScope(c), spec)
			if fault.Is(err, fault.NotFound) && x.source == "snapshot" {
				return nil, badMapping("failed to get snapshot %s.", id)
			}
			if err != nil {
				return nil, asInvalid(err)
			}
			id = v.ID
		}
		out = append(out, compute.NewUse{VolumeID: id, Tag: x.tag, Boot: x.boot, DeleteWithServer: x.remove})
	}
	return out, nil
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
	if err := checkDevice(str(o, "device")); err != nil {
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
