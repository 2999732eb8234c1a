package openflow

import (
	"fmt"
	"strings"
	"time"
)

// MultipartType is the kind of a multipart message (OpenFlow 1.5.1, 7.3.5).
type MultipartType uint16

// The kinds.
const (
	MultipartDesc          MultipartType = 0
	MultipartFlowDesc      MultipartType = 1
	MultipartAggregate     MultipartType = 2
	MultipartTable         MultipartType = 3
	MultipartPortStats     MultipartType = 4
	MultipartQueueStats    MultipartType = 5
	MultipartGroupStats    MultipartType = 6
	MultipartGroupDesc     MultipartType = 7
	MultipartGroupFeatures MultipartType = 8
	MultipartMeterStats    MultipartType = 9
	MultipartMeterDesc     MultipartType = 10
	MultipartMeterFeatures MultipartType = 11
	MultipartPortDesc      MultipartType = 13
)

const multipartMore = 1 // OFPMPF_REPLY_MORE

// MultipartReply is one part of the answer to a multipart request. Exactly the slice or
// pointer that Kind names is filled; a kind that this package does not read leaves all
// empty and Body holds what came.
type MultipartReply struct {
	Kind MultipartType
	More bool // further parts follow under the same transaction id

	Desc          *Desc
	Flows         []FlowDesc
	Aggregate     *Stats
	Tables        []TableStats
	Ports         []PortStats
	PortDescs     []Port
	Queues        []QueueStats
	Groups        []GroupStats
	GroupDescs    []GroupDesc
	Meters        []MeterStatistics
	MeterDescs    []MeterDesc
	MeterFeatures *MeterFeatures
	Body          []byte // shares memory with what was decoded
}

// Type is TypeMultipartReply.
func (*MultipartReply) Type() Type { return TypeMultipartReply }

// MultipartRequest asks for statistics or descriptions. Port, Queue, Group and Meter
// narrow the kinds that they name; zero means all, as 0 is no real port, group or meter
// (queue 0 is real, so AllQueues says it). Flow narrows flows and aggregates.
type MultipartRequest struct {
	Kind  MultipartType
	Port  uint32
	Queue uint32
	Group uint32
	Meter uint32
	Flow  FlowFilter
}

// AllQueues, as a queue number, means every queue.
const AllQueues uint32 = 0xffffffff

// FlowFilter picks flows. The zero value picks those of table 0; AllFlows picks all.
type FlowFilter struct {
	Table              uint8 // TableAll for every table
	OutPort, OutGroup  uint32
	Cookie, CookieMask uint64
	Match              Match // picks flows whose match is as narrow or narrower
}

// AllFlows picks every flow of every table.
func AllFlows() FlowFilter { return FlowFilter{Table: TableAll} }

// Type is TypeMultipartRequest.
func (*MultipartRequest) Type() Type { return TypeMultipartRequest }

func (m *MultipartRequest) encodeBody(e *encoder) {
	e.u16(uint16(m.Kind))
	e.u16(0)
	e.u32(0)
	switch m.Kind {
	case MultipartFlowDesc, MultipartAggregate:
		e.u8(m.Flow.Table)
		e.zeros(3)
		e.u32(orAny(m.Flow.OutPort))
		e.u32(orAny(m.Flow.OutGroup))
		e.u32(0)
		e.u64(m.Flow.Cookie)
		e.u64(m.Flow.CookieMask)
		m.Flow.Match.encode(e)
	case MultipartPortStats, MultipartPortDesc:
		e.u32(orAny(m.Port))
		e.u32(0)
	case MultipartQueueStats:
		e.u32(orAny(m.Port))
		e.u32(m.Queue)
	case MultipartGroupStats, MultipartGroupDesc:
		if m.Group == 0 {
			e.u32(GroupEvery)
		} else {
			e.u32(m.Group)
		}
		e.u32(0)
	case MultipartMeterStats, MultipartMeterDesc:
		e.u32(orAny(m.Meter))
		e.u32(0)
	case MultipartDesc, MultipartTable, MultipartGroupFeatures, MultipartMeterFeatures:
	default:
		e.fail(fmt.Errorf("openflow: multipart request of kind %d is not known", m.Kind))
	}
}

