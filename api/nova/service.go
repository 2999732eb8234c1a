package nova

import (
	"cmp"
	"net/http"
	"slices"

	"yakumo/api"
	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// binary is what clients know the process by that runs guests on a host.
const binary = "nova-compute"

func (d *dialect) serviceRoutes(route adder) {
	route(http.MethodGet, "/os-services", api.Admin, 1, d.listServices)
	route(http.MethodPut, "/os-services/{id}", api.Admin, 1, d.updateService)
	route(http.MethodGet, "/os-availability-zone", api.Reader, 1, func(c *api.Context) error { return d.listZones(c, false) })
	route(http.MethodGet, "/os-availability-zone/detail", api.Admin, 1, func(c *api.Context) error { return d.listZones(c, true) })
	// Nova's proxies of the network service's groups, which older clients look names up with.
	route(http.MethodGet, "/os-security-groups", api.Reader, 1, d.listOwnGroups)
	route(http.MethodGet, "/os-security-groups/{id}", api.Reader, 1, d.showGroup)
}

// heard gives when a host was last heard of.
func heard(snap store.Snapshot, h *model.Host) any {
	if b, ok := store.Heartbeats.Get(snap, h.ID); ok && b.At.After(h.UpdatedAt) {
		return micros(b.At)
	}
	return micros(h.UpdatedAt)
}

func serviceOf(c *api.Context, snap store.Snapshot, h *model.Host) object {
	o := object{"id": hostNumber(c, h), "binary": binary, "host": h.Name, "zone": h.Zone, "status": enabled(h),
		"state": upDown(store.HostUp(snap, h)), "updated_at": heard(snap, h), "disabled_reason": nil}
	if h.Disabled && h.Reason != "" {
		o["disabled_reason"] = h.Reason
	}
	if at(c, 11) {
		o["forced_down"] = h.ForcedDown
	}
	return o
}

func (d *dialect) listServices(c *api.Context) error {
	if err := unknownQuery(c, 75, "host", "binary"); err != nil {
		return err
	}
	q, snap := c.Query(), c.Snapshot()
	out := []object{}
	rows := slices.SortedFunc(computers(snap), func(a, b *model.Host) int { return cmp.Compare(a.Name, b.Name) })
	for _, h := range rows {
		if (q.Get("host") == "" || q.Get("host") == h.Name) && (q.Get("binary") == "" || q.Get("binary") == binary) {
			out = append(out, serviceOf(c, snap, h))
		}
	}
	return c.JSON(http.StatusOK, object{"services": out})
}

// updateService serves PUT os-services/<uuid>, and before 2.53 os-services/enable and its
// like, which name the host in the body.
func (d *dialect) updateService(c *api.Context) error {
	if at(c, 53) {
		return d.updateServiceByID(c)
	}
	act := c.Param("id")
	m := members{"host": text(1, 255), "binary": text(1, 255)}
	required := []string{"host", "binary"}
	switch act {
	case "enable", "disable":
	case "disable-log-reason":
		m["disabled_reason"] = text(1, 255)
		required = append(required, "disabled_reason")
	case "force-down":
		if !at(c, 11) {
			return fault.New(fault.NotFound, "Unknown action")
		}
		m["forced_down"] = boolean
		required = append(required, "forced_down")
	default:
		return fault.New(fault.NotFound, "Unknown action")
	}
	body, err := decode(c, exactly(m, required...))
	if err != nil {
		return err
	}
	var h *model.Host
	if _, err := c.Store().Update(c.R.Context(), func(tx *store.Tx) error {
		id, ok := store.Hosts.Holder(tx, str(body, "host"))
		if !ok || str(body, "binary") != binary {
			return fault.New(fault.NotFound, "Could not find binary %s on host %s.", api.Clip(str(body, "binary")), api.Clip(str(body, "host")))
		}
		h, err = d.c.SetHost(tx, id, func(h *model.Host) {
			switch act {
			case "enable":
				h.Disabled, h.Reason = false, ""
			case "disable", "disable-log-reason":
				h.Disabled, h.Reason = true, str(body, "disabled_reason")
			case "force-down":
				h.ForcedDown = truth(body, "forced_down")
			}
		})
		return err
	}); err != nil {
		return err
	}
	o := object{"host": h.Name, "binary": binary}
	switch act {
	case "force-down":
		o["forced_down"] = h.ForcedDown
	case "disable-log-reason":
		o["status"], o["disabled_reason"] = enabled(h), h.Reason
	default:
		o["status"] = enabled(h)
	}
	return c.JSON(http.StatusOK, object{"service": o})
}

func (d *dialect) updateServiceByID(c *api.Context) error {
	body, err := decode(c, exactly(members{"status": oneOf("enabled", "disabled"), "disabled_reason": text(1, 255), "forced_down": boolean}))
	if err != nil {
		return err
	}
	status, reason := str(body, "status"), str(body, "disabled_reason")
	_, forced := body["forced_down"]
	switch {
	case len(body) == 0:
		return badRequest("No updates were requested. Fields 'status' or 'forced_down' should be specified.")
	case reason != "" && status != "disabled":
		return badRequest("Specifying disabled_reason requires that status is 'disabled'.")
	}
	old, err := hostOf(c, c.Snapshot(), "Service")
	if err != nil {
		return err
	}
	if _, err := c.Store().Update(c.R.Context(), func(tx *store.Tx) error {
		_, err := d.c.SetHost(tx, old.ID, func(h *model.Host) {
			if status != "" {
				h.Disabled, h.Reason = status == "disabled", reason
			}
			if forced {
				h.ForcedDown = truth(body, "forced_down")
			}
		})
		return err
	}); err != nil {
		return err
	}
	snap := c.Snapshot()
	h, err := hostOf(c, snap, "Service")
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, object{"service": serviceOf(c, snap, h)})
}

func (d *dialect) listZones(c *api.Context, detail bool) error {
	snap := c.Snapshot()
	type zone struct {
		available bool
		hosts     object
	}
	zones := map[string]*zone{}
	for h := range computers(snap) {
		z := zones[h.Zone]
		if z == nil {
			z = &zone{hosts: object{}}
			zones[h.Zone] = z
		}
		up := store.HostUp(snap, h)
		z.available = z.available || !h.Disabled
		z.hosts[h.Name] = object{binary: object{"available": up, "active": !h.Disabled, "updated_at": heard(snap, h)}}
	}
	out := []object{}
	for _, name := range sortedKeys(zones) {
		o := object{"zoneName": name, "zoneState": object{"available": zones[name].available}, "hosts": nil}
		if detail {
			o["hosts"] = zones[name].hosts
		}
		out = append(out, o)
	}
	return c.JSON(http.StatusOK, object{"availabilityZoneInfo": out})
}
