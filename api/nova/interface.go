package nova

import (
	"cmp"
	"net/http"
	"net/netip"
	"slices"

	"yakumo/api"
	"yakumo/compute"
	"yakumo/fault"
	"yakumo/launch"
	"yakumo/model"
	"yakumo/network"
	"yakumo/store"
)

func interfaceOf(c *api.Context, s *model.Server, p *model.Port) object {
	ips := []object{}
	for _, f := range p.FixedIPs {
		ips = append(ips, object{"subnet_id": f.SubnetID, "ip_address": f.Address.String()})
	}
	o := object{"port_state": cmp.Or(p.Status.State, model.PortDown), "fixed_ips": ips, "port_id": p.ID, "net_id": p.NetworkID, "mac_addr": p.MAC}
	if at(c, 70) {
		o["tag"] = nil
		if tag := s.PortTags[p.ID]; tag != "" {
			o["tag"] = tag
		}
	}
	return o
}

func (d *dialect) listInterfaces(c *api.Context) error {
	snap, s, err := d.serverOf(c)
	if err != nil {
		return err
	}
	out := []object{}
	for _, p := range portsOf(snap, s) {
		out = append(out, interfaceOf(c, s, p))
	}
	return c.JSON(http.StatusOK, object{"interfaceAttachments": out})
}

func (d *dialect) showInterface(c *api.Context) error {
	snap, s, err := d.serverOf(c)
	if err != nil {
		return err
	}
	for _, p := range portsOf(snap, s) {
		if p.ID == c.Param("port") {
			return c.JSON(http.StatusOK, object{"interfaceAttachment": interfaceOf(c, s, p)})
		}
	}
	return fault.New(fault.NotFound, "Instance %s does not have a port with id %s", s.ID, api.Clip(c.Param("port")))
}

func attachSchema(c *api.Context) schema {
	m := members{"net_id": uuid, "port_id": uuid, "fixed_ips": list(exactly(members{"ip_address": anyAddress}, "ip_address"), 1, 1)}
	if at(c, 49) {
		m["tag"] = matching(tagRE, 1, 60)
	}
	return exactly(members{"interfaceAttachment": exactly(m)})
}

// of gives the request as one of the server's own project, for whose ports it is made.
func of(c *api.Context, s *model.Server) *api.Context {
	as, caller := *c, *c.Caller
	caller.ProjectID = s.ProjectID
	as.Caller = &caller
	return &as
}

func (d *dialect) attachInterface(c *api.Context) error {
	body, err := decode(c, attachSchema(c))
	if err != nil {
		return err
	}
	o, _ := body["interfaceAttachment"].(object)
	e := launch.NIC{Port: str(o, "port_id"), Network: str(o, "net_id"), Tag: str(o, "tag")}
	if l, _ := o["fixed_ips"].([]any); len(l) > 0 {
		e.Fixed, _ = netip.ParseAddr(str(l[0].(object), "ip_address"))
	}
	switch {
	case e.Port != "" && e.Network != "":
		return badRequest("Must not input both network_id and port_id")
	case e.Fixed.IsValid() && e.Network == "":
		return badRequest("Must input network_id when request IP address")
	}
	var s *model.Server
	var port *model.Port
	if _, err := c.Store().Update(c.R.Context(), func(tx *store.Tx) error {
		old, err := compute.Get(tx, scope(c), c.Param("id"))
		if err != nil {
			return err
		}
		if port, err = d.plugInto(tx, of(c, old), e, old); err != nil {
			return err
		}
		s, err = d.c.AttachInterface(tx, scope(c), old.ID, port.ID, e.Tag)
		return err
	}); err != nil {
		return err
	}
	return c.JSON(http.StatusOK, object{"interfaceAttachment": interfaceOf(c, s, port)})
}

// plugInto gives a server that runs a port: one that is there and free, or a new one.
func (d *dialect) plugInto(tx *store.Tx, c *api.Context, e launch.NIC, s *model.Server) (*model.Port, error) {
	sc := netScope(c)
	if e.Port != "" {
		p, err := d.net.GetPort(tx, sc, e.Port)
		if err != nil || p.ProjectID != s.ProjectID && !c.Caller.CloudAdmin {
			return nil, fault.New(fault.NotFound, "Port id %s could not be found.", e.Port)
		}
		if p.DeviceID != "" {
			return nil, fault.New(fault.Conflict, "Port %s is still in use.", e.Port)
		}
	}
	if e.Network != "" {
		if _, err := d.net.GetNetwork(tx, sc, e.Network); err != nil {
			return nil, fault.New(fault.NotFound, "Network %s could not be found.", e.Network)
		}
		if e.Fixed.IsValid() {
			for p := range store.Ports.List(tx, "address", e.Fixed.String()) {
				if p.NetworkID == e.Network {
					return nil, fault.New(fault.Conflict, "Fixed IP address %s is already in use on instance %s.", e.Fixed, cmp.Or(p.DeviceID, "unknown"))
				}
			}
		}
	}
	if e.Port == "" && e.Network == "" {
		chosen, err := d.launch.Choose(tx, scope(c), at(c, 37))
		if fault.Is(err, fault.Conflict) {
			text, _ := fault.Text(err)
			return nil, fault.Wrap(fault.Invalid, err, "%s", text)
		}
		if err != nil {
			return nil, err
		}
		if len(chosen) == 0 {
			return nil, badRequest("No specific network was requested and none are available for project '%s'.", s.ProjectID)
		}
		e.Network = chosen[0].Network
	}
	zone := ""
	if h, ok := store.Hosts.Get(tx, s.Host); ok {
		zone = h.Zone
	}
	return d.launch.Plug(tx, scope(c), e, s.ID, zone, nil)
}

