package nova

import (
	"encoding/base64"
	"maps"
	"net/http"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"yakumo/api"
	"yakumo/compute"
	"yakumo/fault"
	"yakumo/launch"
	"yakumo/network"
)

var (
	hostNameRE = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?$`)
	fqdnRE     = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?(\.[a-zA-Z0-9]([a-zA-Z0-9-]*[a-zA-Z0-9])?)*$`)
	tagRE      = regexp.MustCompile(`^[^,/]*$`)
)

func hostNameSchema(c *api.Context) schema {
	if at(c, 94) {
		return matching(fqdnRE, 2, 255)
	}
	return matching(hostNameRE, 2, 63)
}

func trim(s *string) {
	if s != nil {
		*s = strings.TrimSpace(*s)
	}
}

func base64Text(name string, v any) error {
	if err := text(0, compute.MaxUserData)(name, v); err != nil {
		return err
	}
	if _, err := base64.StdEncoding.DecodeString(strings.NewReplacer("\n", "", "\r", "").Replace(v.(string))); err != nil {
		return wrong(name, v, "%s is not a 'base64'", api.Quoted(v))
	}
	return nil
}

// createSchema is the schema of POST /servers in the request's microversion.
func createSchema(c *api.Context) schema {
	nic := members{"fixed_ip": anyAddress, "port": nullOr(uuid), "uuid": uuid}
	if at(c, 32) && !at(c, 37) || at(c, 42) {
		nic["tag"] = matching(tagRE, 1, 60)
	}
	networks := list(exactly(nic), 0, compute.MaxPorts)
	bdm := members{
		"virtual_name": text(0, 255), "volume_id": uuid, "snapshot_id": uuid, "volume_size": integer(1, 1<<31), "device_name": text(1, 255),
		"delete_on_termination": boolean, "no_device": anything, "connection_info": text(1, 255), "source_type": oneOf("volume", "image", "snapshot", "blank"),
		"uuid": text(1, 255), "image_id": uuid, "destination_type": oneOf("local", "volume"), "guest_format": text(0, 255),
		"device_type": text(0, 255), "disk_bus": text(0, 255), "boot_index": nullOr(integer(-1, 1<<31)),
	}
	if at(c, 32) && !at(c, 33) || at(c, 42) {
		bdm["tag"] = matching(tagRE, 1, 60)
	}
	if at(c, 67) {
		bdm["volume_type"] = nullOr(text(0, 255))
	}
	m := members{
		"name": title, "imageRef": text(0, 255), "flavorRef": either(text(1, 255), integer(0, 1<<31)), "adminPass": text(0, 255),
		"metadata": items, "networks": networks, "OS-DCF:diskConfig": oneOf("AUTO", "MANUAL"), "accessIPv4": address(4), "accessIPv6": address(6),
		"availability_zone": nullOr(text(1, 255)), "block_device_mapping": list(anything, 0, 255), "block_device_mapping_v2": list(exactly(bdm), 0, 255),
		"config_drive": nullOr(boolean), "key_name": text(1, 255), "min_count": integer(1, 1<<31), "max_count": integer(1, 1<<31),
		"return_reservation_id": boolean, "security_groups": list(exactly(members{"name": text(0, 255)}), 0, 64), "user_data": nullOr(base64Text),
	}
	required := []string{"name", "flavorRef"}
	if at(c, 37) {
		m["networks"] = either(networks, oneOf("auto", "none"))
		required = append(required, "networks")
	}
	if at(c, 19) {
		m["description"] = description
	}
	if at(c, 52) {
		m["tags"] = list(matching(tagRE, 1, 60), 0, compute.MaxTags)
	}
	if at(c, 63) {
		m["trusted_image_certificates"] = nullOr(list(text(1, 255), 1, 50))
	}
	if at(c, 74) {
		m["host"], m["hypervisor_hostname"] = matching(fqdnRE, 1, 255), matching(fqdnRE, 1, 255)
	}
	if at(c, 90) {
		m["hostname"] = hostNameSchema(c)
	}
	if !at(c, 57) {
		m["personality"] = list(anything, 0, 255)
	}
	hints := func(name string, v any) error {
		if _, ok := v.(object); !ok {
			return wrong(name, v, "%s is not of type 'object'", api.Quoted(v))
		}
		return nil
	}
	return exactly(members{"server": exactly(m, required...), "os:scheduler_hints": hints, "OS-SCH-HNT:scheduler_hints": hints}, "server")
}

// wanted is a creation as read from a body.
type wanted struct {
	launch.Request
	reservation bool // answer with the reservation's id
}

