package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"time"

	"yakumo/fault"
	"yakumo/hypervisor"
	"yakumo/model"
)

// try is how often a server has failed in a row at one generation.
type try struct {
	generation int64
	failures   int // of any kind
	counted    int // of those that should not happen
	notBefore  time.Time
}

// errWaiting says that something else has to happen first; whoever does it wakes the server.
var errWaiting = errors.New("waiting")

// wires tells whether a server's ports must be on the host: while the server is, and its
// guest has not been removed.
func (a *Agent) wires(server model.ID) bool {
	p, _ := a.ledger.progressOf(server)
	return a.ledger.server(server) != nil && !p.Unwired
}

// reconcile brings one server a step nearer to what is wanted, as far as it can now, and
// says when to look again, 0 for only when something changes.
func (a *Agent) reconcile(ctx context.Context, id model.ID) time.Duration {
	if a.ledger.Generation() == 0 || !isFileName(id) { // an id names a folder that may be removed
		return 0
	}
	row := a.ledger.server(id)
	var generation int64
	if row != nil {
		generation = row.Generation
	}
	if left := a.pause(id, generation); left > 0 {
		return left
	}
	began := time.Now()
	var err error
	if row == nil || row.Deleted {
		err = a.remove(ctx, id, row)
	} else {
		err = a.converge(ctx, row)
	}
	if ctx.Err() != nil {
		return 0 // interrupted, or the end
	}
	if errors.Is(err, errOvertaken) {
		a.queue.add(id)
		return 0
	}
	a.metrics.reconciled(time.Since(began), err)
	if err == nil || errors.Is(err, errWaiting) {
		if err == nil {
			a.mu.Lock()
			delete(a.tries, id)
			a.mu.Unlock()
		}
		return 0
	}
	return a.failed(id, row, generation, err)
}

// pause gives how long a server that failed is still to be left alone.
func (a *Agent) pause(id model.ID, generation int64) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	t := a.tries[id]
	if t == nil || t.generation != generation {
		return 0
	}
	return time.Until(t.notBefore)
}

// failed decides what becomes of a failure: tried again after a while, or, for a server that
// is wanted and where trying again is of no use, told as its fault.
func (a *Agent) failed(id model.ID, row *model.HostServer, generation int64, err error) time.Duration {
	kind := fault.KindOf(err)
	a.mu.Lock()
	t := a.tries[id]
	if t == nil || t.generation != generation {
		t = &try{generation: generation}
		a.tries[id] = t
	}
	t.failures++
	if kind != fault.Unavailable {
		t.counted++
	}
	pause := a.cfg.Repeat.Min
	for n := 1; n < t.failures && pause < a.cfg.Repeat.Max; n++ {
		pause *= 2
	}
	pause = min(pause, a.cfg.Repeat.Max)
	t.notBefore = time.Now().Add(pause)
	var aside *asideError
	final := (kind == fault.Invalid || t.counted >= a.cfg.Repeat.Limit) && !errors.As(err, &aside)
	a.mu.Unlock()
	log := a.log.With("server", id, "generation", generation, "err", err)
	if row != nil {
		log = log.With("request_id", row.RequestID)
	}
	a.metrics.failed("server")
	if row == nil || row.Deleted || !final {
		log.Warn("a server is not as it should be; it is tried again", "after", pause)
		return pause
	}
	log.Error("a server cannot be as it should be")
	text, ok := fault.Text(err)
	if !ok {
		text = "The server could not be brought into the wanted state on its host."
	}
	now, digest := a.now(), a.ledger.words(row)
	keepErr := a.ledger.note(id, func(p *progress) {
		p.Fault = &model.Fault{Code: 500, Message: text, Details: err.Error(), At: now}
		if p.Phase == model.PhaseFetching || p.Phase == model.PhaseStarting {
			endStep(p, map[model.Phase]model.Step{model.PhaseFetching: model.StepFetch, model.PhaseStarting: model.StepStart}[p.Phase], now, text)
		}
		p.Phase, p.Generation, p.Words = model.PhaseError, generation, digest
		// What was asked for and failed is not done again behind the user's back.
		p.Reboots, p.Hard = max(p.Reboots, row.Reboots), max(p.Hard, row.HardReboots)
	})
	if keepErr != nil {
		a.log.Error("a server's fault cannot be kept", "server", id, "err", keepErr)
		return pause
	}
	a.report(id)
	return 0
}

// retry has everything that failed tried again at once: what it needed may be back.
func (a *Agent) retry() {
	a.mu.Lock()
	ids := make([]model.ID, 0, len(a.tries))
	for id, t := range a.tries {
		t.notBefore = time.Time{}
		ids = append(ids, id)
	}
	a.mu.Unlock()
	for _, id := range ids {
		a.queue.add(id)
	}
}

func (a *Agent) now() time.Time { return a.cfg.Now().UTC() }

