package ec2

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"

	"yakumo/api"
	"yakumo/fault"
	"yakumo/model"
	"yakumo/network"
	"yakumo/store"
)

type ipRange struct {
	Block       string `xml:"cidrIp"`
	Description string `xml:"description,omitempty"`
}

type ip6Range struct {
	Block       string `xml:"cidrIpv6"`
	Description string `xml:"description,omitempty"`
}

type groupPair struct {
	Owner       string `xml:"userId"`
	ID          string `xml:"groupId"`
	Description string `xml:"description,omitempty"`
	name        string
}

// allowance is what several rules of the same protocol and ports allow.
type allowance struct {
	Protocol string         `xml:"ipProtocol"`
	From     *int           `xml:"fromPort"`
	To       *int           `xml:"toPort"`
	Groups   set[groupPair] `xml:"groups"`
	Ranges   set[ipRange]   `xml:"ipRanges"`
	Ranges6  set[ip6Range]  `xml:"ipv6Ranges"`
	Lists    struct{}       `xml:"prefixListIds"`
}

// ports gives EC2's words for what a rule allows of a protocol: -1 is any; of ICMP the ports are type and code.
func ports(x *model.SecurityRule) (protocol string, from, to *int) {
	number := func(p *int, otherwise int) *int {
		if p == nil {
			return &otherwise
		}
		return p
	}
	switch x.Protocol {
	case "":
		return "-1", nil, nil
	case "tcp", "udp":
		return x.Protocol, number(x.PortMin, 0), number(x.PortMax, maxPort)
	case "icmp":
		return x.Protocol, number(x.PortMin, -1), number(x.PortMax, -1)
	case "ipv6-icmp":
		return "icmpv6", number(x.PortMin, -1), number(x.PortMax, -1)
	}
	if n, ok := network.ProtocolNumber(x.Protocol); ok {
		return strconv.Itoa(int(n)), x.PortMin, x.PortMax
	}
	return x.Protocol, x.PortMin, x.PortMax
}

const maxPort = 65535

// peer gives the block that a rule is about; invalid: it is about a group's members.
func peer(x *model.SecurityRule) netip.Prefix {
	switch {
	case x.RemoteGroupID != "" || x.AddressGroupID != "":
		return netip.Prefix{}
	case x.RemotePrefix.IsValid():
		return x.RemotePrefix
	case x.EtherType == model.IPv6:
		return everywhere6
	}
	return everywhere
}

var everywhere6 = netip.MustParsePrefix("::/0")

// allowancesOf gives rules as EC2 shows them. What OpenStack's rules of address groups allow, EC2 has no words for: it is not shown.
func allowancesOf(r store.Reader, rules []*model.SecurityRule) (out set[allowance]) {
	for _, x := range rules {
		if x.AddressGroupID != "" {
			continue
		}
		protocol, from, to := ports(x)
		same := func(a, b *int) bool { return a == nil && b == nil || a != nil && b != nil && *a == *b }
		at := slices.IndexFunc(out.Items, func(p allowance) bool { return p.Protocol == protocol && same(p.From, from) && same(p.To, to) })
		if at < 0 {
			out.Items = append(out.Items, allowance{Protocol: protocol, From: from, To: to})
			at = len(out.Items) - 1
		}
		p := &out.Items[at]
		switch block := peer(x); {
		case x.RemoteGroupID != "":
			g := groupPair{Owner: x.ProjectID, ID: groupID.id(x.RemoteGroupID), Description: x.Description}
			if remote, ok := store.SecurityGroups.Get(r, x.RemoteGroupID); ok {
				g.Owner, g.name = remote.ProjectID, remote.Name
			}
			// Of a group there is a rule for each IP version.
			if !slices.ContainsFunc(p.Groups.Items, func(o groupPair) bool { return o.ID == g.ID }) {
				p.Groups.Items = append(p.Groups.Items, g)
			}
		case block.Addr().Is4():
			p.Ranges.Items = append(p.Ranges.Items, ipRange{block.String(), x.Description})
		default:
			p.Ranges6.Items = append(p.Ranges6.Items, ip6Range{block.String(), x.Description})
		}
	}
	return out
}

// allowanceValues gives what permissions have under a filter's name.
func allowanceValues(list []allowance, name string) (out []string) {
	number := func(n *int) {
		if n != nil {
			out = append(out, strconv.Itoa(*n))
		}
	}
	for _, p := range list {
		switch name {
		case "protocol":
			out = append(out, p.Protocol)
		case "from-port":
			number(p.From)
		case "to-port":
			number(p.To)
		case "cidr":
			for _, x := range p.Ranges.Items {
				out = append(out, x.Block)
			}
		case "ipv6-cidr":
			for _, x := range p.Ranges6.Items {
				out = append(out, x.Block)
			}
		}
		for _, g := range p.Groups.Items {
			switch name {
			case "group-id":
				out = append(out, g.ID)
			case "group-name":
				out = append(out, g.name)
			case "user-id":
				out = append(out, g.Owner)
			}
		}
	}
	return out
}

