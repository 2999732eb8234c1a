package nova

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"yakumo/api"
	"yakumo/compute"
	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// computers gives the hosts that can run guests.
func computers(r store.Reader) iter.Seq[*model.Host] {
	return func(yield func(*model.Host) bool) {
		for h := range store.Hosts.All(r) {
			if h.Switch == nil && !yield(h) {
				return
			}
		}
	}
}

func (d *dialect) hypervisorRoutes(route adder) {
	route(http.MethodGet, "/os-hypervisors", api.Admin, 1, func(c *api.Context) error { return d.listHypervisors(c, false) })
	route(http.MethodGet, "/os-hypervisors/detail", api.Admin, 1, func(c *api.Context) error { return d.listHypervisors(c, true) })
	route(http.MethodGet, "/os-hypervisors/statistics", api.Admin, 1, d.statistics)
	route(http.MethodGet, "/os-hypervisors/{id}", api.Admin, 1, d.showHypervisor)
	route(http.MethodGet, "/os-hypervisors/{id}/uptime", api.Admin, 1, d.uptime)
	route(http.MethodGet, "/os-hypervisors/{id}/search", api.Admin, 1, func(c *api.Context) error { return d.searchHypervisors(c, false) })
	route(http.MethodGet, "/os-hypervisors/{id}/servers", api.Admin, 1, func(c *api.Context) error { return d.searchHypervisors(c, true) })
}

// removed answers a route that a microversion has taken away.
func removed(c *api.Context, minor int) error {
	if at(c, minor) {
		return fault.New(fault.NotFound, "The resource could not be found.")
	}
	return nil
}

// hostNumber names a host: by number in older microversions, then by its id.
func hostNumber(c *api.Context, h *model.Host) any {
	if at(c, 53) {
		return h.ID
	}
	return number(h.ID)
}

// hostOf finds the host of the path's {id}.
func hostOf(c *api.Context, snap store.Snapshot, what string) (*model.Host, error) {
	id := c.Param("id")
	if at(c, 53) {
		if !uuidRE.MatchString(id) {
			return nil, badRequest("Invalid uuid %s", api.Clip(id))
		}
		if h, ok := store.Hosts.Get(snap, id); ok {
			return h, nil
		}
	} else {
		for h := range computers(snap) {
			if strconv.Itoa(number(h.ID)) == id {
				return h, nil
			}
		}
	}
	return nil, fault.New(fault.NotFound, "%s %s could not be found.", what, api.Clip(id))
}

func upDown(up bool) string {
	if up {
		return "up"
	}
	return "down"
}

func enabled(h *model.Host) string {
	if h.Disabled {
		return "disabled"
	}
	return "enabled"
}

func hypervisorBrief(c *api.Context, snap store.Snapshot, h *model.Host) object {
	return object{"id": hostNumber(c, h), "hypervisor_hostname": h.Name, "state": upDown(store.HostUp(snap, h)), "status": enabled(h)}
}

// totals are what a host has and what is promised of it. Its CPUs are those that servers share: Nova's API tells of no others.
type totals struct {
	vcpus, vcpusUsed, memory, memoryUsed, disk, diskUsed, guests int
	leastDisk                                                    int
}

func (d *dialect) totalsOf(snap store.Snapshot, h *model.Host) totals {
	used, n := compute.Used(snap, h.ID)
	t := totals{
		vcpus: h.Capacity.SharedCPUs(), vcpusUsed: used.VCPUs, memory: h.Capacity.MemoryMiB, memoryUsed: used.MemoryMiB + d.c.Ratios().ReservedMiB,
		disk: h.Capacity.DiskGiB, diskUsed: used.DiskGiB, guests: n,
	}
	t.leastDisk = min(h.Capacity.DiskFreeGiB, t.disk-t.diskUsed)
	return t
}

