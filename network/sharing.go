package network

import (
	"iter"
	"slices"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// shareable is a kind of object that policies can be about.
type shareable struct {
	actions []string
	// find gives the object that the scope sees.
	find func(r store.Reader, sc Scope, id model.ID) (*model.Meta, error)
	// write puts the object with whom it is shared with, and whom it is the outside for.
	write func(tx *store.Tx, id model.ID, shared, outside []model.ID) error
	// users gives the projects that use the object, some more than once; what they put there they
	// marked with mark.
	users func(r store.Reader, id model.ID, action string) iter.Seq[model.ID]
	mark  func(id model.ID) string
}

// shareables gives the kinds, by the API's names.
func (n *Network) shareables() map[string]shareable {
	plain := []string{model.AccessShared}
	return map[string]shareable{
		model.ObjectNetwork: {
			actions: []string{model.AccessShared, model.AccessExternal},
			find:    found(n.GetNetwork, func(w *model.Network) *model.Meta { return &w.Meta }),
			write: func(tx *store.Tx, id model.ID, shared, outside []model.ID) error {
				return rewrite(tx, store.Networks, id, func(w *model.Network) {
					w.SharedWith, w.ExternalTo = shared, outside
					w.Shared, w.External = w.Open(), len(outside) > 0
					w.Touch(n.now())
				})
			},
			users: networkUsers, mark: networkMark,
		},
		model.ObjectSecurityGroup: {
			actions: plain, find: found(n.GetGroup, func(g *model.SecurityGroup) *model.Meta { return &g.Meta }),
			write: writeShared(n, store.SecurityGroups, func(g *model.SecurityGroup) (*model.Meta, *model.Sharing) { return &g.Meta, &g.Sharing }),
			users: groupUsers, mark: groupMark,
		},
		model.ObjectSubnetPool: {
			actions: plain, find: found(n.GetSubnetPool, func(p *model.SubnetPool) *model.Meta { return &p.Meta }),
			write: writeShared(n, store.SubnetPools, func(p *model.SubnetPool) (*model.Meta, *model.Sharing) { return &p.Meta, &p.Sharing }),
			users: func(r store.Reader, id model.ID, _ string) iter.Seq[model.ID] {
				return func(yield func(model.ID) bool) {
					for s := range cut(r, id) {
						if !yield(s.ProjectID) {
							return
						}
					}
				}
			}, mark: poolMark,
		},
		model.ObjectAddressScope: {
			actions: plain, find: found(n.GetAddressScope, func(a *model.AddressScope) *model.Meta { return &a.Meta }),
			write: writeShared(n, store.AddressScopes, func(a *model.AddressScope) (*model.Meta, *model.Sharing) { return &a.Meta, &a.Sharing }),
			users: usersOf(store.SubnetPools, "scope", func(p *model.SubnetPool) *model.Meta { return &p.Meta }), mark: scopeMark,
		},
		model.ObjectAddressGroup: {
			actions: plain, find: found(n.GetAddressGroup, func(g *model.AddressGroup) *model.Meta { return &g.Meta }),
			write: writeShared(n, store.AddressGroups, func(g *model.AddressGroup) (*model.Meta, *model.Sharing) { return &g.Meta, &g.Sharing }),
			users: usersOf(store.SecurityRules, "address_group", func(x *model.SecurityRule) *model.Meta { return &x.Meta }), mark: addressesMark,
		},
		model.ObjectQoSPolicy: {
			actions: plain, find: found(n.GetQoSPolicy, func(p *model.QoSPolicy) *model.Meta { return &p.Meta }),
			write: writeShared(n, store.QoSPolicies, func(p *model.QoSPolicy) (*model.Meta, *model.Sharing) { return &p.Meta, &p.Sharing }),
			users: qosUsers, mark: qosMark,
		},
	}
}

func found[T any](get func(store.Reader, Scope, model.ID) (*T, error), meta func(*T) *model.Meta) func(store.Reader, Scope, model.ID) (*model.Meta, error) {
	return func(r store.Reader, sc Scope, id model.ID) (*model.Meta, error) {
		row, err := get(r, sc, id)
		if err != nil {
			return nil, err
		}
		return meta(row), nil
	}
}

// rewrite changes a copy of a row that is there.
func rewrite[T any](tx *store.Tx, t *store.Table[T], id model.ID, change func(*T)) error {
	old, ok := t.Get(tx, id)
	if !ok {
		return nil
	}
	row := *old
	change(&row)
	return t.Put(tx, &row)
}

func writeShared[T any](n *Network, t *store.Table[T], parts func(*T) (*model.Meta, *model.Sharing)) func(*store.Tx, model.ID, []model.ID, []model.ID) error {
	return func(tx *store.Tx, id model.ID, shared, _ []model.ID) error {
		return rewrite(tx, t, id, func(row *T) {
			meta, sharing := parts(row)
			sharing.SharedWith = shared
			meta.Touch(n.now())
		})
	}
}

// networkUsers gives the projects of a network's ports, or of the routers whose outside it is.
func networkUsers(r store.Reader, id model.ID, action string) iter.Seq[model.ID] {
	return func(yield func(model.ID) bool) {
		if action == model.AccessExternal {
			for x := range store.Routers.List(r, "network", id) {
				if !yield(x.ProjectID) {
					return
				}
			}
			return
		}
		for p := range store.Ports.List(r, "network", id) {
			// What routers have outside needs no sharing.
			if p.DeviceOwner != model.OwnerRouterGateway && p.DeviceOwner != model.OwnerFloatingIP && !yield(p.ProjectID) {
				return
			}
		}
	}
}

// usersOf gives the projects of the rows that the index finds under the object's id.
func usersOf[T any](t *store.Table[T], index string, meta func(*T) *model.Meta) func(store.Reader, model.ID, string) iter.Seq[model.ID] {
	return func(r store.Reader, id model.ID, _ string) iter.Seq[model.ID] {
		return func(yield func(model.ID) bool) {
			for row := range t.List(r, index, id) {
				if !yield(meta(row).ProjectID) {
					return
				}
			}
		}
	}
}

// groupUsers gives the projects of a group's members, and of the rules that refer to it.
func groupUsers(r store.Reader, id model.ID, _ string) iter.Seq[model.ID] {
	return func(yield func(model.ID) bool) {
		for p := range store.Ports.List(r, "group", id) {
			if !yield(p.ProjectID) {
				return
			}
		}
		for x := range store.SecurityRules.List(r, "remote", id) {
			if !yield(x.ProjectID) {
				return
			}
		}
	}
}

// targets gives whom the policies that are there now let do the action with the object, sorted.
func targets(r store.Reader, id model.ID, action string) []model.ID {
	var out []model.ID
	for p := range store.RBACPolicies.List(r, "object", id) {
		if p.Action == action {
			out = append(out, p.Target)
		}
	}
	slices.Sort(out)
	return out
}

// resync writes into the object's row what its policies say now.
func (n *Network) resync(tx *store.Tx, kind string, id model.ID) error {
	return n.shareables()[kind].write(tx, id, targets(tx, id, model.AccessShared), targets(tx, id, model.AccessExternal))
}

// unused refuses that policies went, where a project needs them. The policies are gone
// already in this transaction.
func (n *Network) unused(tx *store.Tx, p *model.RBACPolicy) error {
	s := n.shareables()[p.ObjectType]
	owner, err := s.find(tx, Scope{Admin: true}, p.ObjectID)
	if err != nil {
		return nil // it needs no policy any more
	}
	tx.Guard(s.mark(p.ObjectID))
	left := model.Sharing{SharedWith: targets(tx, p.ObjectID, p.Action)}
	for user := range s.users(tx, p.ObjectID, p.Action) {
		if user != owner.ProjectID && !left.With(user) {
			return fault.Coded(fault.Conflict, "RbacPolicyInUse", "RBAC policy on object %s cannot be removed because other objects depend on it. Details: the project %s uses the %s.", p.ObjectID, user, p.ObjectType)
		}
	}
	return nil
}

// unshare removes the policies of an object that goes.
func unshare(tx *store.Tx, id model.ID) error {
	for _, p := range slices.Collect(store.RBACPolicies.List(tx, "object", id)) {
		if err := store.RBACPolicies.Delete(tx, p.ID); err != nil {
			return err
		}
	}
	return nil
}

// open makes, or removes, the policy that an object is for everybody. The object's row is
// not written: has is what it is to hold.
func (n *Network) open(tx *store.Tx, m *model.Meta, kind, action string, want bool, has *[]model.ID) error {
	p := &model.RBACPolicy{Meta: model.NewMeta(m.ProjectID, "", n.now()), ObjectType: kind, ObjectID: m.ID, Action: action, Target: model.Everybody}
	holder, held := store.RBACPolicies.Holder(tx, p.Meaning())
	switch {
	case want && !held:
		if err := store.RBACPolicies.Put(tx, p); err != nil {
			return err
		}
	case !want && held:
		if err := store.RBACPolicies.Delete(tx, holder); err != nil {
			return err
		}
	}
	*has = targets(tx, m.ID, action)
	return nil
}

// openNetwork brings the policies of a network, which is about to be written, in line with
// its Shared and External. old: as it was; nil: it is new.
func (n *Network) openNetwork(tx *store.Tx, old, w *model.Network) error {
	if err := n.open(tx, &w.Meta, model.ObjectNetwork, model.AccessShared, w.Shared, &w.SharedWith); err != nil {
		return err
	}
	if old != nil && old.Shared && !w.Shared {
		p := &model.RBACPolicy{ObjectType: model.ObjectNetwork, ObjectID: w.ID, Action: model.AccessShared}
		if n.unused(tx, p) != nil {
			return fault.Coded(fault.Conflict, "InvalidSharedSetting", "Unable to reconfigure sharing settings for network %s. Multiple tenants are using it.", old.Name)
		}
	}
	was := old != nil && old.External
	switch {
	case w.External == was:
		return nil // some may have it as their outside, some not: policies say so
	case !w.External:
		for _, p := range slices.Collect(store.RBACPolicies.List(tx, "object", w.ID)) {
			if p.Action == model.AccessExternal {
				if err := store.RBACPolicies.Delete(tx, p.ID); err != nil {
					return err
				}
			}
		}
		w.ExternalTo = nil
		return nil
	}
	return n.open(tx, &w.Meta, model.ObjectNetwork, model.AccessExternal, true, &w.ExternalTo)
}
