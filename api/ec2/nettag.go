package ec2

import (
	"iter"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"yakumo/api"
	"yakumo/fault"
	"yakumo/model"
	"yakumo/network"
	"yakumo/store"
)

// Network's things have tags without values: an EC2 tag is one of the form key=value. Tags that begin with ownTags are what this dialect keeps
// of a thing; EC2's users do not see them.
const ownTags = "ec2:"

// maxNetTag is how long a tag of network's things may be, in characters.
const maxNetTag = 255

// netTags gives the EC2 tags of one of network's things; withName: its name is one of them.
func netTags(m *model.Meta, withName bool) map[string]string {
	out := map[string]string{}
	for _, t := range m.Tags {
		if !strings.HasPrefix(t, ownTags) {
			k, v, _ := strings.Cut(t, "=")
			out[k] = v
		}
	}
	if withName && m.Name != "" {
		out[nameTag] = m.Name
	}
	return out
}

// plainTags writes EC2 tags as network keeps them.
func plainTags(tags map[string]string) ([]string, error) {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(tags)) {
		t := k
		if tags[k] != "" {
			t += "=" + tags[k]
		}
		switch {
		case strings.HasPrefix(k, ownTags) || strings.Contains(k, "="):
			return nil, badValue("Tag key '%s' is invalid: keys of network's things begin with no '%s' and have no '='.", api.Clip(k), ownTags)
		case utf8.RuneCountInString(t) > maxNetTag:
			return nil, badValue("The tag '%s' is too long: key and value have at most %d characters together.", api.Clip(k), maxNetTag-1)
		}
		out = append(out, t)
	}
	return out, nil
}

// netTagSpec gives the tags that a new thing of the network's is to have, and how that keeps them.
func (q *request) netTagSpec(resource string) (tags map[string]string, plain []string, err error) {
	if tags, err = q.tagSpec(resource); err != nil {
		return nil, nil, err
	}
	plain, err = plainTags(tags)
	return tags, plain, err
}

// ownTag gives the value of a tag of this dialect's own; the name ends with "=" where it has a value.
func ownTag(m *model.Meta, name string) (string, bool) {
	for _, t := range m.Tags {
		if v, ok := strings.CutPrefix(t, name); ok && (strings.HasSuffix(name, "=") || v == "") {
			return v, true
		}
	}
	return "", false
}

// retag gives the tags of a row that has others for EC2's users: what is this dialect's own stays.
func retag(m *model.Meta, tags map[string]string) ([]string, error) {
	out, err := plainTags(tags)
	for _, t := range m.Tags {
		if strings.HasPrefix(t, ownTags) {
			out = append(out, t)
		}
	}
	return out, err
}

// netLabels are how the tags of one kind of network's things are kept. rename nil: it has no name that is a tag.
func netLabels[T any](d *dialect, resource string, k kind, t *store.Table[T], tagged network.Tagged, meta func(*T) *model.Meta, shown func(*request, store.Reader, *T) bool,
	rename func(*store.Tx, network.Scope, model.ID, *string) error) labels {
	return labels{resource: resource,
		all: func(q *request, r store.Reader) iter.Seq2[string, map[string]string] {
			return func(yield func(string, map[string]string) bool) {
				for row := range t.List(r, "project", q.Caller.ProjectID) {
					if shown(q, r, row) && !yield(k.id(meta(row).ID), netTags(meta(row), rename != nil)) {
						return
					}
				}
			}
		},
		change: func(q *request, tx *store.Tx, id string, f func(map[string]string) error) error {
			row, err := find(tx, t, k, id, func(x *T) bool { return shown(q, tx, x) })
			if err != nil {
				return err
			}
			m := meta(row)
			tags := netTags(m, rename != nil)
			if err := relabel(tags, f); err != nil {
				return err
			}
			if rename != nil {
				var name string
				if name, tags = named(tags); name != m.Name {
					if err := rename(tx, q.netScope(), m.ID, &name); err != nil {
						return netErrors.of(err)
					}
				}
			}
			list, err := retag(m, tags)
			if err != nil {
				return err
			}
			return recoding{fault.Invalid: "TagLimitExceeded"}.of(d.net.SetTags(tx, q.netScope(), tagged, m.ID, list))
		}}
}

// netErrors are EC2's codes for what package network answers where nothing says it better.
var netErrors = recoding{fault.Invalid: "InvalidParameterValue", fault.NotFound: "InvalidParameterValue", fault.Conflict: "DependencyViolation"}

// networkLabels adds how the tags of network's things are kept.
func (d *dialect) networkLabels(out map[kind]labels) {
	out[groupID] = netLabels(d, "security-group", groupID, store.SecurityGroups, network.TaggedGroups, func(g *model.SecurityGroup) *model.Meta { return &g.Meta },
		func(q *request, _ store.Reader, g *model.SecurityGroup) bool { return q.mine(g.ProjectID) }, nil)
	out[vpcID] = netLabels(d, "vpc", vpcID, store.Routers, network.TaggedRouters, func(r *model.Router) *model.Meta { return &r.Meta },
		func(q *request, r store.Reader, x *model.Router) bool { _, ok := q.vpcIn(r, x); return ok },
		func(tx *store.Tx, sc network.Scope, id model.ID, name *string) error {
			_, err := d.net.UpdateRouter(tx, sc, id, network.RouterSpec{Name: name})
			return err
		})
	out[subnetID] = netLabels(d, "subnet", subnetID, store.Subnets, network.TaggedSubnets, func(s *model.Subnet) *model.Meta { return &s.Meta },
		func(q *request, r store.Reader, s *model.Subnet) bool { _, ok := q.vpcOfSubnet(r, s); return ok },
		func(tx *store.Tx, sc network.Scope, id model.ID, name *string) error {
			_, err := d.net.UpdateSubnet(tx, sc, id, network.SubnetSpec{Name: name})
			return err
		})
	out[allocationID] = netLabels(d, "elastic-ip", allocationID, store.FloatingIPs, network.TaggedFloatingIPs, func(f *model.FloatingIP) *model.Meta { return &f.Meta },
		func(q *request, _ store.Reader, f *model.FloatingIP) bool { return q.mine(f.ProjectID) }, nil)
	out[interfaceID] = netLabels(d, "network-interface", interfaceID, store.Ports, network.TaggedPorts, func(p *model.Port) *model.Meta { return &p.Meta },
		func(q *request, r store.Reader, p *model.Port) bool { return q.isInterface(r, p) },
		func(tx *store.Tx, sc network.Scope, id model.ID, name *string) error {
			_, err := d.net.UpdatePort(tx, sc, id, network.PortSpec{Name: name})
			return err
		})
	d.gatewayLabels(out)
}
