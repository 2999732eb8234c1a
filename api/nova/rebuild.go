package nova

import (
	"crypto/rand"
	"net/http"

	"yakumo/api"
	"yakumo/compute"
	"yakumo/fault"
	"yakumo/images"
	"yakumo/model"
	"yakumo/store"
)

// diskActions are those that start a server from another disk.
func (d *dialect) diskActions(add adds) {
	add("rebuild", action{check: rebuildSchema, run: d.rebuild})
	add("rescue", action{
		check: always(nullOr(exactly(members{"adminPass": text(0, 255), "rescue_image_ref": uuid}))),
		run:   d.rescue,
	})
	add("unrescue", plainly(d.c.Unrescue))
}

func rebuildSchema(c *api.Context) schema {
	m := members{"name": title, "imageRef": uuid, "adminPass": text(0, 255), "metadata": items, "preserve_ephemeral": boolean,
		"OS-DCF:diskConfig": oneOf("AUTO", "MANUAL"), "accessIPv4": address(4), "accessIPv6": address(6)}
	if at(c, 19) {
		m["description"] = description
	}
	if at(c, 54) {
		m["key_name"] = nullOr(text(1, 255))
	}
	if at(c, 57) {
		m["user_data"] = nullOr(base64Text)
	} else {
		m["personality"] = list(anything, 0, 255)
	}
	if at(c, 63) {
		m["trusted_image_certificates"] = nullOr(list(text(1, 255), 1, 50))
	}
	if at(c, 90) {
		m["hostname"] = hostNameSchema(c)
	}
	return exactly(m, "imageRef")
}

// password gives the one that was asked for, or a new one. It is answered as Nova does by default (enable_instance_password), and the guest
// is told it by its config drive, where it has one.
func password(o object) string {
	if p := str(o, "adminPass"); p != "" {
		return p
	}
	return rand.Text()[:12]
}

func (d *dialect) rebuild(c *api.Context, v any) error {
	o := v.(object)
	if l, _ := o["personality"].([]any); len(l) > 0 {
		return badRequest("Personality files are not offered by this cloud; use user data.")
	}
	if l, _ := o["trusted_image_certificates"].([]any); len(l) > 0 {
		return badRequest("Image signature certificates are not offered by this cloud yet.")
	}
	if truth(o, "preserve_ephemeral") {
		return badRequest("The current driver does not support preserving ephemeral partitions.")
	}
	word := password(o)
	r := compute.Rebuild{AdminPass: word, UserData: strPtr(o, "user_data"), Reimage: at(c, 93), Update: compute.Update{
		Name: strPtr(o, "name"), Description: strPtr(o, "description"), HostName: strPtr(o, "hostname"),
		AccessIPv4: strPtr(o, "accessIPv4"), AccessIPv6: strPtr(o, "accessIPv6"), DiskConfig: strPtr(o, "OS-DCF:diskConfig"),
	}}
	trim(r.Name)
	if _, there := o["metadata"]; there {
		m := stringMap(o["metadata"])
		r.Metadata = &m
	}
	if _, err := c.Store().Update(c.R.Context(), func(tx *store.Tx) (err error) {
		r := r
		if r.Image, err = d.bootable(tx, c, str(o, "imageRef")); err != nil {
			return err
		}
		r.Copy = images.Copy(r.Image)
		if _, there := o["key_name"]; there {
			if r.Key, err = d.keyOf(tx, c, str(o, "key_name")); err != nil {
				return err
			}
		}
		_, err = d.c.Rebuild(tx, scope(c), c.Param("id"), r)
		return err
	}); err != nil {
		return err
	}
	snap := c.Snapshot()
	s, err := compute.Get(snap, scope(c), c.Param("id"))
	if err != nil {
		return err
	}
	shown := newViewer(c, snap).rebuilt(s)
	shown["adminPass"] = word
	c.W.Header().Set("Location", c.URL("/v2.1/servers/"+s.ID))
	return c.JSON(http.StatusAccepted, object{"server": shown})
}

// rebuilt shows a server as the answer to a rebuild does: without what extensions add, before 2.75.
func (v *viewer) rebuilt(s *model.Server) object {
	o := v.one(s)
	if at(v.c, 54) {
		if _, there := o["key_name"]; !there {
			o["key_name"] = nil
		}
	}
	if at(v.c, 57) {
		o["user_data"] = nil
		if s.UserData != "" {
			o["user_data"] = s.UserData
		}
	}
	if at(v.c, 75) {
		return o
	}
	return v.older(o, "key_name", "user_data")
}

// bootable gives an image that the caller may start a server from.
func (d *dialect) bootable(tx *store.Tx, c *api.Context, id string) (*model.Image, error) {
	sc := scope(c)
	img, err := d.img.Bootable(tx, images.Caller{ProjectID: sc.ProjectID, Admin: sc.Admin}, id)
	return img, asInvalid(err)
}

// keyOf gives the caller's key pair of the name, none for "".
func (d *dialect) keyOf(tx *store.Tx, c *api.Context, name string) (*compute.Key, error) {
	if name == "" {
		return &compute.Key{}, nil
	}
	k, err := compute.GetKeyPair(tx, c.Caller.UserID, name)
	if err != nil {
		return nil, badRequest("Invalid key_name provided.")
	}
	return &compute.Key{Name: k.Name, Public: k.PublicKey}, nil
}

func (d *dialect) rescue(c *api.Context, v any) error {
	o, _ := v.(object)
	word := password(o)
	if _, err := c.Store().Update(c.R.Context(), func(tx *store.Tx) error {
		s, err := compute.Get(tx, scope(c), c.Param("id"))
		if err != nil {
			return err
		}
		id := str(o, "rescue_image_ref")
		if id == "" { // as Nova does: the image that the server was made from
			id = s.ImageID
		}
		img, err := d.bootable(tx, c, id)
		if err != nil {
			return err
		}
		if compute.VolumeBacked(s) && !at(c, 87) {
			return fault.New(fault.Invalid, "Cannot rescue a volume-backed instance.")
		}
		_, err = d.c.Rescue(tx, scope(c), s.ID, img, images.Copy(img), word)
		return err
	}); err != nil {
		return err
	}
	return c.JSON(http.StatusOK, object{"adminPass": word})
}
