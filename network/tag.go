package network

import (
	"slices"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// Tagged names a kind of resource that has tags, as in the paths of the API.
type Tagged string

// The kinds.
const (
	TaggedNetworks    Tagged = "networks"
	TaggedSubnets     Tagged = "subnets"
	TaggedPorts       Tagged = "ports"
	TaggedGroups      Tagged = "security-groups"
	TaggedRouters     Tagged = "routers"
	TaggedFloatingIPs Tagged = "floatingips"
)

// Tags gives the tags of a resource that the scope sees.
func (n *Network) Tags(r store.Reader, sc Scope, kind Tagged, id model.ID) ([]string, error) {
	var m model.Meta
	switch kind {
	case TaggedNetworks:
		w, err := n.GetNetwork(r, sc, id)
		if err != nil {
			return nil, err
		}
		m = w.Meta
	case TaggedSubnets:
		s, err := n.GetSubnet(r, sc, id)
		if err != nil {
			return nil, err
		}
		m = s.Meta
	case TaggedPorts:
		p, err := n.GetPort(r, sc, id)
		if err != nil {
			return nil, err
		}
		m = p.Meta
	case TaggedGroups:
		g, err := n.GetGroup(r, sc, id)
		if err != nil {
			return nil, err
		}
		m = g.Meta
	case TaggedRouters:
		x, err := n.GetRouter(r, sc, id)
		if err != nil {
			return nil, err
		}
		m = x.Meta
	case TaggedFloatingIPs:
		f, err := n.GetFloatingIP(r, sc, id)
		if err != nil {
			return nil, err
		}
		m = f.Meta
	}
	return m.Tags, nil
}

// SetTags replaces the tags of a resource that the scope owns.
func (n *Network) SetTags(tx *store.Tx, sc Scope, kind Tagged, id model.ID, tags []string) error {
	if _, err := n.Tags(tx, sc, kind, id); err != nil {
		return err
	}
	tags = slices.Clone(tags)
	slices.Sort(tags)
	tags = slices.Compact(tags)
	if len(tags) > MaxTags {
		return invalid("a resource has at most %d tags.", MaxTags)
	}
	for _, t := range tags {
		if t == "" || len([]rune(t)) > 255 {
			return fault.Coded(fault.Invalid, "HTTPBadRequest", "Invalid input for tags. Reason: a tag has 1 to 255 characters.")
		}
	}
	retag := func(m *model.Meta) error {
		if !sc.Owns(m.ProjectID) {
			return forbidden("another project's tags")
		}
		m.Tags = tags
		m.Touch(n.now())
		return nil
	}
	switch kind {
	case TaggedNetworks:
		old, _ := store.Networks.Get(tx, id)
		w := *old
		if err := retag(&w.Meta); err != nil {
			return err
		}
		return store.Networks.Put(tx, &w)
	case TaggedSubnets:
		old, _ := store.Subnets.Get(tx, id)
		s := *old
		if err := retag(&s.Meta); err != nil {
			return err
		}
		return store.Subnets.Put(tx, &s)
	case TaggedPorts:
		old, _ := store.Ports.Get(tx, id)
		p := *old
		if err := retag(&p.Meta); err != nil {
			return err
		}
		return store.Ports.Put(tx, &p)
	case TaggedGroups:
		old, _ := store.SecurityGroups.Get(tx, id)
		g := *old
		if err := retag(&g.Meta); err != nil {
			return err
		}
		return store.SecurityGroups.Put(tx, &g)
	case TaggedRouters:
		old, _ := store.Routers.Get(tx, id)
		x := *old
		if err := retag(&x.Meta); err != nil {
			return err
		}
		return store.Routers.Put(tx, &x)
	case TaggedFloatingIPs:
		old, _ := store.FloatingIPs.Get(tx, id)
		f := *old
		if err := retag(&f.Meta); err != nil {
			return err
		}
		return store.FloatingIPs.Put(tx, &f)
	}
	return nil
}