// wantedRule is one thing that a request allows or takes back: one rule, or of a group one of each IP version.
type wantedRule struct {
	specs []network.RuleSpec
	text  string
}

// wantedRules reads IpPermissions.n, or the older form in which the request is one permission.
func (q *request) wantedRules(r store.Reader, direction string) ([]wantedRule, error) {
	list := q.list("IpPermissions")
	if len(list) == 0 && q.params.has("IpProtocol") {
		one := &param{parts: map[string]*param{}}
		for _, name := range []string{"IpProtocol", "FromPort", "ToPort"} {
			if q.params.has(name) {
				one.parts[name] = q.params.Part(name)
			}
		}
		if v := q.str("CidrIp"); v != "" {
			one.parts["IpRanges"] = &param{parts: map[string]*param{"1": {parts: map[string]*param{"CidrIp": {value: v}}}}}
		}
		if v := q.str("SourceSecurityGroupName"); v != "" {
			one.parts["Groups"] = &param{parts: map[string]*param{"1": {parts: map[string]*param{"GroupName": {value: v}}}}}
		}
		list = append(list, one)
	}
	if len(list) == 0 && q.str("SourceSecurityGroupName") != "" {
		list = append(list, &param{parts: map[string]*param{"IpProtocol": {value: "-1"},
			"Groups": {parts: map[string]*param{"1": {parts: map[string]*param{"GroupName": {value: q.str("SourceSecurityGroupName")}}}}}}})
	}
	if len(list) == 0 {
		return nil, missing("ipPermissions")
	}
	var out []wantedRule
	for _, p := range list {
		rules, err := q.wantedRule(r, p, direction)
		if err != nil {
			return nil, err
		}
		out = append(out, rules...)
	}
	const most = 200 // a transaction holds some keys for each
	if len(out) > most {
		return nil, fault.Coded(fault.Invalid, "RulesPerSecurityGroupLimitExceeded", "A request has at most %d rules.", most)
	}
	return out, nil
}

func (q *request) wantedRule(r store.Reader, p *param, direction string) ([]wantedRule, error) {
	protocol, low, high, err := readPorts(p)
	if err != nil {
		return nil, err
	}
	base := network.RuleSpec{Direction: direction, Protocol: protocol, PortMin: low, PortMax: high}
	var out []wantedRule
	if len(p.list("PrefixListIds")) > 0 {
		return nil, unsupported("Prefix lists are not offered by this cloud.")
	}
	with := func(x *param, ether string) network.RuleSpec {
		s := base
		s.EtherType = ether
		if x.has("Description") {
			text := x.str("Description")
			s.Description = &text
		}
		return s
	}
	for _, version := range []struct{ list, name, ether string }{{"IpRanges", "CidrIp", model.IPv4}, {"Ipv6Ranges", "CidrIpv6", model.IPv6}} {
		for _, x := range p.list(version.list) {
			text := x.str(version.name)
			block, err := netip.ParsePrefix(text)
			if err != nil || block.Addr().Is4() != (version.ether == model.IPv4) || block.Addr().Is4In6() {
				return nil, badValue("CIDR block %s is malformed", api.Clip(text))
			}
			s := with(x, version.ether)
			s.RemotePrefix = block.Masked()
			out = append(out, wantedRule{[]network.RuleSpec{s}, text})
		}
	}
	for _, x := range p.list("Groups") {
		id, name := x.str("GroupId"), x.str("GroupName")
		var g *model.SecurityGroup
		if id != "" {
			g, err = q.groupOf(r, id)
		} else {
			g, err = q.groupNamed(r, name)
		}
		if err != nil {
			return nil, err
		}
		w := wantedRule{text: groupID.id(g.ID)}
		for _, ether := range []string{model.IPv4, model.IPv6} {
			if protocol == "icmp" && ether == model.IPv6 || protocol == "ipv6-icmp" && ether == model.IPv4 {
				continue
			}
			s := with(x, ether)
			s.RemoteGroupID = g.ID
			w.specs = append(w.specs, s)
		}
		out = append(out, w)
	}
	if len(out) == 0 {
		return nil, badValue("Invalid value for ipPermissions: an ipRange, an ipv6Range or a group is needed.")
	}
	return out, nil
}

