package neutron

import (
	"net/http"
	"slices"

	"yakumo/api"
	"yakumo/model"
	"yakumo/network"
	"yakumo/store"
)

// topologyRoutes give a project a network that reaches the outside, without its asking for
// the parts. It is made by a GET, as in Neutron, so a reader may not.
func (d *dialect) topologyRoutes() []api.Route {
	const path = "/v2.0/auto-allocated-topology/{project}"
	return []api.Route{
		{Method: http.MethodGet, Pattern: path, Access: api.Member, Handle: d.autoAllocate},
		{Method: http.MethodDelete, Pattern: path, Access: api.Member, Handle: func(c *api.Context) error {
			p, err := topologyProject(c)
			if err != nil {
				return err
			}
			if _, err := c.Store().Update(c.R.Context(), func(tx *store.Tx) error { return d.net.DeleteAutoTopology(tx, scope(c), p) }); err != nil {
				return err
			}
			return c.Empty(http.StatusNoContent)
		}},
	}
}

// topologyProject is the path's project; None, which clients write, is the caller's.
func topologyProject(c *api.Context) (string, error) {
	if p := c.Param("project"); (p == "None" || p == "null") && c.Caller.ProjectID != "" {
		return c.Caller.ProjectID, nil
	}
	return ownProject(c)
}

func (d *dialect) autoAllocate(c *api.Context) error {
	p, err := topologyProject(c)
	if err != nil {
		return err
	}
	show := func(id string) error {
		return c.JSON(http.StatusOK, map[string]any{"auto_allocated_topology": map[string]any{"id": id, "project_id": p, "tenant_id": p}})
	}
	if slices.Contains(c.Query()["fields"], "dry-run") {
		if err := d.net.MayAutoAllocate(c.Snapshot(), network.Scope{ProjectID: p}); err != nil {
			return err
		}
		return show("dry-run=pass")
	}
	var t *model.AutoTopology
	if _, err := c.Store().Update(c.R.Context(), func(tx *store.Tx) (err error) {
		t, err = d.net.AutoAllocate(tx, scope(c), p)
		return err
	}); err != nil {
		return err
	}
	return show(t.NetworkID)
}
