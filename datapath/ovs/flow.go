package ovs

import (
	"encoding/binary"
	"fmt"
	"slices"

	"yakumo/datapath/pipeline"
	"yakumo/datapath/responder"
	"yakumo/openflow"
)

// Registers: the pipeline's own fields, and two to swap addresses through; all of them are taken, so Scope is the metadata. The 128-bit registers
// 2 and 3 are the registers 8 to 11 and 12 to 15.
const (
	regNet = iota
	regFrom
	regTo
	regSwap
	regRouter
	regLanded
	regNextHop
	regLarge

	xxregNextHop6 = 2
	xxregSwap6    = 3
)

func xxreg(n int) openflow.Field { return openflow.XXReg(n, openflow.Value{}).Field }

var ofFields = map[pipeline.Field]openflow.Field{
	pipeline.Net: openflow.RegField(regNet), pipeline.From: openflow.RegField(regFrom), pipeline.To: openflow.RegField(regTo),
	pipeline.TunnelID: openflow.FieldTunnelID, pipeline.TrackMark: openflow.FieldCTMark, pipeline.ConjID: openflow.FieldConjID,
	pipeline.EthSrc: openflow.FieldEthSrc, pipeline.EthDst: openflow.FieldEthDst, pipeline.EthType: openflow.FieldEthType,
	pipeline.VLAN: openflow.FieldVLANVID, pipeline.ARPOp: openflow.FieldARPOp, pipeline.ARPSenderMAC: openflow.FieldARPSHA,
	pipeline.ARPSenderIP: openflow.FieldARPSPA, pipeline.ARPTargetIP: openflow.FieldARPTPA, pipeline.IPSrc: openflow.FieldIPv4Src,
	pipeline.IPDst: openflow.FieldIPv4Dst, pipeline.IPProto: openflow.FieldIPProto, pipeline.TCPSrc: openflow.FieldTCPSrc,
	pipeline.TCPDst: openflow.FieldTCPDst, pipeline.UDPSrc: openflow.FieldUDPSrc, pipeline.UDPDst: openflow.FieldUDPDst,
	pipeline.SCTPSrc: openflow.FieldSCTPSrc, pipeline.SCTPDst: openflow.FieldSCTPDst,
	pipeline.ICMPType: openflow.FieldICMPv4Type, pipeline.ICMPCode: openflow.FieldICMPv4Code,
	pipeline.Router: openflow.RegField(regRouter), pipeline.NextHop: openflow.RegField(regNextHop), pipeline.NextHop6: xxreg(xxregNextHop6),
	pipeline.Landed: openflow.RegField(regLanded), pipeline.Large: openflow.RegField(regLarge), pipeline.Scope: openflow.FieldMetadata,
	pipeline.IPTTL: openflow.FieldIPTTL, pipeline.IPDSCP: openflow.FieldIPDSCP, pipeline.IPFrag: openflow.FieldIPFrag,
	pipeline.IP6Src: openflow.FieldIPv6Src, pipeline.IP6Dst: openflow.FieldIPv6Dst,
	pipeline.ICMP6Type: openflow.FieldICMPv6Type, pipeline.ICMP6Code: openflow.FieldICMPv6Code,
	pipeline.NDTarget: openflow.FieldNDTarget, pipeline.NDSourceMAC: openflow.FieldNDSLL, pipeline.NDTargetMAC: openflow.FieldNDTLL,
}

var stateBits = [...][2]uint64{
	{pipeline.Tracked, uint64(openflow.CTTracked)}, {pipeline.New, uint64(openflow.CTNew)}, {pipeline.Established, uint64(openflow.CTEstablished)},
	{pipeline.Related, uint64(openflow.CTRelated)}, {pipeline.Reply, uint64(openflow.CTReply)}, {pipeline.Invalid, uint64(openflow.CTInvalid)},
}

func ofState(v uint64) (out uint32) {
	for _, b := range stateBits {
		if v&b[0] != 0 {
			out |= uint32(b[1])
		}
	}
	return out
}

