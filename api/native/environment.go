package native

import (
	"cmp"
	"net/http"
	"time"

	"yakumo/api"
	"yakumo/compute"
	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
	"yakumo/volume"
)

// Environment is how the dialect shows where a project's things are to be.
type Environment struct {
	Project string        `json:"project"`
	Zone    string        `json:"zone"`
	Since   time.Time     `json:"since"`
	Done    bool          `json:"done"` // everything that can be is in the zone
	Servers []DrainServer `json:"servers"`
	Volumes []StrayVolume `json:"volumes"`
}

// StrayVolume is a volume that is not in the zone yet.
type StrayVolume struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	State  string `json:"state"`
	Moving bool   `json:"moving"`
	Why    string `json:"why"` // it does not move; "" where it does, or will
}

func environmentOf(r store.Reader, e *model.Environment) Environment {
	out := Environment{Project: e.ProjectID, Zone: e.Zone, Since: e.At, Servers: []DrainServer{}, Volumes: []StrayVolume{}}
	for _, s := range compute.Strays(r, e.ProjectID, e.Zone) {
		out.Servers = append(out.Servers, DrainServer(s))
	}
	for _, v := range volume.Strays(r, e.ProjectID, e.Zone) {
		out.Volumes = append(out.Volumes, StrayVolume(v))
	}
	out.Done = len(out.Servers)+len(out.Volumes) == 0
	return out
}

func (d *dialect) scope(c *api.Context) compute.Scope {
	return compute.Scope{ProjectID: c.Caller.ProjectID, UserID: c.Caller.UserID, Admin: c.Caller.CloudAdmin, RequestID: c.RequestID}
}

// project gives the project of the path: "self" is that of the token.
func (d *dialect) project(c *api.Context) model.ID {
	if p := c.Param("project"); p != "self" {
		return p
	}
	return c.Caller.ProjectID
}

// relocate wants a project's servers, volumes and gateways in a zone: of a tenant his own, of an administrator any.
func (d *dialect) relocate(c *api.Context) error {
	var body struct {
		Zone string `json:"zone"`
	}
	if err := c.Decode(&body); err != nil {
		return err
	}
	var e *model.Environment
	if _, err := c.Store().Update(c.R.Context(), func(tx *store.Tx) (err error) {
		e, err = d.cfg.Compute.Relocate(tx, d.scope(c), d.project(c), body.Zone)
		return err
	}); err != nil {
		return err
	}
	// What has no loop of its own is done here; a request that broke off may be repeated.
	for more := true; more; {
		if _, err := c.Store().Update(c.R.Context(), func(tx *store.Tx) error {
			more = false
			if now, ok := store.Environments.Get(tx, e.ProjectID); !ok || now.Zone != e.Zone {
				return nil // wanted elsewhere meanwhile
			}
			n, err := d.cfg.Network.Relocate(tx, e.ProjectID, e.Zone)
			more = n > 0
			return err
		}); err != nil {
			return err
		}
	}
	return c.JSON(http.StatusAccepted, map[string]any{"environment": environmentOf(c.Snapshot(), e)})
}

func (d *dialect) showEnvironment(c *api.Context) error {
	snap := c.Snapshot()
	e, ok := store.Environments.Get(snap, d.project(c))
	if !ok || !c.Caller.Sees(e.ProjectID) {
		return fault.New(fault.NotFound, "The project %s has no environment in one place.", api.Clip(d.project(c)))
	}
	return c.JSON(http.StatusOK, map[string]any{"environment": environmentOf(snap, e)})
}

// listEnvironments shows them all to an administrator, to a tenant his own, without what is left of them.
func (d *dialect) listEnvironments(c *api.Context) error {
	out := []map[string]any{}
	for e := range store.Environments.All(c.Snapshot()) {
		if c.Caller.Sees(e.ProjectID) {
			out = append(out, map[string]any{"project": e.ProjectID, "zone": e.Zone, "since": e.At, "user": cmp.Or(e.UserID, "-")})
		}
	}
	return c.JSON(http.StatusOK, map[string]any{"environments": out})
}

func (d *dialect) release(c *api.Context) error {
	if _, err := c.Store().Update(c.R.Context(), func(tx *store.Tx) error {
		return d.cfg.Compute.Release(tx, d.scope(c), d.project(c))
	}); err != nil {
		return err
	}
	return c.Empty(http.StatusNoContent)
}
