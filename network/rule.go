package network

import (
	"errors"
	"net/netip"
	"strconv"
	"strings"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// RuleSpec is a new security group rule.
type RuleSpec struct {
	ProjectID     *string
	Description   *string
	GroupID       string
	Direction     string // ingress or egress
	EtherType     string // IPv4 or IPv6; "": IPv4
	Protocol      string // a name, a number from 0 to 255, or "": any
	PortMin       *int   // ICMP: type
	PortMax       *int   // ICMP: code
	RemotePrefix  netip.Prefix
	RemoteGroupID string
	// AddressGroupID is of an address group that holds the remote side.
	AddressGroupID string
}

// protocols are the names that Neutron knows, with their numbers (IANA protocol numbers).
// Where two names mean one number, the rule keeps the name that was given.
var protocols = map[string]int{
	"ah": 51, "dccp": 33, "egp": 8, "esp": 50, "gre": 47, "hopopt": 0, "icmp": 1, "icmpv6": 58, "igmp": 2, "ip": 0, "ipip": 4,
	"ipv6-encap": 41, "ipv6-frag": 44, "ipv6-icmp": 58, "ipv6-nonxt": 59, "ipv6-opts": 60, "ipv6-route": 43,
	"ospf": 89, "pgm": 113, "rsvp": 46, "sctp": 132, "tcp": 6, "udp": 17, "udplite": 136, "vrrp": 112,
}

// ProtocolNumber gives the IP protocol number of a rule's protocol, and false for "" (any).
func ProtocolNumber(protocol string) (uint8, bool) {
	if n, ok := protocols[protocol]; ok {
		return uint8(n), true
	}
	n, err := strconv.ParseUint(protocol, 10, 8)
	return uint8(n), err == nil
}

// canonicalProtocol gives the form in which a protocol is stored: any is "", a known
// number is its name, so that "6" and "tcp" are one rule.
func canonicalProtocol(p, ether string) (string, bool) {
	p = strings.ToLower(strings.TrimSpace(p))
	switch p {
	case "", "any", "-1":
		return "", true
	case "icmpv6", "icmp", "ipv6-icmp", "58", "1":
		if ether == model.IPv6 && p != "1" {
			return "ipv6-icmp", true // Neutron takes icmp on IPv6 for ICMPv6
		}
		if p == "58" || p == "icmpv6" {
			p = "ipv6-icmp"
		} else if p == "1" {
			p = "icmp"
		}
		return p, true
	}
	if _, ok := protocols[p]; ok {
		return p, true
	}
	n, err := strconv.ParseUint(p, 10, 8)
	if err != nil {
		return "", false
	}
	for _, name := range []string{"tcp", "udp", "sctp", "dccp", "udplite", "gre", "esp", "ah", "igmp", "ospf", "pgm", "rsvp", "vrrp", "egp", "ipip", "ipv6-encap", "ipv6-frag", "ipv6-nonxt", "ipv6-opts", "ipv6-route"} {
		if protocols[name] == int(n) {
			return name, true
		}
	}
	return strconv.FormatUint(n, 10), true // without leading zeros
}

// CreateRule adds a rule to a group that the scope sees.
//
// Errors: fault.NotFound (group, remote group, address group), fault.Invalid, fault.Conflict code
// SecurityGroupRuleExists, fault.OverQuota.
func (n *Network) CreateRule(tx *store.Tx, sc Scope, spec RuleSpec) (*model.SecurityRule, error) {
	g, err := n.GetGroup(tx, sc, spec.GroupID)
	if err != nil {
		return nil, err
	}
	if !sc.Owns(g.ProjectID) {
		return nil, forbiddenShared("security group")
	}
	if spec.ProjectID != nil && *spec.ProjectID != "" && *spec.ProjectID != g.ProjectID {
		if _, err := sc.project(spec.ProjectID); err != nil {
			return nil, err
		}
	}
	if err := n.spend(tx, g.ProjectID, QuotaRule, 1); err != nil {
		return nil, err
	}
	r := &model.SecurityRule{
		Meta: model.NewMeta(g.ProjectID, "", n.now()), GroupID: g.ID, Direction: spec.Direction, EtherType: spec.EtherType,
		PortMin: spec.PortMin, PortMax: spec.PortMax, RemotePrefix: spec.RemotePrefix, RemoteGroupID: spec.RemoteGroupID, AddressGroupID: spec.AddressGroupID,
	}
	if err := checkText("description", spec.Description); err != nil {
		return nil, err
	}
	set(&r.Description, spec.Description)
	if err := checkRule(r, spec.Protocol); err != nil {
		return nil, err
	}
	if r.RemoteGroupID != "" {
		if _, err := n.GetGroup(tx, sc, r.RemoteGroupID); err != nil {
			return nil, err
		}
		tx.Mark(groupMark(r.RemoteGroupID))
	}
	if r.AddressGroupID != "" {
		if _, err := n.GetAddressGroup(tx, sc, r.AddressGroupID); err != nil {
			return nil, err
		}
		tx.Mark(addressesMark(r.AddressGroupID))
	}
	if err := store.SecurityRules.Put(tx, r); err != nil {
		var taken *store.TakenError
		if errors.As(err, &taken) {
			return nil, fault.Coded(fault.Conflict, "SecurityGroupRuleExists", "Security group rule already exists. Rule id is %s.", taken.Holder)
		}
		return nil, err
	}
	return r, n.touchGroup(tx, g)
}

// DeleteRule removes a rule.
func (n *Network) DeleteRule(tx *store.Tx, sc Scope, id model.ID) error {
	r, err := n.GetRule(tx, sc, id)
	if err != nil {
		return err
	}
	if !sc.Owns(r.ProjectID) {
		return forbiddenShared("security group")
	}
	if err := store.SecurityRules.Delete(tx, id); err != nil {
		return err
	}
	if g, ok := store.SecurityGroups.Get(tx, r.GroupID); ok {
		return n.touchGroup(tx, g)
	}
	return nil
}

// touchGroup bumps the group's revision with a change of its rules; it also keeps a group
// from going while a rule comes.
func (n *Network) touchGroup(tx *store.Tx, g *model.SecurityGroup) error {
	next := *g
	next.Touch(n.now())
	return store.SecurityGroups.Put(tx, &next)
}

func checkRule(r *model.SecurityRule, protocol string) error {
	bad := func(code, format string, args ...any) error { return fault.Coded(fault.Invalid, code, format, args...) }
	switch strings.ToLower(r.EtherType) {
	case "", "ipv4":
		r.EtherType = model.IPv4
	case "ipv6":
		r.EtherType = model.IPv6
	default:
		return bad("HTTPBadRequest", "Invalid input for ethertype. Reason: '%s' is not in ['IPv4', 'IPv6'].", clip(r.EtherType))
	}
	if r.Direction != model.Ingress && r.Direction != model.Egress {
		return bad("HTTPBadRequest", "Invalid input for direction. Reason: '%s' is not in ['ingress', 'egress'].", clip(r.Direction))
	}
	p, ok := canonicalProtocol(protocol, r.EtherType)
	if !ok {
		return bad("SecurityGroupRuleInvalidProtocol", "Security group rule protocol %s not supported. Only protocol names and integers from 0 to 255 are supported.", clip(protocol))
	}
	r.Protocol = p
	if r.EtherType == model.IPv4 && strings.HasPrefix(p, "ipv6-") {
		return bad("SecurityGroupEthertypeConflictWithProtocol", "Invalid ethertype %s for protocol %s.", r.EtherType, p)
	}
	remotes := 0
	for _, given := range []bool{r.RemotePrefix.IsValid(), r.RemoteGroupID != "", r.AddressGroupID != ""} {
		if given {
			remotes++
		}
	}
	if remotes > 1 {
		return bad("SecurityGroupMultipleRemoteEntites", "Only one of remote_ip_prefix, remote_group_id or remote_address_group_id may be provided.")
	}
	if r.RemotePrefix.IsValid() {
		r.RemoteGiven, r.RemotePrefix = r.RemotePrefix, r.RemotePrefix.Masked()
		if r.RemotePrefix.Addr().Is4() != (r.EtherType == model.IPv4) {
			return bad("SecurityGroupRuleParameterConflict", "Conflicting value ethertype %s for CIDR %s", r.EtherType, r.RemotePrefix)
		}
		if r.RemotePrefix.Bits() == 0 {
			r.RemotePrefix = netip.Prefix{} // everything: the same rule as without a prefix
		}
	}
	return checkPorts(r)
}

// checkPorts checks the port range, which is type and code where the protocol is ICMP.
func checkPorts(r *model.SecurityRule) error {
	bad := func(code, format string, args ...any) error { return fault.Coded(fault.Invalid, code, format, args...) }
	if r.PortMin == nil && r.PortMax == nil {
		return nil
	}
	switch r.Protocol {
	case "":
		return bad("SecurityGroupProtocolRequiredWithPorts", "Must also specify protocol if port range is given.")
	case "icmp", "ipv6-icmp":
		for field, v := range map[string]*int{"port_range_min (type)": r.PortMin, "port_range_max (code)": r.PortMax} {
			if v != nil && (*v < 0 || *v > 255) {
				return bad("SecurityGroupInvalidIcmpValue", "Invalid value for ICMP %s %d. It must be 0 to 255.", field, *v)
			}
		}
		if r.PortMin == nil {
			return bad("SecurityGroupMissingIcmpType", "ICMP code (port-range-max) %d is provided but ICMP type (port-range-min) is missing.", *r.PortMax)
		}
		return nil
	case "tcp", "udp", "sctp", "dccp", "udplite":
	default:
		return bad("SecurityGroupInvalidProtocolForPort", "Invalid protocol %s for port range, only supported for TCP, UDP, UDPLITE, SCTP and DCCP.", r.Protocol)
	}
	if r.PortMin == nil || r.PortMax == nil || *r.PortMin < 1 || *r.PortMax > 65535 || *r.PortMin > *r.PortMax {
		return bad("SecurityGroupInvalidPortRange", "For TCP/UDP protocols, port_range_min must be <= port_range_max, and both from 1 to 65535.")
	}
	return nil
}