// Cookie layout.
const (
	roundShift   = 48
	featureShift = 40
)

func cookie(round uint16, in *pipeline.Installed) uint64 {
	return uint64(round)<<roundShift | uint64(in.Entry.Feature)<<featureShift | uint64(in.Row)
}

// ports resolves the places that entries name to OpenFlow ports; false: not plugged in.
type ports func(place uint64) (uint32, bool)

// bind makes the match of an entry; false where the port it names is not plugged in.
func bind(m pipeline.Match, at ports) (openflow.Match, bool) {
	terms := make([]openflow.FieldValue, 0, len(m))
	for _, t := range m {
		switch t.Field {
		case pipeline.InPort:
			n, ok := at(t.Value)
			if !ok {
				return openflow.Match{}, false
			}
			terms = append(terms, openflow.InPort(n))
		case pipeline.TrackState:
			terms = append(terms, openflow.CTState(ofState(t.Value), ofState(t.Mask)))
		case pipeline.TunnelID:
			terms = append(terms, openflow.TunnelID(t.Value))
		case pipeline.Net, pipeline.From, pipeline.To, pipeline.Router, pipeline.Landed, pipeline.Large, pipeline.Scope:
			terms = append(terms, openflow.Exact(ofFields[t.Field], openflow.U64(t.Value)))
		default:
			terms = append(terms, openflow.Masked(ofFields[t.Field], value(t.High, t.Value), value(t.HighMask, t.Mask)))
		}
	}
	return openflow.MatchOf(terms...), true
}

// value makes the content of a field.
func value(high, low uint64) openflow.Value { return openflow.Value{Hi: high, Lo: low} }

// userData names the responder, the port and the argument of a packet that goes to the agent.
func userData(a pipeline.ToAgent) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32([]byte{2, byte(a.Responder)}, a.Port), a.Arg)
}

// parseUserData is the inverse of userData.
func parseUserData(b []byte) (a pipeline.ToAgent, ok bool) {
	if len(b) != 10 || b[0] != 2 {
		return a, false
	}
	return pipeline.ToAgent{Responder: pipeline.Responder(b[1]), Port: binary.BigEndian.Uint32(b[2:]), Arg: binary.BigEndian.Uint32(b[6:])}, true
}

