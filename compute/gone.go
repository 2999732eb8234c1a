package compute

import (
	"cmp"
	"slices"

	"yakumo/model"
	"yakumo/store"
)

// remember keeps what an administrator is told of a server that is gone: no secret of its, and nothing that it held; and what
// its project is measured by.
func (c *Compute) remember(tx *store.Tx, s *model.Server) error {
	s.Status.Phase, s.Status.Power, s.Status.TerminatedAt, s.UpdatedAt = model.PhaseGone, model.PowerOff, c.now(), c.now()
	if u := model.UsageOf(s); u != nil {
		if err := store.ServerUsages.Put(tx, u); err != nil {
			return err
		}
	}
	s.UserData, s.PublicKey, s.Sealed, s.AdminPass, s.Ports, s.PortTags, s.Plugging, s.Volumes, s.Saving = "", "", "", nil, nil, nil, nil, nil, nil
	s.Rescue, s.Move, s.Hints, s.GroupID = nil, nil, nil, ""
	return store.GoneServers.Put(tx, s)
}

// maxGone is how many servers that are gone are remembered at most, whatever their age.
const maxGone = 10_000

// forgotten gives the ids of servers that were gone too long ago, or are too many.
func (p *Sweeper) forgotten(snap store.Snapshot) []model.ID {
	horizon := p.c.now().Add(-p.c.cfg.KeepActions)
	var all []*model.Server
	for s := range store.GoneServers.All(snap) {
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b *model.Server) int {
		return cmp.Or(b.Status.TerminatedAt.Compare(a.Status.TerminatedAt), cmp.Compare(a.ID, b.ID))
	})
	var out []model.ID
	for i, s := range all {
		if i >= maxGone || s.Status.TerminatedAt.Before(horizon) {
			out = append(out, s.ID)
		}
	}
	return out
}
