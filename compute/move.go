package compute

import (
	"slices"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// MoveRequest is what a request wants of a server's move.
type MoveRequest struct {
	// Host is the target that an administrator asks for, by name; "": any.
	Host string
	// Drain: nobody waits for the move, and it is confirmed by itself.
	Drain bool
	// Zone is the availability zone to move to, of which the server is afterwards; "": its own.
	Zone string
	// Off: an evacuated server is off at its new host.
	Off bool
	// AdminPass of an evacuated server is told by its config drive, where it has one.
	AdminPass string
}

// MoveLive moves a running server to another host without stopping it. Disks that both hosts reach are not copied,
// whatever the request says of them.
//
// Errors: fault.NotFound; fault.Conflict for a wrong state, a task or a lock; fault.Invalid for a host that is not there or
// is where the server is.
func (c *Compute) MoveLive(tx *store.Tx, sc Scope, id model.ID, r MoveRequest) (*model.Server, error) {
	return c.change(tx, sc, id, true, func(s *model.Server) error {
		if err := allow(sc, s, "os-migrateLive", []string{Active, Paused}, nil); err != nil {
			return err
		}
		return c.move(tx, sc, s, model.MoveLive, r, nil, "live-migration", TaskMigrating)
	})
}

// Migrate moves a server to another host by turning it off, copying its disks, and turning it on there. The user confirms or
// reverts it.
//
// Errors: as MoveLive's; fault.Conflict for one with a trusted platform module.
func (c *Compute) Migrate(tx *store.Tx, sc Scope, id model.ID, r MoveRequest) (*model.Server, error) {
	return c.change(tx, sc, id, true, func(s *model.Server) error {
		if err := allow(sc, s, "migrate", []string{Active, Stopped}, nil); err != nil {
			return err
		}
		if err := noTPM(s, "migrate"); err != nil {
			return err
		}
		f := s.Flavor
		return c.move(tx, sc, s, model.MoveCold, r, &f, "migrate", TaskResizePrep)
	})
}

// Resize gives a server another flavor, on another host. The user confirms or reverts it.
//
// Errors: as Migrate's; fault.Invalid for the same flavor or one with a smaller disk; fault.OverQuota.
func (c *Compute) Resize(tx *store.Tx, sc Scope, id model.ID, f *model.Flavor) (*model.Server, error) {
	return c.change(tx, sc, id, true, func(s *model.Server) error {
		if err := allow(sc, s, "resize", []string{Active, Stopped}, nil); err != nil {
			return err
		}
		if err := noTPM(s, "resize"); err != nil {
			return err
		}
		if err := c.resizable(tx, s, f); err != nil {
			return err
		}
		n := *f
		n.Access = nil
		return c.move(tx, sc, s, model.MoveResize, MoveRequest{}, &n, "resize", TaskResizePrep)
	})
}

// resizable refuses flavors that a server cannot be made of.
func (c *Compute) resizable(tx *store.Tx, s *model.Server, f *model.Flavor) error {
	old := &s.Flavor
	switch {
	case f.ID == old.ID && f.CreatedAt.Equal(old.CreatedAt):
		return fault.New(fault.Invalid, "When resizing, instances must change flavor!")
	case f.Disabled:
		return fault.New(fault.Invalid, "Flavor %s could not be found.", f.ID)
	case f.DiskGiB == 0 && old.DiskGiB != 0 && !VolumeBacked(s):
		return fault.New(fault.Invalid, "Server disk was unable to be resized because: Resize to zero disk flavor is not allowed.")
	case (f.DiskGiB < old.DiskGiB || f.DiskGiB > 0 && int64(f.DiskGiB)<<30 < s.Image.VirtualSize) && !VolumeBacked(s), f.Ephemeral < old.Ephemeral:
		return fault.New(fault.Invalid, "Server disk was unable to be resized because: Unable to resize disk down.")
	}
	if bad := model.BadFirmware(f.Name, s.ImageID, f.ExtraSpecs, s.Image.Hardware); bad != "" {
		return fault.New(fault.Invalid, "%s", bad)
	}
	if err := possessed(f, s.Image.Hardware); err != nil {
		return err
	}
	if img, ok := store.Images.Get(tx, s.ImageID); ok && f.MemoryMiB < img.MinRAMMiB {
		return fault.New(fault.Invalid, "Flavor's memory is too small for requested image.")
	}
	more := func(a, b int) int { return max(0, b-a) }
	return c.spend(tx, s.ProjectID, map[string]int{QuotaCores: more(old.VCPUs, f.VCPUs), QuotaRAM: more(old.MemoryMiB, f.MemoryMiB)})
}

// move begins a move, as far as the choice of a target.
func (c *Compute) move(tx *store.Tx, sc Scope, s *model.Server, kind model.MoveKind, r MoveRequest, f *model.Flavor, action, task string) error {
	if s.Host == "" {
		return fault.New(fault.Conflict, "Cannot '%s' instance %s: it has no host.", action, s.ID)
	}
	if s.Move != nil {
		return wrongState(action, s, "task_state", TaskMigrating)
	}
	if err := still(tx, s, action); err != nil {
		return err
	}
	if err := c.target(tx, s, r.Host); err != nil {
		return err
	}
	now := c.now()
	mv := &model.Move{Kind: kind, Stage: model.MovePlacing, Source: s.Host, Want: r.Host, OldPower: s.Power, StageAt: now, Drain: r.Drain, Zone: r.Zone}
	if f != nil {
		old := s.Flavor
		mv.OldFlavor, mv.NewFlavor = &old, f
	}
	if err := c.newMigration(tx, sc, s, mv); err != nil {
		return err
	}
	s.Move = mv
	return c.begin(tx, sc, s, action, task)
}

// target refuses a wish for a host that cannot be.
func (c *Compute) target(r store.Reader, s *model.Server, name string) error {
	if name == "" {
		return nil
	}
	h, ok := store.Hosts.Claimed(r, name)
	switch {
	case !ok || h.Switch != nil:
		return fault.New(fault.Invalid, "Compute host %s could not be found.", name)
	case h.ID == s.Host:
		return fault.New(fault.Invalid, "Unable to migrate instance (%s) to current host (%s).", s.ID, name)
	}
	return nil
}

// Confirm makes a cold move or a resize final: the old host forgets the server.
//
// Errors: fault.NotFound; fault.Conflict where it is not resized, has a task, or is locked.
func (c *Compute) Confirm(tx *store.Tx, sc Scope, id model.ID) (*model.Server, error) {
	return c.change(tx, sc, id, true, func(s *model.Server) error {
		if err := c.resized(sc, s, "confirmResize"); err != nil {
			return err
		}
		if err := c.status(tx, s.Move.ID, MigrationConfirmed); err != nil {
			return err
		}
		s.Move = nil
		return c.done(tx, sc, s, "confirmResize", "compute_confirm_resize")
	})
}

// Revert takes a cold move or a resize back: the old host runs the server again, with the disks that it kept.
//
// Errors: as Confirm's.
func (c *Compute) Revert(tx *store.Tx, sc Scope, id model.ID) (*model.Server, error) {
	return c.change(tx, sc, id, true, func(s *model.Server) error {
		if err := c.resized(sc, s, "revertResize"); err != nil {
			return err
		}
		c.stage(s, model.MoveReverting)
		if err := c.status(tx, s.Move.ID, MigrationReverting); err != nil {
			return err
		}
		return c.begin(tx, sc, s, "revertResize", TaskReverting)
	})
}

func (c *Compute) resized(sc Scope, s *model.Server, action string) error {
	if err := allow(sc, s, action, []string{Resized}, nil); err != nil {
		return err
	}
	if s.Move == nil || s.Move.Stage != model.MoveVerify {
		return fault.New(fault.Invalid, "Instance has not been resized.")
	}
	return nil
}

// Abort ends a live move; the server stays where it is.
//
// Errors: fault.NotFound; fault.Conflict where the server does not move; fault.Invalid where the migration is another, or
// too far.
func (c *Compute) Abort(tx *store.Tx, sc Scope, id, migration model.ID) (*model.Server, error) {
	return c.steer(tx, sc, id, migration, "abort live migration", []model.MoveStage{model.MovePlacing, model.MovePreparing, model.MoveRunning}, func(s *model.Server) error {
		if err := c.done(tx, sc, s, "live_migration_cancel", "compute_live_migration_abort"); err != nil {
			return err
		}
		if s.Move.Stage == model.MoveRunning {
			s.Move.Abort = true
			return nil
		}
		return c.endMove(tx, s, MigrationCancelled, "The live migration was cancelled.") // the source has not begun
	})
}

// Hurry makes a live move end soon, at the price of a pause.
//
// Errors: as Abort's.
func (c *Compute) Hurry(tx *store.Tx, sc Scope, id, migration model.ID) (*model.Server, error) {
	return c.steer(tx, sc, id, migration, "force_complete", []model.MoveStage{model.MoveRunning}, func(s *model.Server) error {
		s.Move.Force = true
		return c.done(tx, sc, s, "live_migration_force_complete", "compute_live_migration_force_complete")
	})
}

// steer changes a live move that runs.
func (c *Compute) steer(tx *store.Tx, sc Scope, id, migration model.ID, action string, stages []model.MoveStage, f func(*model.Server) error) (*model.Server, error) {
	return c.change(tx, sc, id, true, func(s *model.Server) error {
		if err := unlocked(sc, s); err != nil {
			return err
		}
		m, ok := store.Migrations.Get(tx, migration)
		if !ok || m.ServerID != s.ID {
			return fault.New(fault.NotFound, "Migration %s not found for instance %s", migration, s.ID)
		}
		if s.Status.Task != TaskMigrating && s.Move == nil {
			return wrongState(action, s, "task_state", orNone(s.Status.Task))
		}
		if s.Move == nil || s.Move.ID != m.ID || s.Move.Kind != model.MoveLive || !slices.Contains(stages, s.Move.Stage) {
			return fault.New(fault.Invalid, "Migration %d state of instance %s is %s. Cannot %s while the migration is in this state.", m.Number, s.ID, m.Status, action)
		}
		mv := *s.Move
		s.Move = &mv
		return f(s)
	})
}

func orNone(task string) string {
	if task == "" {
		return "None"
	}
	return task
}

// stage puts a server's move into a stage; the move is copied.
func (c *Compute) stage(s *model.Server, stage model.MoveStage) {
	mv := *s.Move
	mv.Stage, mv.StageAt = stage, c.now()
	s.Move = &mv
}
