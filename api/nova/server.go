package nova

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"slices"

	"yakumo/api"
	"yakumo/compute"
	"yakumo/model"
	"yakumo/store"
)

func (d *dialect) serverRoutes(route adder) {
	route(http.MethodGet, "/servers", api.Reader, 1, func(c *api.Context) error { return d.listServers(c, false) })
	route(http.MethodGet, "/servers/detail", api.Reader, 1, func(c *api.Context) error { return d.listServers(c, true) })
	route(http.MethodPost, "/servers", api.Member, 1, d.createServer)
	route(http.MethodGet, "/servers/{id}", api.Reader, 1, d.showServer)
	route(http.MethodPut, "/servers/{id}", api.Member, 1, d.updateServer)
	route(http.MethodDelete, "/servers/{id}", api.Member, 1, d.deleteServer)
}

// status gives a server's status, and how Nova counts its power.
func status(s *model.Server) (string, int) {
	power := 0
	if !s.Status.LaunchedAt.IsZero() {
		switch s.Status.Power {
		case model.PowerRunning:
			power = 1
		case model.PowerPaused:
			power = 3
		case model.PowerOff, model.PowerSuspended:
			power = 4
		case model.PowerCrashed:
			power = 6
		}
	}
	state, task := compute.State(s), s.Status.Task
	if byTask, ok := taskStatus[task]; ok && slices.Contains(byTask.in, state) {
		return byTask.status, power
	}
	return stateStatus[state], power
}

// stateStatus are the statuses by state.
var stateStatus = map[string]string{
	compute.Active: "ACTIVE", compute.Building: "BUILD", compute.Errored: "ERROR", compute.Stopped: "SHUTOFF", compute.Paused: "PAUSED",
	compute.Suspended: "SUSPENDED", compute.Rescued: "RESCUE", compute.Resized: "VERIFY_RESIZE", compute.Shelved: "SHELVED",
	compute.ShelvedOffloaded: "SHELVED_OFFLOADED", compute.Gone: "DELETED",
}

// taskStatus are the statuses of servers that have a task and are in one of the states.
var taskStatus = map[string]struct {
	status string
	in     []string
}{
	compute.TaskReboot:     {"REBOOT", []string{compute.Active}},
	compute.TaskHardReboot: {"HARD_REBOOT", []string{compute.Active}},
	compute.TaskRebuild:    {"REBUILD", []string{compute.Active, compute.Stopped, compute.Errored}},

	compute.TaskEvacuate:        {"REBUILD", []string{compute.Active, compute.Stopped, compute.Errored}},
	compute.TaskMigrating:       {"MIGRATING", []string{compute.Active, compute.Paused}},
	compute.TaskResizePrep:      {"RESIZE", []string{compute.Active, compute.Stopped}},
	compute.TaskResizeMigrating: {"RESIZE", []string{compute.Active, compute.Stopped}},
	compute.TaskResizeMigrated:  {"RESIZE", []string{compute.Active, compute.Stopped}},
	compute.TaskResizeFinish:    {"RESIZE", []string{compute.Active, compute.Stopped}},
	compute.TaskReverting:       {"REVERT_RESIZE", []string{compute.Active, compute.Stopped, compute.Resized}},
}

// hostHash lets a tenant tell whether two of its servers share a host, and no more.
func hostHash(project, host string) string {
	if host == "" {
		return ""
	}
	sum := sha256.Sum224([]byte(project + host))
	return hex.EncodeToString(sum[:])
}

// viewer shows servers; it remembers what many of them share.
type viewer struct {
	c        *api.Context
	r        store.Reader
	networks map[model.ID]string
	groups   map[model.ID]string
	hosts    map[model.ID]*model.Host
}

func newViewer(c *api.Context, r store.Reader) *viewer {
	return &viewer{c: c, r: r, networks: map[model.ID]string{}, groups: map[model.ID]string{}, hosts: map[model.ID]*model.Host{}}
}

