package responder

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"yakumo/datapath/pipeline"
	"yakumo/model"
)

// Held reads what a guest says of an address in its allowed address pairs (RFC 826, RFC 4861): that it is there, at a MAC. seen is who
// holds it as far as this host was told. False where that is nothing new, or cannot be: the switch has looked at the
// sender, but rows may have changed since.
func Held(ask Ask, holder func(network model.ID, a netip.Addr) (model.ID, model.Held)) (c model.Claim, ok bool) {
	p := ask.Port
	if ask.Responder != pipeline.ResponderHeld || p == nil || p.Standby {
		return c, false
	}
	a, mac, ok := Said(ask.Frame)
	if !ok || slices.Contains(addresses(p), a) || !model.Paired(p.Pairs, p.MAC, a, mac.String()) {
		return c, false
	}
	port, held := holder(p.NetworkID, a)
	if port == p.ID && held.MAC == mac.String() {
		return c, false
	}
	return model.Claim{Address: a, MAC: mac.String(), Seen: held.Turn}, true
}

// Repaired gives the ports whose guests may hold other addresses when the rows come: they are asked for them.
func Repaired(rows Rows, upserts []model.HostRow) []model.ID {
	var out []model.ID
	for _, row := range upserts {
		if p, ok := row.(*model.HostPort); ok {
			if old, _ := rows.Row(row.RowID()).(*model.HostPort); old != nil && !slices.Equal(old.Pairs, p.Pairs) {
				out = append(out, p.ID)
			}
		}
	}
	return out
}

// probes asks a guest whether it holds the single addresses in its pairs: it may have said so when nobody listened. The
// questions are those of one that looks for an address for itself (RFC 5227, RFC 4861), which nobody takes for more.
func probes(p *model.HostPort) [][]byte {
	var out [][]byte
	done := map[netip.Addr]bool{}
	for _, x := range p.Pairs {
		a := x.Prefix.Addr().Unmap()
		if !x.Prefix.IsValid() || !x.Prefix.IsSingleIP() || done[a] || slices.Contains(addresses(p), a) {
			continue
		}
		done[a] = true
		if a.Is4() {
			b := claimOf(pipeline.ServiceMAC, pipeline.TypeARP, pipeline.ARPRequest, a, pipeline.MAC{})
			clear(b[28:32]) // nobody asks
			out = append(out, b)
			continue
		}
		out = append(out, solicitation(a))
	}
	return out
}

// solicitation asks who has an IPv6 address, from ServiceAddr6.
func solicitation(a netip.Addr) []byte {
	h := a.As16()
	group := netip.AddrFrom16([16]byte{0xff, 0x02, 11: 1, 12: 0xff, 13: h[13], 14: h[14], 15: h[15]})
	body := append([]byte{pipeline.TypeSolicit, 0, 0, 0, 0, 0, 0, 0}, h[:]...)
	body = append(append(body, 1, 1), pipeline.ServiceMAC[:]...)
	p := packet6{srcMAC: pipeline.ServiceMAC, dstMAC: pipeline.GroupMAC(group), src: pipeline.ServiceAddr6, dst: group, proto: pipeline.ProtoICMPv6, hops: 255, payload: body, check: 2}
	return p.frame()
}

// Said reads who says that it has which address: an ARP packet, or a neighbour advertisement. False
// where it is neither, or says nothing that can be true.
func Said(b []byte) (addr netip.Addr, mac pipeline.MAC, ok bool) {
	if len(b) < 14 {
		return addr, mac, false
	}
	p := b[14:]
	switch binary.BigEndian.Uint16(b[12:]) {
	case pipeline.TypeARP:
		if len(p) < 28 || binary.BigEndian.Uint64(p[:8])>>16 != 0x000108000604 {
			return addr, mac, false
		}
		addr, mac = netip.AddrFrom4([4]byte(p[14:18])), pipeline.MAC(p[8:14])
	case pipeline.TypeIPv6:
		if len(p) < 40+24 || p[6] != pipeline.ProtoICMPv6 || p[7] != 255 || p[40] != pipeline.TypeAdvert {
			return addr, mac, false
		}
		end := 40 + int(binary.BigEndian.Uint16(p[4:]))
		if end > len(p) {
			return addr, mac, false
		}
		addr, mac = netip.AddrFrom16([16]byte(p[48:64])), pipeline.MAC(b[6:12]) // without the option: who sent it
		for o := 64; o+8 <= end && p[o+1] > 0; o += 8 * int(p[o+1]) {
			if p[o] == 2 {
				mac = pipeline.MAC(p[o+2 : o+8])
			}
		}
	default:
		return addr, mac, false
	}
	return addr, mac, mac != (pipeline.MAC{}) && mac[0]&1 == 0 && !addr.IsUnspecified() && !addr.IsMulticast()
}
