package openflow

import (
	"fmt"
	"strings"
)

// MeterCommand is what a MeterMod does.
type MeterCommand uint16

// The commands.
const (
	MeterAdd    MeterCommand = 0
	MeterModify MeterCommand = 1
	MeterDelete MeterCommand = 2
)

// Meter numbers that have a meaning of their own.
const (
	MeterMax        uint32 = 0xffff0000 // largest number of a real meter
	MeterSlowPath   uint32 = 0xfffffffd
	MeterController uint32 = 0xfffffffe
	MeterEvery      uint32 = 0xffffffff // all meters, for MeterDelete and statistics
)

// MeterFlags is a set of flags of a meter.
type MeterFlags uint16

// The flags. A meter has exactly one of MeterKbps and MeterPktps.
const (
	MeterKbps  MeterFlags = 1 << 0 // rates in 1000 bits a second, bursts in 1000 bits
	MeterPktps MeterFlags = 1 << 1 // rates in packets a second, bursts in packets
	MeterBurst MeterFlags = 1 << 2 // the bands' bursts count
	MeterStats MeterFlags = 1 << 3 // collect counters
)

// MeterBandType says what a band does with packets above its rate.
type MeterBandType uint16

// The types.
const (
	BandDrop       MeterBandType = 1
	BandDSCPRemark MeterBandType = 2
)

// MeterBand limits a rate.
type MeterBand struct {
	Kind       MeterBandType
	Rate       uint32
	Burst      uint32 // with MeterBurst
	Precedence uint8  // levels of drop precedence that BandDSCPRemark adds
}

// MeterMod changes a meter.
type MeterMod struct {
	Command MeterCommand
	Flags   MeterFlags
	ID      uint32 // 1 to MeterMax
	Bands   []MeterBand
}

// Type is TypeMeterMod.
func (*MeterMod) Type() Type { return TypeMeterMod }

func encodeBands(e *encoder, bs []MeterBand) {
	for _, b := range bs {
		e.u16(uint16(b.Kind))
		e.u16(16)
		e.u32(b.Rate)
		e.u32(b.Burst)
		e.u8(b.Precedence)
		e.zeros(3)
	}
}

func decodeBands(r *reader) []MeterBand {
	var bs []MeterBand
	for len(r.b) > 0 && r.err == nil {
		b := MeterBand{Kind: MeterBandType(r.u16())}
		n := int(r.u16())
		if r.err == nil && n < 16 {
			r.fail(malformed("meter band of %d bytes", n))
		}
		p := r.sub(n - 4)
		b.Rate, b.Burst, b.Precedence = p.u32(), p.u32(), p.u8()
		if r.err == nil {
			bs = append(bs, b)
		}
	}
	return bs
}

func (m *MeterMod) encodeBody(e *encoder) {
	e.u16(uint16(m.Command))
	e.u16(uint16(m.Flags))
	e.u32(m.ID)
	encodeBands(e, m.Bands)
}

func decodeMeterMod(r *reader) Message {
	m := &MeterMod{Command: MeterCommand(r.u16()), Flags: MeterFlags(r.u16()), ID: r.u32()}
	m.Bands = decodeBands(r)
	return m
}

func meterString(id uint32, flags MeterFlags, bands []MeterBand) string {
	var b strings.Builder
	fmt.Fprintf(&b, "meter=%d", id)
	for i, name := range [...]string{"kbps", "pktps", "burst", "stats"} {
		if flags>>i&1 == 1 {
			b.WriteString(" " + name)
		}
	}
	if len(bands) > 0 {
		b.WriteString(" bands=")
	}
	for i, band := range bands {
		if i > 0 {
			b.WriteByte(' ')
		}
		if band.Kind == BandDSCPRemark {
			fmt.Fprintf(&b, "type=dscp_remark rate=%d", band.Rate)
		} else {
			fmt.Fprintf(&b, "type=drop rate=%d", band.Rate)
		}
		if flags&MeterBurst != 0 {
			fmt.Fprintf(&b, " burst_size=%d", band.Burst)
		}
		if band.Kind == BandDSCPRemark {
			fmt.Fprintf(&b, " prec_level=%d", band.Precedence)
		}
	}
	return b.String()
}

// String writes the meter as Open vSwitch's tools do.
func (m *MeterMod) String() string { return meterString(m.ID, m.Flags, m.Bands) }
