package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"yakumo/channel"
	"yakumo/fault"
	"yakumo/hypervisor"
	"yakumo/model"
)

// receive is the target's part of a live move.
func (m *mover) receive(ctx context.Context, row *model.HostServer, p *progress) error {
	if p.Phase == model.PhaseError && p.Generation == row.Generation {
		return m.a.keep(row.ID, p) // it said that it cannot
	}
	power, moving, _ := m.a.guests.look(row.ID) // as it is now, and not as it was when its turn began
	if p.Arrived && said(row, p) == model.MoveDone || power == hypervisor.Running || power == hypervisor.Paused && !moving {
		return m.arrived(ctx, row, p, power)
	}
	if power == hypervisor.Paused {
		return nil // it is on its way; that it has come wakes the server
	}
	m.mu.Lock()
	w := m.receptions[row.ID]
	m.mu.Unlock()
	if w != nil && w.move == row.Move.ID && said(row, p) == model.MoveReady {
		say(row, p, model.MoveReady, nil)
		return m.a.keep(row.ID, p)
	}
	return m.prepare(ctx, row, p)
}

// prepare makes everything ready for a guest that is to come.
func (m *mover) prepare(ctx context.Context, row *model.HostServer, p *progress) error {
	migrator, can := m.a.cfg.Hypervisor.(hypervisor.Migrator)
	if !can {
		return fault.New(fault.Invalid, "The hypervisor cannot take a guest that runs.")
	}
	if !p.Disk {
		if err := m.makeRoom(ctx, row); err != nil {
			return err
		}
		p.Disk, p.Phase, p.Rebuilds, p.Ephemeral = true, model.PhaseStarting, row.Rebuilds, row.EphemeralGiB
		if err := m.a.keep(row.ID, p); err != nil {
			return err
		}
	}
	for _, n := range row.NICs {
		if !m.a.ports.wired(n.PortID) {
			return fmt.Errorf("port %s is not wired yet: %w", n.PortID, errWaiting)
		}
	}
	if err := m.a.cpus.assign(ctx, row, p); err != nil {
		return err
	}
	g, err := m.a.guest(ctx, row)
	if err != nil {
		return err
	}
	if !p.TPM && model.TPMOf(row.ExtraSpecs, row.Image.Hardware) != (model.TPM{}) {
		p.TPM = true
		if err := m.a.keep(row.ID, p); err != nil {
			return err
		}
	}
	r, err := migrator.Receive(ctx, g)
	if err != nil {
		return fmt.Errorf("await the guest: %w", err)
	}
	m.mu.Lock()
	m.receptions[row.ID] = &awaiting{move: row.Move.ID, reception: r}
	m.mu.Unlock()
	say(row, p, model.MoveReady, nil)
	return m.a.keep(row.ID, p)
}

// makeRoom makes the files of the guest's own disks, with nothing in them that the hypervisor will bring.
func (m *mover) makeRoom(ctx context.Context, row *model.HostServer) error {
	files, err := m.theirFiles(ctx, row)
	if err != nil {
		return err
	}
	dir := m.a.dir(row.ID)
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return fmt.Errorf("make the guest's folder: %w", err)
	}
	for _, f := range files {
		path := filepath.Join(dir, f.Name)
		var err error
		switch {
		case f.Root:
			err = m.makeRoot(ctx, row, path, f)
		case f.Name == nvramFile: // the hypervisor makes it, and writes there what comes with the guest's memory
		case f.Disk && !f.ReadOnly:
			err = replace(path, func(tmp string) error { return m.a.cfg.Disks.Empty(ctx, tmp, f.Format, f.Virtual) })
		default: // it does not change, or need not be exact: a console's log goes on here
			err = m.fetchFile(ctx, row, f, path)
		}
		if err != nil {
			return fmt.Errorf("file %s: %w", f.Name, err)
		}
	}
	return syncDir(dir)
}

// makeRoot makes an empty overlay of the guest's image.
func (m *mover) makeRoot(ctx context.Context, row *model.HostServer, path string, f file) error {
	image, release, err := m.a.images.hold(ctx, row.Image)
	if err != nil {
		return err
	}
	defer release()
	return replace(path, func(tmp string) error {
		return m.a.cfg.Disks.Overlay(ctx, tmp, image, row.Image.Format, f.Virtual)
	})
}

// arrived is for a guest that runs here now: its ports are this host's at once, and the servers are told. It may be repeated.
func (m *mover) arrived(ctx context.Context, row *model.HostServer, p *progress, power hypervisor.Power) error {
	if !p.Arrived {
		p.Arrived, p.Started, p.Disk, p.BootID = true, true, true, m.a.cfg.BootID
		p.Phase, p.Fault, p.Words = model.PhaseReady, nil, m.a.ledger.words(row)
		p.Reboots, p.Hard, p.Power, p.Wanted = max(p.Reboots, row.Reboots), max(p.Hard, row.HardReboots), powerOf(power), row.Power
		p.NICs, p.Disks = nicIDs(row), volumeIDs(row)
		say(row, p, model.MoveDone, nil)
		if err := m.a.ledger.save(row.ID, p); err != nil {
			return err
		}
		m.a.log.Info("a guest has come from another host", "server", row.ID, "host", row.Move.Peer.Name)
	}
	if err := m.a.ports.activate(ctx, row); err != nil { // it gets what it lacks when it is back
		m.a.log.Warn("the ports of a guest that has come are not this host's yet", "server", row.ID, "err", err)
	}
	if migrator, ok := m.a.cfg.Hypervisor.(hypervisor.Migrator); ok && p.Move != nil && p.Move.Progress == (model.Progress{}) {
		if how, err := migrator.Progress(ctx, row.ID); err == nil { // how long it stood still; of interest only
			r := *p.Move
			r.Progress = progressOf(how)
			p.Move = &r
		}
	}
	say(row, p, model.MoveDone, nil)
	return m.a.observe(row.ID, p, power)
}

// passage leads the source's hypervisor to this host's.
func (m *mover) passage(ctx context.Context, peer model.ID, args json.RawMessage, conn net.Conn) error {
	row, c, err := m.asked(peer, args, model.RoleTarget)
	if err != nil {
		return err
	}
	m.mu.Lock()
	w := m.receptions[row.ID]
	m.mu.Unlock()
	if w == nil || w.move != c.Move {
		return fault.New(fault.Unavailable, "This host is not ready for server %s.", row.ID)
	}
	far, err := w.reception.Dial(ctx, c.Kind)
	if err != nil {
		return err
	}
	return channel.Join(ctx, conn, far)
}

// tellGuest gives the source the guest's definition here.
func (m *mover) tellGuest(ctx context.Context, peer model.ID, args json.RawMessage, conn net.Conn) error {
	row, _, err := m.asked(peer, args, model.RoleTarget)
	if err != nil {
		return err
	}
	g, err := m.a.guest(ctx, row)
	if errors.Is(err, errWaiting) {
		err = fault.Wrap(fault.Unavailable, err, "The guest's volumes are not there yet.")
	}
	if err != nil {
		return err
	}
	return json.NewEncoder(conn).Encode(g)
}
