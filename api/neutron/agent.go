package neutron

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"yakumo/api"
	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// What an agent is called here. The type is Neutron's own for a host with Open vSwitch,
// by which clients know what it does.
const (
	agentType    = "Open vSwitch agent"
	agentBinary  = "yakumo-agent"
	switchBinary = "yakumo-server" // drives a switch that has no agent
	disabledBy   = "network agent set down"
)

const agentTime = "2006-01-02 15:04:05"

type agent struct {
	ID              string         `json:"id"`
	Type            string         `json:"agent_type"`
	Binary          string         `json:"binary"`
	Topic           string         `json:"topic"`
	Host            string         `json:"host"`
	Zone            string         `json:"availability_zone"`
	AdminStateUp    bool           `json:"admin_state_up"`
	Alive           bool           `json:"alive"`
	CreatedAt       string         `json:"created_at"`
	StartedAt       string         `json:"started_at"`
	Heartbeat       string         `json:"heartbeat_timestamp"`
	Description     string         `json:"description"`
	Configurations  map[string]any `json:"configurations"`
	ResourceVersion map[string]any `json:"resource_versions"`
	HAState         string         `json:"ha_state,omitempty"` // of a gateway: active, standby
}

func agentOf(r store.Reader, h *model.Host) agent {
	stamp := func(t time.Time) string { return t.UTC().Format(agentTime) }
	started := h.StartedAt
	if started.IsZero() { // it has joined, and not called yet
		started = h.CreatedAt
	}
	a := agent{
		ID: h.ID, Type: agentType, Binary: agentBinary, Topic: "N/A", Host: h.Name, Zone: h.Zone, AdminStateUp: !h.Disabled,
		CreatedAt: stamp(h.CreatedAt), StartedAt: stamp(started), Heartbeat: stamp(h.UpdatedAt), Description: h.Description,
		Configurations: map[string]any{
			"tunnel_types": []string{model.NetworkVXLAN, model.NetworkGeneve, model.NetworkGRE}, "tunneling_ip": h.TunnelIP.String(), "underlay_mtu": h.Underlay,
			"bridge_mappings": h.Bridges(),
			"devices":         store.Ports.Count(r, "host", h.ID), "version": h.Version,
		},
		ResourceVersion: map[string]any{},
	}
	if h.Switch != nil {
		a.Binary = switchBinary
	}
	if b, ok := store.Heartbeats.Get(r, h.ID); ok {
		a.Alive, a.Heartbeat = !h.ForcedDown, stamp(b.At)
	}
	return a
}

func (d *dialect) listAgents(c *api.Context) error {
	q, err := parseQuery(c.Query())
	if err != nil {
		return err
	}
	if err := q.only("id", "agent_type", "binary", "host", "availability_zone", "topic", "admin_state_up", "alive", "description"); err != nil {
		return err
	}
	snap := c.Snapshot()
	rows := []agent{}
	for h := range store.Hosts.All(snap) {
		a := agentOf(snap, h)
		values := map[string]string{
			"id": a.ID, "agent_type": a.Type, "binary": a.Binary, "host": a.Host, "availability_zone": a.Zone, "topic": a.Topic,
			"admin_state_up": strconv.FormatBool(a.AdminStateUp), "alive": strconv.FormatBool(a.Alive), "description": a.Description,
		}
		if q.finds(values) {
			rows = append(rows, a)
		}
	}
	page, _, err := api.Cut(rows, q.page, func(a agent) string { return a.ID })
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, map[string]any{"agents": page})
}

func noAgent(id string) error {
	return fault.Coded(fault.NotFound, "AgentNotFound", "Agent %s could not be found.", id)
}

func (d *dialect) showAgent(c *api.Context) error {
	snap := c.Snapshot()
	h, ok := store.Hosts.Get(snap, c.Param("id"))
	if !ok {
		return noAgent(c.Param("id"))
	}
	return c.JSON(http.StatusOK, map[string]any{"agent": agentOf(snap, h)})
}

// updateAgent takes a description, and admin_state_up: a host whose agent is set down
// gets no new servers, so no new ports.
func (d *dialect) updateAgent(c *api.Context) error {
	var body struct {
		Agent map[string]json.RawMessage `json:"agent"`
	}
	if err := c.Decode(&body); err != nil {
		return err
	}
	if body.Agent == nil {
		return badRequest("Unable to find 'agent' in request body")
	}
	var up *bool
	var description *string
	for name, raw := range body.Agent {
		switch name {
		case "admin_state_up":
			v, err := readBool(name, raw)
			if err != nil {
				return err
			}
			up = &v
		case "description":
			v, err := readString(name, raw)
			if err != nil {
				return err
			}
			if len(v) > 255 {
				return badInput(name, "it exceeds maximum length of 255.")
			}
			description = &v
		default:
			return badRequest("Attribute '%s' not allowed in PUT", shown(json.RawMessage(name)))
		}
	}
	id := c.Param("id")
	if _, err := c.Store().Update(c.R.Context(), func(tx *store.Tx) error {
		old, ok := store.Hosts.Get(tx, id)
		if !ok {
			return noAgent(id)
		}
		h := *old
		if description != nil {
			h.Description = *description
		}
		if up != nil && h.Disabled == *up {
			h.Disabled, h.Reason = !*up, ""
			if h.Disabled {
				h.Reason = disabledBy
			}
		}
		h.Touch(d.now())
		return store.Hosts.Put(tx, &h)
	}); err != nil {
		return err
	}
	return d.showAgent(c)
}

func (d *dialect) listZones(c *api.Context) error {
	type zone struct {
		Name     string `json:"name"`
		Resource string `json:"resource"`
		State    string `json:"state"`
	}
	q, err := parseQuery(c.Query())
	if err != nil {
		return err
	}
	if err := q.only("name", "resource", "state"); err != nil {
		return err
	}
	out := []zone{}
	for _, name := range zones(c.Snapshot()) {
		for _, resource := range []string{"network", "router"} {
			z := zone{name, resource, "available"}
			values := map[string]string{"name": z.Name, "resource": z.Resource, "state": z.State}
			if q.finds(values) {
				out = append(out, z)
			}
		}
	}
	return c.JSON(http.StatusOK, map[string]any{"availability_zones": out})
}

func (d *dialect) listProviders(c *api.Context) error {
	return c.JSON(http.StatusOK, map[string]any{"service_providers": []any{}})
}
