package nova

import (
	"net/http"

	"yakumo/api"
	"yakumo/compute"
	"yakumo/model"
	"yakumo/store"
)

// hostName is the schema of a host's name.
var hostName = matching(fqdnRE, 1, 255)

// moveActions are those by which a server changes its host or its size.
func (d *dialect) moveActions(add adds) {
	add("migrate", action{
		rule: "os_compute_api:os-migrate-server:migrate",
		check: func(c *api.Context) schema {
			if !at(c, 56) {
				return anything // as Nova's, which looks at nothing here
			}
			return nullOr(exactly(members{"host": nullOr(hostName)}))
		},
		run: func(c *api.Context, v any) error {
			r := compute.MoveRequest{}
			if o, ok := v.(object); ok && at(c, 56) {
				r.Host = str(o, "host")
			}
			return change(c, func(tx *store.Tx) error {
				_, err := d.c.Migrate(tx, scope(c), c.Param("id"), r)
				return err
			})
		},
	})
	add("os-migrateLive", action{rule: "os_compute_api:os-migrate-server:migrate_live", check: liveSchema, run: d.migrateLive})
	add("resize", action{
		check: always(exactly(members{"flavorRef": either(text(1, 255), integer(0, 1<<31)), "OS-DCF:diskConfig": oneOf("AUTO", "MANUAL")}, "flavorRef")),
		run:   d.resize,
	})
	add("confirmResize", action{check: always(null), run: func(c *api.Context, _ any) error {
		if _, err := c.Store().Update(c.R.Context(), func(tx *store.Tx) error {
			_, err := d.c.Confirm(tx, scope(c), c.Param("id"))
			return err
		}); err != nil {
			return err
		}
		return c.Empty(http.StatusNoContent)
	}})
	revert := plainly(d.c.Revert)
	revert.check = always(null)
	add("revertResize", revert)
	add("evacuate", action{
		rule: "os_compute_api:os-evacuate",
		check: func(c *api.Context) schema {
			m, required := members{"host": hostName, "adminPass": text(0, 255)}, []string{}
			if !at(c, 14) {
				m["onSharedStorage"], required = boolean, []string{"onSharedStorage"}
			}
			if at(c, 29) && !at(c, 68) {
				m["force"] = boolean
			}
			return exactly(m, required...)
		},
		run: d.evacuate,
	})
}

func liveSchema(c *api.Context) schema {
	m, required := members{"host": nullOr(hostName)}, []string{"host", "block_migration"}
	if at(c, 25) {
		m["block_migration"] = either(boolean, oneOf("auto"))
	} else {
		m["block_migration"], m["disk_over_commit"] = boolean, boolean
		required = append(required, "disk_over_commit")
	}
	if at(c, 30) && !at(c, 68) {
		m["force"] = boolean
	}
	return exactly(m, required...)
}

// migrateLive moves a running server. Which disks are copied is decided disk by disk: block_migration and
// disk_over_commit are checked and change nothing; nor does force, as a host that has no room is no target.
func (d *dialect) migrateLive(c *api.Context, v any) error {
	return change(c, func(tx *store.Tx) error {
		_, err := d.c.MoveLive(tx, scope(c), c.Param("id"), compute.MoveRequest{Host: str(v.(object), "host")})
		return err
	})
}

func (d *dialect) resize(c *api.Context, v any) error {
	o := v.(object)
	ref := lastPart(plain(o["flavorRef"]))
	if s, ok := o["flavorRef"].(string); ok {
		ref = lastPart(s)
	}
	return change(c, func(tx *store.Tx) error {
		f, err := compute.GetFlavor(tx, scope(c), ref)
		if err != nil {
			return asInvalid(err)
		}
		s, err := d.c.Resize(tx, scope(c), c.Param("id"), f)
		if err != nil {
			return err
		}
		if config := str(o, "OS-DCF:diskConfig"); config != "" && config != s.DiskConfig {
			n := *s
			n.DiskConfig = config
			return store.Servers.Put(tx, &n)
		}
		return nil
	})
}

func (d *dialect) evacuate(c *api.Context, v any) error {
	o := v.(object)
	if truth(o, "onSharedStorage") {
		if o["adminPass"] != nil {
			return badRequest("admin password can't be changed on existing disk")
		}
		return badRequest("The disks of servers are not on shared storage.")
	}
	r := compute.MoveRequest{Host: str(o, "host"), Off: at(c, 95), AdminPass: password(o)}
	if _, err := c.Store().Update(c.R.Context(), func(tx *store.Tx) error {
		_, err := d.c.Evacuate(tx, scope(c), c.Param("id"), r)
		return err
	}); err != nil {
		return err
	}
	if at(c, 14) {
		return c.Empty(http.StatusOK)
	}
	return c.JSON(http.StatusOK, object{"adminPass": r.AdminPass})
}

// inProgress tells whether a migration is a live one that is under way: only those are parts of a server in Nova.
func inProgress(m *model.Migration) bool { return m.Kind == model.MoveLive && compute.Under(m) }
