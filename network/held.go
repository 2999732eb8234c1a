package network

import (
	"fmt"
	"slices"

	"yakumo/model"
	"yakumo/store"
)

// MaxHeld is how many addresses of its allowed address pairs a port may hold.
const MaxHeld = 64

// HoldAddresses records that the guest behind a port has said to hold addresses of its allowed address pairs: routers then find
// them there, and at no other port. A claim older than the address's holder of now is passed over, and so is one that no pair
// allows, one of an address that another port in use owns, and any of a port that is on another host. The error is the store's.
func (n *Network) HoldAddresses(tx *store.Tx, port, host model.ID, claims []model.Claim) error {
	for _, c := range claims {
		if err := n.holdAddress(tx, port, host, c); err != nil {
			return fmt.Errorf("port %s holds %v: %w", port, c.Address, err)
		}
	}
	return nil
}

func (n *Network) holdAddress(tx *store.Tx, port, host model.ID, c model.Claim) error {
	c.Address = c.Address.Unmap()
	old, ok := store.Ports.Get(tx, port)
	if !ok || old.Host != host || !old.Allows(c.Address, c.MAC) || len(old.Held) >= MaxHeld {
		return nil
	}
	for s := range store.Subnets.List(tx, "network", old.NetworkID) {
		// A port that is nowhere, and no router's, only keeps the address for who holds it.
		if q, taken := store.Ports.Claimed(tx, store.PortAddressClaim(s.ID, c.Address.String())); taken && (q.Host != "" || routerOwned(q.DeviceOwner)) {
			return nil
		}
	}
	turn := n.now().UnixMilli()
	if q, held := store.Ports.Claimed(tx, store.HeldClaim(old.NetworkID, c.Address)); held {
		i := slices.IndexFunc(q.Held, func(h model.Held) bool { return h.Address == c.Address })
		if q.Held[i].Turn != c.Seen || q.ID == port && q.Held[i].MAC == c.MAC {
			return nil
		}
		turn = max(turn, q.Held[i].Turn+1)
		less := *q
		less.Held = slices.Delete(slices.Clone(q.Held), i, i+1)
		if err := store.Ports.Put(tx, &less); err != nil {
			return err
		}
		if q.ID == port {
			old = &less
		}
	}
	p := *old
	p.Held = append(slices.Clone(old.Held), model.Held{Address: c.Address, MAC: c.MAC, Turn: turn})
	slices.SortFunc(p.Held, func(a, b model.Held) int { return a.Address.Compare(b.Address) })
	return store.Ports.Put(tx, &p)
}

// dropHeld takes from a port what it holds and may not hold any more.
func dropHeld(p *model.Port) {
	if len(p.Held) == 0 {
		return
	}
	p.Held = slices.DeleteFunc(slices.Clone(p.Held), func(h model.Held) bool { return p.Host == "" || !p.PortSecurity || !p.Allows(h.Address, h.MAC) })
	if len(p.Held) == 0 {
		p.Held = nil
	}
}
