package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"

	"yakumo/fault"
	"yakumo/model"
)

// serviceHeldVolume is the channel's service by which the host that works on a volume asks one whose guest has it open for a copy: after the call
// comes a qcow2 file. QEMU's lock keeps everybody else from reading such a file.
const serviceHeldVolume = "held-volume"

// copyThere has a host whose guest has a volume open send what it holds at one moment, to the file path; false where none has.
func (v *volumeKeeper) copyThere(ctx context.Context, row *model.HostVolume, path string) (bool, error) {
	for _, at := range row.Holders {
		conn, err := v.a.dialer.Dial(ctx, at, serviceHeldVolume, volumeCall{row.ID})
		if fault.Is(err, fault.NotFound) || fault.Is(err, fault.Conflict) {
			continue
		}
		if err != nil {
			return false, fmt.Errorf("ask host %s for a copy: %w", at.Name, err)
		}
		if err := receiveFile(ctx, conn, path); err != nil {
			return false, fault.Wrap(fault.Unavailable, err, "The copy that host %s sends did not arrive.", at.Name)
		}
		return true, nil
	}
	return false, nil
}

// receiveFile writes what comes by a connection to a file, and closes the connection.
func receiveFile(ctx context.Context, conn net.Conn, path string) error {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, conn)
	return errors.Join(err, f.Sync(), f.Close())
}

// serveCopy answers such a call: of who works on a volume that a guest here has.
func (v *volumeKeeper) serveCopy(ctx context.Context, peer model.ID, args json.RawMessage, conn net.Conn) error {
	var c volumeCall
	if err := json.Unmarshal(args, &c); err != nil {
		return fault.Wrap(fault.Invalid, err, "The call is malformed.")
	}
	row := v.a.ledger.volume(c.VolumeID)
	if row == nil || row.Mine || row.Deleted || row.Owner.HostID != peer || !isFileName(c.VolumeID) {
		return fault.New(fault.NotFound, "Volume %s could not be found.", c.VolumeID)
	}
	// A name of its own: the call before may not have seen yet that nobody waits for it.
	f, err := os.CreateTemp(filepath.Join(v.a.cfg.Dir, "volumes"), c.VolumeID+".*"+partSuffix)
	if err != nil {
		return err
	}
	path := f.Name()
	defer os.Remove(path)
	if err := f.Close(); err != nil {
		return err
	}
	copied, err := v.copyHere(ctx, c.VolumeID, path)
	if err != nil {
		return err
	}
	if !copied {
		return fault.New(fault.Conflict, "No guest here has volume %s open.", c.VolumeID)
	}
	if f, err = os.Open(path); err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(conn, f)
	return err
}
