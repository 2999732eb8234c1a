package pipeline

import (
	"cmp"
	"net/netip"
	"slices"

	"yakumo/model"
)

// Outer is an address that this host has outside, in an external network: a gateway's or a floating one.
type Outer struct {
	NetworkID model.ID
	VNI       uint32
	Address   netip.Addr
	MAC       MAC
}

// Outer gives the addresses that this host has outside, sorted.
func (p *Program) Outer() []Outer {
	var out []Outer
	add := func(network model.ID, vni uint32, a netip.Addr, mac string) {
		if m, err := ParseMAC(mac); err == nil { // else its row has not been compiled either
			out = append(out, Outer{network, vni, a.Unmap(), m})
		}
	}
	for id := range p.outside {
		switch r := p.Row(id).(type) {
		case *model.HostRouter:
			if g := r.Gateway; r.AdminStateUp && g.Active {
				for _, a := range g.Addresses {
					add(g.NetworkID, g.VNI, a.Addr(), g.MAC)
				}
			}
		case *model.HostFloating:
			if r.Standby {
				continue
			}
			if o, ok := p.Row(model.RowID{Kind: model.RowRouter, Key: r.RouterID}).(*model.HostRouter); ok && o.AdminStateUp && o.Gateway != nil {
				add(r.NetworkID, r.VNI, r.Address, r.MAC)
			}
		}
	}
	slices.SortFunc(out, func(a, b Outer) int {
		return cmp.Or(cmp.Compare(a.VNI, b.VNI), a.Address.Compare(b.Address), cmp.Compare(a.MAC.Number(), b.MAC.Number()))
	})
	return out
}
