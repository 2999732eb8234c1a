package sim

import (
	"encoding/binary"
	"net/netip"

	"yakumo/datapath/pipeline"
)

type tuple struct {
	proto    uint8
	src, dst netip.Addr
	sp, dp   uint16
	echo     int8 // 1 of an echo request, -1 of its reply: two that ask each other with one id are two connections
}

func (t tuple) reverse() tuple { return tuple{t.proto, t.dst, t.src, t.dp, t.sp, -t.echo} }

// connection is a tracked connection: its first packet as it came and as it went on, which is the
// same where nothing is translated.
type connection struct {
	came, went tuple
	mark       uint64
	answered   bool // until then it is new
}

// direction is a connection as seen by packets of one direction.
type direction struct {
	*connection
	reply bool
}

// expects gives a packet of the direction as it comes, and as translation makes it.
func (d direction) expects() (before, after tuple) {
	if d.reply {
		return d.went.reverse(), d.came.reverse()
	}
	return d.came, d.went
}

func isICMP(proto uint8) bool { return proto == pipeline.ProtoICMP || proto == pipeline.ProtoICMPv6 }

// echoOf tells which way an ICMP message of a type goes.
func echoOf(proto, icmpType uint8) int8 {
	switch {
	case proto == pipeline.ProtoICMP && icmpType == 8, proto == pipeline.ProtoICMPv6 && icmpType == 128:
		return 1
	case proto == pipeline.ProtoICMP && icmpType == 0, proto == pipeline.ProtoICMPv6 && icmpType == 129:
		return -1
	}
	return 0
}

// tuple gives what identifies the packet's connection. An echo and its reply are one.
func (w *walk) tuple() tuple {
	p := &w.p
	t := tuple{proto: p.Proto, src: p.Src, dst: p.Dst, sp: p.SrcPort, dp: p.DstPort}
	if isICMP(p.Proto) {
		t.sp, t.dp, t.echo = p.SrcPort, p.SrcPort, echoOf(p.Proto, p.ICMPType)
	}
	return t
}

func (w *walk) lookup(zone uint64) (direction, bool) {
	d, ok := w.s.zones[zone][w.tuple()]
	return d, ok
}

// isError tells whether the packet is an ICMP error, which belongs to the connection of the packet in it.
func (p *Packet) isError() bool {
	switch {
	case p.Frag == 3:
		return false
	case p.Proto == pipeline.ProtoICMPv6:
		return p.ICMPType < 128
	case p.Proto == pipeline.ProtoICMP:
		return p.ICMPType == 3 || p.ICMPType == 4 || p.ICMPType == 5 || p.ICMPType == 11 || p.ICMPType == 12
	}
	return false
}

// embedded reads the packet in an ICMP error; ports is where in it they stand.
func embedded(b []byte) (t tuple, ports int, ok bool) {
	switch {
	case len(b) >= 28 && b[0]>>4 == 4:
		ports = int(b[0]&15) * 4
		t.proto, t.src, t.dst = b[9], netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
	case len(b) >= 48 && b[0]>>4 == 6:
		ports = 40
		t.proto, t.src, t.dst = b[6], netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
	default:
		return t, 0, false
	}
	if ports < 20 || len(b) < ports+8 {
		return t, 0, false
	}
	if isICMP(t.proto) {
		t.sp = binary.BigEndian.Uint16(b[ports+4:])
		t.dp, t.echo = t.sp, echoOf(t.proto, b[ports])
	} else {
		t.sp, t.dp = binary.BigEndian.Uint16(b[ports:]), binary.BigEndian.Uint16(b[ports+2:])
	}
	return t, ports, true
}

// embed gives a copy of the packet in an ICMP error with the addresses and ports of a tuple.
func embed(b []byte, t tuple, ports int) []byte {
	b = append([]byte(nil), b...)
	at := 12
	if t.src.Is6() {
		at = 8
	}
	copy(b[at+copy(b[at:], t.src.AsSlice()):], t.dst.AsSlice())
	if t.src.Is4() {
		b[10], b[11] = 0, 0
		binary.BigEndian.PutUint16(b[10:], fold(sum(0, b[:ports])))
	}
	if isICMP(t.proto) {
		binary.BigEndian.PutUint16(b[ports+4:], t.sp)
	} else {
		binary.BigEndian.PutUint16(b[ports:], t.sp)
		binary.BigEndian.PutUint16(b[ports+2:], t.dp)
	}
	return b
}

