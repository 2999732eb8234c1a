package responder

import (
	"encoding/binary"
	"net/netip"

	"yakumo/datapath/pipeline"
	"yakumo/model"
)

// Arrivals gives the ports that stand by and will no more when the rows come: their guests run here.
func Arrivals(rows Rows, upserts []model.HostRow) []model.ID {
	var out []model.ID
	for _, row := range upserts {
		if p, ok := row.(*model.HostPort); ok && !p.Standby {
			if old, _ := rows.Row(row.RowID()).(*model.HostPort); old != nil && old.Standby {
				out = append(out, p.ID)
			}
		}
	}
	return out
}

// Arrived makes what tells a physical network that a port's MAC is here now, as if its guest had sent it: RARP (RFC 903),
// and ARP for each of its IPv4 addresses (RFC 5227, 3). It is nothing in a network of tunnels, which learns nothing.
func Arrived(rows Rows, ord pipeline.Ordinals, port model.ID) []Reply {
	p, _ := rows.Row(model.RowID{Kind: model.RowPort, Key: port}).(*model.HostPort)
	if p == nil {
		return nil
	}
	n, _ := rows.Row(model.RowID{Kind: model.RowNetwork, Key: p.NetworkID}).(*model.HostNetwork)
	ordinal, err := ord.Get(pipeline.OrdinalPort, port, pipeline.MaxPort)
	mac, bad := pipeline.ParseMAC(p.MAC)
	if n == nil || !n.Provider() || err != nil || bad != nil {
		return nil
	}
	out := []Reply{fromGuest(pipeline.AntiSpoof, ordinal, p.VNI, claimOf(mac, pipeline.TypeRARP, rarpRequest, netip.IPv4Unspecified(), mac))}
	for _, a := range addresses(p) {
		if a = a.Unmap(); a.Is4() {
			out = append(out, fromGuest(pipeline.Respond, ordinal, p.VNI, claimOf(mac, pipeline.TypeARP, pipeline.ARPRequest, a, pipeline.MAC{})))
		}
	}
	return out
}

// rarpRequest is "request reverse".
const rarpRequest = 3

func fromGuest(at pipeline.Stage, ordinal, vni uint32, frame []byte) Reply {
	return Reply{at, []pipeline.Set{pipeline.Put(pipeline.Net, uint64(vni)), pipeline.Put(pipeline.From, uint64(ordinal))}, frame}
}

// claimOf makes an ARP or RARP packet of mac to all, about itself.
func claimOf(mac pipeline.MAC, typ, op uint16, a netip.Addr, target pipeline.MAC) []byte {
	b := make([]byte, 0, 60)
	b = append(b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)
	b = binary.BigEndian.AppendUint16(append(b, mac[:]...), typ)
	b = binary.BigEndian.AppendUint16(append(b, 0, 1, 8, 0, 6, 4), op)
	b = append(append(b, mac[:]...), a.AsSlice()...)
	b = append(append(b, target[:]...), a.AsSlice()...)
	return b[:cap(b)] // as long as the shortest frame, without its check
}
