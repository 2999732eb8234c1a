package pipeline

import "yakumo/model"

// providerPlace gives the place of a network's provider bridge; false where the host has none. The
// ordinal of a physical network lives as long as the host maps it, so no row owns it.
func (c *compiler) providerPlace(r *model.HostNetwork) (uint64, bool) {
	if !c.env.Maps(r.PhysicalNetwork) {
		return 0, false
	}
	n, err := c.rows.Ordinal(OrdinalProvider, r.PhysicalNetwork)
	if err != nil {
		c.fail(err)
		return 0, false
	}
	return PortProvider + uint64(n), true
}

// leave gives what takes a frame out to the provider bridge; nothing where the host has none.
func (c *compiler) leave(r *model.HostNetwork) []Action {
	place, mapped := c.providerPlace(r)
	switch {
	case !mapped:
		return nil
	case r.Type == model.NetworkVLAN:
		return []Action{PushVLAN{r.VLAN}, Deliver{place}}
	}
	return []Action{Deliver{place}}
}

// provider compiles a flat or VLAN network. Its frames leave by the provider bridge, and what comes
// from there stays on this host. The bridge learns where who is; a frame for a MAC that is not
// here goes to it, and so does the question for an address that is nobody's.
func (c *compiler) provider(r *model.HostNetwork, vni uint64) {
	place, mapped := c.providerPlace(r)
	if !mapped {
		return // Complete says so of its ports
	}
	net, in := Is(Net, vni), Is(InPort, place)
	tag, land := Is(VLAN, 0), []Action{Put(Net, vni), Put(Landed, 1), Goto{Arrive}}
	leave, stay := c.leave(r), []Action{Deliver{place}, Goto{FloodIn}}
	if r.Type == model.NetworkVLAN {
		tag, land = Tagged(r.VLAN), append([]Action{PopVLAN{}}, land...)
		stay = []Action{PushVLAN{r.VLAN}, Deliver{place}, PopVLAN{}, Goto{FloodIn}}
		c.add(Return, prioClassify, FeatureProvider, MatchOf(in, net), PushVLAN{r.VLAN}, TurnBack{})
	}
	c.add(Classify, prioClassify, FeatureProvider, MatchOf(in, tag), land...)
	if carriesTags(r) { // but for the tags of VLAN networks on the same wire
		c.add(Classify, prioTransparent, FeatureProvider, MatchOf(in, tagBit), Put(Net, vni), Put(Landed, 1), Goto{Lookup})
		c.transparentNetwork(vni)
	}
	c.add(Respond, prioFloodARP, FeatureProvider, MatchOf(net, Is(EthType, TypeARP), Is(ARPOp, ARPRequest)), Goto{Next(Respond)})
	c.add(Respond, prioFloodARP, FeatureProvider, MatchOf(icmp6(TypeSolicit, net)...), Goto{Next(Respond)})
	c.add(Lookup, prioOutside, FeatureProvider, MatchOf(net), leave...)
	c.add(FloodOut, prioNetwork, FeatureProvider, MatchOf(net), stay...)
}