// readPorts reads a permission's protocol and ports.
func readPorts(p *param) (protocol string, low, high *int, err error) {
	protocol = p.str("IpProtocol")
	if protocol == "" {
		return "", nil, nil, missing("ipProtocol")
	}
	n, numbered := network.ProtocolNumber(protocol)
	switch {
	case protocol == "-1" || protocol == "all":
		return "", nil, nil, nil
	case protocol == "icmpv6" || numbered && n == 58:
		protocol = "ipv6-icmp"
	case numbered && n == 1:
		protocol = "icmp"
	case numbered && n == 6:
		protocol = "tcp"
	case numbered && n == 17:
		protocol = "udp"
	case !numbered:
		return "", nil, nil, badValue("Invalid value '%s' for IP protocol. Unknown protocol.", api.Clip(protocol))
	default:
		return protocol, nil, nil, nil // of others, EC2 reads no ports
	}
	icmp := protocol != "tcp" && protocol != "udp"
	from, err := strconv.Atoi(cmp.Or(p.str("FromPort"), "-1"))
	to, err2 := strconv.Atoi(cmp.Or(p.str("ToPort"), "-1"))
	switch {
	case err != nil || err2 != nil:
		return "", nil, nil, badValue("Invalid value for portRange. Ports are numbers.")
	case icmp && (from < -1 || from > 255 || to < -1 || to > 255):
		return "", nil, nil, badValue("ICMP code (%d) out of range", max(from, to))
	case icmp && from == -1:
		return protocol, nil, nil, nil
	case icmp && to == -1:
		return protocol, &from, nil, nil
	case icmp:
		return protocol, &from, &to, nil
	case !p.has("FromPort") || !p.has("ToPort"):
		return "", nil, nil, fault.Coded(fault.Invalid, "InvalidParameterValue", "Invalid value 'Must specify both from and to ports with TCP/UDP.' for portRange.")
	case from < 0 || to > maxPort || from > to:
		return "", nil, nil, badValue("Invalid TCP/UDP port range (%d:%d)", from, to)
	case from == 0 && to == maxPort:
		return protocol, nil, nil, nil
	case to == 0:
		return "", nil, nil, badValue("Invalid TCP/UDP port range (%d:%d): nothing has the port 0.", from, to)
	}
	from = max(from, 1)
	return protocol, &from, &to, nil
}

// there gives the rule of a group that means the same; nil: there is none.
func there(rules []*model.SecurityRule, s network.RuleSpec) *model.SecurityRule {
	same := func(a, b *int) bool { return a == nil && b == nil || a != nil && b != nil && *a == *b }
	for _, x := range rules {
		protocol := x.Protocol
		if n, ok := network.ProtocolNumber(protocol); ok {
			if m, also := network.ProtocolNumber(s.Protocol); also && m == n {
				protocol = s.Protocol
			}
		}
		if x.EtherType == s.EtherType && protocol == s.Protocol && same(x.PortMin, s.PortMin) && same(x.PortMax, s.PortMax) && x.AddressGroupID == "" &&
			x.RemoteGroupID == s.RemoteGroupID && (s.RemoteGroupID != "" || peer(x) == s.RemotePrefix) {
			return x
		}
	}
	return nil
}

type ruleShown struct {
	ID          string   `xml:"securityGroupRuleId"`
	Group       string   `xml:"groupId"`
	Owner       string   `xml:"groupOwnerId"`
	Egress      bool     `xml:"isEgress"`
	Protocol    string   `xml:"ipProtocol"`
	From        int      `xml:"fromPort"`
	To          int      `xml:"toPort"`
	Block4      string   `xml:"cidrIpv4,omitempty"`
	Block6      string   `xml:"cidrIpv6,omitempty"`
	Remote      *ruleRef `xml:"referencedGroupInfo"`
	Description string   `xml:"description,omitempty"`
	Tags        struct{} `xml:"tagSet"`
}

type ruleRef struct {
	ID    string `xml:"groupId"`
	Owner string `xml:"userId"`
}

func showRule(x *model.SecurityRule) ruleShown {
	out := ruleShown{ID: ruleID.id(x.ID), Group: groupID.id(x.GroupID), Owner: x.ProjectID, Egress: x.Direction == model.Egress, Description: x.Description, From: -1, To: -1}
	protocol, from, to := ports(x)
	out.Protocol = protocol
	if from != nil {
		out.From = *from
	}
	if to != nil {
		out.To = *to
	}
	switch block := peer(x); {
	case x.RemoteGroupID != "":
		out.Remote = &ruleRef{groupID.id(x.RemoteGroupID), x.ProjectID}
	case block.Addr().Is4():
		out.Block4 = block.String()
	default:
		out.Block6 = block.String()
	}
	return out
}