func (v *viewer) network(id model.ID) string {
	name, ok := v.networks[id]
	if !ok {
		if w, there := store.Networks.Get(v.r, id); there {
			name = w.Name
		}
		v.networks[id] = name
	}
	return name
}

func (v *viewer) group(id model.ID) string {
	name, ok := v.groups[id]
	if !ok {
		if g, there := store.SecurityGroups.Get(v.r, id); there {
			name = g.Name
		}
		v.groups[id] = name
	}
	return name
}

// host gives a host, or nil.
func (v *viewer) host(id model.ID) *model.Host {
	h, ok := v.hosts[id]
	if !ok {
		h, _ = store.Hosts.Get(v.r, id)
		v.hosts[id] = h
	}
	return h
}

// ports gives the ports of a server in the order of its interfaces.
func (v *viewer) ports(s *model.Server) []*model.Port { return portsOf(v.r, s) }

func portsOf(r store.Reader, s *model.Server) []*model.Port {
	out := make([]*model.Port, 0, len(s.Ports))
	for _, id := range s.Ports {
		if p, ok := store.Ports.Get(r, id); ok && p.DeviceID == s.ID {
			out = append(out, p)
		}
	}
	return out
}

// addresses gives the addresses of a server by network. full adds what the extensions tell.
func (v *viewer) addresses(ports []*model.Port, full fullness) object {
	out := object{}
	for _, p := range ports {
		name := v.network(p.NetworkID)
		l, _ := out[name].([]object)
		for _, f := range p.FixedIPs {
			version := 4
			if f.Address.Is6() {
				version = 6
			}
			a := object{"version": version, "addr": f.Address.String()}
			if full {
				a["OS-EXT-IPS:type"], a["OS-EXT-IPS-MAC:mac_addr"] = "fixed", p.MAC
			}
			l = append(l, a)
		}
		// A floating IP is shown in the network of the address that it stands for, after it.
		for f := range store.FloatingIPs.List(v.r, "port", p.ID) {
			a := object{"version": 4, "addr": f.Address.String()}
			if full {
				a["OS-EXT-IPS:type"], a["OS-EXT-IPS-MAC:mac_addr"] = "floating", p.MAC
			}
			l = append(l, a)
		}
		if l != nil {
			out[name] = l
		}
	}
	return out
}

type fullness bool

func (v *viewer) brief(s *model.Server) object {
	return object{"id": s.ID, "name": s.Name, "links": links(v.c, "servers/"+s.ID)}
}