func decodeMultipartRequest(r *reader) Message {
	m := &MultipartRequest{Kind: MultipartType(r.u16())}
	r.skip(6)
	switch m.Kind {
	case MultipartFlowDesc, MultipartAggregate:
		m.Flow.Table = r.u8()
		r.skip(3)
		m.Flow.OutPort, m.Flow.OutGroup = fromAny(r.u32()), fromAny(r.u32())
		r.skip(4)
		m.Flow.Cookie, m.Flow.CookieMask = r.u64(), r.u64()
		m.Flow.Match = decodeMatch(r)
	case MultipartPortStats, MultipartPortDesc:
		m.Port = fromAny(r.u32())
	case MultipartQueueStats:
		m.Port, m.Queue = fromAny(r.u32()), r.u32()
	case MultipartGroupStats, MultipartGroupDesc:
		if m.Group = r.u32(); m.Group == GroupEvery {
			m.Group = 0
		}
	case MultipartMeterStats, MultipartMeterDesc:
		m.Meter = fromAny(r.u32())
	case MultipartDesc, MultipartTable, MultipartGroupFeatures, MultipartMeterFeatures:
	default:
		r.fail(malformed("multipart request of kind %d", m.Kind))
	}
	return m
}

// Desc names maker and version of a switch.
type Desc struct {
	Manufacturer, Hardware, Software, Serial, Datapath string
}

// FlowDesc is a flow of the switch.
type FlowDesc struct {
	Table                    uint8
	Priority                 uint16
	IdleTimeout, HardTimeout uint16
	Flags                    FlowFlags
	Importance               uint16
	Cookie                   uint64
	Match                    Match
	Stats                    Stats
	Instructions             Instructions
}

// TableStats are the counters of a table.
type TableStats struct {
	Table           uint8
	Active          uint32 // flows
	Lookup, Matched uint64 // packets
}

// PortStats are the counters of a port; all ones where the switch does not count.
type PortStats struct {
	Port                                                      uint32
	Duration                                                  time.Duration
	RxPackets, TxPackets, RxBytes, TxBytes                    uint64
	RxDropped, TxDropped, RxErrors, TxErrors                  uint64
	RxFrameErrors, RxOverrunErrors, RxCRCErrors, TxCollisions uint64
}

// QueueStats are the counters of a queue.
type QueueStats struct {
	Port, Queue                  uint32
	TxBytes, TxPackets, TxErrors uint64
	Duration                     time.Duration
}

// BucketStats are the counters of a bucket.
type BucketStats struct{ Packets, Bytes uint64 }

// GroupStats are the counters of a group.
type GroupStats struct {
	ID             uint32
	RefCount       uint32 // flows and groups that use it
	Packets, Bytes uint64
	Duration       time.Duration
	Buckets        []BucketStats
}

// GroupDesc is a group of the switch.
type GroupDesc struct {
	Kind    GroupType
	ID      uint32
	Buckets []Bucket
	Select  *Selection
}

// String writes the group as Open vSwitch's tools do.
func (g *GroupDesc) String() string { return groupString(g.ID, g.Kind, g.Buckets, g.Select) }

// MeterStatistics are the counters of a meter.
type MeterStatistics struct {
	ID             uint32
	Flows          uint32
	Packets, Bytes uint64 // that came in
	Duration       time.Duration
	Bands          []BucketStats // packets and bytes above each band's rate
}

// MeterDesc is a meter of the switch.
type MeterDesc struct {
	ID    uint32
	Flags MeterFlags
	Bands []MeterBand
}

// String writes the meter as Open vSwitch's tools do.
func (m *MeterDesc) String() string { return meterString(m.ID, m.Flags, m.Bands) }

// MeterFeatures are the limits of the switch's meters.
type MeterFeatures struct {
	MaxMeter     uint32
	BandTypes    uint32 // bit n for MeterBandType n
	Capabilities uint32 // MeterFlags
	MaxBands     uint8
	MaxColor     uint8
}

const (
	descTextLen   = 256
	descSerialLen = 32
)

