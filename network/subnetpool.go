package network

import (
	"errors"
	"net/netip"
	"slices"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// MaxPoolPrefixes is how many prefixes a subnet pool may hold.
const MaxPoolPrefixes = 500

// SubnetPoolSpec is what a request says of a subnet pool; nil: it does not say.
type SubnetPoolSpec struct {
	ProjectID   *string
	Name        *string
	Description *string
	Prefixes    *[]netip.Prefix
	// Lengths of prefixes: the default's, of the largest block (min) and of the smallest (max).
	DefaultBits, MinBits, MaxBits *int
	Quota                         **int   // *Quota nil: no limit
	ScopeID                       *string // "": none
	IsDefault                     *bool
	Shared                        *bool // of a new pool
}

func poolMark(id model.ID) string { return "pool," + id }

// GetSubnetPool gives a subnet pool that the scope sees.
func (n *Network) GetSubnetPool(r store.Reader, sc Scope, id model.ID) (*model.SubnetPool, error) {
	p, ok := store.SubnetPools.Get(r, id)
	if !ok || !sc.Sees(p.ProjectID, p.Sharing) {
		return nil, fault.Coded(fault.NotFound, "SubnetPoolNotFound", "Subnet pool %s could not be found.", clip(id))
	}
	return p, nil
}

// CreateSubnetPool makes a pool of prefixes of one IP version.
//
// Errors: fault.Invalid (prefixes, lengths, a second default pool, the address scope's version),
// fault.NotFound (address scope), fault.Conflict code AddressScopePrefixConflict, fault.OverQuota.
func (n *Network) CreateSubnetPool(tx *store.Tx, sc Scope, spec SubnetPoolSpec) (*model.SubnetPool, error) {
	project, err := sc.project(spec.ProjectID)
	if err != nil {
		return nil, err
	}
	if err := n.spend(tx, project, QuotaPool, 1); err != nil {
		return nil, err
	}
	if spec.Prefixes == nil || len(*spec.Prefixes) == 0 {
		return nil, fault.Coded(fault.Invalid, "EmptySubnetPoolPrefixList", "Empty subnet pool prefix list.")
	}
	p := &model.SubnetPool{Meta: model.NewMeta(project, "", n.now()), IPVersion: ipVersion((*spec.Prefixes)[0].Addr())}
	p.MinBits, p.MaxBits = 8, 32
	if p.IPVersion == 6 {
		p.MinBits, p.MaxBits = 64, 128
	}
	if spec.MinBits != nil {
		p.MinBits = *spec.MinBits
	}
	p.DefaultBits = p.MinBits
	if err := n.applyPool(tx, sc, p, spec); err != nil {
		return nil, err
	}
	if err := n.open(tx, &p.Meta, model.ObjectSubnetPool, model.AccessShared, spec.Shared != nil && *spec.Shared, &p.SharedWith); err != nil {
		return nil, err
	}
	return p, n.putPool(tx, p)
}

func (n *Network) putPool(tx *store.Tx, p *model.SubnetPool) error {
	err := store.SubnetPools.Put(tx, p)
	var taken *store.TakenError
	if errors.As(err, &taken) {
		return invalid("A default subnetpool for this IP family has already been set. Only one default may exist per IP family.")
	}
	return err
}

func (n *Network) applyPool(tx *store.Tx, sc Scope, p *model.SubnetPool, spec SubnetPoolSpec) error {
	if err := applyMeta(&p.Meta, spec.Name, spec.Description); err != nil {
		return err
	}
	set(&p.MinBits, spec.MinBits)
	set(&p.MaxBits, spec.MaxBits)
	set(&p.DefaultBits, spec.DefaultBits)
	set(&p.Quota, spec.Quota)
	set(&p.IsDefault, spec.IsDefault)
	bounds := func(a string, x int, b string, y int) error {
		return fault.Coded(fault.Invalid, "IllegalSubnetPoolPrefixBounds", "Illegal prefix bounds: %s=%d, %s=%d.", a, x, b, y)
	}
	most := 32
	if p.IPVersion == 6 {
		most = 128
	}
	switch {
	case p.MinBits < 1:
		return fault.Coded(fault.Invalid, "UnsupportedMinSubnetPoolPrefix", "Prefix '%d' not supported in IPv%d pool.", p.MinBits, p.IPVersion)
	case p.MinBits > p.MaxBits:
		return bounds("min_prefixlen", p.MinBits, "max_prefixlen", p.MaxBits)
	case p.MaxBits > most:
		return bounds("max_prefixlen", p.MaxBits, "ip_version_max", most)
	case p.DefaultBits < p.MinBits:
		return bounds("default_prefixlen", p.DefaultBits, "min_prefixlen", p.MinBits)
	case p.DefaultBits > p.MaxBits:
		return bounds("default_prefixlen", p.DefaultBits, "max_prefixlen", p.MaxBits)
	case p.Quota != nil && *p.Quota < 0:
		return fault.Coded(fault.Invalid, "HTTPBadRequest", "Invalid input for default_quota. Reason: '%d' should be non-negative.", *p.Quota)
	}
	if spec.Prefixes != nil {
		if err := checkPoolPrefixes(p.IPVersion, *spec.Prefixes); err != nil {
			return err
		}
		next := joined(*spec.Prefixes)
		for _, old := range p.Prefixes {
			if !covered(next, old) {
				return fault.Coded(fault.Invalid, "IllegalSubnetPoolPrefixUpdate", "Illegal update to prefixes: Existing prefixes must be a subset of the new prefixes.")
			}
		}
		p.Prefixes = next
	}
	was := p.AddressScopeID
	set(&p.AddressScopeID, spec.ScopeID)
	if p.AddressScopeID == "" || p.AddressScopeID == was && spec.Prefixes == nil {
		return nil
	}
	return n.checkScope(tx, sc, p, was)
}

func checkPoolPrefixes(version int, list []netip.Prefix) error {
	for _, x := range list {
		switch {
		case ipVersion(x.Addr()) != version:
			return fault.Coded(fault.Invalid, "PrefixVersionMismatch", "Cannot mix IPv4 and IPv6 prefixes in a subnet pool.")
		case x.Bits() == 0:
			return fault.Coded(fault.Invalid, "UnsupportedMinSubnetPoolPrefix", "Prefix '0' not supported in IPv%d pool.", version)
		}
	}
	if len(list) > MaxPoolPrefixes {
		return invalid("a subnet pool has at most %d prefixes.", MaxPoolPrefixes)
	}
	return nil
}

// UpdateSubnetPool changes what the spec names; prefixes may only be added so.
func (n *Network) UpdateSubnetPool(tx *store.Tx, sc Scope, id model.ID, spec SubnetPoolSpec) (*model.SubnetPool, error) {
	return n.changePool(tx, sc, id, func(p *model.SubnetPool) error { return n.applyPool(tx, sc, p, spec) })
}

// AddPrefixes adds prefixes to a pool; those that it has already are no error.
func (n *Network) AddPrefixes(tx *store.Tx, sc Scope, id model.ID, list []netip.Prefix) (*model.SubnetPool, error) {
	return n.changePool(tx, sc, id, func(p *model.SubnetPool) error {
		all := slices.Concat(p.Prefixes, list)
		return n.applyPool(tx, sc, p, SubnetPoolSpec{Prefixes: &all})
	})
}

// RemovePrefixes takes from a pool what no subnet was cut from.
//
// Errors: fault.NotFound, fault.Forbidden, fault.Invalid codes IllegalSubnetPoolPrefixUpdate and
// EmptySubnetPoolPrefixList.
func (n *Network) RemovePrefixes(tx *store.Tx, sc Scope, id model.ID, list []netip.Prefix) (*model.SubnetPool, error) {
	return n.changePool(tx, sc, id, func(p *model.SubnetPool) error {
		if err := checkPoolPrefixes(p.IPVersion, list); err != nil {
			return err
		}
		gone := joined(list)
		left := subtract(p.Prefixes, gone)
		if len(left) == 0 {
			return fault.Coded(fault.Invalid, "EmptySubnetPoolPrefixList", "Empty subnet pool prefix list.")
		}
		for s := range cut(tx, id) {
			if !covered(left, s.CIDR) {
				return fault.Coded(fault.Invalid, "IllegalSubnetPoolPrefixUpdate", "Illegal update to prefixes: subnet %s was allocated from what is to be removed.", s.ID)
			}
		}
		p.Prefixes = left
		return nil
	})
}

func (n *Network) changePool(tx *store.Tx, sc Scope, id model.ID, change func(*model.SubnetPool) error) (*model.SubnetPool, error) {
	old, err := n.GetSubnetPool(tx, sc, id)
	if err != nil {
		return nil, err
	}
	if !sc.Owns(old.ProjectID) {
		return nil, forbiddenShared("subnet pool")
	}
	tx.Guard(poolMark(id))
	p := *old
	if err := change(&p); err != nil {
		return nil, err
	}
	p.Touch(n.now())
	return &p, n.putPool(tx, &p)
}

// DeleteSubnetPool removes a pool that no subnet was cut from.
//
// Errors: fault.NotFound, fault.Forbidden, fault.Invalid code SubnetPoolDeleteError, as Neutron has it.
func (n *Network) DeleteSubnetPool(tx *store.Tx, sc Scope, id model.ID) error {
	p, err := n.GetSubnetPool(tx, sc, id)
	if err != nil {
		return err
	}
	if !sc.Owns(p.ProjectID) {
		return forbiddenShared("subnet pool")
	}
	tx.Guard(poolMark(id))
	for range cut(tx, id) {
		return fault.Coded(fault.Invalid, "SubnetPoolDeleteError", "Unable to delete subnet pool: Subnet pool has existing allocations.")
	}
	if err := unshare(tx, id); err != nil {
		return err
	}
	tx.Unmark(poolMark(id))
	return store.SubnetPools.Delete(tx, id)
}

// Onboard makes the network's subnets of the pool's version subnets of the pool, and adds
// their blocks to it.
//
// Errors: fault.NotFound, fault.Forbidden, fault.Invalid code IllegalSubnetPoolUpdate.
func (n *Network) Onboard(tx *store.Tx, sc Scope, id, network model.ID) (*model.SubnetPool, error) {
	w, err := n.GetNetwork(tx, sc, network)
	if err != nil {
		return nil, err
	}
	if !sc.Owns(w.ProjectID) {
		return nil, forbidden("subnets of the network")
	}
	return n.changePool(tx, sc, id, func(p *model.SubnetPool) error {
		bad := func(format string, args ...any) error {
			e := fault.Coded(fault.Invalid, "IllegalSubnetPoolUpdate", format, args...)
			e.Text = "Illegal subnetpool update : " + e.Text
			return e
		}
		all := slices.Clone(p.Prefixes)
		count := 0
		for _, old := range slices.Collect(store.Subnets.List(tx, "network", network)) {
			if old.IPVersion != p.IPVersion || old.PoolID == id {
				continue
			}
			if old.PoolID != "" {
				return bad("Subnet %s is of another subnet pool.", old.ID)
			}
			for s := range cut(tx, id) {
				if s.CIDR.Overlaps(old.CIDR) {
					return bad("Subnet %s overlaps with subnet %s of the pool.", old.ID, s.ID)
				}
			}
			s := *old
			s.PoolID = id
			s.Touch(n.now())
			if err := store.Subnets.Put(tx, &s); err != nil {
				return err
			}
			all = append(all, s.CIDR)
			count++
		}
		if count == 0 {
			return bad("Network %s has no subnet of IPv%d to onboard.", network, p.IPVersion)
		}
		tx.Mark(poolMark(id))
		if err := n.touchNetwork(tx, w); err != nil {
			return err
		}
		return n.applyPool(tx, sc, p, SubnetPoolSpec{Prefixes: &all})
	})
}
