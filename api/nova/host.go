package nova

import (
	"cmp"
	"net/http"
	"slices"
	"strings"

	"yakumo/api"
	"yakumo/compute"
	"yakumo/fault"
	"yakumo/model"
	"yakumo/placement"
	"yakumo/store"
)

// hostRoutes are Nova's hosts, which hypervisors and services have taken the place of in microversion 2.43.
func (d *dialect) hostRoutes(route adder) {
	until43 := func(h api.Handler) api.Handler {
		return func(c *api.Context) error {
			if err := removed(c, 43); err != nil {
				return err
			}
			return h(c)
		}
	}
	route(http.MethodGet, "/os-hosts", api.Admin, 1, until43(d.listHosts))
	route(http.MethodGet, "/os-hosts/{host}", api.Admin, 1, until43(d.showHost))
	route(http.MethodPut, "/os-hosts/{host}", api.Admin, 1, until43(d.updateHost))
	for _, act := range []string{"startup", "shutdown", "reboot"} {
		route(http.MethodGet, "/os-hosts/{host}/"+act, api.Admin, 1, until43(func(c *api.Context) error {
			if _, err := namedHost(c, c.Snapshot()); err != nil {
				return err
			}
			return fault.New(fault.NotImplemented, "Virt driver does not implement host power management.")
		}))
	}
}

// namedHost finds the host of the path's {host}.
func namedHost(c *api.Context, r store.Reader) (*model.Host, error) {
	name := c.Param("host")
	for h := range computers(r) {
		if h.Name == name {
			return h, nil
		}
	}
	return nil, fault.New(fault.NotFound, "Compute host %s could not be found.", api.Clip(name))
}

func (d *dialect) listHosts(c *api.Context) error {
	q, snap := c.Query(), c.Snapshot()
	out := []object{}
	for _, h := range slices.SortedFunc(computers(snap), func(a, b *model.Host) int { return cmp.Compare(a.Name, b.Name) }) {
		if (q.Get("zone") == "" || q.Get("zone") == h.Zone) && (q.Get("service") == "" || q.Get("service") == "compute") {
			out = append(out, object{"host_name": h.Name, "service": "compute", "zone": h.Zone})
		}
	}
	return c.JSON(http.StatusOK, object{"hosts": out})
}

// showHost tells what a host has, what of it is promised, and what each project's servers take of it.
func (d *dialect) showHost(c *api.Context) error {
	snap := c.Snapshot()
	h, err := namedHost(c, snap)
	if err != nil {
		return err
	}
	resource := func(name string, cpu, memory, disk int) object {
		return object{"resource": object{"host": h.Name, "project": name, "cpu": cpu, "memory_mb": memory, "disk_gb": disk}}
	}
	t := d.totalsOf(snap, h)
	var sum placement.Size
	by := map[string]placement.Size{}
	for s := range store.Servers.List(snap, "host", h.ID) {
		l, p := s.Taken(h.ID), by[s.ProjectID]
		for _, x := range []*placement.Size{&p, &sum} {
			x.VCPUs, x.MemoryMiB, x.DiskGiB = x.VCPUs+l.VCPUs, x.MemoryMiB+l.MemoryMiB, x.DiskGiB+l.DiskGiB
		}
		by[s.ProjectID] = p
	}
	out := []object{resource("(total)", t.vcpus, t.memory, t.disk), resource("(used_now)", t.vcpusUsed, t.memoryUsed, t.diskUsed),
		resource("(used_max)", sum.VCPUs, sum.MemoryMiB, sum.DiskGiB)}
	for _, p := range sortedKeys(by) {
		out = append(out, resource(p, by[p].VCPUs, by[p].MemoryMiB, by[p].DiskGiB))
	}
	return c.JSON(http.StatusOK, object{"host": out})
}

func (d *dialect) updateHost(c *api.Context) error {
	words := oneOf("enable", "disable", "Enable", "Disable", "ENABLE", "DISABLE")
	body, err := decode(c, exactly(members{"status": words, "maintenance_mode": words}))
	if err != nil {
		return err
	}
	if len(body) == 0 {
		return badRequest("Invalid input for field/attribute body. Value: {}. {} does not have enough properties")
	}
	if body["maintenance_mode"] != nil {
		return fault.New(fault.NotImplemented, "Virt driver does not implement host maintenance mode.")
	}
	var h *model.Host
	if _, err := c.Store().Update(c.R.Context(), func(tx *store.Tx) error {
		old, err := namedHost(c, tx)
		if err != nil {
			return err
		}
		h, err = d.c.SetHost(tx, old.ID, func(h *model.Host) {
			h.Disabled, h.Reason = strings.EqualFold(str(body, "status"), "disable"), ""
		})
		return err
	}); err != nil {
		return err
	}
	return c.JSON(http.StatusOK, object{"host": h.Name, "status": enabled(h)})
}

