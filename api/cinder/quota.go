package cinder

import (
	"maps"
	"net/http"
	"slices"
	"strings"

	"yakumo/api"
	"yakumo/fault"
	"yakumo/store"
	"yakumo/volume"
)

func (d *dialect) quotaRoutes(route adder) {
	route(http.MethodGet, "/os-quota-sets/{project}", api.Reader, 0, func(c *api.Context) error {
		p, err := ownProject(c)
		if err != nil {
			return err
		}
		snap := c.Snapshot()
		limits := d.v.Quota(snap, p)
		o := object{"id": p}
		usage, _ := truth(c.Query().Get("usage"))
		var used map[string]int
		if usage {
			used = volume.Usage(snap, p)
		}
		for k, n := range limits {
			if usage {
				o[k] = object{"limit": n, "in_use": used[k], "reserved": 0, "allocated": 0}
				continue
			}
			o[k] = n
		}
		return c.JSON(http.StatusOK, object{"quota_set": o})
	})
	route(http.MethodGet, "/os-quota-sets/{project}/defaults", api.Reader, 0, func(c *api.Context) error {
		p, err := ownProject(c)
		if err != nil {
			return err
		}
		return c.JSON(http.StatusOK, object{"quota_set": limitsShown(d.v.Defaults(c.Snapshot()), p)})
	})
	route(http.MethodPut, "/os-quota-sets/{project}", api.Admin, 0, func(c *api.Context) error {
		p, limits, err := d.limitsAsked(c, "quota_set", c.Param("project"))
		if err != nil {
			return err
		}
		if err := do(c, func(tx *store.Tx) error { return d.v.SetQuota(tx, p, limits) }); err != nil {
			return err
		}
		return c.JSON(http.StatusOK, object{"quota_set": limitsShown(d.v.Quota(c.Snapshot(), p), "")})
	})
	route(http.MethodDelete, "/os-quota-sets/{project}", api.Admin, 0, func(c *api.Context) error {
		if err := do(c, func(tx *store.Tx) error { return d.v.ResetQuota(tx, safe(c.Param("project"))) }); err != nil {
			return err
		}
		return c.Empty(http.StatusOK)
	})
	route(http.MethodGet, "/os-quota-class-sets/{class}", api.Admin, 0, func(c *api.Context) error {
		if c.Param("class") != "default" {
			return fault.New(fault.NotFound, "Quota class %s could not be found.", api.Clip(c.Param("class")))
		}
		return c.JSON(http.StatusOK, object{"quota_class_set": limitsShown(d.v.Defaults(c.Snapshot()), "default")})
	})
	route(http.MethodPut, "/os-quota-class-sets/{class}", api.Admin, 0, func(c *api.Context) error {
		if c.Param("class") != "default" {
			return fault.New(fault.NotFound, "Quota class %s could not be found.", api.Clip(c.Param("class")))
		}
		_, limits, err := d.limitsAsked(c, "quota_class_set", "default")
		if err != nil {
			return err
		}
		if err := do(c, func(tx *store.Tx) error { return d.v.SetDefaults(tx, limits) }); err != nil {
			return err
		}
		return c.JSON(http.StatusOK, object{"quota_class_set": limitsShown(d.v.Defaults(c.Snapshot()), "")})
	})
	route(http.MethodGet, "/limits", api.Reader, 0, func(c *api.Context) error {
		p := c.Caller.ProjectID
		if asked := c.Query().Get("project_id"); asked != "" && at(c, 39) && c.Caller.CloudAdmin {
			p = safe(asked)
		}
		snap := c.Snapshot()
		q, used := d.v.Quota(snap, p), volume.Usage(snap, p)
		return c.JSON(http.StatusOK, object{"limits": object{"rate": []any{}, "absolute": object{
			"maxTotalVolumes": q[volume.QuotaVolumes], "totalVolumesUsed": used[volume.QuotaVolumes],
			"maxTotalVolumeGigabytes": q[volume.QuotaGigabytes], "totalGigabytesUsed": used[volume.QuotaGigabytes],
			"maxTotalSnapshots": q[volume.QuotaSnapshots], "totalSnapshotsUsed": used[volume.QuotaSnapshots],
			"maxTotalBackups": q[volume.QuotaBackups], "totalBackupsUsed": used[volume.QuotaBackups],
			"maxTotalBackupGigabytes": q[volume.QuotaBackupGigabytes], "totalBackupGigabytesUsed": used[volume.QuotaBackupGigabytes],
		}}})
	})
}

// ownProject gives the project of the path, which others than an administrator may only name where it is their own.
func ownProject(c *api.Context) (string, error) {
	p := c.Param("project")
	if !c.Caller.CloudAdmin && p != c.Caller.ProjectID {
		return "", fault.New(fault.Forbidden, "Policy doesn't allow volume_extension:quotas:show to be performed.")
	}
	return safe(p), nil
}

// safe keeps a client's name from meaning another key of the store.
func safe(name string) string { return strings.ReplaceAll(api.Clip(name), ",", "_") }

func limitsShown(limits map[string]int, id string) object {
	o := object{}
	if id != "" {
		o["id"] = id
	}
	for k, n := range limits {
		o[k] = n
	}
	return o
}

func (d *dialect) limitsAsked(c *api.Context, member, project string) (string, map[string]int, error) {
	b, err := read(c, member)
	if err != nil {
		return "", nil, err
	}
	limits := map[string]int{}
	for _, k := range slices.Sorted(maps.Keys(b.o)) {
		switch k {
		case "force", "tenant_id", "project_id", "skip_validation", "class_name", "id":
		default:
			limits[k] = b.number(k, -1, 1<<31-1, -1)
		}
	}
	if b.err() != nil {
		return "", nil, b.err()
	}
	if len(limits) == 0 {
		return "", nil, badRequest("Invalid input for field/attribute %s. Value: {}. {} does not have enough properties", member)
	}
	return safe(project), limits, nil
}