func (t totals) into(o object) {
	o["vcpus"], o["vcpus_used"], o["memory_mb"], o["memory_mb_used"], o["free_ram_mb"] = t.vcpus, t.vcpusUsed, t.memory, t.memoryUsed, t.memory-t.memoryUsed
	o["local_gb"], o["local_gb_used"], o["free_disk_gb"], o["disk_available_least"] = t.disk, t.diskUsed, t.disk-t.diskUsed, t.leastDisk
	o["running_vms"], o["current_workload"] = t.guests, 0
}

func (d *dialect) hypervisorOf(c *api.Context, snap store.Snapshot, h *model.Host) (object, error) {
	o := hypervisorBrief(c, snap, h)
	o["host_ip"], o["hypervisor_type"], o["hypervisor_version"] = h.TunnelIP.String(), cmp.Or(h.Capacity.HypervisorType, "QEMU"), h.Capacity.HypervisorVersion
	if !h.TunnelIP.IsValid() {
		o["host_ip"] = nil
	}
	service := object{"host": h.Name, "id": hostNumber(c, h), "disabled_reason": nil}
	if h.Disabled && h.Reason != "" {
		service["disabled_reason"] = h.Reason
	}
	o["service"] = service
	if at(c, 88) {
		o["uptime"] = nil // of one host it is asked for
		return o, nil
	}
	d.totalsOf(snap, h).into(o)
	info := object{"arch": h.Capacity.Arch, "model": h.Capacity.CPUModel, "vendor": h.Capacity.CPUVendor, "features": nonNil(h.Capacity.Features),
		"topology": object{"cells": 1, "sockets": h.Capacity.Sockets, "cores": h.Capacity.Cores, "threads": h.Capacity.Threads}}
	if at(c, 28) {
		o["cpu_info"] = info
		return o, nil
	}
	b, err := json.Marshal(info)
	o["cpu_info"] = string(b)
	return o, err
}

// guestsOf shows which servers are on a host.
func guestsOf(snap store.Snapshot, h *model.Host) []object {
	var out []object
	for s := range store.Servers.List(snap, "host", h.ID) {
		out = append(out, object{"name": "instance-" + s.ID[:8], "uuid": s.ID})
	}
	return out
}

func (d *dialect) listHypervisors(c *api.Context, detail bool) error {
	if err := unknownQuery(c, 75, "limit", "marker", "hypervisor_hostname_pattern", "with_servers"); err != nil {
		return err
	}
	q := c.Query()
	pg := api.Page{}
	var err error
	if at(c, 33) {
		if pg, err = page(q); err != nil {
			return err
		}
	}
	snap := c.Snapshot()
	pattern, with := "", false
	if at(c, 53) {
		pattern = q.Get("hypervisor_hostname_pattern")
		if with, _, err = queryBool(q, "with_servers"); err != nil {
			return err
		}
		if pattern != "" && (q.Get("limit") != "" || q.Get("marker") != "") {
			return badRequest("Paging over hypervisors with the hypervisor_hostname_pattern query parameter is not supported.")
		}
	}
	var rows []*model.Host
	for h := range computers(snap) {
		if strings.Contains(h.Name, pattern) {
			rows = append(rows, h)
		}
	}
	if pattern != "" && len(rows) == 0 {
		return fault.New(fault.NotFound, "No hypervisor matching '%s' could be found.", api.Clip(pattern))
	}
	slices.SortFunc(rows, func(a, b *model.Host) int { return cmp.Compare(a.Name, b.Name) })
	rows, more, err := api.Cut(rows, pg, func(h *model.Host) string { return fmt.Sprint(hostNumber(c, h)) })
	if err != nil {
		return badRequest("marker [%s] not found", api.Clip(pg.Marker))
	}
	out := make([]object, 0, len(rows))
	for _, h := range rows {
		o := hypervisorBrief(c, snap, h)
		if detail {
			if o, err = d.hypervisorOf(c, snap, h); err != nil {
				return err
			}
		}
		if guests := guestsOf(snap, h); with && (guests != nil || at(c, 75)) {
			o["servers"] = nonNil(guests)
		}
		out = append(out, o)
	}
	body := object{"hypervisors": out}
	if more && len(rows) > 0 {
		path := "/os-hypervisors"
		if detail {
			path += "/detail"
		}
		body["hypervisors_links"] = next(c, path, fmt.Sprint(hostNumber(c, rows[len(rows)-1])), pg.Limit)
	}
	return c.JSON(http.StatusOK, body)
}

