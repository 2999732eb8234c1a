package trace

import (
	"net/netip"
	"strconv"

	"yakumo/datapath/pipeline"
	"yakumo/datapath/pipeline/sim"
	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// Request says which packet is sent from where. What it leaves out is filled in as the guest
// behind the port would do it: its own MAC and address, the receiver's MAC or the gateway's.
type Request struct {
	Port model.ID `json:"port"` // the sender
	// To is the port that the packet is for; Dst an address. One of them is needed.
	To       model.ID   `json:"to,omitempty"`
	Dst      netip.Addr `json:"dst"`
	Src      netip.Addr `json:"src"`
	EthSrc   string     `json:"eth_src,omitempty"`
	EthDst   string     `json:"eth_dst,omitempty"`
	Protocol string     `json:"protocol,omitempty"`  // icmp (also for IPv6), tcp, udp, sctp, arp, or a number; "": icmp
	SrcPort  uint16     `json:"src_port,omitempty"`  // default 40000
	DstPort  uint16     `json:"dst_port,omitempty"`  // needed with tcp, udp and sctp
	ICMPType *uint8     `json:"icmp_type,omitempty"` // default: an echo request
	ICMPCode uint8      `json:"icmp_code,omitempty"`
	TTL      uint8      `json:"ttl,omitempty"`  // default 64
	Size     int        `json:"size,omitempty"` // bytes of payload, 0 to 9000
	Ack      bool       `json:"ack,omitempty"`  // tcp: in the middle of a connection, where a SYN is sent else
	// Reply traces the receiver's answer too.
	Reply bool `json:"reply,omitempty"`
	// Inject asks for a real packet besides; see Tracer.Follow.
	Inject bool `json:"inject,omitempty"`

	payload []byte // of an injected packet
}

// MaxSize is the largest payload of a traced packet, in bytes.
const MaxSize = 9000

func bad(format string, args ...any) error {
	return fault.Coded(fault.Invalid, "BadPacket", format, args...)
}

var ports = map[string]uint8{"tcp": pipeline.ProtoTCP, "udp": pipeline.ProtoUDP, "sctp": pipeline.ProtoSCTP}

// packet makes the packet that a request describes.
func (r *run) packet(p *model.Port, q Request) (sim.Packet, error) {
	var pkt sim.Packet
	if q.Size < 0 || q.Size > MaxSize {
		return pkt, bad("size must be from 0 to %d bytes.", MaxSize)
	}
	if q.To != "" {
		if err := r.receiver(p, &q); err != nil {
			return pkt, err
		}
	}
	if !q.Dst.IsValid() {
		return pkt, bad("Say where the packet goes: dst, an address, or to, a port.")
	}
	q.Dst = q.Dst.Unmap()
	pkt = sim.Packet{EthType: pipeline.TypeIPv6, Dst: q.Dst, TTL: q.TTL}
	if q.Dst.Is4() {
		pkt.EthType = pipeline.TypeIPv4
	}
	if pkt.Src = q.Src.Unmap(); !q.Src.IsValid() {
		for _, a := range p.Addresses() {
			if a = a.Unmap(); a.Is4() == q.Dst.Is4() {
				pkt.Src = a
				break
			}
		}
	}
	if !pkt.Src.IsValid() || pkt.Src.Is4() != q.Dst.Is4() {
		return pkt, bad("The port has no address of the family of %v; say src.", q.Dst)
	}
	var err error
	if pkt.EthSrc, err = macOf("eth_src", q.EthSrc, p.MAC); err != nil {
		return pkt, err
	}
	if q.EthDst == "" {
		q.EthDst, err = r.nextMAC(p, q.Dst)
		if err != nil {
			return pkt, err
		}
	}
	if pkt.EthDst, err = macOf("eth_dst", q.EthDst, ""); err != nil {
		return pkt, err
	}
	if err := transport(&pkt, q); err != nil {
		return pkt, err
	}
	if pkt.Payload = q.payload; len(pkt.Payload) < q.Size {
		pkt.Payload = append(pkt.Payload, make([]byte, q.Size-len(pkt.Payload))...)
	}
	return pkt, nil
}

// receiver takes the destination from a port that the scope sees.
func (r *run) receiver(p *model.Port, q *Request) error {
	to, ok := store.Ports.Get(r.snap, q.To)
	if !ok || !r.sc.owns(to.ProjectID) && !r.sc.owns(to.NetworkOwner) {
		return fault.Coded(fault.NotFound, "PortNotFound", "Port %s could not be found.", q.To)
	}
	if q.Dst.IsValid() {
		return nil
	}
	for _, a := range to.Addresses() {
		for _, own := range p.Addresses() {
			if a.Is4() == own.Is4() {
				q.Dst = a
				return nil
			}
		}
	}
	return bad("Port %s has no address of a family that the sender has.", q.To)
}

func macOf(what, given, otherwise string) (pipeline.MAC, error) {
	if given == "" {
		given = otherwise
	}
	m, err := pipeline.ParseMAC(given)
	if err != nil {
		return m, bad("%s: %v.", what, err)
	}
	return m, nil
}

// transport fills in what is behind the IP header; for ARP, what is in its place.
func transport(pkt *sim.Packet, q Request) error {
	if q.SrcPort == 0 {
		q.SrcPort = 40000
	}
	v4 := pkt.EthType == pipeline.TypeIPv4
	switch proto := q.Protocol; proto {
	case "tcp", "udp", "sctp":
		if q.DstPort == 0 {
			return bad("dst_port is needed with %s.", proto)
		}
		pkt.Proto, pkt.SrcPort, pkt.DstPort = ports[proto], q.SrcPort, q.DstPort
		if pkt.Flags = sim.SYN; q.Ack {
			pkt.Flags = sim.ACK
		}
	case "", "icmp", "icmpv6", "ipv6-icmp":
		pkt.Proto, pkt.ICMPType = pipeline.ProtoICMP, 8
		if !v4 {
			pkt.Proto, pkt.ICMPType = pipeline.ProtoICMPv6, 128
		}
		if q.ICMPType != nil {
			pkt.ICMPType = *q.ICMPType
		}
		pkt.ICMPCode, pkt.SrcPort = q.ICMPCode, q.SrcPort
	case "arp":
		if !v4 {
			return bad("arp is for IPv4.")
		}
		*pkt = sim.Packet{EthDst: pipeline.MAC{255, 255, 255, 255, 255, 255}, EthSrc: pkt.EthSrc, EthType: pipeline.TypeARP,
			ARPOp: pipeline.ARPRequest, ARPSHA: pkt.EthSrc, ARPSPA: pkt.Src, ARPTPA: pkt.Dst}
	default:
		n, err := strconv.ParseUint(proto, 10, 8)
		if err != nil {
			return bad("protocol %.40q is none of icmp, tcp, udp, sctp, arp and no number from 0 to 255.", proto)
		}
		pkt.Proto = uint8(n)
		switch pkt.Proto {
		case pipeline.ProtoTCP, pipeline.ProtoUDP, pipeline.ProtoSCTP:
			pkt.SrcPort, pkt.DstPort, pkt.Flags = q.SrcPort, q.DstPort, sim.SYN
		}
	}
	return nil
}

// nextMAC gives the MAC that a guest would send to: of the port that has the address where
// it is next to it, of its subnet's gateway where it is not, of the group for a multicast.
func (r *run) nextMAC(p *model.Port, dst netip.Addr) (string, error) {
	if dst.IsMulticast() {
		return groupMAC(dst).String(), nil
	}
	if dst == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return "ff:ff:ff:ff:ff:ff", nil
	}
	hop := dst
	var gateway netip.Addr
	near := false
	for s := range store.Subnets.List(r.snap, "network", p.NetworkID) {
		near = near || s.CIDR.Contains(dst)
		for _, f := range p.FixedIPs {
			if f.SubnetID == s.ID && s.CIDR.Addr().Is4() == dst.Is4() {
				gateway = s.Gateway
				for _, route := range s.HostRoutes {
					if route.Destination.Contains(dst) {
						gateway = route.NextHop
					}
				}
			}
		}
	}
	if !near {
		if !gateway.IsValid() {
			return "", bad("%v is in no subnet of the port's network, and the port's subnet has no gateway: a guest could not send this. Say eth_dst.", dst)
		}
		hop = gateway
	}
	for o := range store.Ports.List(r.snap, "address", hop.String()) {
		if o.NetworkID == p.NetworkID {
			return o.MAC, nil
		}
	}
	if near && dst == pipeline.ServiceAddr || hop == pipeline.ServiceAddr {
		return pipeline.ServiceMAC.String(), nil
	}
	if near {
		return "", bad("No port of the network has the address %v, so its ARP request has no answer. Say eth_dst.", dst)
	}
	return "", bad("The gateway %v of the port's subnet is no port: connect the subnet to a router, or say eth_dst.", hop)
}

