package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"yakumo/hypervisor"
	"yakumo/model"
)

func (a *Agent) portRows(id model.ID, row *model.HostServer) []model.RowID {
	ids := a.portIDs(id, row)
	rows := make([]model.RowID, len(ids))
	for i, id := range ids {
		rows[i] = model.RowID{Kind: model.RowPort, Key: id}
	}
	return rows
}

// portIDs gives the ports of a server, by its row, by theirs, and by what its guest has.
func (a *Agent) portIDs(id model.ID, row *model.HostServer) []model.ID {
	ids := a.ledger.portsOf(id)
	p, _ := a.ledger.progressOf(id)
	more := slices.Concat(p.NICs, p.Plugging)
	if row != nil {
		more = append(more, nicIDs(row)...)
	}
	for _, port := range more {
		if !slices.Contains(ids, port) {
			ids = append(ids, port)
		}
	}
	return ids
}

// remove leaves nothing of a server on this host: one that is deleted (row), or one that the
// host has no business with any more (nil).
func (a *Agent) remove(ctx context.Context, id model.ID, row *model.HostServer) error {
	p, ok := a.ledger.progressOf(id)
	switch {
	case p.Gone && row == nil:
		a.mu.Lock()
		delete(a.sent, id)
		a.mu.Unlock()
		return a.ledger.forget(id)
	case p.Gone:
		a.report(id)
		return nil
	}
	if _, known := a.guests.state(id); !known {
		return errWaiting
	}
	a.uploads.interrupt(id)
	if err := a.moves.rest(ctx, id, nil, &p, 0); err != nil {
		return err
	}
	began := time.Now()
	if err := a.cfg.Hypervisor.Remove(ctx, id); err != nil {
		return fmt.Errorf("remove guest: %w", err)
	}
	a.guests.did(id, hypervisor.Absent, began)
	for volume, e := range p.Elsewhere {
		if err := a.unseatBoth(ctx, volume, e); err != nil {
			return err
		}
	}
	if !p.Unwired && (ok || row != nil) {
		p.Unwired, ok = true, true
		if err := a.ledger.save(id, &p); err != nil {
			return err
		}
		a.ports.look(a.portRows(id, row))
	}
	if !a.ports.gone(a.portIDs(id, row)) {
		return fmt.Errorf("its ports are still here: %w", errWaiting)
	}
	if err := a.clear(id, row, p.Blob); err != nil {
		return err
	}
	a.log.Info("a server is gone from this host", "server", id, "deleted", row != nil)
	if row == nil {
		a.mu.Lock()
		delete(a.sent, id)
		a.mu.Unlock()
		return a.ledger.forget(id)
	}
	p.Gone, p.Generation = true, row.Generation
	return a.keep(id, &p)
}

// clear leaves no folder of a server. What nobody has ordered to go is laid aside; blob is the image that its disk is made of, where that
// is known.
func (a *Agent) clear(id model.ID, row *model.HostServer, blob model.ID) error {
	d := a.ledger.departureOf(model.RowServer, id)
	inside, err := os.ReadDir(a.dir(id))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("look into the guest's folder: %w", err)
	}
	// A server whose row is there is deleted, or was here in an earlier life, whose departure is kept until it has ended.
	if row != nil || d.Ordered || len(inside) == 0 || a.cfg.Quarantine <= 0 {
		if err := os.RemoveAll(a.dir(id)); err != nil {
			return fmt.Errorf("remove the guest's folder: %w", err)
		}
		return nil
	}
	if blob == "" {
		if blob, err = backing(filepath.Join(a.dir(id), a.diskFile())); err != nil {
			a.log.Warn("what a disk is made of is not known; its image may go from the cache", "server", id, "err", err)
		}
	}
	return a.quarantine.take(a.asideDir(), laidAside{Kind: model.RowServer, ID: id, Row: d.Row, Blob: blob}, func(path string) error {
		if err := os.Rename(a.dir(id), path); err != nil {
			return err
		}
		return errors.Join(syncDir(filepath.Dir(path)), syncDir(filepath.Dir(a.dir(id))))
	})
}