func (d *dialect) showHypervisor(c *api.Context) error {
	snap := c.Snapshot()
	h, err := hostOf(c, snap, "Hypervisor with ID")
	if err != nil {
		return err
	}
	o, err := d.hypervisorOf(c, snap, h)
	if err != nil {
		return err
	}
	if at(c, 88) {
		if text, err := d.askUptime(c, h); err == nil {
			o["uptime"] = text
		}
	}
	if at(c, 53) {
		with, _, err := queryBool(c.Query(), "with_servers")
		if err != nil {
			return err
		}
		if guests := guestsOf(snap, h); with && (guests != nil || at(c, 75)) {
			o["servers"] = nonNil(guests)
		}
	}
	return c.JSON(http.StatusOK, object{"hypervisor": o})
}

func (d *dialect) uptime(c *api.Context) error {
	if err := removed(c, 88); err != nil {
		return err
	}
	snap := c.Snapshot()
	h, err := hostOf(c, snap, "Hypervisor with ID")
	if err != nil {
		return err
	}
	text, err := d.askUptime(c, h)
	if err != nil {
		return fault.Wrap(fault.Invalid, err, "Compute service of %s is unavailable at this time.", h.Name)
	}
	o := hypervisorBrief(c, snap, h)
	o["uptime"] = text
	return c.JSON(http.StatusOK, object{"hypervisor": o})
}

// askUptime asks a host how long it runs, and writes that as uptime(1) does, which clients take apart. Who is logged in nobody asks.
func (d *dialect) askUptime(c *api.Context, h *model.Host) (string, error) {
	ctx, cancel := context.WithTimeout(c.R.Context(), d.wait)
	defer cancel()
	raw, err := d.ask.Ask(ctx, h.ID, "uptime", []byte("{}"))
	if err != nil {
		return "", err
	}
	var u model.HostUptime
	if err := json.Unmarshal(raw, &u); err != nil {
		return "", err
	}
	up := fmt.Sprintf("%2d:%02d", u.UpSecs/3600%24, u.UpSecs/60%60)
	if days := u.UpSecs / 86400; days > 0 {
		up = fmt.Sprintf("%d days, %s", days, up)
	}
	return fmt.Sprintf(" %s up %s,  0 users,  load average: %.2f, %.2f, %.2f", c.Now.UTC().Format(time.TimeOnly), up, u.Load[0], u.Load[1], u.Load[2]), nil
}

func (d *dialect) searchHypervisors(c *api.Context, servers bool) error {
	if err := removed(c, 53); err != nil {
		return err
	}
	snap := c.Snapshot()
	out := []object{}
	for h := range computers(snap) {
		if !strings.Contains(h.Name, c.Param("id")) {
			continue
		}
		o := hypervisorBrief(c, snap, h)
		if guests := guestsOf(snap, h); servers && guests != nil {
			o["servers"] = guests
		}
		out = append(out, o)
	}
	if len(out) == 0 {
		return fault.New(fault.NotFound, "No hypervisor matching '%s' could be found.", api.Clip(c.Param("id")))
	}
	return c.JSON(http.StatusOK, object{"hypervisors": out})
}

func (d *dialect) statistics(c *api.Context) error {
	if err := removed(c, 88); err != nil {
		return err
	}
	snap := c.Snapshot()
	var sum totals
	n := 0
	for h := range computers(snap) {
		t := d.totalsOf(snap, h)
		sum = totals{sum.vcpus + t.vcpus, sum.vcpusUsed + t.vcpusUsed, sum.memory + t.memory, sum.memoryUsed + t.memoryUsed,
			sum.disk + t.disk, sum.diskUsed + t.diskUsed, sum.guests + t.guests, sum.leastDisk + t.leastDisk}
		n++
	}
	o := object{"count": n}
	sum.into(o)
	return c.JSON(http.StatusOK, object{"hypervisor_statistics": o})
}
