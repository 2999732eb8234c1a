package hostview

import (
	"yakumo/model"
	"yakumo/store"
)

// scopesIn gives the address scopes that a network's blocks of IPv4 and of IPv6 are in, "" for none. All blocks of a
// family are of one.
func scopesIn(snap store.Snapshot, network model.ID) (four, six model.ID) {
	for s := range store.Subnets.List(snap, "network", network) {
		p, ok := store.SubnetPools.Get(snap, s.PoolID)
		switch {
		case !ok:
		case s.IPVersion == 4:
			four = p.AddressScopeID
		default:
			six = p.AddressScopeID
		}
	}
	return four, six
}

// scopeChanged marks the routers that are in the networks of a pool.
func (c change) scopeChanged(pool model.ID, rs []*model.SubnetPool) {
	if !differ(rs, func(p *model.SubnetPool) model.ID { return p.AddressScopeID }) {
		return
	}
	for s := range store.Subnets.Prefix(c.now, "pool", pool+",") {
		c.routersOf(s.NetworkID)
	}
}
