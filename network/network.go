// Package network holds the rules of networks, subnets, ports, security groups, routers,
// floating IPs and quotas: what may be created, changed and deleted, by whom, and which
// address, MAC and tunnel identifier it gets. Choices are made once, by whoever creates the
// row, and stored.
//
// Every method works inside a transaction (or on a snapshot) of the caller's, so that
// others can compose: a server and its ports are one transaction. Nothing here waits,
// calls out or keeps state between calls.
//
// Reads: networks, subnets, ports, security groups and rules, routers, internet gateways, floating IPs, port
// forwardings, quotas, hosts (their underlay MTU, physical networks and heartbeats).
// Writes: networks, subnets, ports, security groups and rules, routers, internet gateways, floating IPs, port
// forwardings, quotas.
// Imports fault, model, reconcile and store; must not import api, agent, datapath or another
// part.
package network

import (
	"cmp"
	"log/slog"
	"math/rand/v2"
	"time"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// Limits of what one row may hold; the figures are Neutron's defaults where it has them.
const (
	MaxFixedIPs     = 5    // addresses of a port
	MaxAddressPairs = 10   // allowed address pairs of a port
	MaxDNS          = 5    // name servers of a subnet
	MaxHostRoutes   = 20   // host routes of a subnet
	MaxDHCPOptions  = 32   // extra DHCP options of a port
	MaxPools        = 64   // allocation pools of a subnet
	MaxPortGroups   = 64   // security groups of a port
	MaxServiceTypes = 16   // service types of a subnet
	MaxTags         = 50   // tags of a resource
	MaxName         = 255  // characters of a name, a description or a device id
	MinMTU          = 68   // bytes: the least an IPv4 link may have (RFC 791)
	DefaultUnderlay = 1500 // bytes: the MTU of an underlay that no host has told of, Ethernet's
)

// Config makes a Network.
type Config struct {
	// MTU gives the largest MTU of a network of the type in bytes; nil: HostMTU.
	MTU func(r store.Reader, kind string) int
	// TunnelType is the type of networks for which none is asked: one of the tunnels; "": vxlan.
	TunnelType string
	// PhysicalNetworks are known besides those that hosts map.
	PhysicalNetworks []string
	// Now is the clock; nil: time.Now.
	Now func() time.Time
	Log *slog.Logger
	// MinVNI and MaxVNI bound the tunnel identifiers that are picked; 0: the whole 24-bit range.
	MinVNI, MaxVNI uint32
	// MACPrefix is the first three octets of made MAC addresses; "": "fa:16:3e".
	MACPrefix string
	// Defaults are the quotas of a project that has none of its own; nil: DefaultQuotas.
	Defaults map[string]int
}

// Network applies the rules. It is safe for concurrent use.
type Network struct {
	mtu            func(store.Reader, string) int
	tunnel         string
	physical       []string
	now            func() time.Time
	log            *slog.Logger
	minVNI, maxVNI uint32
	macPrefix      string
	defaults       map[string]int
}

// New makes a Network.
func New(cfg Config) *Network {
	n := &Network{
		mtu: cfg.MTU, now: cfg.Now, log: cfg.Log,
		tunnel: cmp.Or(cfg.TunnelType, model.NetworkVXLAN), physical: cfg.PhysicalNetworks,
		minVNI: cmp.Or(cfg.MinVNI, model.MinVNI), maxVNI: cmp.Or(cfg.MaxVNI, model.MaxVNI),
		macPrefix: cmp.Or(cfg.MACPrefix, "fa:16:3e"), defaults: cfg.Defaults,
	}
	if n.mtu == nil {
		n.mtu = HostMTU
	}
	if n.now == nil {
		n.now = time.Now
	}
	if n.log == nil {
		n.log = slog.Default()
	}
	if n.defaults == nil {
		n.defaults = DefaultQuotas()
	}
	return n
}

// Scope says on whose behalf a call is made.
type Scope struct {
	// ProjectID is the caller's project; empty for a caller without one, who must be Admin.
	ProjectID model.ID
	// Admin: an administrator of the cloud, to whom every project's things are visible.
	Admin bool
}

// Owns tells whether the scope may change what belongs to the project.
func (s Scope) Owns(project model.ID) bool {
	return s.Admin || s.ProjectID != "" && s.ProjectID == project
}

// Sees tells whether the scope may see and use an object of the project that is shared so.
func (s Scope) Sees(project model.ID, sharing model.Sharing) bool {
	return s.Owns(project) || sharing.With(s.ProjectID)
}

// SeesSubnets tells whether the scope may see the network's subnets and ports may be its own
// there. An external network is seen by everybody, what is in it is not.
func (s Scope) SeesSubnets(w *model.Network) bool {
	return s.Owns(w.ProjectID) || w.Shared || w.With(s.ProjectID)
}

// SeesNetwork tells whether the scope may see the network.
func (s Scope) SeesNetwork(w *model.Network) bool {
	return s.Owns(w.ProjectID) || w.VisibleTo(s.ProjectID)
}

// routesTo tells whether the network is the outside for the scope's routers.
func (s Scope) routesTo(w *model.Network) bool {
	return w.External && (s.Owns(w.ProjectID) || w.OutsideFor(s.ProjectID))
}

// SeesPort tells whether the scope may see the port: its own, or on its own network.
func (s Scope) SeesPort(p *model.Port) bool {
	return s.Owns(p.ProjectID) || s.ProjectID != "" && s.ProjectID == p.NetworkOwner
}

// project gives the project of a new row.
func (s Scope) project(asked *string) (model.ID, error) {
	if asked == nil || *asked == "" || *asked == s.ProjectID {
		if s.ProjectID == "" {
			return "", fault.Coded(fault.Invalid, "HTTPBadRequest", "The token is of no project: say project_id.")
		}
		return s.ProjectID, nil
	}
	if !s.Admin {
		return "", forbidden("another project's resources")
	}
	return *asked, nil
}

// Names of what Mark and Guard protect.
func networkMark(id model.ID) string { return "network," + id }
func subnetMark(id model.ID) string  { return "subnet," + id }
func groupMark(id model.ID) string   { return "group," + id }

// GetNetwork gives a network that the scope sees.
func (n *Network) GetNetwork(r store.Reader, sc Scope, id model.ID) (*model.Network, error) {
	w, ok := store.Networks.Get(r, id)
	if !ok || !sc.SeesNetwork(w) {
		return nil, fault.Coded(fault.NotFound, "NetworkNotFound", "Network %s could not be found.", id)
	}
	return w, nil
}

// GetSubnet gives a subnet whose network the scope sees.
func (n *Network) GetSubnet(r store.Reader, sc Scope, id model.ID) (*model.Subnet, error) {
	s, ok := store.Subnets.Get(r, id)
	if ok && !sc.Owns(s.ProjectID) {
		w, there := store.Networks.Get(r, s.NetworkID)
		ok = there && sc.SeesSubnets(w)
	}
	if !ok {
		return nil, fault.Coded(fault.NotFound, "SubnetNotFound", "Subnet %s could not be found.", id)
	}
	return s, nil
}

// GetPort gives a port that the scope sees.
func (n *Network) GetPort(r store.Reader, sc Scope, id model.ID) (*model.Port, error) {
	p, ok := store.Ports.Get(r, id)
	if !ok || !sc.SeesPort(p) {
		return nil, fault.Coded(fault.NotFound, "PortNotFound", "Port %s could not be found.", id)
	}
	return p, nil
}

// GetGroup gives a security group that the scope sees.
func (n *Network) GetGroup(r store.Reader, sc Scope, id model.ID) (*model.SecurityGroup, error) {
	g, ok := store.SecurityGroups.Get(r, id)
	if !ok || !sc.Sees(g.ProjectID, g.Sharing) {
		return nil, fault.Coded(fault.NotFound, "SecurityGroupNotFound", "Security group %s does not exist", id)
	}
	return g, nil
}

// GetRule gives a security group rule that the scope sees.
func (n *Network) GetRule(r store.Reader, sc Scope, id model.ID) (*model.SecurityRule, error) {
	x, ok := store.SecurityRules.Get(r, id)
	if ok && !sc.Owns(x.ProjectID) {
		g, there := store.SecurityGroups.Get(r, x.GroupID)
		ok = there && g.With(sc.ProjectID)
	}
	if !ok {
		return nil, fault.Coded(fault.NotFound, "SecurityGroupRuleNotFound", "Security group rule %s does not exist", id)
	}
	return x, nil
}

// forbidden refuses what the scope has no right to.
func forbidden(what string) error {
	return fault.Coded(fault.Forbidden, "PolicyNotAuthorized", "You are not authorized: only an administrator or the owner of the network may set %s.", what)
}

// forbiddenShared refuses to change what another project only shares.
func forbiddenShared(what string) error {
	return fault.Coded(fault.Forbidden, "PolicyNotAuthorized", "You are not authorized: the %s is another project's.", what)
}

// invalid refuses a value, in Neutron's words for it.
func invalid(format string, args ...any) error {
	return fault.Coded(fault.Invalid, "InvalidInput", "Invalid input for operation: "+format, args...)
}

func checkText(field string, s *string) error {
	if s == nil {
		return nil
	}
	count := 0
	for range *s {
		count++
	}
	if count > MaxName {
		return fault.Coded(fault.Invalid, "HTTPBadRequest", "Invalid input for %s. Reason: '%s' exceeds maximum length of %d.", field, clip(*s), MaxName)
	}
	return nil
}

// clip shortens what an answer repeats of a request.
func clip(s string) string {
	if r := []rune(s); len(r) > 80 {
		return string(r[:80]) + "…"
	}
	return s
}

func set[T any](dst *T, src *T) {
	if src != nil {
		*dst = *src
	}
}

func (n *Network) randomMAC() string {
	const hex = "0123456789abcdef"
	b := []byte(n.macPrefix)
	for range 3 {
		x := rand.IntN(256)
		b = append(b, ':', hex[x>>4], hex[x&15])
	}
	return string(b)
}
