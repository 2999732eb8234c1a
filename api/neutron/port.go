package neutron

import (
	"encoding/json"
	"iter"
	"net/netip"
	"strconv"
	"strings"

	"yakumo/model"
	"yakumo/network"
	"yakumo/store"
)

func (d *dialect) portCollection() *collection[model.Port, network.PortSpec] {
	type (
		R = model.Port
		S = network.PortSpec
	)
	meta := func(p *R) *model.Meta { return &p.Meta }
	attrs := metaAttrs(meta, func(s *S) **string { return &s.ProjectID })
	mac := textAttr("mac_address", everyone, everyone, func(p *R) string { return p.MAC }, func(s *S) **string { return &s.MAC })
	mac.norm = strings.ToLower
	mac.set = func(s *S, raw json.RawMessage) error {
		if isNull(raw) { // make one, or make it anew
			anew := ""
			s.MAC = &anew
			return nil
		}
		text, err := readString("mac_address", raw)
		if err == nil {
			var ok bool
			if text, ok = network.ParseMAC(text); !ok {
				err = badInput("mac_address", "'%s' is not a valid MAC address.", shown(raw))
			}
		}
		s.MAC = &text
		return err
	}
	host := attribute[R, S]{name: "binding:host_id", post: adminOnly, put: adminOnly, hidden: true,
		set: func(s *S, raw json.RawMessage) error {
			name := ""
			s.Host = &name
			if isNull(raw) {
				return nil
			}
			var err error
			name, err = readString("binding:host_id", raw)
			return err
		},
		emit:  func(b []byte, v *view, p *R) []byte { return appendString(b, hostName(v, p.Host)) },
		match: func(v *view, p *R) []string { return []string{hostName(v, p.Host)} }}
	attrs = append(attrs,
		textAttr("name", everyone, everyone, func(p *R) string { return p.Name }, func(s *S) **string { return &s.Name }),
		textAttr("description", everyone, everyone, func(p *R) string { return p.Description }, func(s *S) **string { return &s.Description }),
		tagsAttr[R, S](meta),
		attribute[R, S]{name: "network_id", post: everyone, required: true,
			set: func(s *S, raw json.RawMessage) (err error) {
				s.NetworkID, err = readString("network_id", raw)
				return err
			},
			emit:  func(b []byte, _ *view, p *R) []byte { return appendString(b, p.NetworkID) },
			match: func(_ *view, p *R) []string { return []string{p.NetworkID} },
			order: func(p *R) string { return p.NetworkID }},
		mac,
		boolAttr("admin_state_up", everyone, everyone, func(p *R) bool { return p.AdminStateUp }, func(s *S) **bool { return &s.AdminStateUp }),
		textAttr[R, S]("status", readOnly, readOnly, portState, nil),
		textAttr("device_id", everyone, everyone, func(p *R) string { return p.DeviceID }, func(s *S) **string { return &s.DeviceID }),
		textAttr("device_owner", everyone, everyone, func(p *R) string { return p.DeviceOwner }, func(s *S) **string { return &s.DeviceOwner }),
		attribute[R, S]{name: "fixed_ips", post: everyone, put: everyone, set: setFixedIPs, emit: emitFixedIPs},
		attribute[R, S]{name: "security_groups", post: everyone, put: everyone,
			set: func(s *S, raw json.RawMessage) error {
				list, err := readStrings("security_groups", raw)
				if list == nil {
					list = []string{}
				}
				s.Groups = &list
				return err
			},
			emit:  func(b []byte, _ *view, p *R) []byte { return appendStrings(b, p.Groups) },
			match: func(_ *view, p *R) []string { return p.Groups }},
		boolAttr("port_security_enabled", everyone, everyone, func(p *R) bool { return p.PortSecurity }, func(s *S) **bool { return &s.PortSecurity }),
		attribute[R, S]{name: "allowed_address_pairs", post: everyone, put: everyone, set: setPairs, emit: emitPairs},
		attribute[R, S]{name: "extra_dhcp_opts", post: everyone, put: everyone, set: setDHCPOptions, emit: emitDHCPOptions},
		textAttr("binding:vnic_type", everyone, everyone, func(p *R) string { return p.VNICType }, func(s *S) **string { return &s.VNICType }),
		textAttr("dns_name", everyone, everyone, func(p *R) string { return p.DNSName }, func(s *S) **string { return &s.DNSName }),
		attribute[R, S]{name: "dns_assignment", emit: emitAssignment},
		qosAttr(func(p *R) string { return p.QoSPolicyID }, func(s *S) **string { return &s.QoSPolicyID }),
		attribute[R, S]{name: "qos_network_policy_id", emit: func(b []byte, v *view, p *R) []byte { return appendStringOrNull(b, networkQoS(v, p)) },
			match: func(v *view, p *R) []string { return []string{networkQoS(v, p)} }},
		attribute[R, S]{name: "resource_request", hidden: true, emit: emitRequest},
		attribute[R, S]{name: "trunk_details", emit: emitTrunk},
		host,
		attribute[R, S]{name: "binding:profile", post: adminOnly, put: adminOnly, hidden: true, set: setProfile,
			emit: emitProfile},
		attribute[R, S]{name: "binding:vif_type", hidden: true,
			emit: func(b []byte, _ *view, p *R) []byte { return appendString(b, vifType(p)) }},
		attribute[R, S]{name: "binding:vif_details", hidden: true,
			emit: func(b []byte, _ *view, p *R) []byte {
				if !p.Bound() {
					return append(b, "{}"...)
				}
				return append(b, `{"port_filter":true,"connectivity":"l2"}`...)
			}},
	)
	return &collection[R, S]{
		path: "ports", single: "port", plural: "ports", attrs: attrs, tagged: true, meta: meta,
		get:        d.net.GetPort,
		sees:       func(v *view, p *R) bool { return v.scope.SeesPort(p) },
		candidates: portCandidates,
		filter:     portFilter,
		create:     d.net.CreatePort, update: d.net.UpdatePort, remove: d.net.DeletePort,
	}
}

