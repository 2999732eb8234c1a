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
	TaggedQoS         Tagged = "policies"
	TaggedTrunks      Tagged = "trunks"
	TaggedPools       Tagged = "subnetpools"
)

// taggable is how a kind is read and written.
type taggable struct {
	tags func(r store.Reader, sc Scope, id model.ID) ([]string, error)
	put  func(tx *store.Tx, sc Scope, id model.ID, change func(*model.Meta) error) error
}

func taggableOf[T any](t *store.Table[T], get func(store.Reader, Scope, model.ID) (*T, error), meta func(*T) *model.Meta) taggable {
	return taggable{
		tags: func(r store.Reader, sc Scope, id model.ID) ([]string, error) {
			row, err := get(r, sc, id)
			if err != nil {
				return nil, err
			}
			return meta(row).Tags, nil
		},
		put: func(tx *store.Tx, sc Scope, id model.ID, change func(*model.Meta) error) error {
			old, err := get(tx, sc, id)
			if err != nil {
				return err
			}
			row := *old
			if err := change(meta(&row)); err != nil {
				return err
			}
			return t.Put(tx, &row)
		},
	}
}

// taggables gives the kinds that have tags.
func (n *Network) taggables() map[Tagged]taggable {
	return map[Tagged]taggable{
		TaggedNetworks:    taggableOf(store.Networks, n.GetNetwork, func(r *model.Network) *model.Meta { return &r.Meta }),
		TaggedSubnets:     taggableOf(store.Subnets, n.GetSubnet, func(r *model.Subnet) *model.Meta { return &r.Meta }),
		TaggedPorts:       taggableOf(store.Ports, n.GetPort, func(r *model.Port) *model.Meta { return &r.Meta }),
		TaggedGroups:      taggableOf(store.SecurityGroups, n.GetGroup, func(r *model.SecurityGroup) *model.Meta { return &r.Meta }),
		TaggedRouters:     taggableOf(store.Routers, n.GetRouter, func(r *model.Router) *model.Meta { return &r.Meta }),
		TaggedFloatingIPs: taggableOf(store.FloatingIPs, n.GetFloatingIP, func(r *model.FloatingIP) *model.Meta { return &r.Meta }),
		TaggedTrunks:      taggableOf(store.Trunks, n.GetTrunk, func(r *model.Trunk) *model.Meta { return &r.Meta }),
		TaggedPools:       taggableOf(store.SubnetPools, n.GetSubnetPool, func(r *model.SubnetPool) *model.Meta { return &r.Meta }),
		TaggedQoS:         taggableOf(store.QoSPolicies, n.GetQoSPolicy, func(r *model.QoSPolicy) *model.Meta { return &r.Meta }),
	}
}

// Tags gives the tags of a resource that the scope sees.
func (n *Network) Tags(r store.Reader, sc Scope, kind Tagged, id model.ID) ([]string, error) {
	return n.taggables()[kind].tags(r, sc, id)
}

// SetTags replaces the tags of a resource that the scope owns.
func (n *Network) SetTags(tx *store.Tx, sc Scope, kind Tagged, id model.ID, tags []string) error {
	tags = slices.Clone(tags)
	slices.Sort(tags)
	tags = slices.Compact(tags)
	return n.taggables()[kind].put(tx, sc, id, func(m *model.Meta) error {
		if len(tags) > MaxTags {
			return invalid("a resource has at most %d tags.", MaxTags)
		}
		for _, t := range tags {
			if t == "" || len([]rune(t)) > 255 {
				return fault.Coded(fault.Invalid, "HTTPBadRequest", "Invalid input for tags. Reason: a tag has 1 to 255 characters.")
			}
		}
		if !sc.Owns(m.ProjectID) {
			return forbidden("another project's tags")
		}
		m.Tags = tags
		m.Touch(n.now())
		return nil
	})
}