func readCreate(c *api.Context) (*wanted, error) {
	body, err := decode(c, createSchema(c))
	if err != nil {
		return nil, err
	}
	o := body["server"].(object)
	hints := object{}
	for _, k := range []string{"OS-SCH-HNT:scheduler_hints", "os:scheduler_hints"} {
		maps.Copy(hints, orNone(body[k]))
	}
	w := &wanted{Request: launch.Request{FlavorID: plain(o["flavorRef"]), ImageID: lastPart(str(o, "imageRef")), KeyName: str(o, "key_name"), Allocate: at(c, 37), MultiAttach: at(c, 60)}}
	w.Name = strings.TrimSpace(str(o, "name"))
	if s, ok := o["flavorRef"].(string); ok {
		w.FlavorID = s
	}
	w.FlavorID = lastPart(w.FlavorID)
	for k, why := range map[string]string{
		"personality":                "Personality files are not offered by this cloud; use user data.",
		"trusted_image_certificates": "Image signature certificates are not offered by this cloud yet.",
	} {
		switch v := o[k].(type) {
		case string:
			if v != "" {
				return nil, badRequest("%s", why)
			}
		case []any:
			if len(v) > 0 {
				return nil, badRequest("%s", why)
			}
		}
	}
	if err := w.bootFrom(o); err != nil {
		return nil, err
	}
	if err := w.hints(hints); err != nil {
		return nil, err
	}
	w.AdminPass = password(o)
	w.Description, w.UserData = str(o, "description"), str(o, "user_data")
	w.ConfigDrive, w.Metadata = truth(o, "config_drive"), stringMap(o["metadata"])
	w.AccessIPv4, w.AccessIPv6, w.DiskConfig = str(o, "accessIPv4"), str(o, "accessIPv6"), str(o, "OS-DCF:diskConfig")
	w.HostName, w.Request.Zone = str(o, "hostname"), str(o, "availability_zone")
	if tags, ok := o["tags"].([]any); ok {
		for _, t := range tags {
			w.Tags = append(w.Tags, t.(string))
		}
		slices.Sort(w.Tags)
		w.Tags = slices.Compact(w.Tags)
	}
	if err := w.place(c, o); err != nil {
		return nil, err
	}
	if gs, ok := o["security_groups"].([]any); ok {
		for _, g := range gs {
			if name := str(g.(object), "name"); !slices.Contains(w.Groups, name) {
				w.Groups = append(w.Groups, name)
			}
		}
	}
	w.Min = num(o, "min_count", 1)
	w.Max = num(o, "max_count", w.Min)
	if w.Min > w.Max {
		return nil, badRequest("min_count must be <= max_count")
	}
	if w.Max > launch.MaxCount {
		return nil, badRequest("max_count is greater than the maximum of %d", launch.MaxCount)
	}
	for _, x := range w.Disks {
		if x.Source == "volume" && w.Max > 1 {
			return nil, badRequest("Cannot attach one or more volumes to multiple instances")
		}
	}
	w.reservation = truth(o, "return_reservation_id")
	return w, w.networks(c, o)
}

// orNone gives an object that may be missing.
func orNone(v any) object {
	o, _ := v.(object)
	return o
}

// lastPart gives the id at the end of a reference, which may be a URL.
func lastPart(ref string) string { return ref[strings.LastIndexByte(ref, '/')+1:] }

// place reads where the server is to be: zone, or zone:host:node of an administrator.
func (w *wanted) place(c *api.Context, o object) error {
	asked := ""
	if zone, rest, ok := strings.Cut(w.Request.Zone, ":"); ok {
		host, node, _ := strings.Cut(rest, ":")
		if host == "" {
			host = node
		}
		w.Request.Zone, asked = zone, host
		if asked == "" {
			return badRequest("Invalid availability_zone format: zone:host:node.")
		}
	}
	for _, k := range []string{"host", "hypervisor_hostname"} {
		if h := str(o, k); h != "" {
			if asked != "" && asked != h {
				return badRequest("Compute host %s could not be found.", api.Clip(h))
			}
			asked = h
		}
	}
	if asked != "" && !c.Caller.CloudAdmin {
		return fault.New(fault.Forbidden, "Policy doesn't allow os_compute_api:servers:create:forced_host to be performed.")
	}
	w.Host = asked
	return nil
}

func (w *wanted) networks(c *api.Context, o object) error {
	switch nets := o["networks"].(type) {
	case nil:
		w.Auto = true
	case string:
		w.Auto, w.None = nets == "auto", nets == "none"
	case []any:
		// An empty list asks for nothing in particular.
		w.Auto = len(nets) == 0
		for _, x := range nets {
			n := x.(object)
			e := launch.NIC{Port: str(n, "port"), Network: str(n, "uuid"), Tag: str(n, "tag")}
			if s := str(n, "fixed_ip"); s != "" {
				e.Fixed, _ = netip.ParseAddr(s)
			}
			switch {
			case e.Port != "" && e.Fixed.IsValid():
				return badRequest("Specified Fixed IP '%s' cannot be used with port '%s': the two cannot be specified together.", e.Fixed, e.Port)
			case e.Port == "" && e.Network == "":
				return badRequest("Invalid input for field/attribute networks. Neither a network nor a port is given.")
			}
			w.NICs = append(w.NICs, e)
		}
	}
	if w.Max > 1 {
		for _, e := range w.NICs {
			if e.Port != "" {
				return badRequest("Unable to launch multiple instances with a single configured port ID. Please launch your instance one by one with different ports.")
			}
			if e.Fixed.IsValid() {
				return badRequest("Invalid fixed IP Address %s: max_count cannot be greater than 1 if an fixed_ip is specified.", e.Fixed)
			}
		}
	}
	return nil
}

func (d *dialect) createServer(c *api.Context) error {
	w, err := readCreate(c)
	if err != nil {
		return err
	}
	w.Reservation = launch.NewReservation()
	w.Received = c.Now
	made, err := d.launch.Run(c.R.Context(), c.Store(), scope(c), &w.Request, c.Log)
	if err != nil {
		return err
	}
	c.W.Header().Set("Location", c.URL("/v2.1/servers/"+made[0].ID))
	if w.reservation {
		return c.JSON(http.StatusAccepted, object{"reservation_id": w.Reservation})
	}
	s := made[0]
	out := object{"id": s.ID, "links": links(c, "servers/"+s.ID), "OS-DCF:diskConfig": "MANUAL", "adminPass": w.AdminPass}
	if s.DiskConfig != "" {
		out["OS-DCF:diskConfig"] = s.DiskConfig
	}
	groups := []object{}
	for _, g := range w.Groups {
		groups = append(groups, object{"name": g})
	}
	if len(groups) == 0 {
		groups = append(groups, object{"name": network.DefaultGroup})
	}
	out["security_groups"] = groups
	return c.JSON(http.StatusAccepted, object{"server": out})
}
