package agent

import (
	"reflect"
	"time"

	"yakumo/model"
)

// alive notes a guest's first sign of life.
func (a *Agent) alive(id model.ID) {
	p, ok := a.ledger.progressOf(id)
	if use := stepOf(p.Steps, model.StepUse); !ok || use == nil || !use.FinishedAt.IsZero() {
		return
	}
	if err := a.ledger.note(id, func(p *progress) { endStep(p, model.StepUse, a.now(), "") }); err != nil {
		a.log.Error("a guest's sign of life cannot be kept", "server", id, "err", err)
		return
	}
	a.queue.add(id)
}

func stepOf(steps []model.StepAt, s model.Step) *model.StepAt {
	for i := range steps {
		if steps[i].Step == s {
			return &steps[i]
		}
	}
	return nil
}

// beginStep starts a step's time, once.
func beginStep(p *progress, s model.Step, at time.Time) {
	if old := stepOf(p.Steps, s); old != nil && old.Error == "" {
		return
	}
	p.Steps = append(without(p.Steps, s), model.StepAt{Step: s, StartedAt: at})
}

// endStep ends a step's time, once.
func endStep(p *progress, s model.Step, at time.Time, problem string) {
	old := stepOf(p.Steps, s)
	if old == nil || !old.FinishedAt.IsZero() {
		return
	}
	done := *old
	done.FinishedAt, done.Error = at, problem
	p.Steps = append(without(p.Steps, s), done)
}

// without copies steps but one: progress is shared.
func without(steps []model.StepAt, s model.Step) []model.StepAt {
	var out []model.StepAt
	for _, x := range steps {
		if x.Step != s {
			out = append(out, x)
		}
	}
	return out
}

// reportOf makes the report of a server's progress.
func (a *Agent) reportOf(id model.ID, p progress) model.ServerReport {
	r := model.ServerReport{
		ServerID: id, Generation: p.Generation, Phase: p.Phase, Power: p.Power, Reboots: p.Reboots, Hard: p.Hard,
		Lease: a.leases.holds(id), Gone: p.Gone, Fault: p.Fault, Rebuilds: p.Rebuilds, Saved: p.Saved, Disks: p.Disks, NICs: p.NICs, Move: p.Move, Sealed: p.Sealed, SealedClears: p.SealedClears,
	}
	r.Elsewhere = elsewhereOf(p)
	if p.Rescue != nil {
		r.Rescue = p.Rescue.Revision
	}
	if row := a.ledger.server(id); row != nil && p.Generation == 0 {
		r.Generation = row.Generation // on the way to it
	}
	for _, s := range p.Steps {
		if !s.FinishedAt.IsZero() {
			r.Steps = append(r.Steps, s)
		}
	}
	return r
}

// report sends what a server has come to, where that is new. Several may, and the last that is sent is the newest.
func (a *Agent) report(id model.ID) {
	a.telling.Lock()
	defer a.telling.Unlock()
	p, ok := a.ledger.progressOf(id)
	if !ok {
		return
	}
	r := a.reportOf(id, p)
	a.mu.Lock()
	old := a.sent[id]
	old.At = time.Time{}
	if reflect.DeepEqual(old, r) {
		a.mu.Unlock()
		return
	}
	r.At = a.now()
	a.sent[id] = r
	a.mu.Unlock()
	a.link.Report([]model.ServerReport{r}, nil)
}