// portCandidates takes the narrowest index that the filters allow.
func portCandidates(v *view, q *query) iter.Seq[*model.Port] {
	if ids := q.filters["id"]; len(ids) > 0 {
		return byID(store.Ports, v, ids)
	}
	if pairs, err := fixedIPFilter(q.filters["fixed_ips"]); err == nil && len(pairs["ip_address"]) > 0 {
		return anyOf(store.Ports, v, "address", pairs["ip_address"])
	} else if err == nil && len(pairs["subnet_id"]) > 0 {
		return anyOf(store.Ports, v, "subnet", pairs["subnet_id"])
	}
	for _, f := range []struct{ filter, index string }{
		{"device_id", "device"}, {"mac_address", "mac"}, {"security_groups", "group"}, {"qos_policy_id", "qos"}, {"network_id", "network"},
	} {
		values := q.filters[f.filter]
		empty := false
		for _, s := range values {
			empty = empty || s == "" // no index finds what is not there
		}
		if len(values) > 0 && !empty {
			q.ordered = len(values) == 1
			return anyOf(store.Ports, v, f.index, values)
		}
	}
	q.ordered = true
	if p, ok := q.project(); ok {
		return store.Ports.List(v.r, "project", p)
	}
	if v.scope.Admin {
		if name, ok := q.one("binding:host_id"); ok {
			host, _ := store.Hosts.Holder(v.r, name)
			return store.Ports.List(v.r, "host", host)
		}
		return store.Ports.All(v.r)
	}
	return merge(func(p *model.Port) *model.Meta { return &p.Meta },
		store.Ports.List(v.r, "project", v.scope.ProjectID), store.Ports.List(v.r, "network_owner", v.scope.ProjectID))
}

// fixedIPFilter reads key=value filters of fixed_ips.
func fixedIPFilter(values []string) (map[string][]string, error) {
	out := map[string][]string{}
	for _, s := range values {
		k, v, ok := strings.Cut(s, "=")
		switch {
		case ok && k == "ip_address":
			if a, err := netip.ParseAddr(v); err == nil {
				v = a.String()
			}
			out[k] = append(out[k], v)
		case ok && (k == "subnet_id" || k == "ip_address_substr"):
			out[k] = append(out[k], v)
		default:
			return nil, badRequest("Invalid filter fixed_ips='%s': use ip_address=, ip_address_substr= or subnet_id=.", shown(json.RawMessage(s)))
		}
	}
	return out, nil
}

