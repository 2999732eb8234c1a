package model

import (
	"net/netip"
	"slices"
)

// Everybody is the target of a policy that is for every project.
const Everybody ID = "*"

// Kinds of objects that a policy can be about, by the API's names.
const (
	ObjectNetwork       = "network"
	ObjectSubnetPool    = "subnetpool"
	ObjectAddressScope  = "address_scope"
	ObjectAddressGroup  = "address_group"
	ObjectSecurityGroup = "security_group"
	ObjectQoSPolicy     = "qos_policy"
)

// What a policy allows.
const (
	AccessShared   = "access_as_shared"
	AccessExternal = "access_as_external" // a network's, as the outside of routers
)

// RBACPolicy lets a project use another one's object. ProjectID is the policy's owner. The
// object's own row lists the targets too (Sharing), so that to see an object costs no look at policies.
type RBACPolicy struct {
	Meta
	ObjectType string `json:"object_type"`
	ObjectID   ID     `json:"object_id"`
	Action     string `json:"action"`
	Target     ID     `json:"target"` // a project, or Everybody
}

// Meaning is the policy without its id: two policies of the same meaning are one.
func (p *RBACPolicy) Meaning() string {
	return p.ObjectType + "," + p.ObjectID + "," + p.Action + "," + p.Target
}

// Sharing is what policies say of an object: the projects that may use it, Everybody among
// them; sorted. Policies write it, nothing else.
type Sharing struct {
	SharedWith []ID `json:"shared_with,omitempty"`
}

// With tells whether the object is shared with the project.
func (s Sharing) With(project ID) bool {
	return s.Open() || project != "" && has(s.SharedWith, project)
}

// Open tells whether the object is shared with everybody.
func (s Sharing) Open() bool { return has(s.SharedWith, Everybody) }

func has(sorted []ID, id ID) bool {
	_, ok := slices.BinarySearch(sorted, id)
	return ok
}

// OutsideFor tells whether the network is the outside for routers of the project.
func (w *Network) OutsideFor(project ID) bool {
	return w.External && (len(w.ExternalTo) == 0 || has(w.ExternalTo, Everybody) || project != "" && has(w.ExternalTo, project))
}

// Targets gives whom the network is shared with or the outside of, each once.
func (w *Network) Targets() []ID {
	out := slices.Concat(w.SharedWith, w.ExternalTo)
	if w.Shared || w.External && len(w.ExternalTo) == 0 { // a row from before there were policies
		out = append(out, Everybody)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// VisibleTo tells whether policies let the project see the network.
func (w *Network) VisibleTo(project ID) bool {
	return w.Shared || w.External && len(w.ExternalTo) == 0 || w.With(project) || w.OutsideFor(project)
}

// AddressScope is a space of addresses in which none is there twice.
type AddressScope struct {
	Meta
	Sharing
	IPVersion int `json:"ip_version"`
}

// SubnetPool holds prefixes from which subnets are cut.
type SubnetPool struct {
	Meta
	Sharing
	IPVersion      int            `json:"ip_version"`
	Prefixes       []netip.Prefix `json:"prefixes"` // sorted, none holds or touches another that it could be joined with
	DefaultBits    int            `json:"default_prefixlen"`
	MinBits        int            `json:"min_prefixlen"` // the shortest prefix, so the largest block
	MaxBits        int            `json:"max_prefixlen"`
	Quota          *int           `json:"default_quota,omitempty"` // addresses (IPv4) or /64s (IPv6) a project; nil: no limit
	AddressScopeID ID             `json:"address_scope_id,omitempty"`
	IsDefault      bool           `json:"is_default"`
}

// AddressGroup is a set of prefixes that rules of security groups refer to.
type AddressGroup struct {
	Meta
	Sharing
	Addresses []netip.Prefix `json:"addresses"` // masked, sorted
}

// ParentGroup stands, in a DefaultRule, for the group that the rule is copied to.
const ParentGroup ID = "PARENT"

// DefaultRule is a rule that new security groups begin with. GroupID of its rule is empty.
type DefaultRule struct {
	SecurityRule
	InDefault bool `json:"used_in_default_sg"`     // of groups named "default"
	InOthers  bool `json:"used_in_non_default_sg"` // of others
	Gone      bool `json:"gone,omitempty"`         // one of the rules that every cloud starts with, and that was deleted
}

// AutoTopology is the network that a project was given without asking for its parts.
type AutoTopology struct {
	ProjectID ID `json:"project_id"`
	NetworkID ID `json:"network_id"`
	RouterID  ID `json:"router_id"`
}