// opens tells whether a packet may be the first of a connection.
func (w *walk) opens() bool {
	p := &w.p
	switch p.Proto {
	case pipeline.ProtoTCP:
		return p.Flags&RST == 0 && p.Flags&(SYN|ACK) != SYN|ACK && p.Flags&(SYN|FIN) != SYN|FIN
	case pipeline.ProtoICMP:
		return p.ICMPType != 0 // an echo reply answers something
	case pipeline.ProtoICMPv6:
		return p.ICMPType != 129
	}
	return true
}

func (w *walk) track(zone uint64, nat bool) {
	if w.p.isError() {
		w.trackError(zone, nat)
		return
	}
	c, known := w.lookup(zone)
	state, mark := pipeline.Tracked, uint64(0)
	switch {
	case !known && w.opens():
		state |= pipeline.New
	case !known:
		state |= pipeline.Invalid
	default:
		mark = c.mark
		switch {
		case c.reply:
			c.answered = true
			state |= pipeline.Established | pipeline.Reply
		case c.answered:
			state |= pipeline.Established
		default:
			state |= pipeline.New
		}
		if nat {
			w.rewrite(c)
		}
	}
	w.own[pipeline.TrackState].low, w.own[pipeline.TrackMark].low = state, mark
}

// trackError tracks an ICMP error: it goes the way of packets that answer the one in it.
func (w *walk) trackError(zone uint64, nat bool) {
	w.own[pipeline.TrackState].low, w.own[pipeline.TrackMark].low = pipeline.Tracked|pipeline.Invalid, 0
	inner, ports, ok := embedded(w.p.Payload)
	if !ok {
		return
	}
	c, known := w.s.zones[zone][inner.reverse()]
	if !known {
		return
	}
	state := pipeline.Tracked | pipeline.Related
	if c.reply {
		state |= pipeline.Reply
	}
	w.own[pipeline.TrackState].low, w.own[pipeline.TrackMark].low = state, c.mark
	if before, after := c.expects(); nat && before != after {
		if before.src != after.src {
			w.p.Src = after.src
		}
		if before.dst != after.dst {
			w.p.Dst = after.dst
		}
		w.p.Payload = embed(w.p.Payload, after.reverse(), ports)
	}
}

// rewrite translates a packet of a known connection.
func (w *walk) rewrite(c direction) {
	_, after := c.expects()
	w.carry(after)
}

// carry gives the packet the addresses and ports of a tuple.
func (w *walk) carry(t tuple) {
	w.p.Src, w.p.Dst, w.p.SrcPort = t.src, t.dst, t.sp
	if !isICMP(w.p.Proto) { // an echo's id stands in SrcPort alone
		w.p.DstPort = t.dp
	}
}

func (w *walk) commit(zone, mark uint64) {
	c, known := w.lookup(zone)
	if !known {
		c = w.enter(zone, w.tuple(), w.tuple())
	}
	c.mark = mark
}

// enter notes a new connection.
func (w *walk) enter(zone uint64, came, went tuple) direction {
	if w.s.zones[zone] == nil {
		w.s.zones[zone] = map[tuple]direction{}
	}
	c := direction{connection: &connection{came: came, went: went}}
	w.s.zones[zone][came] = c
	w.s.zones[zone][went.reverse()] = direction{c.connection, true}
	return c
}

// translate creates a translated connection, or finds it, and translates the packet.
func (w *walk) translate(zone uint64, a pipeline.Translate) {
	c, known := w.lookup(zone)
	if !known {
		came := w.tuple()
		went := came
		port := &went.dp
		if went.dst = a.Addr; a.Source {
			went.src, went.dst, port = a.Addr, came.dst, &went.sp
		}
		if a.MinPort != 0 && (*port < a.MinPort || *port > max(a.MinPort, a.MaxPort)) {
			*port = a.MinPort
		}
		for range 1 << 16 { // the next port where another connection has this one
			if isICMP(came.proto) {
				went.sp, went.dp = *port, *port
			}
			if _, taken := w.s.zones[zone][went.reverse()]; !taken {
				break
			}
			*port++
		}
		c = w.enter(zone, came, went)
	}
	c.mark = uint64(a.Mark)
	w.rewrite(c)
	w.own[pipeline.TrackState].low, w.own[pipeline.TrackMark].low = pipeline.Tracked|pipeline.New, c.mark
}