func (d *dialect) authorize(q *request, direction string) (any, error) {
	var body struct {
		Return bool           `xml:"return"`
		Rules  set[ruleShown] `xml:"securityGroupRuleSet"`
	}
	body.Return = true
	if err := d.ensureDefault(q); err != nil {
		return nil, err
	}
	err := q.update(func(tx *store.Tx) error {
		body.Rules.Items = nil
		g, err := q.groupMeant(tx)
		if err != nil {
			return err
		}
		want, err := q.wantedRules(tx, direction)
		if err != nil {
			return err
		}
		have := rulesOf(tx, g.ID, direction)
		for _, w := range want {
			made := 0
			for _, s := range w.specs {
				if there(have, s) != nil {
					continue
				}
				s.GroupID = g.ID
				x, err := d.net.CreateRule(tx, q.netScope(), s)
				switch {
				case fault.Is(err, fault.Conflict):
					continue
				case err != nil:
					return recoding{fault.Invalid: "InvalidParameterValue", fault.NotFound: "InvalidGroup.NotFound", fault.OverQuota: "RulesPerSecurityGroupLimitExceeded"}.of(err)
				}
				have = append(have, x)
				body.Rules.Items = append(body.Rules.Items, showRule(x))
				made++
			}
			if made == 0 {
				protocol, from, to := "ALL", "", ""
				if p := w.specs[0]; p.Protocol != "" {
					protocol = p.Protocol
					if p.PortMin != nil {
						from = ", from port: " + strconv.Itoa(*p.PortMin)
					}
					if p.PortMax != nil {
						to = ", to port: " + strconv.Itoa(*p.PortMax)
					}
				}
				return fault.Coded(fault.Conflict, "InvalidPermission.Duplicate", "the specified rule \"peer: %s, %s%s%s, ALLOW\" already exists", api.Clip(w.text), protocol, from, to)
			}
		}
		return nil
	})
	return body, err
}

func (d *dialect) revoke(q *request, direction string) (any, error) {
	if err := d.ensureDefault(q); err != nil {
		return nil, err
	}
	return done{true}, q.update(func(tx *store.Tx) error {
		g, err := q.groupMeant(tx)
		if err != nil {
			return err
		}
		have := rulesOf(tx, g.ID, direction)
		gone := map[model.ID]bool{}
		for _, id := range q.strs("SecurityGroupRuleId") {
			x, err := find(tx, store.SecurityRules, ruleID, id, func(x *model.SecurityRule) bool { return x.GroupID == g.ID && x.Direction == direction })
			if err != nil {
				return err
			}
			gone[x.ID] = true
		}
		if len(gone) == 0 {
			want, err := q.wantedRules(tx, direction)
			if err != nil {
				return err
			}
			for _, w := range want {
				found := false
				for _, s := range w.specs {
					if x := there(have, s); x != nil {
						gone[x.ID], found = true, true
					}
				}
				if !found {
					return fault.Coded(fault.NotFound, "InvalidPermission.NotFound", "The specified rule does not exist in this security group.")
				}
			}
		}
		for _, x := range have {
			if gone[x.ID] {
				if err := d.net.DeleteRule(tx, q.netScope(), x.ID); err != nil {
					return recoding{fault.NotFound: "InvalidPermission.NotFound"}.of(err)
				}
			}
		}
		return nil
	})
}

func (d *dialect) describeRules(q *request) (any, error) {
	filters, err := q.filters("group-id", "security-group-rule-id", "tag-key", "tag:")
	if err != nil {
		return nil, err
	}
	r := q.Snapshot()
	rows, err := chosen(q, r, store.SecurityRules, ruleID, q.strs("SecurityGroupRuleId"), func(x *model.SecurityRule) model.ID { return x.ProjectID })
	if err != nil {
		return nil, err
	}
	var all []ruleShown
	for _, x := range rows {
		if x.AddressGroupID != "" {
			continue
		}
		s := showRule(x)
		if passes(filters, func(name string) []string {
			if v, ok := (map[string]string{"group-id": s.Group, "security-group-rule-id": s.ID})[name]; ok {
				return []string{v}
			}
			return nil
		}) {
			all = append(all, s)
		}
	}
	var body struct {
		Rules set[ruleShown] `xml:"securityGroupRuleSet"`
		Next  string         `xml:"nextToken,omitempty"`
	}
	body.Rules.Items, body.Next, err = paged(q, all, func(x ruleShown) string { return x.ID })
	return body, err
}