// words is a digest of what a row says beside its power: a generation that changes only
// words is no wish to start a guest that has gone off by itself.
func words(row *model.HostServer) string {
	r := *row
	r.Generation, r.RequestID, r.Power, r.Reboots, r.HardReboots, r.ObservedReboots, r.ObservedHard = 0, "", "", 0, 0, 0, 0
	if slices.ContainsFunc(r.Volumes, func(d model.HostDisk) bool { return d.To != nil }) {
		r.Volumes = slices.Clone(r.Volumes)
		for i := range r.Volumes {
			r.Volumes[i].To = nil
		}
	}
	r.ObservedRebuilds, r.ObservedRescue, r.Sealed, r.SealedClears, r.VendorData, r.LeaseSeconds = 0, 0, "", 0, nil, 0
	b, err := json.Marshal(r)
	if err != nil {
		return "" // not possible: it came as JSON
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:8])
}

// begin gives the progress of a server that the host is told of for the first time.
func (a *Agent) begin(row *model.HostServer, power hypervisor.Power) progress {
	p := progress{Phase: model.PhaseFetching, Blob: row.Image.BlobID, Reboots: row.ObservedReboots, Hard: row.ObservedHard}
	if _, err := os.Stat(filepath.Join(a.dir(row.ID), a.diskFile())); err == nil {
		// The ledger was lost, the disk was not: progress is on disk before a disk is made.
		p.Phase, p.Disk = model.PhaseReady, true
		p.Started, p.BootID = power == hypervisor.Running || power == hypervisor.Paused || power == hypervisor.Suspended, a.cfg.BootID
		p.Rebuilds = row.ObservedRebuilds
	}
	if _, err := os.Stat(filepath.Join(a.dir(row.ID), rescueFile)); err == nil {
		p.Rescue = &model.Rescue{Revision: row.ObservedRescue}
		if row.Rescue != nil && row.Rescue.Revision == row.ObservedRescue {
			p.Rescue = row.Rescue
		}
	}
	return p
}

// converge makes a server that is wanted be as wanted.
func (a *Agent) converge(ctx context.Context, row *model.HostServer) error {
	power, known := a.guests.state(row.ID)
	if !known {
		return errWaiting // the first list wakes it
	}
	p, ok := a.ledger.progressOf(row.ID)
	if !ok || p.Unwired {
		// Unwired: it was taken away from this host and has come back.
		if ok {
			if err := a.remove(ctx, row.ID, nil); err != nil {
				return err
			}
			power = hypervisor.Absent
		}
		p = a.begin(row, power)
		if err := a.keep(row.ID, &p); err != nil {
			return err
		}
		a.ports.look(a.portRows(row.ID, row))
	}
	if p.Frozen {
		a.thaws.add(row.ID)
	}
	if err := a.cpus.adopt(ctx, row, &p, power); err != nil {
		return err
	}
	if off := power == hypervisor.Off || power == hypervisor.Crashed; off && row.Power != model.PowerOff && p.Phase != model.PhaseError && (p.Cut || a.leases.lapsed(row.ID)) {
		// Not the guest's own wish: it is to be begun again.
		p.Started, p.Power = false, model.PowerOff
		if p.Phase == model.PhaseReady {
			p.Phase = model.PhaseStarting
		}
		if err := a.keep(row.ID, &p); err != nil {
			return err
		}
	}
	if p.Reopening && row.Power == model.PowerRunning && power == hypervisor.Paused {
		if err := a.regrow(ctx, row, &p, power); err != nil {
			return err
		}
		power = hypervisor.Running
	}
	if len(p.Elsewhere) > 0 || slices.ContainsFunc(row.Volumes, func(d model.HostDisk) bool { return d.To != nil }) {
		var err error
		if power, err = a.relocate(ctx, row, &p, power); err != nil {
			return err
		}
	}
	if row.Move != nil {
		if alone, err := a.moves.step(ctx, row, &p, power); alone || err != nil {
			return err
		}
	} else if err := a.moves.rest(ctx, row.ID, row, &p, power); err != nil {
		return err
	}
	if p.Phase == model.PhaseError && p.Generation == row.Generation {
		if power == hypervisor.Absent {
			return a.keep(row.ID, &p) // there is no guest yet to have a power
		}
		return a.observe(row.ID, &p, power)
	}
	if !p.Disk {
		if err := a.fetch(ctx, row, &p); err != nil {
			return err
		}
	}
	if err := a.rebuild(ctx, row, &p, &power); err != nil {
		return err
	}
	if err := a.rescue(ctx, row, &p, &power); err != nil {
		return err
	}
	if p.Phase != model.PhaseReady && p.Phase != model.PhaseStarting {
		p.Phase, p.Fault = model.PhaseStarting, nil
		beginStep(&p, model.StepStart, a.now())
		if err := a.keep(row.ID, &p); err != nil {
			return err
		}
	}
	a.decideStart(row, &p, power)
	power, err := a.bringPower(ctx, row, &p, power)
	if err != nil {
		return err
	}
	if p.Phase != model.PhaseReady {
		endStep(&p, model.StepStart, a.now(), "")
		if row.Power == model.PowerRunning {
			beginStep(&p, model.StepUse, a.now())
		}
	}
	if p.Phase != model.PhaseReady || p.Generation != row.Generation {
		p.Fault = nil // else it is of what is done beside
	}
	p.Phase, p.Generation, p.Words, p.Wanted = model.PhaseReady, row.Generation, a.ledger.words(row), row.Power
	p.Reboots, p.Hard = max(p.Reboots, row.Reboots), max(p.Hard, row.HardReboots)
	if power != hypervisor.Running && power != hypervisor.Paused && power != hypervisor.Suspended {
		p.NICs, p.Disks, p.Plugging, p.Fault = nicIDs(row), volumeIDs(row), nil, nil // its next start takes them
	}
	a.moves.settled(row, &p)
	if err := a.observe(row.ID, &p, power); err != nil {
		return err
	}
	return a.beside(ctx, row, &p, power)
}

