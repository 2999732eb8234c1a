package openflow

import "time"

// Stats are the counters of a flow, or of many taken together. Has tells which of them the
// switch sent.
type Stats struct {
	Has      StatsField
	Duration time.Duration // since the flow was added
	Idle     time.Duration // since it last saw a packet
	Flows    uint32
	Packets  uint64
	Bytes    uint64
}

// StatsField is a set of counters.
type StatsField uint8

// The counters (OpenFlow 1.5.1, 7.2.4.3); each bit is 1 << OFPXST_OFB_*.
const (
	HasDuration StatsField = 1 << 0
	HasIdle     StatsField = 1 << 1
	HasFlows    StatsField = 1 << 3
	HasPackets  StatsField = 1 << 4
	HasBytes    StatsField = 1 << 5
)

const classStats = 0x8002 // OFPXSC_OPENFLOW_BASIC

// secNsec is the wire form of a duration: 32 bits of seconds, 32 of nanoseconds.
func secNsec(d time.Duration) uint64 {
	return uint64(d/time.Second)<<32 | uint64(d%time.Second)
}

func duration(v uint64) time.Duration {
	return time.Duration(v>>32)*time.Second + time.Duration(v&0xffffffff)
}

func (s *Stats) encode(e *encoder) {
	start := len(e.b)
	e.u16(0)
	e.u16(0)
	stat := func(field, n uint32) { e.u32(classStats<<16 | field<<9 | n) }
	if s.Has&HasDuration != 0 {
		stat(0, 8)
		e.u64(secNsec(s.Duration))
	}
	if s.Has&HasIdle != 0 {
		stat(1, 8)
		e.u64(secNsec(s.Idle))
	}
	if s.Has&HasFlows != 0 {
		stat(3, 4)
		e.u32(s.Flows)
	}
	if s.Has&HasPackets != 0 {
		stat(4, 8)
		e.u64(s.Packets)
	}
	if s.Has&HasBytes != 0 {
		stat(5, 8)
		e.u64(s.Bytes)
	}
	e.patch16(start+2, start)
	e.pad8(start)
}

// decodeStats takes ofp_stats and its padding. Counters that it does not know are passed over.
func decodeStats(r *reader) Stats {
	var s Stats
	r.skip(2)
	n := int(r.u16())
	if r.err == nil && n < 4 {
		r.fail(malformed("statistics of %d bytes", n))
	}
	p := r.sub(n - 4)
	r.skip((8 - n%8) % 8)
	for p.err == nil && len(p.b) > 0 {
		h := p.u32()
		v := p.sub(int(h & 0xff))
		if h>>16 != classStats {
			continue
		}
		f := h >> 9 & 0x7f
		switch f {
		case 0:
			s.Duration = duration(v.u64())
		case 1:
			s.Idle = duration(v.u64())
		case 3:
			s.Flows = v.u32()
		case 4:
			s.Packets = v.u64()
		case 5:
			s.Bytes = v.u64()
		default:
			continue
		}
		if v.err != nil && p.err == nil {
			p.err = v.err
		}
		s.Has |= 1 << f
	}
	if p.err != nil {
		r.fail(p.err)
	}
	return s
}