// topology tells what is promised to a server of its host's processors and memory. Which of the host's they are the host
// chooses, and nobody is told here.
func (d *dialect) topology(c *api.Context) error {
	_, s, err := d.serverOf(c)
	if err != nil {
		return err
	}
	p, _ := model.ProcessorsOf(s.Flavor.VCPUs, s.Flavor.ExtraSpecs, s.Image.Hardware)
	pages := model.PageKiB(s.Flavor.ExtraSpecs, s.Image.Hardware)
	o := object{"nodes": []object{}, "pagesize_kb": nil}
	if len(p.Dedicated) > 0 || pages > 0 {
		all := make([]int, s.Flavor.VCPUs)
		for i := range all {
			all[i] = i
		}
		node := object{"memory_mb": s.Flavor.MemoryMiB, "siblings": []any{}, "vcpu_set": all}
		if c.Caller.CloudAdmin {
			node["host_node"], node["cpu_pinning"] = nil, object{}
		}
		o["nodes"] = []object{node}
		if pages > 0 {
			o["pagesize_kb"] = pages
		}
	}
	return c.JSON(http.StatusOK, o)
}

// tenantNetworks shows networks as Nova's proxy did until microversion 2.36, which knew no addresses of them.
func (d *dialect) tenantNetworks(c *api.Context) error {
	if err := removed(c, 36); err != nil {
		return err
	}
	shown := func(n *model.Network) object { return object{"id": n.ID, "label": n.Name, "cidr": "None"} }
	snap := c.Snapshot()
	if id := c.Param("key"); id != "" {
		n, err := d.net.GetNetwork(snap, netScope(c), id)
		if err != nil {
			return fault.New(fault.NotFound, "Network not found")
		}
		return c.JSON(http.StatusOK, object{"network": shown(n)})
	}
	out := []object{}
	for n := range store.Networks.List(snap, "project", c.Caller.ProjectID) {
		out = append(out, shown(n))
	}
	for _, target := range []string{c.Caller.ProjectID, model.Everybody} {
		for n := range store.Networks.List(snap, "shared", target) {
			if n.With(c.Caller.ProjectID) && n.ProjectID != c.Caller.ProjectID && !slices.ContainsFunc(out, func(o object) bool { return o["id"] == n.ID }) {
				out = append(out, shown(n))
			}
		}
	}
	return c.JSON(http.StatusOK, object{"networks": out})
}

// goneRoutes answer what Nova has taken away, whatever the microversion.
func (d *dialect) goneRoutes(route adder) {
	gone := func(*api.Context) error {
		return fault.New(fault.Gone, "This resource is no longer available. No forwarding address is given.")
	}
	route(http.MethodGet, "/os-tenant-networks", api.Reader, 1, d.tenantNetworks)
	route(http.MethodGet, "/os-tenant-networks/{key}", api.Reader, 1, d.tenantNetworks)
	for path, methods := range map[string]string{
		"/os-agents": "GET POST", "/os-agents/{key}": "PUT DELETE", "/os-cells": "GET POST", "/os-cells/{key}": "GET PUT DELETE",
		"/os-certificates": "POST", "/os-certificates/{key}": "GET", "/os-cloudpipe": "GET POST", "/os-cloudpipe/{key}": "PUT",
		"/os-fping": "GET", "/os-fping/{key}": "GET", "/os-fixed-ips/{key}": "GET", "/os-fixed-ips/{key}/action": "POST",
		"/os-floating-ips-bulk": "GET POST", "/os-floating-ips-bulk/{key}": "GET PUT", "/os-floating-ip-dns": "GET",
		"/os-security-group-default-rules": "GET POST", "/os-security-group-default-rules/{key}": "GET DELETE",
		"/os-tenant-networks": "POST", "/os-tenant-networks/{key}": "DELETE", "/os-networks": "POST", "/os-networks/{key}": "DELETE",
		"/servers/{id}/consoles": "GET POST", "/servers/{id}/consoles/{key}": "GET DELETE", "/servers/{id}/os-virtual-interfaces": "GET",
	} {
		for _, method := range strings.Fields(methods) {
			access := api.Member
			if method == http.MethodGet {
				access = api.Reader
			}
			h := gone
			if strings.HasPrefix(path, "/servers/") {
				h = func(c *api.Context) error {
					if _, err := compute.Get(c.Snapshot(), scope(c), c.Param("id")); err != nil {
						return err
					}
					return gone(c)
				}
			}
			route(method, path, access, 1, h)
		}
	}
}
