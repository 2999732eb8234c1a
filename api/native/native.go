// Package native is Yakumo's own dialect, below /yakumo: what operators need and no other
// cloud's API has a word for. Joining of hosts, and the state of the cloud in one answer;
// and what tenants need to understand their network: traces and captures. It is JSON over
// HTTP with Keystone's tokens; and where a project's environment is to be. All else is an administrator's.
//
// It reads and writes hosts and join tokens. May import: api, check, compute, fault, model, network, store, trace, volume. Must
// not import: another dialect, link, agent.
package native

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"time"

	"yakumo/api"
	"yakumo/compute"
	"yakumo/fault"
	"yakumo/model"
	"yakumo/network"
	"yakumo/store"
)

// Config makes the service.
type Config struct {
	// Token makes a join token; hostName binds it, "" does not.
	Token   func(ctx context.Context, hostName string, ttl time.Duration) (string, error)
	Version string
	Tracer  Tracer
	Checker Checker
	Compute *compute.Compute
	Network *network.Network
}

type dialect struct{ cfg Config }

// New makes the service.
func New(cfg Config) api.Service {
	d := &dialect{cfg}
	return api.Service{
		Name: "yakumo", Prefix: "/yakumo", Error: writeError,
		Routes: []api.Route{
			{Method: "GET", Pattern: "/", Access: api.Public, NoSync: true, Handle: d.version},
			{Method: "GET", Pattern: "/v1", Access: api.Public, NoSync: true, Handle: d.version},
			{Method: "POST", Pattern: "/v1/join-tokens", Access: api.Admin, Handle: d.createToken},
			{Method: "GET", Pattern: "/v1/hosts", Access: api.Admin, Handle: d.listHosts},
			{Method: "GET", Pattern: "/v1/hosts/{host}", Access: api.Admin, Handle: d.showHost},
			{Method: "DELETE", Pattern: "/v1/hosts/{host}", Access: api.Admin, Handle: d.deleteHost},
			{Method: "POST", Pattern: "/v1/hosts/{host}/drain", Access: api.Admin, Handle: d.drain},
			{Method: "GET", Pattern: "/v1/hosts/{host}/drain", Access: api.Admin, Handle: d.showDrain},
			{Method: "DELETE", Pattern: "/v1/hosts/{host}/drain", Access: api.Admin, Handle: d.undrain},
			{Method: "POST", Pattern: "/v1/hosts/{host}/fence", Access: api.Admin, Handle: d.fence},
			{Method: "POST", Pattern: "/v1/switches", Access: api.Admin, Handle: d.createSwitch},
			{Method: "GET", Pattern: "/v1/switches", Access: api.Admin, Handle: d.listSwitches},
			{Method: "GET", Pattern: "/v1/switches/{host}", Access: api.Admin, Handle: d.showSwitch},
			{Method: "DELETE", Pattern: "/v1/switches/{host}", Access: api.Admin, Handle: d.deleteSwitch},
			{Method: "GET", Pattern: "/v1/check", Access: api.Admin, Handle: d.check},
			// Tenants' own: where all that the project has is to be.
			{Method: "GET", Pattern: "/v1/environments", Access: api.Reader, Handle: d.listEnvironments},
			{Method: "GET", Pattern: "/v1/environments/{project}", Access: api.Reader, Handle: d.showEnvironment},
			{Method: "PUT", Pattern: "/v1/environments/{project}", Access: api.Member, Handle: d.relocate},
			{Method: "DELETE", Pattern: "/v1/environments/{project}", Access: api.Member, Handle: d.release},
			// Tenants' own: a packet of their port, explained or sent; what passes their port.
			{Method: "POST", Pattern: "/v1/traces", Access: api.Member, Handle: d.trace},
			{Method: "GET", Pattern: "/v1/ports/{id}/capture", Access: api.Member, Handle: d.capture},
		},
	}
}

func writeError(c *api.Context, status int, err error) {
	c.JSON(status, map[string]any{"error": map[string]any{
		"code": status, "title": http.StatusText(status), "message": api.Text(status, err), "request_id": c.RequestID,
	}})
}

func (d *dialect) version(c *api.Context) error {
	return c.JSON(http.StatusOK, map[string]any{"product": "Yakumo", "version": d.cfg.Version, "api": "v1"})
}

// MaxTokenTTL bounds the life of a join token.
const MaxTokenTTL = 7 * 24 * time.Hour

