package compute

import (
	"maps"
	"slices"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// DefaultZone is the availability zone of a host that no aggregate puts into another.
const DefaultZone = "nova"

// zoneKey is the item of an aggregate's metadata that is its zone.
const zoneKey = "availability_zone"

// GetAggregate gives an aggregate by Nova's number.
func GetAggregate(r store.Reader, number string) (*model.Aggregate, error) {
	for a := range store.Aggregates.List(r, "number", number) {
		return a, nil
	}
	return nil, fault.New(fault.NotFound, "Aggregate %s could not be found.", number)
}

// CreateAggregate makes an empty aggregate; zone may be empty.
//
// Errors: fault.Conflict where the name is taken.
func (c *Compute) CreateAggregate(tx *store.Tx, name, zone string) (*model.Aggregate, error) {
	if _, taken := store.Aggregates.Holder(tx, "name,"+name); taken {
		return nil, fault.New(fault.Conflict, "Aggregate %s already exists.", name)
	}
	now := c.now()
	a := &model.Aggregate{ID: model.NewID(), Number: 1, Name: name, CreatedAt: now}
	for old := range store.Aggregates.All(tx) {
		a.Number = max(a.Number, old.Number+1)
	}
	a.Zone = zone
	return a, store.Aggregates.Put(tx, a)
}

// UpdateAggregate changes an aggregate's name and zone; nil: as it is.
func (c *Compute) UpdateAggregate(tx *store.Tx, number string, name, zone *string) (*model.Aggregate, error) {
	return c.changeAggregate(tx, number, func(a *model.Aggregate) error {
		if name != nil && *name != a.Name {
			if _, taken := store.Aggregates.Holder(tx, "name,"+*name); taken {
				return fault.New(fault.Conflict, "Aggregate %s already exists.", *name)
			}
			a.Name = *name
		}
		if zone != nil {
			return c.rezone(tx, a, *zone, "update")
		}
		return nil
	})
}

// DeleteAggregate removes an aggregate that has no hosts.
func (c *Compute) DeleteAggregate(tx *store.Tx, number string) error {
	a, err := GetAggregate(tx, number)
	if err != nil {
		return err
	}
	if len(a.Hosts) > 0 {
		return fault.New(fault.Invalid, "Cannot delete aggregate %s. Reason: Host aggregate is not empty.", number)
	}
	return store.Aggregates.Delete(tx, a.ID)
}

// AddAggregateHost puts a host, by name, into an aggregate; where that has a zone the host is in it from then on.
//
// Errors: fault.NotFound; fault.Conflict where it is in it, or in an aggregate of another zone.
func (c *Compute) AddAggregateHost(tx *store.Tx, number, name string) (*model.Aggregate, error) {
	return c.changeAggregate(tx, number, func(a *model.Aggregate) error {
		h, err := computer(tx, name)
		if err != nil {
			return err
		}
		if slices.Contains(a.Hosts, h.ID) {
			return fault.New(fault.Conflict, "Aggregate %s already has host %s.", number, name)
		}
		if err := otherZone(tx, a, a.Zone, "add host to", h.ID); err != nil {
			return err
		}
		a.Hosts = slices.Sorted(slices.Values(append(slices.Clone(a.Hosts), h.ID)))
		return c.zoned(tx, a.Zone, h.ID)
	})
}

// RemoveAggregateHost takes a host out of an aggregate.
func (c *Compute) RemoveAggregateHost(tx *store.Tx, number, name string) (*model.Aggregate, error) {
	return c.changeAggregate(tx, number, func(a *model.Aggregate) error {
		h, err := computer(tx, name)
		if err != nil {
			return err
		}
		at := slices.Index(a.Hosts, h.ID)
		if at < 0 {
			return fault.New(fault.NotFound, "Aggregate %s has no host %s.", number, name)
		}
		a.Hosts = slices.Delete(slices.Clone(a.Hosts), at, at+1)
		if a.Zone == "" {
			return nil
		}
		return c.zoned(tx, DefaultZone, h.ID)
	})
}

// SetAggregateMetadata lays items over an aggregate's metadata; nil takes an item away. The item
// availability_zone is its zone.
func (c *Compute) SetAggregateMetadata(tx *store.Tx, number string, items map[string]*string) (*model.Aggregate, error) {
	return c.changeAggregate(tx, number, func(a *model.Aggregate) error {
		m := maps.Clone(a.Metadata)
		if m == nil {
			m = map[string]string{}
		}
		for k, v := range items {
			switch {
			case k == zoneKey:
			case v == nil:
				delete(m, k)
			default:
				m[k] = *v
			}
		}
		a.Metadata = m
		z, given := items[zoneKey]
		if !given {
			return nil
		}
		zone := ""
		if z != nil {
			zone = *z
		}
		return c.rezone(tx, a, zone, "update")
	})
}

func (c *Compute) changeAggregate(tx *store.Tx, number string, f func(*model.Aggregate) error) (*model.Aggregate, error) {
	old, err := GetAggregate(tx, number)
	if err != nil {
		return nil, err
	}
	a := *old
	if err := f(&a); err != nil {
		return nil, err
	}
	a.UpdatedAt = c.now()
	return &a, store.Aggregates.Put(tx, &a)
}

// rezone gives an aggregate and its hosts another zone. A zone's servers asked for it by name, so hosts with servers keep theirs.
func (c *Compute) rezone(tx *store.Tx, a *model.Aggregate, zone, what string) error {
	if zone == a.Zone {
		return nil
	}
	for _, h := range a.Hosts {
		for s := range store.Servers.List(tx, "host", h) {
			if s.Zone != "" {
				return fault.New(fault.Invalid, "Cannot %s aggregate %d. Reason: One or more hosts contain instances in this zone.", what, a.Number)
			}
		}
	}
	if err := otherZone(tx, a, zone, what, a.Hosts...); err != nil {
		return err
	}
	a.Zone = zone
	if zone == "" {
		zone = DefaultZone
	}
	return c.zoned(tx, zone, a.Hosts...)
}

// otherZone refuses hosts that an aggregate of another zone has.
func otherZone(r store.Reader, a *model.Aggregate, zone, what string, hosts ...model.ID) error {
	if zone == "" {
		return nil
	}
	for _, h := range hosts {
		for other := range store.Aggregates.List(r, "host", h) {
			if other.ID != a.ID && other.Zone != "" && other.Zone != zone {
				return fault.New(fault.Conflict, "Cannot %s aggregate %d. Reason: One or more hosts already in availability zone(s) ['%s'].", what, a.Number, other.Zone)
			}
		}
	}
	return nil
}

// zoned puts hosts into a zone; "" leaves them where they are.
func (c *Compute) zoned(tx *store.Tx, zone string, hosts ...model.ID) error {
	for _, id := range hosts {
		old, ok := store.Hosts.Get(tx, id)
		if !ok || zone == "" || old.Zone == zone {
			continue
		}
		h := *old
		h.Zone = zone
		h.Touch(c.now())
		if err := store.Hosts.Put(tx, &h); err != nil {
			return err
		}
	}
	return nil
}

// computer gives a host that runs guests, by its name.
func computer(r store.Reader, name string) (*model.Host, error) {
	for h := range store.Hosts.List(r, "name", name) {
		if h.Switch == nil {
			return h, nil
		}
	}
	return nil, fault.New(fault.NotFound, "Compute host %s could not be found.", name)
}