func (d *dialect) detachInterface(c *api.Context) error {
	return change(c, func(tx *store.Tx) error {
		_, err := d.c.DetachInterface(tx, scope(c), c.Param("id"), c.Param("port"))
		return err
	})
}

// addressActions are Nova's own older way to addresses, which the network service has.
func (d *dialect) addressActions(add adds) {
	add("addFixedIp", action{to: 43, check: always(exactly(members{"networkId": either(text(1, 255), integer(0, 1<<31))}, "networkId")),
		run: func(c *api.Context, v any) error {
			return d.readdress(c, "addFixedIp", func(tx *store.Tx, p *model.Port) (*[]network.AddressSpec, error) {
				if p.NetworkID != plain(v.(object)["networkId"]) || len(p.FixedIPs) == 0 {
					return nil, nil
				}
				return addressesWith(p, network.AddressSpec{SubnetID: p.FixedIPs[0].SubnetID}), nil
			}, "Network %s could not be found.", plain(v.(object)["networkId"]))
		}})
	add("removeFixedIp", action{to: 43, check: always(exactly(members{"address": anyAddress}, "address")),
		run: func(c *api.Context, v any) error {
			gone, err := netip.ParseAddr(str(v.(object), "address"))
			if err != nil {
				return badRequest("Invalid address.")
			}
			return d.readdress(c, "removeFixedIp", func(tx *store.Tx, p *model.Port) (*[]network.AddressSpec, error) {
				at := slices.IndexFunc(p.FixedIPs, func(f model.FixedIP) bool { return f.Address == gone })
				if at < 0 {
					return nil, nil
				}
				q := *p
				q.FixedIPs = slices.Delete(slices.Clone(p.FixedIPs), at, at+1)
				return addressesWith(&q), nil
			}, "Fixed IP %s is not on the instance.", str(v.(object), "address"))
		}})
	add("addFloatingIp", action{to: 43, check: always(exactly(members{"address": anyAddress, "fixed_address": nullOr(anyAddress)}, "address")),
		run: func(c *api.Context, v any) error { return d.float(c, v.(object), true) }})
	add("removeFloatingIp", action{to: 43, check: always(exactly(members{"address": anyAddress}, "address")),
		run: func(c *api.Context, v any) error { return d.float(c, v.(object), false) }})
}

func addressesWith(p *model.Port, more ...network.AddressSpec) *[]network.AddressSpec {
	out := []network.AddressSpec{}
	for _, f := range p.FixedIPs {
		out = append(out, network.AddressSpec{SubnetID: f.SubnetID, Address: f.Address})
	}
	out = append(out, more...)
	return &out
}

// readdress gives other addresses to the first port of a server that f has some for.
func (d *dialect) readdress(c *api.Context, name string, f func(*store.Tx, *model.Port) (*[]network.AddressSpec, error), format string, args ...any) error {
	return change(c, func(tx *store.Tx) error {
		s, err := compute.Get(tx, scope(c), c.Param("id"))
		if err != nil {
			return err
		}
		if err := d.c.Touchable(scope(c), s, name); err != nil {
			return err
		}
		for _, p := range portsOf(tx, s) {
			to, err := f(tx, p)
			if err != nil {
				return err
			}
			if to == nil {
				continue
			}
			sc := netScope(c)
			sc.Admin = true // the server was looked at
			_, err = d.net.UpdatePort(tx, sc, p.ID, network.PortSpec{FixedIPs: to})
			return asInvalid(err)
		}
		return badRequest(format, args...)
	})
}

// float leads a floating IP to a server, or away from it.
func (d *dialect) float(c *api.Context, o object, to bool) error {
	address, err := netip.ParseAddr(str(o, "address"))
	if err != nil {
		return badRequest("Invalid address.")
	}
	return change(c, func(tx *store.Tx) error {
		s, err := compute.Get(tx, scope(c), c.Param("id"))
		if err != nil {
			return err
		}
		var f *model.FloatingIP
		for x := range store.FloatingIPs.List(tx, "address", address.String()) {
			if netScope(c).Owns(x.ProjectID) {
				f = x
			}
		}
		ports := portsOf(tx, s)
		mine := f != nil && slices.ContainsFunc(ports, func(p *model.Port) bool { return p.ID == f.PortID })
		switch {
		case f == nil:
			return fault.New(fault.NotFound, "floating IP not found")
		case !to && !mine:
			return fault.New(fault.Conflict, "Floating IP %s is not associated with instance %s.", address, s.ID)
		case !to:
			none := ""
			_, err := d.net.UpdateFloatingIP(tx, netScope(c), f.ID, network.FloatingIPSpec{PortID: &none})
			return asInvalid(err)
		}
		fixed, _ := netip.ParseAddr(str(o, "fixed_address"))
		for _, p := range ports {
			for _, x := range p.FixedIPs {
				if x.Address.Is4() && (!fixed.IsValid() || fixed == x.Address) {
					_, err := d.net.UpdateFloatingIP(tx, netScope(c), f.ID, network.FloatingIPSpec{PortID: &p.ID, FixedAddress: &x.Address})
					return asInvalid(err)
				}
			}
		}
		return badRequest("No fixed IPs associated to instance")
	})
}
