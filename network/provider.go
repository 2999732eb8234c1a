package network

import (
	"cmp"
	"maps"
	"math/rand/v2"
	"slices"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// HostMTU is what every host's underlay can carry of a network of the type, in bytes: its
// MTU, less what a tunnel adds. Where no host has told, the underlay is Ethernet's.
func HostMTU(r store.Reader, kind string) int {
	overhead, tunnel := model.TunnelOverhead(kind)
	least := 0
	for h := range store.Hosts.All(r) {
		mtu := h.Underlay - overhead
		if tunnel && h.TunnelIP.Is6() && !h.TunnelIP.Is4In6() {
			mtu -= model.IPv6Overhead
		}
		if mtu >= MinMTU && (least == 0 || mtu < least) {
			least = mtu
		}
	}
	return cmp.Or(least, DefaultUnderlay-overhead)
}

// maxMTU is the largest MTU that the network may have, in bytes.
func (n *Network) maxMTU(r store.Reader, w *model.Network) int {
	mtu := n.mtu(r, w.Type)
	if w.VLANTransparent && w.Tunnelled() { // a guest's tag travels in the tunnel
		mtu -= model.VLANTag
	}
	return mtu
}

// PhysicalNetworks gives the names of the physical networks that are known, sorted: those
// that a host maps to a bridge, and those of the configuration.
func (n *Network) PhysicalNetworks(r store.Reader) []string {
	names := map[string]struct{}{}
	for _, name := range n.physical {
		names[name] = struct{}{}
	}
	for h := range store.Hosts.All(r) {
		for _, name := range h.BridgeMappings {
			names[name] = struct{}{}
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// segment gives a new network its type, its number and what it takes of a physical network.
func (n *Network) segment(tx *store.Tx, w *model.Network, spec NetworkSpec) error {
	kind, physical := n.tunnel, ""
	if spec.PhysicalNetwork != nil {
		physical = *spec.PhysicalNetwork
	}
	switch {
	case spec.Type != nil && *spec.Type != "":
		kind = *spec.Type
	case physical != "" || spec.Segmentation != nil:
		return invalid("network_type required")
	}
	if spec.VLANTransparent != nil {
		w.VLANTransparent = *spec.VLANTransparent
	}
	w.Type = kind
	switch {
	case w.Tunnelled():
		if physical != "" {
			return invalid("provider:physical_network specified for %s network", kind)
		}
		if spec.Segmentation != nil {
			return n.takeVNI(tx, w, *spec.Segmentation)
		}
	case kind == model.NetworkFlat:
		if err := n.takeFlat(tx, w, physical, spec.Segmentation); err != nil {
			return err
		}
	case kind == model.NetworkVLAN:
		if w.VLANTransparent { // a frame has room for one tag on the way
			return fault.Coded(fault.Invalid, "VlanTransparencyDriverError", "Backend does not support VLAN Transparency: a network of the type vlan carries no tags of its guests.")
		}
		if err := n.takeVLAN(tx, w, physical, spec.Segmentation); err != nil {
			return err
		}
	default:
		return invalid("network_type value '%s' not supported", clip(kind))
	}
	var err error
	w.VNI, err = n.pickVNI(tx)
	return err
}

func (n *Network) takeVNI(tx *store.Tx, w *model.Network, id int) error {
	if id < model.MinVNI || id > model.MaxVNI {
		return invalid("segmentation_id out of range (%d through %d)", model.MinVNI, model.MaxVNI)
	}
	w.VNI = uint32(id)
	if vniHeld(tx, w.VNI) {
		return fault.Coded(fault.Conflict, "TunnelIdInUse", "Unable to create the network. The tunnel ID %d is in use.", w.VNI)
	}
	return nil
}

func (n *Network) takeFlat(tx *store.Tx, w *model.Network, physical string, id *int) error {
	switch {
	case physical == "":
		return invalid("physical_network required for flat provider network")
	case !slices.Contains(n.PhysicalNetworks(tx), physical):
		return invalid("physical_network '%s' unknown for flat provider network", clip(physical))
	case id != nil:
		return invalid("segmentation_id prohibited for flat provider network")
	}
	if _, held := store.Networks.Holder(tx, store.FlatClaim(physical)); held {
		return fault.Coded(fault.Conflict, "FlatNetworkInUse", "Unable to create the flat network. Physical network %s is in use.", physical)
	}
	w.PhysicalNetwork = physical
	return nil
}

func (n *Network) takeVLAN(tx *store.Tx, w *model.Network, physical string, id *int) error {
	known := n.PhysicalNetworks(tx)
	switch {
	case physical != "" && !slices.Contains(known, physical):
		return invalid("physical_network '%s' unknown for VLAN provider network", clip(physical))
	case physical == "" && id != nil:
		return invalid("segmentation_id requires physical_network for VLAN provider network")
	case id != nil && (*id < model.MinVLAN || *id > model.MaxVLAN):
		return invalid("segmentation_id out of range (%d through %d)", model.MinVLAN, model.MaxVLAN)
	case id != nil:
		w.PhysicalNetwork, w.VLAN = physical, uint16(*id)
		if _, held := store.Networks.Holder(tx, store.VLANClaim(physical, w.VLAN)); held {
			return fault.Coded(fault.Conflict, "VlanIdInUse", "Unable to create the network. The VLAN %d on physical network %s is in use.", w.VLAN, physical)
		}
		return nil
	case physical != "":
		known = []string{physical}
	}
	for _, name := range known {
		if vlan, ok := pickVLAN(tx, name); ok {
			w.PhysicalNetwork, w.VLAN = name, vlan
			return nil
		}
	}
	return noNetwork()
}

// sameSegment refuses to change the segment of a network; to say again what it is, is no change.
func sameSegment(w *model.Network, spec NetworkSpec) error {
	if spec.Type != nil && *spec.Type != w.Type || spec.PhysicalNetwork != nil && *spec.PhysicalNetwork != w.PhysicalNetwork ||
		spec.Segmentation != nil && *spec.Segmentation != w.Segmentation() {
		return invalid("the segment of a network cannot be changed.")
	}
	return nil
}

// vniProbes is how many identifiers are tried at random before all are listed: with half
// of the range in use, one in 65,536 picks needs the list.
const vniProbes = 16

// vniHeld tells whether a network, a router or a tap service has the tunnel identifier. All
// three claims are compared at commit, so that two tables cannot take it at once.
func vniHeld(tx *store.Tx, vni uint32) bool {
	_, network := store.Networks.Holder(tx, store.VNIClaim(vni))
	_, router := store.Routers.Holder(tx, store.VNIClaim(vni))
	_, tap := store.TapServices.Holder(tx, store.VNIClaim(vni))
	return network || router || tap
}

// pickVNI finds a free number.
func (n *Network) pickVNI(tx *store.Tx) (uint32, error) {
	span := n.maxVNI - n.minVNI + 1
	for range vniProbes {
		if vni := n.minVNI + rand.Uint32N(span); !vniHeld(tx, vni) {
			return vni, nil
		}
	}
	used := make(map[uint32]struct{})
	for w := range store.Networks.All(tx) {
		used[w.VNI] = struct{}{}
	}
	for r := range store.Routers.All(tx) {
		used[r.VNI] = struct{}{}
	}
	for t := range store.TapServices.All(tx) {
		used[t.VNI] = struct{}{}
	}
	n.log.Warn("tunnel identifiers are running out", "used", len(used), "of", span)
	start := rand.Uint32N(span)
	for i := range span {
		vni := n.minVNI + (start+i)%span
		if _, held := used[vni]; !held && !vniHeld(tx, vni) { // the claims are compared at commit
			return vni, nil
		}
	}
	return 0, noNetwork()
}

// pickVLAN finds a free VLAN of a physical network, at random, so that several at once
// seldom take the same.
func pickVLAN(tx *store.Tx, physical string) (uint16, bool) {
	used := make(map[uint16]struct{})
	for w := range store.Networks.List(tx, "physical", physical) {
		used[w.VLAN] = struct{}{}
	}
	const span = model.MaxVLAN - model.MinVLAN + 1
	start := rand.IntN(span)
	for i := range span {
		vlan := uint16(model.MinVLAN + (start+i)%span)
		if _, held := used[vlan]; held {
			continue
		}
		if _, held := store.Networks.Holder(tx, store.VLANClaim(physical, vlan)); !held { // compared at commit
			return vlan, true
		}
	}
	return 0, false
}

func noNetwork() error {
	return fault.Coded(fault.Unavailable, "NoNetworkAvailable", "Unable to create the network. No tenant network is available for allocation.")
}