// full shows a server as in the detailed list.
func (v *viewer) full(s *model.Server) object {
	c := v.c
	st, power := status(s)
	ports := v.ports(s)
	host := v.host(s.Host)
	metadata := s.Metadata
	if metadata == nil {
		metadata = map[string]string{}
	}
	o := object{
		"id": s.ID, "name": s.Name, "status": st, "tenant_id": s.ProjectID, "user_id": s.UserID, "metadata": metadata,
		"hostId": hostHash(s.ProjectID, s.Host), "created": stamp(s.CreatedAt), "updated": stamp(s.UpdatedAt),
		"addresses": v.addresses(ports, true), "accessIPv4": s.AccessIPv4, "accessIPv6": s.AccessIPv6, "links": links(c, "servers/"+s.ID),
		"OS-DCF:diskConfig": s.DiskConfig, "OS-EXT-AZ:availability_zone": s.Zone, "config_drive": "", "key_name": nil,
		"OS-SRV-USG:launched_at": micros(s.Status.LaunchedAt), "OS-SRV-USG:terminated_at": micros(s.Status.TerminatedAt),
		"OS-EXT-STS:task_state": nil, "OS-EXT-STS:vm_state": compute.State(s), "OS-EXT-STS:power_state": power,
		"os-extended-volumes:volumes_attached": volumesOf(c, s),
		"image":                                "", // of one that boots from a volume
	}
	if s.ImageID != "" {
		o["image"] = object{"id": s.ImageID, "links": []link{{"bookmark", c.URL("/images/" + s.ImageID)}}}
	}
	if s.DiskConfig == "" {
		o["OS-DCF:diskConfig"] = "MANUAL"
	}
	if host != nil {
		o["OS-EXT-AZ:availability_zone"] = host.Zone
	}
	if s.ConfigDrive {
		o["config_drive"] = "True"
	}
	if s.KeyName != "" {
		o["key_name"] = s.KeyName
	}
	if s.Status.Task != "" {
		o["OS-EXT-STS:task_state"] = s.Status.Task
	}
	if st == "ACTIVE" || st == "BUILD" {
		o["progress"] = 0
	}
	if at(c, 47) {
		extra := s.Flavor.ExtraSpecs
		if extra == nil {
			extra = map[string]string{}
		}
		o["flavor"] = object{"vcpus": s.Flavor.VCPUs, "ram": s.Flavor.MemoryMiB, "disk": s.Flavor.DiskGiB, "ephemeral": s.Flavor.Ephemeral,
			"swap": s.Flavor.SwapMiB, "original_name": s.Flavor.Name, "extra_specs": extra}
	} else {
		o["flavor"] = object{"id": s.Flavor.ID, "links": []link{{"bookmark", c.URL("/flavors/" + s.Flavor.ID)}}}
	}
	var groups []object
	var seen []string
	for _, p := range ports {
		for _, g := range p.Groups {
			if name := v.group(g); name != "" && !slices.Contains(seen, name) {
				seen = append(seen, name)
				groups = append(groups, object{"name": name})
			}
		}
	}
	if groups != nil {
		o["security_groups"] = groups
	}
	if f := s.Status.Fault; f != nil && st == "ERROR" {
		shown := object{"code": f.Code, "message": f.Message, "created": stamp(f.At)}
		if c.Caller.CloudAdmin && f.Details != "" {
			shown["details"] = f.Details
		}
		o["fault"] = shown
	}
	if c.Caller.CloudAdmin {
		v.attributes(o, s, host)
	} else if at(c, 90) {
		o["OS-EXT-SRV-ATTR:hostname"] = s.HostName
	}
	if at(c, 9) {
		o["locked"] = s.Locked
	}
	if at(c, 19) {
		o["description"] = nil
		if s.Description != "" {
			o["description"] = s.Description
		}
	}
	if at(c, 26) {
		o["tags"] = nonNil(s.Tags)
	}
	if at(c, 63) {
		o["trusted_image_certificates"] = nil
	}
	if at(c, 73) {
		o["locked_reason"] = nil
		if s.LockReason != "" {
			o["locked_reason"] = s.LockReason
		}
	}
	if at(c, 96) {
		o["pinned_availability_zone"] = nil
		if s.Zone != "" {
			o["pinned_availability_zone"] = s.Zone
		}
	}
	return o
}

// attributes adds what only an administrator is shown.
func (v *viewer) attributes(o object, s *model.Server, host *model.Host) {
	c := v.c
	o["OS-EXT-SRV-ATTR:host"], o["OS-EXT-SRV-ATTR:hypervisor_hostname"] = nil, nil
	o["OS-EXT-SRV-ATTR:instance_name"] = "instance-" + s.ID[:8]
	if host != nil {
		o["OS-EXT-SRV-ATTR:host"], o["OS-EXT-SRV-ATTR:hypervisor_hostname"] = host.Name, host.Name
	}
	if at(c, 3) {
		o["OS-EXT-SRV-ATTR:reservation_id"], o["OS-EXT-SRV-ATTR:launch_index"] = s.Reservation, s.LaunchIndex
		o["OS-EXT-SRV-ATTR:hostname"], o["OS-EXT-SRV-ATTR:kernel_id"], o["OS-EXT-SRV-ATTR:ramdisk_id"] = s.HostName, "", ""
		o["OS-EXT-SRV-ATTR:root_device_name"], o["OS-EXT-SRV-ATTR:user_data"] = "/dev/vda", nil
		if s.UserData != "" {
			o["OS-EXT-SRV-ATTR:user_data"] = s.UserData
		}
	}
	if at(c, 16) {
		o["host_status"] = ""
		if host != nil {
			switch {
			case host.Disabled:
				o["host_status"] = "MAINTENANCE"
			case host.ForcedDown || !store.HostUp(v.r, host):
				o["host_status"] = "DOWN"
			default:
				o["host_status"] = "UP"
			}
		}
	}
}

