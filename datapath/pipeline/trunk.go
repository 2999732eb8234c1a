package pipeline

import "yakumo/model"

// tagBit is the bit of VLAN that says that there is a tag.
var tagBit = Masked(VLAN, tagPresent, tagPresent)

// device gives the ordinal of the port whose device carries r: its own, or its parent's.
func (c *compiler) device(r *model.HostPort, ord uint64) uint64 {
	if r.Parent == "" {
		return ord
	}
	return uint64(c.own(OrdinalPort, r.Parent))
}

// door compiles where a port's frames come in: untagged on its own device, or with its tag on its
// parent's. Limits of what the guest sends act here, before anything else sees it, and so does its mark.
func (c *compiler) door(r *model.HostPort, ord, vni uint64) {
	in, tag := c.device(r, ord), Is(VLAN, 0)
	enter := []Action{Put(Net, vni), Put(From, ord)}
	if r.Parent != "" {
		tag, enter = Tagged(r.VLAN), append([]Action{PopVLAN{}}, enter...)
		c.add(Return, prioClassify, FeatureTrunk, MatchOf(Is(From, ord)), PushVLAN{r.VLAN}, TurnBack{})
	}
	enter = append(enter, c.limits(r, model.Egress)...)
	next := Goto{Next(Classify)}
	admit := func(prio uint16, terms ...Term) {
		c.add(Classify, prio, FeatureClassify, MatchOf(append(terms, Is(InPort, in))...), withGoto(enter, next)...)
		if r.QoS.DSCP == nil {
			return
		}
		mark := append(append([]Action{}, enter...), Put(IPDSCP, uint64(*r.QoS.DSCP)))
		for _, typ := range [...]uint64{TypeIPv4, TypeIPv6} {
			c.add(Classify, prio+prioMarked, FeatureQoS, MatchOf(append(terms, Is(InPort, in), Is(EthType, typ))...), withGoto(mark, next)...)
		}
	}
	admit(prioClassify, tag)
	if c.transparent(r) {
		admit(prioTransparent, tagBit)
	}
}

// withGoto gives a list of its own.
func withGoto(as []Action, next Goto) []Action { return append(append([]Action{}, as...), next) }

// transparent tells whether a port's guest may send tags of its own. A subport's frames have the trunk's.
func (c *compiler) transparent(r *model.HostPort) bool {
	n := c.rows.Network(r.NetworkID)
	return r.Parent == "" && n != nil && carriesTags(n)
}

// carriesTags tells whether guests' tags pass through a network. Not in a VLAN network: a frame would
// need two tags, and switches look behind one only.
func carriesTags(n *model.HostNetwork) bool {
	return n.VLANTransparent && n.Type != model.NetworkVLAN
}

// handOver compiles how frames reach a port's guest. A trunk's ports share a device, so a frame
// of one may go to another by the way that it came: only its own never comes back to it.
func (c *compiler) handOver(r *model.HostPort, ord uint64) {
	to, limits := Is(To, ord), c.limits(r, model.Ingress)
	if r.Parent == "" && !c.rows.Trunk(r.ID) {
		c.add(Output, prioLocal, FeatureOutput, MatchOf(to), append(limits, Deliver{ord})...)
		return
	}
	device := c.device(r, ord)
	c.add(Output, prioLocal, FeatureTrunk, MatchOf(to), append(limits, Hand{Port: device, VLAN: r.VLAN})...)
	c.add(Output, prioLocal+1, FeatureTrunk, MatchOf(Is(InPort, device), Is(From, ord), to))
}

// transparentNetwork lets guests' tags through a network. The addresses within tagged frames are
// checked as all others; nobody answers them here.
func (c *compiler) transparentNetwork(vni uint64) {
	net := Is(Net, vni)
	c.add(Respond, prioTagged, FeatureTrunk, MatchOf(net, tagBit), Goto{Next(Respond)})
	if Next(Admit-1) == Admit { // routers carry no tags
		c.add(Admit, prioTagged, FeatureTrunk, MatchOf(net, tagBit), Goto{Next(Admit)})
	}
}
