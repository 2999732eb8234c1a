package neutron

import (
	"encoding/json"
	"net/http"

	"yakumo/api"
	"yakumo/fault"
	"yakumo/network"
	"yakumo/store"
)

// ownProject gives the project of the path, which others than an administrator may only
// name where it is their own.
func ownProject(c *api.Context) (string, error) {
	p := c.Param("project")
	if !c.Caller.CloudAdmin && p != c.Caller.ProjectID {
		return "", fault.Coded(fault.Forbidden, "PolicyNotAuthorized", "Only an administrator may see the quota of another project.")
	}
	return p, nil
}

func (d *dialect) listQuotas(c *api.Context) error {
	snap := c.Snapshot()
	out := []any{}
	for q := range store.Quotas.List(snap, "service", network.QuotaService) {
		row := map[string]any{"project_id": q.ProjectID, "tenant_id": q.ProjectID}
		for name, limit := range d.net.Quota(snap, q.ProjectID) {
			row[name] = limit
		}
		out = append(out, row)
	}
	return c.JSON(http.StatusOK, map[string]any{"quotas": out})
}

func (d *dialect) showQuota(c *api.Context) error {
	p, err := ownProject(c)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, map[string]any{"quota": d.net.Quota(c.Snapshot(), p)})
}

func (d *dialect) defaultQuota(c *api.Context) error {
	if _, err := ownProject(c); err != nil {
		return err
	}
	return c.JSON(http.StatusOK, map[string]any{"quota": d.net.Defaults()})
}

func (d *dialect) detailQuota(c *api.Context) error {
	p, err := ownProject(c)
	if err != nil {
		return err
	}
	type detail struct {
		Limit    int `json:"limit"`
		Used     int `json:"used"`
		Reserved int `json:"reserved"` // nothing is reserved apart: creation is one transaction
	}
	snap := c.Snapshot()
	out := map[string]detail{}
	for name, limit := range d.net.Quota(snap, p) {
		out[name] = detail{Limit: limit, Used: network.Used(snap, p, name)}
	}
	return c.JSON(http.StatusOK, map[string]any{"quota": out})
}

func (d *dialect) updateQuota(c *api.Context) error {
	var body struct {
		Quota map[string]json.RawMessage `json:"quota"`
	}
	if err := c.Decode(&body); err != nil {
		return err
	}
	if body.Quota == nil {
		return badRequest("Unable to find 'quota' in request body")
	}
	known := d.net.Defaults()
	limits := map[string]int{}
	for name, raw := range body.Quota {
		switch name {
		case "project_id", "tenant_id", "force", "check_limit":
			continue // the path says whose; no limit is refused for being below what is used
		}
		if _, ok := known[name]; !ok {
			return badRequest("Unrecognized attribute(s) '%s'", shown(json.RawMessage(name)))
		}
		n, err := readInt(name, raw)
		if err != nil {
			return err
		}
		if n < -1 || n > 1<<31-1 {
			return badInput(name, "'%d' is not from -1 to %d.", n, 1<<31-1)
		}
		limits[name] = n
	}
	p := c.Param("project")
	if _, err := c.Store().Update(c.R.Context(), func(tx *store.Tx) error { return d.net.SetQuota(tx, p, limits) }); err != nil {
		return err
	}
	return c.JSON(http.StatusOK, map[string]any{"quota": d.net.Quota(c.Snapshot(), p)})
}

func (d *dialect) deleteQuota(c *api.Context) error {
	p := c.Param("project")
	if _, err := c.Store().Update(c.R.Context(), func(tx *store.Tx) error { return d.net.ResetQuota(tx, p) }); err != nil {
		return err
	}
	return c.Empty(http.StatusNoContent)
}
