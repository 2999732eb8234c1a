package nova

import (
	"encoding/base64"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"yakumo/api"
	"yakumo/compute"
	"yakumo/fault"
	"yakumo/images"
	"yakumo/model"
	"yakumo/network"
	"yakumo/store"
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

// wanted is a creation as read from a body; names are resolved in the transaction.
type wanted struct {
	compute.NewServer
	image, flavor, key string
	zone               string
	nics               []nic
	auto, none         bool // networks
	groups             []string
	min, max           int
	reservation        bool // answer with the reservation's id
	name               string
	disks              []disk // volumes
	local              bool   // the image is named by a mapping too
}

type nic struct {
	port, network string
	fixed         netip.Addr
	tag           string
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
	w := &wanted{image: str(o, "imageRef"), flavor: plain(o["flavorRef"]), key: str(o, "key_name"), name: strings.TrimSpace(str(o, "name"))}
	if s, ok := o["flavorRef"].(string); ok {
		w.flavor = s
	}
	w.flavor = lastPart(w.flavor)
	w.image = lastPart(w.image)
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
	w.HostName, w.zone = str(o, "hostname"), str(o, "availability_zone")
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
			if name := str(g.(object), "name"); !slices.Contains(w.groups, name) {
				w.groups = append(w.groups, name)
			}
		}
	}
	w.min = num(o, "min_count", 1)
	w.max = num(o, "max_count", w.min)
	if w.min > w.max {
		return nil, badRequest("min_count must be <= max_count")
	}
	if w.max > maxCount {
		return nil, badRequest("max_count is greater than the maximum of %d", maxCount)
	}
	for _, x := range w.disks {
		if x.source == "volume" && w.max > 1 {
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
	if zone, rest, ok := strings.Cut(w.zone, ":"); ok {
		host, node, _ := strings.Cut(rest, ":")
		if host == "" {
			host = node
		}
		w.zone, asked = zone, host
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
		w.auto = true
	case string:
		w.auto, w.none = nets == "auto", nets == "none"
	case []any:
		// An empty list asks for nothing in particular.
		w.auto = len(nets) == 0
		for _, x := range nets {
			n := x.(object)
			e := nic{port: str(n, "port"), network: str(n, "uuid"), tag: str(n, "tag")}
			if s := str(n, "fixed_ip"); s != "" {
				e.fixed, _ = netip.ParseAddr(s)
			}
			switch {
			case e.port != "" && e.fixed.IsValid():
				return badRequest("Specified Fixed IP '%s' cannot be used with port '%s': the two cannot be specified together.", e.fixed, e.port)
			case e.port == "" && e.network == "":
				return badRequest("Invalid input for field/attribute networks. Neither a network nor a port is given.")
			}
			w.nics = append(w.nics, e)
		}
	}
	if w.max > 1 {
		for _, e := range w.nics {
			if e.port != "" {
				return badRequest("Unable to launch multiple instances with a single configured port ID. Please launch your instance one by one with different ports.")
			}
			if e.fixed.IsValid() {
				return badRequest("Invalid fixed IP Address %s: max_count cannot be greater than 1 if an fixed_ip is specified.", e.fixed)
			}
		}
	}
	return nil
}

// perTx is how many servers one transaction makes: what a server with its ports touches is
// limited. More go into several: the first makes sure of the quota for all.
func (w *wanted) perTx() int { return max(1, 16/max(1, len(w.nics)+2*len(w.disks))) }

// maxCount is how many servers one request may make.
const maxCount = 1000

func (d *dialect) createServer(c *api.Context) error {
	w, err := readCreate(c)
	if err != nil {
		return err
	}
	w.Reservation = newReservation()
	w.Received = c.Now
	sc := scope(c)
	if sc.ProjectID == "" {
		return badRequest("The token is of no project: a server needs one.")
	}
	var made []*model.Server
	for first := 0; first < max(w.max, 1); first += w.perTx() {
		var part []*model.Server
		count := w.max // those that were made, when the quota leaves room for fewer than max_count
		_, err := c.Store().Update(c.R.Context(), func(tx *store.Tx) (err error) {
			part, count, err = d.create(tx, c, sc, w, first)
			return err
		})
		if err != nil {
			for _, s := range made {
				if _, derr := c.Store().Update(c.R.Context(), func(tx *store.Tx) error { return d.c.Delete(tx, sc, s.ID) }); derr != nil {
					c.Log.Warn("a server of a request that failed stays", "server", s.ID, "err", derr)
				}
			}
			return err
		}
		made = append(made, part...)
		w.max = count
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
	for _, g := range w.groups {
		groups = append(groups, object{"name": g})
	}
	if len(groups) == 0 {
		groups = append(groups, object{"name": network.DefaultGroup})
	}
	out["security_groups"] = groups
	return c.JSON(http.StatusAccepted, object{"server": out})
}

func newReservation() string {
	const letters = "0123456789abcdefghijklmnopqrstuvwxyz"
	b := []byte("r-")
	for range 8 {
		b = append(b, letters[rand.IntN(len(letters))])
	}
	return string(b)
}

// create makes the servers from the first on, at most w.perTx, in one transaction. It gives
// how many there are to be in all.
func (d *dialect) create(tx *store.Tx, c *api.Context, sc compute.Scope, w *wanted, first int) ([]*model.Server, int, error) {
	flavor, err := compute.GetFlavor(tx, sc, w.flavor)
	if err != nil {
		return nil, 0, asInvalid(err)
	}
	if flavor.Disabled {
		return nil, 0, badRequest("Flavor %s could not be found.", w.flavor)
	}
	var img *model.Image
	if w, err = d.mapped(tx, sc, w); err != nil {
		return nil, 0, err
	}
	if w.image != "" {
		if img, err = d.img.Bootable(tx, images.Caller{ProjectID: sc.ProjectID, Admin: sc.Admin}, w.image); err != nil {
			return nil, 0, asInvalid(err)
		}
	}
	var key *model.KeyPair
	if w.key != "" {
		if key, err = compute.GetKeyPair(tx, sc.UserID, w.key); err != nil {
			return nil, 0, badRequest("Invalid key_name provided.")
		}
	}
	if err := whereabouts(tx, w.zone, w.Host); err != nil {
		return nil, 0, err
	}
	if limit := d.c.Quota(tx, sc.ProjectID)[compute.QuotaMetadata]; limit >= 0 && len(w.Metadata) > limit {
		return nil, 0, fault.New(fault.OverQuota, "Quota exceeded, too many metadata items.")
	}
	count := w.max
	if first == 0 {
		// As many as the quota leaves room for, but at least min_count.
		count = max(w.min, d.c.Room(tx, sc.ProjectID, flavor, w.max))
		err = d.c.Spend(tx, sc.ProjectID, flavor, count)
	} else {
		err = d.c.Spend(tx, sc.ProjectID, flavor, count-first)
	}
	if err != nil {
		return nil, 0, err
	}
	if w.GroupID != "" {
		if err := d.c.Join(tx, sc, w.GroupID, count-first); err != nil {
			return nil, 0, err
		}
	}
	groups, err := d.groupIDs(tx, c, w.groups)
	if err != nil {
		return nil, 0, err
	}
	nics, err := d.chooseNetworks(tx, c, w)
	if err != nil {
		return nil, 0, err
	}
	var out []*model.Server
	for i := first; i < min(count, first+w.perTx()); i++ {
		n := w.NewServer
		n.ID, n.Name, n.LaunchIndex = model.NewID(), w.name, i
		if w.max > 1 {
			n.Name = w.name + "-" + strconv.Itoa(i+1)
			if n.HostName != "" {
				n.HostName += "-" + strconv.Itoa(i+1)
			}
		}
		n.Flavor, n.Image, n.Key, n.Zone = flavor, img, key, w.zone
		if img != nil {
			n.Copy = images.Copy(img)
		}
		if n.Volumes, err = d.uses(tx, c, w); err != nil {
			return nil, 0, err
		}
		for _, e := range nics {
			p, err := d.plug(tx, c, e, n.ID, w.zone, groups)
			if err != nil {
				return nil, 0, err
			}
			n.Ports = append(n.Ports, p.ID)
			if e.tag != "" {
				if n.PortTags == nil {
					n.PortTags = map[model.ID]string{}
				}
				n.PortTags[p.ID] = e.tag
			}
		}
		s, err := d.c.Create(tx, sc, n)
		if err != nil {
			return nil, 0, err
		}
		out = append(out, s)
	}
	return out, count, nil
}

// whereabouts checks that the zone and the host that are asked for exist.
func whereabouts(r store.Reader, zone, host string) error {
	z, h := zone == "", host == ""
	for x := range computers(r) {
		z, h = z || x.Zone == zone, h || x.Name == host
	}
	switch {
	case !h:
		return badRequest("Compute host %s could not be found.", api.Clip(host))
	case !z:
		return badRequest("The requested availability zone is not available")
	}
	return nil
}

// groupIDs resolves the names or ids of security groups among those of the project.
func (d *dialect) groupIDs(tx *store.Tx, c *api.Context, names []string) (*[]string, error) {
	if len(names) == 0 {
		return nil, nil
	}
	ids := []string{}
	for _, name := range names {
		g, err := d.groupOf(tx, c, c.Caller.ProjectID, name)
		if err != nil {
			return nil, asInvalid(err)
		}
		ids = append(ids, g.ID)
	}
	return &ids, nil
}

// chooseNetworks gives the interfaces that a server gets: those that were asked for, or
// one on the only network that the project can mean.
func (d *dialect) chooseNetworks(tx *store.Tx, c *api.Context, w *wanted) ([]nic, error) {
	if w.none || !w.auto {
		return w.nics, nil
	}
	project := c.Caller.ProjectID
	var own, shared []string
	for n := range store.Networks.List(tx, "project", project) {
		if !n.External {
			own = append(own, n.ID)
		}
	}
	for _, target := range []string{project, model.Everybody} {
		for n := range store.Networks.List(tx, "shared", target) {
			if n.With(project) && !n.External && n.ProjectID != project && !slices.Contains(shared, n.ID) {
				shared = append(shared, n.ID)
			}
		}
	}
	usable := own
	if len(usable) == 0 {
		usable = shared
	}
	switch {
	case len(usable) == 1:
		return []nic{{network: usable[0]}}, nil
	case len(usable) > 1:
		return nil, fault.New(fault.Conflict, "Multiple possible networks found, use a Network ID to be more specific.")
	case at(c, 37):
		t, err := d.net.AutoAllocate(tx, netScope(c), project)
		if fault.CodeOf(err) == "AutoAllocationFailure" {
			return nil, badRequest("Unable to automatically allocate a network for project %s", project)
		}
		if err != nil {
			return nil, err
		}
		return []nic{{network: t.NetworkID}}, nil
	}
	return nil, nil
}

// plug gives a new server an interface: a port that is there and free, or a new one.
func (d *dialect) plug(tx *store.Tx, c *api.Context, e nic, server, zone string, groups *[]string) (*model.Port, error) {
	sc := netScope(c)
	owner := "compute:" + zone
	if zone == "" {
		owner = "compute:nova"
	}
	if e.port != "" {
		p, err := d.net.GetPort(tx, sc, e.port)
		if err != nil || p.ProjectID != c.Caller.ProjectID && !c.Caller.CloudAdmin {
			return nil, badRequest("Port id %s could not be found.", e.port)
		}
		if len(p.FixedIPs) == 0 {
			return nil, badRequest("Port %s requires a FixedIP in order to be used.", e.port)
		}
		p, err = d.net.AttachPort(tx, sc, p.ID, server, owner)
		return p, asInvalid(err)
	}
	w, err := d.net.GetNetwork(tx, sc, e.network)
	if err != nil {
		return nil, badRequest("Network %s could not be found.", e.network)
	}
	if w.External && !w.With(c.Caller.ProjectID) && !c.Caller.CloudAdmin {
		return nil, fault.New(fault.Forbidden, "It is not allowed to create an interface on external network %s", w.ID)
	}
	if store.Subnets.Count(tx, "network", w.ID) == 0 {
		return nil, badRequest("Network %s requires a subnet in order to boot instances on.", w.ID)
	}
	project := c.Caller.ProjectID
	spec := network.PortSpec{ProjectID: &project, NetworkID: w.ID, DeviceID: &server, DeviceOwner: &owner, Groups: groups, Owned: true}
	if e.fixed.IsValid() {
		spec.FixedIPs = &[]network.AddressSpec{{Address: e.fixed}}
	}
	if !w.PortSecurity {
		if groups != nil {
			return nil, badRequest("Network %s has no port security: security groups cannot be used on it.", w.ID)
		}
		spec.Groups = &[]string{}
	}
	p, err := d.net.CreatePort(tx, sc, spec)
	switch fault.CodeOf(err) {
	case "IpAddressAlreadyAllocated":
		return nil, badRequest("Fixed IP address %s is already in use on instance.", e.fixed)
	case "OverQuota":
		return nil, fault.New(fault.OverQuota, "Maximum number of ports exceeded")
	}
	return p, asInvalid(err)
}