// groupMAC gives the Ethernet address of a multicast group (RFC 1112, 6.4; RFC 2464, 7).
func groupMAC(a netip.Addr) pipeline.MAC {
	b := a.AsSlice()
	n := len(b)
	if a.Is4() {
		return pipeline.MAC{0x01, 0x00, 0x5e, b[n-3] & 0x7f, b[n-2], b[n-1]}
	}
	return pipeline.MAC{0x33, 0x33, b[n-4], b[n-3], b[n-2], b[n-1]}
}

// answer gives the packet that a receiver would send back; false for one that gets none.
func answer(p sim.Packet) (sim.Packet, bool) {
	q := p
	q.EthSrc, q.EthDst, q.Src, q.Dst, q.TTL, q.Payload = p.EthDst, p.EthSrc, p.Dst, p.Src, 64, nil
	switch {
	case p.EthType == pipeline.TypeARP:
		return q, false
	case p.Proto == pipeline.ProtoTCP:
		q.SrcPort, q.DstPort, q.Flags = p.DstPort, p.SrcPort, sim.SYN|sim.ACK
	case p.Proto == pipeline.ProtoUDP, p.Proto == pipeline.ProtoSCTP:
		q.SrcPort, q.DstPort = p.DstPort, p.SrcPort
	case p.Proto == pipeline.ProtoICMP && p.ICMPType == 8:
		q.ICMPType = 0
	case p.Proto == pipeline.ProtoICMPv6 && p.ICMPType == 128:
		q.ICMPType = 129
	case p.Proto == pipeline.ProtoICMP, p.Proto == pipeline.ProtoICMPv6:
		return q, false
	}
	return q, true
}