// actions makes the action list of an entry; false where a port it names is not plugged in.
func actions(list []pipeline.Action, at ports) ([]openflow.Action, bool) {
	out := make([]openflow.Action, 0, len(list)+1)
	zone := func(f pipeline.Field) openflow.Subfield { return openflow.Sub(ofFields[f], 0, 16) }
	for i, a := range list {
		switch a := a.(type) {
		case pipeline.Set:
			out = append(out, openflow.Set(openflow.Exact(ofFields[a.Field], value(a.High, a.Value))))
		case pipeline.Copy:
			out = append(out, openflow.CopyField{Src: openflow.Whole(ofFields[a.Src]), Dst: openflow.Whole(ofFields[a.Dst])})
		case pipeline.Goto:
			out = append(out, openflow.ResubmitTable(uint8(a.Stage)))
		case pipeline.Track:
			ct := openflow.CT{ZoneFrom: zone(a.Zone), Recirculate: true, Table: uint8(a.Stage)}
			if a.NAT {
				ct.Actions = []openflow.Action{openflow.NAT{}}
			}
			out = append(out, ct)
		case pipeline.Translate:
			nat := openflow.NATTo(a.Source, a.Addr)
			nat.ProtoMin, nat.ProtoMax = a.MinPort, a.MaxPort
			out = append(out, openflow.CT{Commit: true, ZoneFrom: zone(a.Zone), Recirculate: true, Table: uint8(a.Stage), Actions: []openflow.Action{nat, openflow.Set(openflow.CTMark(a.Mark))}})
		case pipeline.Commit:
			out = append(out, openflow.CT{Commit: true, ZoneFrom: zone(a.Zone), Table: openflow.TableAll, Actions: []openflow.Action{openflow.Set(openflow.CTMark(a.Mark))}})
		case pipeline.Untrack:
			out = append(out, openflow.CTClear{})
		case pipeline.Deliver:
			n, ok := at(a.Port)
			if !ok {
				return nil, false
			}
			out = append(out, openflow.ToPort(n))
		case pipeline.Tunnel:
			n, ok := at(a.Place())
			if !ok {
				return nil, false
			}
			out = append(out, openflow.Set(openflow.TunnelID(uint64(a.VNI))), openflow.Set(openflow.TunDst(a.Host)), openflow.ToPort(n))
		case pipeline.AnswerARP:
			mac, swap := openflow.MAC(a.MAC), openflow.Whole(openflow.RegField(regSwap))
			whole := openflow.Whole
			out = append(out,
				openflow.CopyField{Src: whole(openflow.FieldEthSrc), Dst: whole(openflow.FieldEthDst)},
				openflow.Set(openflow.EthSrc(mac)),
				openflow.Set(openflow.ARPOp(openflow.ARPReply)),
				openflow.CopyField{Src: whole(openflow.FieldARPSHA), Dst: whole(openflow.FieldARPTHA)},
				openflow.Set(openflow.ARPSHA(mac)),
				openflow.CopyField{Src: whole(openflow.FieldARPTPA), Dst: swap},
				openflow.CopyField{Src: whole(openflow.FieldARPSPA), Dst: whole(openflow.FieldARPTPA)},
				openflow.CopyField{Src: swap, Dst: whole(openflow.FieldARPSPA)},
				openflow.ResubmitTable(uint8(pipeline.Return)))
		case pipeline.Hand:
			n, ok := at(a.Port)
			if !ok {
				return nil, false
			}
			list := []openflow.Action{openflow.Set(openflow.Exact(openflow.FieldInPort16, openflow.U64(noPort)))}
			if a.VLAN != 0 {
				list = append(list, openflow.PushVLAN{EtherType: 0x8100}, openflow.Set(openflow.VLANVID(a.VLAN)))
			}
			out = append(out, openflow.Clone{Actions: append(list, openflow.ToPort(n))})
		case pipeline.TurnBack:
			out = append(out, openflow.ToPort(openflow.PortInPort))
		case pipeline.ToAgent:
			hand := []openflow.Action{openflow.Meter{ID: agentMeter(a)}, openflow.Controller{UserData: userData(a)}}
			if i < len(list)-1 { // what the meter drops is a copy
				hand = []openflow.Action{openflow.Clone{Actions: hand}}
			}
			out = append(out, hand...)
		case pipeline.DecTTL:
			out = append(out, openflow.DecTTL{})
		case pipeline.CheckSize:
			const ethernet = 14 // the switch counts the frame's header too
			out = append(out, openflow.CheckPktLarger{Len: a.Bytes + ethernet, Dst: openflow.Sub(openflow.RegField(regLarge), 0, 1)})
		case pipeline.AnswerEcho:
			src, dst, swap, typ := openflow.FieldIPv4Src, openflow.FieldIPv4Dst, openflow.RegField(regSwap), openflow.ICMPv4Type(0)
			if a.V6 {
				src, dst, swap, typ = openflow.FieldIPv6Src, openflow.FieldIPv6Dst, xxreg(xxregSwap6), openflow.ICMPv6Type(129)
			}
			out = append(out, exchange(src, dst, swap)...)
			out = append(out, openflow.Set(typ), openflow.Set(openflow.IPTTL(64)))
		case pipeline.AnswerND:
			out = append(out, answerND(a)...)
		case pipeline.AdvertiseND:
			out = append(out, openflow.Set(openflow.Exact(openflow.FieldNDOptionsType, openflow.U64(2))),
				openflow.CopyField{Src: openflow.Whole(openflow.FieldEthSrc), Dst: openflow.Whole(openflow.FieldNDTLL)})
		case pipeline.PushVLAN:
			out = append(out, openflow.PushVLAN{EtherType: 0x8100}, openflow.Set(openflow.VLANVID(a.ID)))
		case pipeline.PopVLAN:
			out = append(out, openflow.PopVLAN{})
		case pipeline.Reenter:
			// A packet that meets a conntrack zone for the second time would keep what the first look found.
			out = append(out, openflow.CTClear{},
				// With any other number packets that the agent has sent are lost where they are tracked.
				openflow.Set(openflow.Exact(openflow.FieldInPort16, openflow.U64(uint64(openflow.PortController&0xffff)))))
		case pipeline.Branch:
			var list []openflow.Action
			if a.Reenter {
				list = append(list, openflow.Set(openflow.Exact(openflow.FieldInPort16, openflow.U64(noPort))))
			}
			out = append(out, openflow.Clone{Actions: append(list, openflow.ResubmitTable(uint8(a.Stage)))})
		case pipeline.Limit:
			out = append(out, openflow.Meter{ID: limitMeter(a.ID)})
		case pipeline.Conj:
			out = append(out, openflow.Conjunction{ID: a.ID, Clause: a.Clause, Clauses: a.Of})
		case pipeline.Leg:
			out = append(out, openflow.Set(openflow.Exact(ofFields[pipeline.To], openflow.U64(uint64(a.To)))), openflow.ResubmitTable(uint8(a.Stage)))
		default:
			panic(fmt.Sprintf("ovs: action %T is not known", a)) // a defect: the pipeline grew and this did not
		}
	}
	return out, true
}

