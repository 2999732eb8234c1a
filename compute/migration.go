package compute

import (
	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// Statuses of a migration in Nova's words.
const (
	MigrationAccepted  = "accepted"
	MigrationPreparing = "preparing"      // live: the target makes ready
	MigrationRunning   = "running"        // live: memory and disks are copied
	MigrationCompleted = "completed"      // live: it is elsewhere
	MigrationCancelled = "cancelled"      // its owner wanted it ended, or deleted the server
	MigrationFailed    = "error"          // the server is where it was
	MigrationEarly     = "pre-migrating"  // cold: the source turns the guest off; evacuation: the target makes it anew
	MigrationCopying   = "migrating"      // cold: the target copies the disks
	MigrationPost      = "post-migrating" // live: it runs on the target, the source is giving it the rest
	MigrationFinished  = "finished"       // cold: to be confirmed or reverted
	MigrationConfirmed = "confirmed"
	MigrationReverting = "reverting"
	MigrationReverted  = "reverted"
	MigrationDone      = "done" // evacuation
)

// open are the statuses of migrations that are not over.
var open = map[string]bool{MigrationAccepted: true, MigrationPreparing: true, MigrationRunning: true, MigrationEarly: true, MigrationCopying: true, MigrationPost: true, MigrationReverting: true}

// Under tells whether a migration is under way.
func Under(m *model.Migration) bool { return open[m.Status] }

// newMigration writes the record of a move that begins now.
func (c *Compute) newMigration(tx *store.Tx, sc Scope, s *model.Server, mv *model.Move) error {
	now := c.now()
	m := &model.Migration{
		ID: model.NewID(), ServerID: s.ID, ProjectID: s.ProjectID, UserID: sc.UserID, RequestID: sc.RequestID, Kind: mv.Kind,
		Status: MigrationAccepted, Source: mv.Source, OldFlavor: s.Flavor.ID, NewFlavor: s.Flavor.ID, CreatedAt: now, UpdatedAt: now,
	}
	if mv.NewFlavor != nil {
		m.NewFlavor = mv.NewFlavor.ID
	}
	for last := range store.Migrations.Prefix(tx, "newest", "") {
		m.Number = last.Number
		break
	}
	m.Number++ // a number that somebody else took meanwhile is claimed: then this runs again
	mv.ID = m.ID
	return store.Migrations.Put(tx, m)
}

// note changes the record of a server's move. It is never absent; where it was removed by hand, that is no reason to
// leave a server between two hosts.
func (c *Compute) note(tx *store.Tx, id model.ID, change func(*model.Migration)) error {
	old, ok := store.Migrations.Get(tx, id)
	if !ok {
		return nil
	}
	m := *old
	change(&m)
	if m == *old {
		return nil
	}
	m.UpdatedAt = c.now()
	return store.Migrations.Put(tx, &m)
}

// status changes the status of a server's move.
func (c *Compute) status(tx *store.Tx, id model.ID, status string) error {
	return c.note(tx, id, func(m *model.Migration) { m.Status = status })
}

// MigrationOf gives a migration of a server by its number.
//
// Errors: fault.NotFound in Nova's words.
func MigrationOf(r store.Reader, server model.ID, number int64) (*model.Migration, error) {
	m, ok := store.Migrations.Claimed(r, model.MigrationClaim(number))
	if !ok || m.ServerID != server {
		return nil, fault.New(fault.NotFound, "Migration %d not found for instance %s", number, server)
	}
	return m, nil
}
