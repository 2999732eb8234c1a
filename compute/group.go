package compute

import (
	"maps"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// Policies of server groups.
const (
	Affinity         = "affinity"
	AntiAffinity     = "anti-affinity"
	SoftAffinity     = "soft-affinity"
	SoftAntiAffinity = "soft-anti-affinity"
)

// MaxPerHost is the rule of an anti-affine group that says how many of its servers one host may have.
const MaxPerHost = "max_server_per_host"

// GetGroup gives a server group that the scope may see.
func GetGroup(r store.Reader, sc Scope, id model.ID) (*model.ServerGroup, error) {
	g, ok := store.ServerGroups.Get(r, id)
	if !ok || !sc.Owns(g.ProjectID) {
		return nil, fault.New(fault.NotFound, "Instance group %s could not be found.", id)
	}
	return g, nil
}

// NewGroup is what a request wants of a server group.
type NewGroup struct {
	Name, Policy string
	Rules        map[string]int
}

// CreateGroup makes a server group.
//
// Errors: fault.Invalid for rules of another policy than anti-affinity; fault.OverQuota (server_groups).
func (c *Compute) CreateGroup(tx *store.Tx, sc Scope, n NewGroup) (*model.ServerGroup, error) {
	if len(n.Rules) > 0 && n.Policy != AntiAffinity {
		return nil, fault.New(fault.Invalid, "Only anti-affinity policy supports rules.")
	}
	if limit := c.Quota(tx, sc.ProjectID)[QuotaServerGroups]; limit >= 0 {
		if store.ServerGroups.Count(tx, "project", sc.ProjectID) >= limit {
			return nil, fault.New(fault.OverQuota, "Quota exceeded, too many server groups.")
		}
		mark := "quota,server_groups," + sc.ProjectID
		tx.Mark(mark)
		tx.Guard(mark)
	}
	g := &model.ServerGroup{ID: model.NewID(), ProjectID: sc.ProjectID, UserID: sc.UserID, Name: n.Name, Policy: n.Policy, Rules: maps.Clone(n.Rules), CreatedAt: c.now()}
	return g, store.ServerGroups.Put(tx, g)
}

// DeleteGroup removes a server group. Its servers stay where they are, and are of no group.
func (c *Compute) DeleteGroup(tx *store.Tx, sc Scope, id model.ID) error {
	if _, err := GetGroup(tx, sc, id); err != nil {
		return err
	}
	return store.ServerGroups.Delete(tx, id)
}

// Members gives the ids of a group's servers.
func Members(r store.Reader, group model.ID) []model.ID {
	out := []model.ID{}
	for s := range store.Servers.List(r, "group", group) {
		if !s.Deleted {
			out = append(out, s.ID)
		}
	}
	return out
}

// Join makes sure that n more servers may be made in a group of the project.
//
// Errors: fault.Invalid where there is no such group; fault.OverQuota (server_group_members).
func (c *Compute) Join(tx *store.Tx, sc Scope, group model.ID, n int) error {
	g, err := GetGroup(tx, sc, group)
	if err != nil || g.ProjectID != sc.ProjectID {
		return fault.New(fault.Invalid, "Instance group %s could not be found.", group)
	}
	limit := c.Quota(tx, g.ProjectID)[QuotaGroupMembers]
	if limit < 0 {
		return nil
	}
	if len(Members(tx, group))+n > limit {
		return fault.New(fault.OverQuota, "Quota exceeded, too many servers in group")
	}
	mark := "quota,server_group_members," + group
	tx.Mark(mark)
	tx.Guard(mark)
	return nil
}