func portFilter(name string) func(v *view, p *model.Port, values []string) (bool, error) {
	if name != "fixed_ips" {
		return nil
	}
	return func(_ *view, p *model.Port, values []string) (bool, error) {
		want, err := fixedIPFilter(values)
		if err != nil {
			return false, err
		}
		for key, list := range want {
			found := false
			for _, f := range p.FixedIPs {
				for _, w := range list {
					switch key {
					case "ip_address":
						found = found || f.Address.String() == w
					case "ip_address_substr":
						found = found || strings.Contains(f.Address.String(), w)
					case "subnet_id":
						found = found || f.SubnetID == w
					}
				}
			}
			if !found {
				return false, nil
			}
		}
		return true, nil
	}
}

func portState(p *model.Port) string {
	if p.Status.State == "" {
		return model.PortDown
	}
	return p.Status.State
}

func vifType(p *model.Port) string {
	if p.Bound() {
		return "ovs"
	}
	return "unbound"
}

func hostName(v *view, id string) string {
	if id == "" {
		return ""
	}
	if h, ok := store.Hosts.Get(v.r, id); ok {
		return h.Name
	}
	return id
}

func setFixedIPs(s *network.PortSpec, raw json.RawMessage) error {
	if isNull(raw) {
		return nil
	}
	out, err := readAddresses("fixed_ips", raw)
	s.FixedIPs = &out
	return err
}

// readAddresses reads a list of subnets and addresses in them.
func readAddresses(name string, raw json.RawMessage) ([]network.AddressSpec, error) {
	list, err := readObjects(name, raw, "subnet_id", "ip_address", "subnet", "delete_subnet")
	if err != nil {
		return nil, err
	}
	out := make([]network.AddressSpec, 0, len(list))
	for _, o := range list {
		var x network.AddressSpec
		if v, ok := o["subnet_id"]; ok && !isNull(v) {
			if x.SubnetID, err = readString(name, v); err != nil {
				return nil, err
			}
		}
		if v, ok := o["ip_address"]; ok && !isNull(v) {
			text, err := readString(name, v)
			if err != nil {
				return nil, err
			}
			if x.Address, err = readAddr(name, text); err != nil {
				return nil, err
			}
		}
		if v, ok := o["delete_subnet"]; ok && !isNull(v) {
			if x.Remove, err = readBool(name, v); err != nil {
				return nil, err
			}
		}
		if x.SubnetID == "" && !x.Address.IsValid() {
			return nil, badInput(name, "each entry needs subnet_id or ip_address.")
		}
		out = append(out, x)
	}
	return out, nil
}

func emitFixedIPs(b []byte, _ *view, p *model.Port) []byte { return appendFixedIPs(b, p.FixedIPs) }

func appendFixedIPs(b []byte, ips []model.FixedIP) []byte {
	b = append(b, '[')
	for i, f := range ips {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"subnet_id":`...)
		b = appendString(b, f.SubnetID)
		b = append(b, `,"ip_address":`...)
		b = appendAddr(b, f.Address)
		b = append(b, '}')
	}
	return append(b, ']')
}

func setPairs(s *network.PortSpec, raw json.RawMessage) error {
	list, err := readObjects("allowed_address_pairs", raw, "ip_address", "mac_address")
	if err != nil {
		return err
	}
	out := make([]model.AddressPair, 0, len(list))
	for _, o := range list {
		var x model.AddressPair
		if v, ok := o["ip_address"]; ok {
			text, err := readString("allowed_address_pairs", v)
			if err != nil {
				return err
			}
			if x.Prefix, err = readPrefix("allowed_address_pairs", text); err != nil {
				return err
			}
		}
		if v, ok := o["mac_address"]; ok && !isNull(v) {
			if x.MAC, err = readString("allowed_address_pairs", v); err != nil {
				return err
			}
		}
		out = append(out, x)
	}
	s.Pairs = &out
	return nil
}

// emitPairs shows a single address without its length, and the port's own MAC where the
// pair names none, as Neutron does.
func emitPairs(b []byte, _ *view, p *model.Port) []byte {
	b = append(b, '[')
	for i, x := range p.Pairs {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"mac_address":`...)
		if x.MAC == "" {
			b = appendString(b, p.MAC)
		} else {
			b = appendString(b, x.MAC)
		}
		b = append(b, `,"ip_address":`...)
		if x.Prefix.IsSingleIP() {
			b = appendAddr(b, x.Prefix.Addr())
		} else {
			b = appendPrefix(b, x.Prefix)
		}
		b = append(b, '}')
	}
	return append(b, ']')
}