// noPort is a switch port that no packet comes from. A packet that has it cannot be tracked any more.
const noPort = 0xffff

// exchange swaps two fields through a third.
func exchange(a, b, swap openflow.Field) []openflow.Action {
	w := openflow.Whole
	return []openflow.Action{openflow.CopyField{Src: w(a), Dst: w(swap)}, openflow.CopyField{Src: w(b), Dst: w(a)}, openflow.CopyField{Src: w(swap), Dst: w(b)}}
}

// answerND makes the advertisement of a solicitation: flags router, solicited and override (RFC 4861, 4.4).
// The option is left to AdvertiseND: Open vSwitch lets a flow set that of an advertisement only where
// its match says that there is one.
func answerND(a pipeline.AnswerND) []openflow.Action {
	mac, w := openflow.MAC(a.MAC), openflow.Whole
	const router, solicited, override = 1 << 31, 1 << 30, 1 << 29
	flags := uint64(solicited | override)
	if a.Router {
		flags |= router
	}
	to := []openflow.Action{
		openflow.CopyField{Src: w(openflow.FieldEthSrc), Dst: w(openflow.FieldEthDst)},
		openflow.CopyField{Src: w(openflow.FieldIPv6Src), Dst: w(openflow.FieldIPv6Dst)},
	}
	if a.All {
		flags &^= solicited
		to = []openflow.Action{
			openflow.Set(openflow.EthDst(openflow.MAC(pipeline.GroupMAC(pipeline.AllNodes)))),
			openflow.Set(openflow.Exact(openflow.FieldIPv6Dst, value(pipeline.AddrNumbers(pipeline.AllNodes)))),
		}
	}
	return append(to,
		openflow.Set(openflow.EthSrc(mac)),
		openflow.CopyField{Src: w(openflow.FieldNDTarget), Dst: w(openflow.FieldIPv6Src)},
		openflow.Set(openflow.ICMPv6Type(136)),
		openflow.Set(openflow.Exact(openflow.FieldNDReserved, openflow.U64(flags))),
		openflow.ResubmitTable(uint8(pipeline.Advertise)))
}