func decodeMultipartReply(r *reader) Message {
	m := &MultipartReply{Kind: MultipartType(r.u16()), More: r.u16()&multipartMore != 0}
	r.skip(4)
	if r.err != nil {
		return nil
	}
	switch m.Kind {
	case MultipartDesc:
		m.Desc = &Desc{r.str(descTextLen), r.str(descTextLen), r.str(descTextLen), r.str(descSerialLen), r.str(descTextLen)}
	case MultipartAggregate:
		s := decodeStats(r)
		m.Aggregate = &s
	case MultipartMeterFeatures:
		m.MeterFeatures = &MeterFeatures{r.u32(), r.u32(), r.u32(), r.u8(), r.u8()}
	case MultipartFlowDesc:
		m.Flows = list(r, 0, decodeFlowDesc)
	case MultipartTable:
		for len(r.b) > 0 && r.err == nil {
			t := TableStats{Table: r.u8()}
			r.skip(3)
			t.Active, t.Lookup, t.Matched = r.u32(), r.u64(), r.u64()
			m.Tables = append(m.Tables, t)
		}
	case MultipartPortStats:
		m.Ports = list(r, 0, decodePortStats)
	case MultipartPortDesc:
		for len(r.b) > 0 && r.err == nil {
			m.PortDescs = append(m.PortDescs, decodePort(r))
		}
	case MultipartQueueStats:
		m.Queues = list(r, 0, decodeQueueStats)
	case MultipartGroupStats:
		m.Groups = list(r, 0, decodeGroupStats)
	case MultipartGroupDesc:
		m.GroupDescs = list(r, 0, decodeGroupDesc)
	case MultipartMeterStats:
		m.Meters = list(r, 4, decodeMeterStats)
	case MultipartMeterDesc:
		m.MeterDescs = list(r, 0, decodeMeterDesc)
	default:
		m.Body = r.b
	}
	return m
}

// list reads entries that carry their own length as 16 bits at offset at; each entry's
// reader starts at the entry's first byte.
func list[T any](r *reader, at int, one func(*reader) T) []T {
	var out []T
	for len(r.b) > 0 && r.err == nil {
		if len(r.b) < at+2 {
			r.fail(ErrTruncated)
			break
		}
		n := int(r.b[at])<<8 | int(r.b[at+1])
		if n < at+2 {
			r.fail(malformed("entry of %d bytes", n))
			break
		}
		p := r.sub(n)
		v := one(&p)
		if p.err != nil {
			r.fail(p.err)
			break
		}
		out = append(out, v)
	}
	return out
}

func decodeFlowDesc(r *reader) FlowDesc {
	r.skip(4)
	f := FlowDesc{Table: r.u8()}
	r.skip(1)
	f.Priority, f.IdleTimeout, f.HardTimeout = r.u16(), r.u16(), r.u16()
	f.Flags, f.Importance, f.Cookie = FlowFlags(r.u16()), r.u16(), r.u64()
	f.Match = decodeMatch(r)
	f.Stats = decodeStats(r)
	f.Instructions = decodeInstructions(r)
	return f
}

func (f *FlowDesc) encode(e *encoder) {
	start := len(e.b)
	e.u32(0)
	e.u8(f.Table)
	e.u8(0)
	e.u16(f.Priority)
	e.u16(f.IdleTimeout)
	e.u16(f.HardTimeout)
	e.u16(uint16(f.Flags))
	e.u16(f.Importance)
	e.u64(f.Cookie)
	f.Match.encode(e)
	f.Stats.encode(e)
	f.Instructions.encode(e)
	e.patch16(start, start)
}

// String writes the flow as Open vSwitch's tools do, without counters.
func (f *FlowDesc) String() string {
	p := []string{fmt.Sprintf("cookie=%#x,table=%d,priority=%d", f.Cookie, f.Table, f.Priority)}
	p = appendTimeouts(p, f.IdleTimeout, f.HardTimeout, f.Importance, f.Flags)
	if s := f.Match.String(); s != "" {
		p = append(p, s)
	}
	return strings.Join(p, ",") + ",actions=" + f.Instructions.String()
}