func nonNil[T any](l []T) []T {
	if l == nil {
		return []T{}
	}
	return l
}

// one shows a server as by GET servers/<id>.
func (v *viewer) one(s *model.Server) object {
	o := v.full(s)
	if at(v.c, 71) {
		o["server_groups"] = []string{}
		if _, ok := store.ServerGroups.Get(v.r, s.GroupID); ok {
			o["server_groups"] = []string{s.GroupID}
		}
	}
	return o
}

func (d *dialect) showServer(c *api.Context) error {
	snap := c.Snapshot()
	s, err := compute.Get(snap, scope(c), c.Param("id"))
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, object{"server": newViewer(c, snap).one(s)})
}

func (d *dialect) deleteServer(c *api.Context) error {
	if _, err := c.Store().Update(c.R.Context(), func(tx *store.Tx) error { return d.c.Delete(tx, scope(c), c.Param("id")) }); err != nil {
		return err
	}
	return c.Empty(http.StatusNoContent)
}

func (d *dialect) updateServer(c *api.Context) error {
	m := members{"name": title, "accessIPv4": address(4), "accessIPv6": address(6), "OS-DCF:diskConfig": oneOf("AUTO", "MANUAL")}
	if at(c, 19) {
		m["description"] = description
	}
	if at(c, 90) {
		m["hostname"] = hostNameSchema(c)
	}
	body, err := decode(c, exactly(members{"server": exactly(m)}, "server"))
	if err != nil {
		return err
	}
	o := body["server"].(object)
	u := compute.Update{
		Name: strPtr(o, "name"), Description: strPtr(o, "description"), HostName: strPtr(o, "hostname"),
		AccessIPv4: strPtr(o, "accessIPv4"), AccessIPv6: strPtr(o, "accessIPv6"), DiskConfig: strPtr(o, "OS-DCF:diskConfig"),
	}
	trim(u.Name)
	if _, err := c.Store().Update(c.R.Context(), func(tx *store.Tx) error {
		_, err := d.c.Update(tx, scope(c), c.Param("id"), u)
		return err
	}); err != nil {
		return err
	}
	snap := c.Snapshot()
	s, err := compute.Get(snap, scope(c), c.Param("id"))
	if err != nil {
		return err
	}
	v := newViewer(c, snap)
	o = v.one(s)
	if !at(c, 75) {
		o = v.older(o)
	}
	return c.JSON(http.StatusOK, object{"server": o})
}

// older keeps of a server what answers before 2.75 show where it is not asked for itself, and the named members.
func (v *viewer) older(o object, more ...string) object {
	old := object{}
	for _, k := range append(more, "id", "name", "status", "tenant_id", "user_id", "metadata", "hostId", "image", "flavor", "created", "updated",
		"addresses", "accessIPv4", "accessIPv6", "links", "progress", "fault", "OS-DCF:diskConfig", "locked", "description", "tags",
		"trusted_image_certificates", "server_groups", "locked_reason") {
		if x, there := o[k]; there {
			old[k] = x
		}
	}
	return old
}

// volumesOf names a server's volumes.
func volumesOf(c *api.Context, s *model.Server) []object {
	out := []object{}
	for _, u := range s.Volumes {
		o := object{"id": u.VolumeID}
		if at(c, 3) {
			o["delete_on_termination"] = u.DeleteWithServer
		}
		out = append(out, o)
	}
	return out
}