func (d *dialect) createToken(c *api.Context) error {
	var body struct {
		Host string `json:"host"`
		TTL  *int   `json:"ttl"` // seconds
	}
	if err := c.Decode(&body); err != nil {
		return err
	}
	seconds, most := int(time.Hour/time.Second), int(MaxTokenTTL/time.Second)
	if body.TTL != nil {
		seconds = *body.TTL
	}
	if seconds < 1 || seconds > most { // before it is multiplied: that could overflow
		return fault.New(fault.Invalid, "ttl must be from 1 to %d seconds.", most)
	}
	ttl := time.Duration(seconds) * time.Second
	token, err := d.cfg.Token(c.R.Context(), body.Host, ttl)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusCreated, map[string]any{"token": token, "host": body.Host, "expires_at": c.Now.Add(ttl).UTC().Format(time.RFC3339)})
}

// Host is how the dialect shows a host.
type Host struct {
	ID          string `json:"id"`
	Name        string `json:"name"`
	Zone        string `json:"zone"`
	Up          bool   `json:"up"`
	Disabled    bool   `json:"disabled"`
	Draining    bool   `json:"draining"`
	Fenced      bool   `json:"fenced"` // confirmed to be off
	TunnelIP    string `json:"tunnel_ip"`
	UnderlayMTU int    `json:"underlay_mtu"`
	// BridgeMappings gives the host's provider bridge for each physical network.
	BridgeMappings map[string]string  `json:"bridge_mappings"`
	Version        string             `json:"version"`
	Servers        int                `json:"servers"`
	Ports          int                `json:"ports"`
	Capacity       model.HostCapacity `json:"capacity"`
	StartedAt      time.Time          `json:"started_at"`
}

func show(snap store.Reader, h *model.Host) Host {
	_, up := store.Heartbeats.Get(snap, h.ID)
	v := Host{ID: h.ID, Name: h.Name, Zone: h.Zone, Up: up && !h.ForcedDown, Disabled: h.Disabled, Draining: h.Draining, Fenced: !h.FencedAt.IsZero(), UnderlayMTU: h.Underlay, BridgeMappings: h.Bridges(), Version: h.Version,
		Servers: store.Servers.Count(snap, "host", h.ID), Ports: store.Ports.Count(snap, "host", h.ID), Capacity: h.Capacity, StartedAt: h.StartedAt}
	if h.TunnelIP.IsValid() {
		v.TunnelIP = h.TunnelIP.String()
	}
	return v
}

func (d *dialect) listHosts(c *api.Context) error {
	snap, hosts := c.Snapshot(), []Host{}
	for h := range store.Hosts.All(snap) {
		hosts = append(hosts, show(snap, h))
	}
	slices.SortFunc(hosts, func(a, b Host) int { return cmp.Compare(a.Name, b.Name) })
	return c.JSON(http.StatusOK, map[string]any{"hosts": hosts})
}

func find(r store.Reader, key string) (*model.Host, error) {
	if h, ok := store.Hosts.Get(r, key); ok {
		return h, nil
	}
	if h, ok := store.Hosts.Claimed(r, key); ok {
		return h, nil
	}
	return nil, fault.New(fault.NotFound, "There is no host %s.", key)
}

func (d *dialect) showHost(c *api.Context) error {
	snap := c.Snapshot()
	h, err := find(snap, c.Param("host"))
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, map[string]any{"host": show(snap, h)})
}

// deleteHost forgets a host that holds nothing: its certificate is worthless from then on.
func (d *dialect) deleteHost(c *api.Context) error {
	if _, err := c.Store().Update(c.R.Context(), func(tx *store.Tx) error {
		h, err := find(tx, c.Param("host"))
		if err != nil {
			return err
		}
		tx.Guard(store.HostGuard(h.ID)) // no server is placed there meanwhile
		if n := store.Servers.Count(tx, "host", h.ID); n > 0 {
			return fault.New(fault.Conflict, "Host %s has %d servers. Move or delete them first.", h.Name, n)
		}
		if n := store.Ports.Count(tx, "host", h.ID); n > 0 {
			return fault.New(fault.Conflict, "Host %s has %d ports. Unbind or delete them first.", h.Name, n)
		}
		if err := store.Heartbeats.Delete(tx, h.ID); err != nil { // its stream ends when the server notices
			return err
		}
		if err := store.Told.Delete(tx, h.ID); err != nil {
			return err
		}
		tx.Unmark(store.HostGuard(h.ID))
		return store.Hosts.Delete(tx, h.ID)
	}); err != nil {
		return err
	}
	return c.Empty(http.StatusNoContent)
}