func setDHCPOptions(s *network.PortSpec, raw json.RawMessage) error {
	list, err := readObjects("extra_dhcp_opts", raw, "opt_name", "opt_value", "ip_version")
	if err != nil {
		return err
	}
	out := make([]network.DHCPOptionSpec, 0, len(list))
	for _, o := range list {
		var x network.DHCPOptionSpec
		if x.Name, err = readString("extra_dhcp_opts", o["opt_name"]); err != nil {
			return err
		}
		if v, ok := o["opt_value"]; ok && !isNull(v) {
			text, err := readString("extra_dhcp_opts", v)
			if err != nil {
				return err
			}
			x.Value = &text
		}
		if v, ok := o["ip_version"]; ok && !isNull(v) {
			if x.IPVersion, err = readInt("extra_dhcp_opts", v); err != nil {
				return err
			}
		}
		out = append(out, x)
	}
	s.DHCPOptions = &out
	return nil
}

func emitDHCPOptions(b []byte, _ *view, p *model.Port) []byte {
	b = append(b, '[')
	for i, o := range p.DHCPOptions {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"opt_name":`...)
		b = appendString(b, o.Name)
		b = append(b, `,"opt_value":`...)
		b = appendString(b, o.Value)
		b = append(b, `,"ip_version":`...)
		b = strconv.AppendInt(b, int64(o.IPVersion), 10)
		b = append(b, '}')
	}
	return append(b, ']')
}

// emitProfile writes what an administrator put into binding:profile and, while the port's server is on its way to
// another host, "migrating_to" with that host's name, as Nova has it there.
func emitProfile(b []byte, v *view, p *model.Port) []byte {
	profile := p.Profile
	if len(profile) == 0 {
		profile = json.RawMessage("{}")
	}
	if p.NextHost == "" {
		return append(b, profile...)
	}
	all := map[string]json.RawMessage{}
	if json.Unmarshal(profile, &all) != nil { // only objects are stored
		return append(b, profile...)
	}
	all["migrating_to"] = appendString(nil, hostName(v, p.NextHost))
	with, err := json.Marshal(all)
	if err != nil {
		return append(b, profile...)
	}
	return append(b, with...)
}

// maxProfile is how long a binding:profile may be, in bytes; Neutron's limit.
const maxProfile = 4095

func setProfile(s *network.PortSpec, raw json.RawMessage) error {
	if isNull(raw) {
		raw = json.RawMessage("{}")
	}
	var o map[string]any
	if err := json.Unmarshal(raw, &o); err != nil || o == nil {
		return badInput("binding:profile", "'%s' is not an object.", shown(raw))
	}
	compact, err := json.Marshal(o)
	if err != nil {
		return badInput("binding:profile", "it cannot be encoded.")
	}
	if len(compact) > maxProfile {
		return badInput("binding:profile", "it is longer than %d bytes.", maxProfile)
	}
	profile := json.RawMessage(compact)
	s.Profile = &profile
	return nil
}

// emitAssignment shows the names that the port's addresses have in the network's domain.
func emitAssignment(b []byte, v *view, p *model.Port) []byte {
	domain := "openstacklocal."
	if w, ok := v.network(p.NetworkID); ok && w.DNSDomain != "" {
		domain = strings.TrimSuffix(w.DNSDomain, ".") + "."
	}
	b = append(b, '[')
	for i, f := range p.FixedIPs {
		if i > 0 {
			b = append(b, ',')
		}
		name := p.DNSName
		if s, ok := store.Servers.Get(v.r, p.DeviceID); name == "" && ok && s.ProjectID == p.ProjectID {
			name = s.HostName // which is what its network's names are resolved by
		}
		if name == "" {
			name = "host-" + strings.NewReplacer(".", "-", ":", "-").Replace(f.Address.String())
		}
		b = append(b, `{"hostname":`...)
		b = appendString(b, name)
		b = append(b, `,"ip_address":`...)
		b = appendAddr(b, f.Address)
		b = append(b, `,"fqdn":`...)
		b = appendString(b, name+"."+domain)
		b = append(b, '}')
	}
	return append(b, ']')
}
