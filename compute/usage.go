package compute

import (
	"cmp"
	"slices"
	"time"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// maxUsages is how many usages of servers that are gone are kept at most, whatever their age.
const maxUsages = 100_000

// Measured is a server that was there in a period.
type Measured struct {
	*model.ServerUsage
	State string // Nova's vm_state; terminated for one that is gone
}

// Measure gives the servers that were there between from and to, of a project or, as "", of all: by project, then by id. What a server has is
// what its flavor says at the end; a resize counts for its whole life, as in Nova.
func Measure(r store.Reader, sc Scope, project model.ID, from, to time.Time) ([]Measured, error) {
	if !sc.Admin && (project == "" || !sc.Owns(project)) {
		return nil, fault.New(fault.Forbidden, "Policy doesn't allow os_compute_api:os-simple-tenant-usage:show to be performed.")
	}
	var out []Measured
	take := func(u *model.ServerUsage, state string) {
		if u != nil && u.StartedAt.Before(to) && (u.EndedAt.IsZero() || u.EndedAt.After(from)) {
			out = append(out, Measured{u, state})
		}
	}
	index, prefix := "newest", ""
	if project != "" {
		index, prefix = "project_newest", project+","
	}
	for s := range store.Servers.Prefix(r, index, prefix) {
		take(model.UsageOf(s), State(s))
	}
	gone := store.ServerUsages.All(r)
	if project != "" {
		gone = store.ServerUsages.List(r, "project", project)
	}
	for u := range gone {
		take(u, "terminated")
	}
	slices.SortFunc(out, func(a, b Measured) int {
		return cmp.Or(cmp.Compare(a.ProjectID, b.ProjectID), cmp.Compare(a.ServerID, b.ServerID))
	})
	return out, nil
}

// measured gives the ids of servers whose usage ended too long ago, or is too much to keep.
func (p *Sweeper) measured(snap store.Snapshot) []model.ID {
	horizon := (&model.ServerUsage{EndedAt: p.c.now().Add(-p.c.cfg.KeepUsage)}).EndedKey()
	over := -maxUsages
	for range store.ServerUsages.All(snap) {
		over++
	}
	if over > 0 {
		p.c.log.Warn("more servers are gone than usage is kept of: the oldest are forgotten", "kept", maxUsages, "forgotten", over)
	}
	var out []model.ID
	for u := range store.ServerUsages.Prefix(snap, "ended", "") {
		if len(out) >= over && u.EndedKey() >= horizon {
			break
		}
		out = append(out, u.ServerID)
	}
	return out
}