// bringPower makes a guest have the power that is wanted, by way of the reboots that are. It gives the power that it
// has then: one that is off where it should be held was not put off by us, and stays so.
func (a *Agent) bringPower(ctx context.Context, row *model.HostServer, p *progress, power hypervisor.Power) (hypervisor.Power, error) {
	on := power == hypervisor.Running || power == hypervisor.Paused
	hard, soft := row.HardReboots > p.Hard, row.Reboots > p.Reboots
	var err error
	switch {
	case row.Power == model.PowerOff: // a reboot of what is to be off is served by that
		if on || power == hypervisor.Suspended {
			power, err = a.stop(ctx, row.ID, a.cfg.Grace)
		}
		p.Started = false
	case hard:
		if p.StoppedHard < row.HardReboots {
			if power, err = a.stop(ctx, row.ID, 0); err != nil {
				return power, err
			}
			p.StoppedHard = row.HardReboots
			if err = a.keep(row.ID, p); err != nil {
				return power, err
			}
		}
		power, err = a.start(ctx, row, p)
	case soft && on || soft && p.StoppedSoft >= row.Reboots || soft && power == hypervisor.Crashed:
		if p.StoppedSoft < row.Reboots {
			if power, err = a.stop(ctx, row.ID, a.cfg.Grace); err != nil {
				return power, err
			}
			p.StoppedSoft = row.Reboots
			if err = a.keep(row.ID, p); err != nil {
				return power, err
			}
		}
		power, err = a.start(ctx, row, p)
	case row.Power == model.PowerRunning && !p.Started && power != hypervisor.Running:
		power, err = a.start(ctx, row, p)
	default:
		if row.Power == model.PowerRunning {
			p.Started = true
		}
		if on && p.BootID != a.cfg.BootID {
			p.BootID = a.cfg.BootID
		}
	}
	if err != nil {
		return power, err
	}
	return a.holdGuest(ctx, row, power)
}

// decideStart forgets that the wish to run was served, where it is wished anew: by a new
// generation that is about power, because the host itself was started anew since and the guest
// ran before, or because the hypervisor knows nothing of the guest any more.
func (a *Agent) decideStart(row *model.HostServer, p *progress, power hypervisor.Power) {
	if !p.Started || power == hypervisor.Running || row.Power != model.PowerRunning {
		return
	}
	asked := row.Generation > p.Generation && (a.ledger.words(row) == p.Words || row.Generation-p.Generation > 1 || p.Wanted != "" && p.Wanted != row.Power)
	hostStarted := p.BootID != a.cfg.BootID && p.Power == model.PowerRunning
	if asked || hostStarted || power == hypervisor.Absent || p.Phase != model.PhaseReady {
		p.Started = false
	}
}

// observe keeps and reports a server's progress with the power seen now.
func (a *Agent) observe(id model.ID, p *progress, power hypervisor.Power) error {
	p.Power = powerOf(power)
	return a.keep(id, p)
}

func powerOf(p hypervisor.Power) model.Power {
	switch p {
	case hypervisor.Running:
		return model.PowerRunning
	case hypervisor.Paused:
		return model.PowerPaused
	case hypervisor.Suspended:
		return model.PowerSuspended
	case hypervisor.Crashed:
		return model.PowerCrashed
	}
	return model.PowerOff
}

// keep saves and reports progress where it is new; see ledger.save.
func (a *Agent) keep(id model.ID, p *progress) error {
	old, ok := a.ledger.progressOf(id)
	if !ok || !reflect.DeepEqual(&old, p) {
		if err := a.ledger.save(id, p); err != nil {
			return err
		}
	}
	a.report(id)
	return nil
}

// fetch gets the image and makes the disk.
func (a *Agent) fetch(ctx context.Context, row *model.HostServer, p *progress) error {
	p.Phase, p.Fault, p.Blob = model.PhaseFetching, nil, row.Image.BlobID
	beginStep(p, model.StepFetch, a.now())
	if err := a.keep(row.ID, p); err != nil {
		return err
	}
	if ownRoot(row) {
		if err := a.freshDisk(ctx, row); err != nil {
			return err
		}
	}
	now := a.now()
	endStep(p, model.StepFetch, now, "")
	p.Disk, p.Rebuilds, p.Phase = true, row.Rebuilds, model.PhaseStarting
	p.NICs, p.Disks = nicIDs(row), volumeIDs(row) // what it starts with
	beginStep(p, model.StepStart, now)
	return a.keep(row.ID, p)
}
