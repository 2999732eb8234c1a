package ovs

import (
	"encoding/binary"
	"fmt"

	"yakumo/datapath/pipeline"
	"yakumo/openflow"
)

// Registers: the pipeline's own fields, and one to swap ARP addresses through.
const (
	regNet = iota
	regFrom
	regTo
	regSwap
)

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
		case pipeline.Net, pipeline.From, pipeline.To:
			terms = append(terms, openflow.Exact(ofFields[t.Field], openflow.U64(t.Value)))
		case pipeline.VLAN:
			terms = append(terms, openflow.VLANNone())
		default:
			terms = append(terms, openflow.Masked(ofFields[t.Field], openflow.U64(t.Value), openflow.U64(t.Mask)))
		}
	}
	return openflow.MatchOf(terms...), true
}

// userData names the responder and the port of a packet that goes to the agent.
func userData(a pipeline.ToAgent) []byte {
	return binary.BigEndian.AppendUint32([]byte{1, byte(a.Responder)}, a.Port)
}

// parseUserData is the inverse of userData.
func parseUserData(b []byte) (r pipeline.Responder, port uint32, ok bool) {
	if len(b) != 6 || b[0] != 1 {
		return 0, 0, false
	}
	return pipeline.Responder(b[1]), binary.BigEndian.Uint32(b[2:]), true
}

// actions makes the action list of an entry; false where a port it names is not plugged in.
func actions(list []pipeline.Action, at ports) ([]openflow.Action, bool) {
	out := make([]openflow.Action, 0, len(list)+1)
	zone := func(f pipeline.Field) openflow.Subfield { return openflow.Sub(ofFields[f], 0, 16) }
	for _, a := range list {
		switch a := a.(type) {
		case pipeline.Set:
			out = append(out, openflow.Set(openflow.Exact(ofFields[a.Field], openflow.U64(a.Value))))
		case pipeline.Goto:
			out = append(out, openflow.ResubmitTable(uint8(a.Stage)))
		case pipeline.Track:
			out = append(out, openflow.CT{ZoneFrom: zone(a.Zone), Recirculate: true, Table: uint8(a.Stage)})
		case pipeline.Commit:
			out = append(out, openflow.CT{Commit: true, ZoneFrom: zone(a.Zone), Table: openflow.TableAll, Actions: []openflow.Action{openflow.Set(openflow.CTMark(a.Mark))}})
		case pipeline.Deliver:
			n, ok := at(a.Port)
			if !ok {
				return nil, false
			}
			out = append(out, openflow.ToPort(n))
		case pipeline.Tunnel:
			n, ok := at(pipeline.PortTunnel)
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
				openflow.ToPort(openflow.PortInPort))
		case pipeline.ToAgent:
			out = append(out, openflow.Meter{ID: a.Port}, openflow.Controller{UserData: userData(a)})
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
		case pipeline.Tunnel:
			return append(out, pipeline.PortTunnel)
		}
	}
	return out
}

// meterOf gives the meter that an entry uses, 0 for none.
func meterOf(e *pipeline.Entry) uint32 {
	for _, a := range e.Actions {
		if t, ok := a.(pipeline.ToAgent); ok {
			return t.Port
		}
	}
	return 0
}