// addFlow makes the message that writes an entry; false where it names a port that is not plugged in.
func addFlow(round uint16, in *pipeline.Installed, at ports) (*openflow.FlowMod, bool) {
	m, ok := bind(in.Entry.Match, at)
	if !ok {
		return nil, false
	}
	as, ok := actions(in.Entry.Actions, at)
	if !ok {
		return nil, false
	}
	return &openflow.FlowMod{Command: openflow.FlowAdd, Table: uint8(in.Entry.Stage), Priority: in.Entry.Priority, Cookie: cookie(round, in), Match: m, Instructions: openflow.Apply(as...)}, true
}

// deleteFlow makes the message that deletes an entry of this round. The round keeps it off
// a flow with the same match that somebody else has put there.
func deleteFlow(round uint16, in *pipeline.Installed, m openflow.Match) *openflow.FlowMod {
	return &openflow.FlowMod{Command: openflow.FlowDeleteStrict, Table: uint8(in.Entry.Stage), Priority: in.Entry.Priority,
		Cookie: uint64(round) << roundShift, CookieMask: 0xffff << roundShift, Match: m}
}

// sweepFlows makes the messages that delete every flow that is not of this round, whatever
// wrote it: one for each bit of the round.
func sweepFlows(round uint16) []openflow.Message {
	out := make([]openflow.Message, 0, 16)
	for bit := range 16 {
		mask := uint64(1) << (roundShift + bit)
		out = append(out, &openflow.FlowMod{Command: openflow.FlowDelete, Table: openflow.TableAll, Cookie: ^(uint64(round) << roundShift) & mask, CookieMask: mask})
	}
	return out
}

// places gives the local ports, by ordinal, and the other places that an entry names.
func places(e *pipeline.Entry) []uint64 {
	var out []uint64
	for _, t := range e.Match {
		if t.Field == pipeline.InPort {
			out = append(out, t.Value)
		}
	}
	for _, a := range e.Actions {
		switch a := a.(type) {
		case pipeline.Deliver:
			out = append(out, a.Port)
		case pipeline.Hand:
			out = append(out, a.Port)
		case pipeline.Tunnel:
			if place := a.Place(); !slices.Contains(out, place) {
				out = append(out, place)
			}
		}
	}
	return out
}

// limitBase is where the meters of limits begin, above those of responders, which have the numbers
// of ports and routers.
const limitBase = 1 << 17

// seekBase is where the meters of packets about neighbours outside begin, one for each router: guests that make a
// router answer with errors must not keep it from finding its next hop. Those of ports are for what guests say of addresses in pairs,
// which must not keep them from their own.
const seekBase = 1 << 18

// agentMeter gives the meter of packets that go to the agent.
func agentMeter(a pipeline.ToAgent) uint32 {
	if seeks(a.Responder) || a.Responder == pipeline.ResponderHeld {
		return seekBase + a.Port
	}
	return a.Port
}

func limitMeter(id uint32) uint32 { return limitBase + id }

// meter is what a meter should be.
type meter struct {
	flags openflow.MeterFlags
	band  openflow.MeterBand
}

// metersOf gives the meters that an entry uses.
func (d *Driver) metersOf(e *pipeline.Entry) map[uint32]meter {
	var out map[uint32]meter
	use := func(id uint32, m meter) {
		if out == nil {
			out = map[uint32]meter{}
		}
		out[id] = m
	}
	for _, a := range e.Actions {
		switch a := a.(type) {
		case pipeline.ToAgent:
			rate := d.cfg.ResponderRate * responder.Share(a.Responder)
			use(agentMeter(a), meter{openflow.MeterPktps | openflow.MeterBurst, openflow.MeterBand{Kind: openflow.BandDrop, Rate: rate, Burst: rate}})
		case pipeline.Limit:
			flags := openflow.MeterKbps | openflow.MeterBurst
			if a.Packets {
				flags = openflow.MeterPktps | openflow.MeterBurst
			}
			use(limitMeter(a.ID), meter{flags, openflow.MeterBand{Kind: openflow.BandDrop, Rate: a.Rate, Burst: a.Burst}})
		}
	}
	return out
}