func decodePortStats(r *reader) PortStats {
	r.skip(4)
	s := PortStats{Port: r.u32(), Duration: duration(r.u64())}
	s.RxPackets, s.TxPackets, s.RxBytes, s.TxBytes = r.u64(), r.u64(), r.u64(), r.u64()
	s.RxDropped, s.TxDropped, s.RxErrors, s.TxErrors = r.u64(), r.u64(), r.u64(), r.u64()
	for len(r.b) >= 4 && r.err == nil {
		typ, p := r.nextProp()
		if typ != portEthernet || r.err != nil {
			continue
		}
		p.skip(4)
		s.RxFrameErrors, s.RxOverrunErrors, s.RxCRCErrors, s.TxCollisions = p.u64(), p.u64(), p.u64(), p.u64()
		if p.err != nil {
			r.fail(p.err)
		}
	}
	return s
}

func decodeQueueStats(r *reader) QueueStats {
	r.skip(8)
	return QueueStats{Port: r.u32(), Queue: r.u32(), TxBytes: r.u64(), TxPackets: r.u64(), TxErrors: r.u64(), Duration: duration(r.u64())}
}

func decodeBucketStats(r *reader) []BucketStats {
	var out []BucketStats
	for len(r.b) > 0 && r.err == nil {
		b := BucketStats{r.u64(), r.u64()}
		if r.err == nil {
			out = append(out, b)
		}
	}
	return out
}

func decodeGroupStats(r *reader) GroupStats {
	r.skip(4)
	g := GroupStats{ID: r.u32(), RefCount: r.u32()}
	r.skip(4)
	g.Packets, g.Bytes, g.Duration = r.u64(), r.u64(), duration(r.u64())
	g.Buckets = decodeBucketStats(r)
	return g
}

func decodeGroupDesc(r *reader) GroupDesc {
	r.skip(2)
	g := GroupDesc{Kind: GroupType(r.u8())}
	r.skip(1)
	g.ID = r.u32()
	n := int(r.u16())
	r.skip(6)
	bs := r.sub(n)
	g.Buckets = decodeBuckets(&bs)
	if bs.err != nil {
		r.fail(bs.err)
	}
	g.Select = decodeGroupProps(r)
	return g
}

func decodeMeterStats(r *reader) MeterStatistics {
	m := MeterStatistics{ID: r.u32()}
	r.skip(8)
	m.Flows, m.Packets, m.Bytes, m.Duration = r.u32(), r.u64(), r.u64(), duration(r.u64())
	m.Bands = decodeBucketStats(r)
	return m
}

func decodeMeterDesc(r *reader) MeterDesc {
	r.skip(2)
	m := MeterDesc{Flags: MeterFlags(r.u16()), ID: r.u32()}
	m.Bands = decodeBands(r)
	return m
}

// encodeBody writes the kinds that a test peer needs: descriptions, flows, aggregates,
// port descriptions and, for the others, Body as it is.
func (m *MultipartReply) encodeBody(e *encoder) {
	e.u16(uint16(m.Kind))
	if m.More {
		e.u16(multipartMore)
	} else {
		e.u16(0)
	}
	e.u32(0)
	switch m.Kind {
	case MultipartDesc:
		if m.Desc == nil {
			e.fail(malformed("description is missing"))
			return
		}
		for _, s := range [...]string{m.Desc.Manufacturer, m.Desc.Hardware, m.Desc.Software} {
			e.str(s, descTextLen)
		}
		e.str(m.Desc.Serial, descSerialLen)
		e.str(m.Desc.Datapath, descTextLen)
	case MultipartFlowDesc:
		for i := range m.Flows {
			m.Flows[i].encode(e)
		}
	case MultipartAggregate:
		if m.Aggregate == nil {
			e.fail(malformed("aggregate is missing"))
			return
		}
		m.Aggregate.encode(e)
	case MultipartPortDesc:
		for i := range m.PortDescs {
			m.PortDescs[i].encode(e)
		}
	default:
		if m.Body == nil {
			e.fail(fmt.Errorf("openflow: multipart reply of kind %d cannot be encoded", m.Kind))
		}
		e.bytes(m.Body)
	}
}
