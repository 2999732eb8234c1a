package nova

import (
	"cmp"
	"net/http"
	"strings"

	"yakumo/api"
	"yakumo/compute"
	"yakumo/fault"
	"yakumo/images"
	"yakumo/launch"
	"yakumo/model"
	"yakumo/store"
)

// imageActions are those that make an image of a server's disk.
func (d *dialect) imageActions(add adds) {
	add("createImage", action{
		check: always(exactly(members{"name": title, "metadata": items}, "name")),
		run:   func(c *api.Context, v any) error { return d.createImage(c, v.(object)) },
	})
	add("createBackup", action{
		check: always(exactly(members{"name": title, "backup_type": text(0, 255), "rotation": integer(0, 1<<31-1), "metadata": items},
			"name", "backup_type", "rotation")),
		run: func(c *api.Context, v any) error { return d.createBackup(c, v.(object)) },
	})
	add("shelve", action{run: func(c *api.Context, _ any) error { return d.shelve(c) }})
	offload := plainly(d.c.ShelveOffload)
	offload.rule = "os_compute_api:os-shelve:shelve_offload"
	add("shelveOffload", offload)
	add("unshelve", action{check: unshelveSchema, run: d.unshelve})
}

// newImage is an image that the request is to make of a server.
func newImage(c *api.Context, id model.ID, name string, metadata, more map[string]string) launch.NewImage {
	return launch.NewImage{ID: id, Name: strings.TrimSpace(name), Metadata: metadata, More: more, Roles: c.Caller.RoleNames}
}

func (d *dialect) createImage(c *api.Context, o object) error {
	id := model.NewID()
	if _, err := c.Store().Update(c.R.Context(), func(tx *store.Tx) error {
		return d.launch.Save(tx, scope(c), c.Param("id"), newImage(c, id, str(o, "name"), stringMap(o["metadata"]), nil))
	}); err != nil {
		return err
	}
	return d.imageMade(c, id)
}

// imageMade answers with the new image: in the body since 2.45.
func (d *dialect) imageMade(c *api.Context, id model.ID) error {
	if at(c, 45) {
		return c.JSON(http.StatusAccepted, object{"image_id": id})
	}
	c.W.Header().Set("Location", c.URL("/images/"+id))
	return c.Empty(http.StatusAccepted)
}

func (d *dialect) createBackup(c *api.Context, o object) error {
	id, keep, kind := model.NewID(), num(o, "rotation", 0), str(o, "backup_type")
	if keep == 0 {
		return badRequest("A backup with a rotation of 0 would be removed at once: it is not made.")
	}
	if _, err := c.Store().Update(c.R.Context(), func(tx *store.Tx) error {
		s, err := d.c.CreateBackup(tx, scope(c), c.Param("id"), id, keep)
		if err != nil {
			return err
		}
		if compute.VolumeBacked(s) {
			return badRequest("Backup is not supported for volume-backed instances.")
		}
		return d.launch.AddImage(tx, scope(c), s, newImage(c, id, str(o, "name"), stringMap(o["metadata"]),
			map[string]string{images.PropertyType: "backup", images.PropertyBackup: kind}))
	}); err != nil {
		return err
	}
	return d.imageMade(c, id)
}

func (d *dialect) shelve(c *api.Context) error {
	id := model.NewID()
	return change(c, func(tx *store.Tx) error {
		s, err := compute.Get(tx, scope(c), c.Param("id"))
		if err != nil {
			return err
		}
		image := id
		if compute.VolumeBacked(s) {
			image = ""
		}
		if s, err = d.c.Shelve(tx, scope(c), s.ID, image); err != nil || image == "" {
			return err
		}
		return d.launch.AddImage(tx, scope(c), s, newImage(c, image, cmp.Or(s.Name, s.ID)+"-shelved", nil, nil))
	})
}

func unshelveSchema(c *api.Context) schema {
	zone := text(1, 255)
	switch {
	case at(c, 91):
		return nullOr(exactly(members{"availability_zone": nullOr(zone), "host": text(1, 255)}))
	case at(c, 77):
		return nullOr(exactly(members{"availability_zone": zone}, "availability_zone"))
	}
	return anything
}

func (d *dialect) unshelve(c *api.Context, v any) error {
	var to compute.Unshelve
	if o, ok := v.(object); ok && at(c, 77) {
		if at(c, 91) && len(o) == 0 {
			return badRequest("Invalid input for field/attribute unshelve. Value: {}. {} does not have enough properties")
		}
		to.Zone, to.Host = strPtr(o, "availability_zone"), str(o, "host")
	}
	if to.Host != "" && !c.Caller.CloudAdmin {
		return fault.New(fault.Forbidden, "Policy doesn't allow os_compute_api:os-shelve:unshelve_to_host to be performed.")
	}
	return change(c, func(tx *store.Tx) error {
		zone := ""
		if to.Zone != nil {
			zone = *to.Zone
		}
		if err := launch.Whereabouts(tx, zone, to.Host); err != nil {
			return err
		}
		_, err := d.c.Unshelve(tx, scope(c), c.Param("id"), to)
		return err
	})
}
