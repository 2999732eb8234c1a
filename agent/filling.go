package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"yakumo/block"
	"yakumo/fault"
	"yakumo/hypervisor"
	"yakumo/link"
	"yakumo/model"
)

// converge makes a volume that this host works on be as wanted: there and filled, of its size, with its snapshots, open where
// guests may open it; and sends what is to be made of it.
func (v *volumeKeeper) converge(ctx context.Context, row *model.HostVolume) error {
	e, err := v.engine(row.Engine, row.ID)
	if err != nil {
		return err
	}
	p, _ := v.a.ledger.volumeOf(row.ID)
	if p.Gone { // it was removed, and has come back: a restored store
		p = volumeProgress{}
	}
	v.cut(row.ID, row.Guests)
	if err := v.arrive(row, &p); err != nil {
		return err
	}
	failed := p.Fault != nil && p.Generation == row.Generation
	p.Engine = row.Engine
	if p.Copied != row.Copy {
		p.Copied = ""
	}
	if p.Cleared != row.Clear {
		p.Cleared = ""
	}
	if !failed {
		if err := v.fill(ctx, e, row, &p); err != nil {
			return err
		}
		if err := v.size(ctx, e, row, &p); err != nil {
			return err
		}
		if err := v.snapshots(ctx, e, row, &p); err != nil {
			return err
		}
	}
	if p.Made && !p.Filling {
		if err := v.tend(ctx, e, row); err != nil {
			return err
		}
		if err := v.tell(ctx, row); err != nil {
			return err
		}
	}
	if !failed {
		p.Generation, p.Fault = row.Generation, nil
	}
	for id := range p.Uploads {
		if !slices.ContainsFunc(row.Uploads, func(b model.HostBlob) bool { return b.ID == id }) {
			delete(p.Uploads, id)
		}
	}
	if err := v.keep(row.ID, p); err != nil {
		return err
	}
	if !p.Made || p.Filling {
		return nil
	}
	for _, b := range row.Uploads {
		if _, done := p.Uploads[b.ID]; done {
			continue
		}
		u, err := v.upload(ctx, e, row, b)
		if err != nil {
			return err
		}
		if p.Uploads == nil {
			p.Uploads = map[model.ID]model.UploadReport{}
		}
		p.Uploads[b.ID] = u
		if err := v.keep(row.ID, p); err != nil {
			return err
		}
	}
	if failed && row.Copy != "" {
		return nil
	}
	return v.elsewhere(ctx, e, row, &p)
}

// fill makes a volume with its first content, or gives it other content where that is asked for anew.
func (v *volumeKeeper) fill(ctx context.Context, e block.Engine, row *model.HostVolume, p *volumeProgress) error {
	if p.Made && !p.Filling && p.Fills >= row.Fills {
		return nil
	}
	if row.Copy+row.Clear != "" && !p.Made { // it is there, or is lost: it is not made from nothing on its way
		if err := e.Grow(ctx, row.ID, 0); err != nil {
			return fmt.Errorf("find volume %s: %w", row.ID, err)
		}
		p.Made, p.Filling, p.SizeGiB, p.Fills = true, false, 0, row.Fills
		if err := v.a.ledger.saveVolume(row.ID, *p); err != nil {
			return err
		}
		v.wake(row.ID)
		return nil
	}
	from := block.Source{Volume: row.Origin, Snapshot: row.Snapshot}
	switch {
	case row.Owner.HostID != "": // it comes from there, by NBD
		socket, err := v.reach(row.ID, row.Seat)
		if err != nil {
			return err
		}
		defer func() {
			if err := v.unreach(context.WithoutCancel(ctx), row.ID, row.Seat); err != nil {
				v.a.log.Warn("the way to a volume's old host stays", "volume", row.ID, "err", err)
			}
		}()
		from = block.Source{File: "nbd+unix:///" + row.ID + "?socket=" + socket, Format: "raw"}
	case row.Image != nil:
		path, release, err := v.a.images.hold(ctx, *row.Image)
		if err != nil {
			return err
		}
		defer release()
		from = block.Source{File: path, Format: row.Image.Format}
	case row.Backup != nil && row.Backup.Format == model.BackupChunks:
		path, err := v.assemble(ctx, *row.Backup)
		if err != nil {
			return err
		}
		defer os.Remove(path)
		from = block.Source{File: path, Format: "raw"}
	case row.Backup != nil:
		path, err := v.download(ctx, *row.Backup)
		if err != nil {
			return err
		}
		defer os.Remove(path)
		from = block.Source{File: path, Format: row.Backup.Format}
	case row.Snapshot != "" && row.Origin == "":
		return fault.New(fault.Invalid, "Snapshot %s could not be found.", row.Snapshot)
	}
	if !p.Made {
		if from.Volume == row.ID {
			from = block.Source{} // it was to go back to a snapshot of itself, and is lost
		}
		if err := e.Make(ctx, row.ID, int64(row.SizeGiB)<<30, from); err != nil {
			return fmt.Errorf("make volume %s: %w", row.ID, err)
		}
		// One that was there and whose progress was lost may be smaller: size sees to that.
		p.Made, p.Filling, p.SizeGiB, p.Fills = true, false, 0, row.Fills
		if err := v.a.ledger.saveVolume(row.ID, *p); err != nil {
			return err
		}
		v.wake(row.ID)
		return nil
	}
	f, ok := e.(block.Filler)
	if !ok || len(row.Guests) > 0 {
		return fault.New(fault.Unavailable, "Volume %s cannot get other content while a guest has it.", row.ID)
	}
	p.Filling = true
	if err := v.a.ledger.saveVolume(row.ID, *p); err != nil {
		return err
	}
	if c, ok := e.(block.Closer); ok {
		if err := c.Close(ctx, row.ID); err != nil {
			return err
		}
	}
	var err error
	switch {
	case from.File != "":
		err = f.Fill(ctx, row.ID, from.File, from.Format)
	case from.Volume == row.ID && from.Snapshot != "":
		err = f.Revert(ctx, row.ID, from.Snapshot)
	default:
		err = fault.New(fault.Invalid, "Volume %s cannot be filled anew from another volume.", row.ID)
	}
	if err != nil {
		return fmt.Errorf("fill volume %s: %w", row.ID, err)
	}
	p.Filling, p.SizeGiB, p.Fills = false, 0, row.Fills
	if err := v.a.ledger.saveVolume(row.ID, *p); err != nil {
		return err
	}
	v.wake(row.ID)
	return nil
}

// wake has servers looked at that waited for a volume.
func (v *volumeKeeper) wake(volume model.ID) {
	for _, s := range v.a.ledger.users(volume) {
		v.a.queue.add(s)
	}
}

// size makes a volume as large as wanted.
func (v *volumeKeeper) size(ctx context.Context, e block.Engine, row *model.HostVolume, p *volumeProgress) error {
	if p.SizeGiB >= row.SizeGiB {
		return nil
	}
	if row.Engine == model.EngineLocal {
		if err := v.growth(row); err != nil {
			return err
		}
	}
	err := e.Grow(ctx, row.ID, int64(row.SizeGiB)<<30)
	if fault.Is(err, fault.Conflict) {
		// A guest's QEMU has the file. One here grows it, one elsewhere is told by its own host.
		if err := v.tell(ctx, row); err != nil {
			return err
		}
		if err = e.Grow(ctx, row.ID, int64(row.SizeGiB)<<30); fault.Is(err, fault.Conflict) {
			return fault.Wrap(fault.Unavailable, err, "Volume %s waits until the guest that has it grows it.", row.ID)
		}
	}
	if err != nil {
		return fmt.Errorf("grow volume %s: %w", row.ID, err)
	}
	p.SizeGiB = row.SizeGiB
	return nil
}

// snapshots makes those that are wanted be there, and no others.
func (v *volumeKeeper) snapshots(ctx context.Context, e block.Engine, row *model.HostVolume, p *volumeProgress) error {
	gone := slices.Clone(p.Snapshots)
	for _, s := range row.Snapshots {
		if s.Deleted {
			gone = append(gone, s.ID)
			continue
		}
		gone = slices.DeleteFunc(gone, func(id model.ID) bool { return id == s.ID })
		if slices.Contains(p.Snapshots, s.ID) {
			continue
		}
		if err := v.snapshot(ctx, e, row.ID, s.ID); err != nil {
			return err
		}
		p.Snapshots = append(p.Snapshots, s.ID)
		slices.Sort(p.Snapshots)
		if err := v.a.ledger.saveVolume(row.ID, *p); err != nil {
			return err
		}
	}
	for _, id := range gone {
		if err := e.RemoveSnapshot(ctx, row.ID, id); err != nil {
			return fmt.Errorf("remove snapshot %s of volume %s: %w", id, row.ID, err)
		}
		p.Snapshots = slices.DeleteFunc(p.Snapshots, func(x model.ID) bool { return x == id })
	}
	if len(p.Snapshots) == 0 {
		p.Snapshots = nil
	}
	return nil
}

// snapshot makes one. Where a guest's QEMU has the volume's file, the guest's hypervisor copies it at one moment.
func (v *volumeKeeper) snapshot(ctx context.Context, e block.Engine, volume, id model.ID) error {
	err := e.Snapshot(ctx, volume, id)
	if fault.Is(err, fault.Conflict) {
		path := v.scratch(id)
		copied, cerr := v.copyOut(ctx, volume, path)
		if cerr != nil {
			return cerr
		}
		adopter, ok := e.(block.Adopter)
		if copied && ok {
			err = adopter.Adopt(ctx, volume, id, path)
		}
		err = errors.Join(err, forget(path))
	}
	if err != nil {
		return fmt.Errorf("snapshot %s of volume %s: %w", id, volume, err)
	}
	return nil
}

// copyOut has the hypervisor, here or on a host that holds it, write what a running guest's volume holds to a file; false where no guest has it.
func (v *volumeKeeper) copyOut(ctx context.Context, volume model.ID, path string) (bool, error) {
	copied, err := v.copyHere(ctx, volume, path)
	if copied || err != nil {
		return copied, err
	}
	if row := v.a.ledger.volume(volume); row != nil && row.Mine {
		return v.copyThere(ctx, row, path)
	}
	return false, nil
}

// copyHere is copyOut for guests of this host.
func (v *volumeKeeper) copyHere(ctx context.Context, volume model.ID, path string) (bool, error) {
	if _, ok := v.a.cfg.Hypervisor.(hypervisor.Copier); !ok {
		return false, nil
	}
	for _, server := range v.a.ledger.users(volume) {
		if err := forget(path); err != nil {
			return false, err
		}
		row := v.a.ledger.server(server)
		if row == nil {
			continue // it has left meanwhile
		}
		err := v.a.copyDisk(ctx, row, volume, path)
		if fault.Is(err, fault.NotFound) || fault.Is(err, fault.Conflict) {
			continue
		}
		return err == nil, err
	}
	return false, nil
}

// tend keeps a volume open while guests may open it, and no longer.
func (v *volumeKeeper) tend(ctx context.Context, e block.Engine, row *model.HostVolume) error {
	c, ok := e.(block.Closer)
	if !ok {
		return nil
	}
	if len(row.Guests) == 0 && len(v.a.ledger.users(row.ID)) == 0 {
		return c.Close(ctx, row.ID)
	}
	_, err := e.Open(ctx, row.ID)
	return err
}

// scratch is a file of the keeper's own for a copy.
func (v *volumeKeeper) scratch(id model.ID) string {
	return filepath.Join(v.a.cfg.Dir, "volumes", id+partSuffix)
}

// sweep removes the copies that an agent before this one left: each is made anew where it is needed.
func (v *volumeKeeper) sweep() {
	dir := filepath.Join(v.a.cfg.Dir, "volumes")
	list, err := os.ReadDir(dir)
	for _, f := range list {
		if strings.HasSuffix(f.Name(), partSuffix) { // an operator may keep other things in this folder
			err = errors.Join(err, forget(filepath.Join(dir, f.Name())))
		}
	}
	if err != nil {
		v.a.log.Error("copies of volumes are left", "err", err)
	}
}

// download fetches a backup of the older form, a qcow2. Its bytes are checked by what reads them: a stream that breaks off is an error.
func (v *volumeKeeper) download(ctx context.Context, b model.HostBlob) (path string, err error) {
	if !isFileName(b.ID) || !isFileName(b.BlobID) {
		return "", fault.New(fault.Invalid, "Backup %s could not be found.", b.ID)
	}
	body, err := v.a.link.Blob(ctx, b.BlobID, 0)
	if fault.Is(err, fault.NotFound) {
		return "", fault.Wrap(fault.Invalid, err, "The bytes of backup %s are gone.", b.ID)
	}
	if err != nil {
		return "", fmt.Errorf("fetch backup %s: %w", b.ID, err)
	}
	defer body.Close()
	path = v.scratch(b.ID)
	f, err := os.Create(path)
	if err != nil {
		return "", err
	}
	_, err = io.Copy(f, body)
	if err != nil {
		err = fault.Wrap(fault.Unavailable, err, "Backup %s cannot be fetched now.", b.ID)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return "", errors.Join(err, forget(path))
	}
	return path, nil
}

// upload sends a backup or an image that is made of a volume. What it says is final where no other try would do better.
func (v *volumeKeeper) upload(ctx context.Context, e block.Engine, row *model.HostVolume, b model.HostBlob) (model.UploadReport, error) {
	out := model.UploadReport{ID: b.ID}
	if !isFileName(b.ID) {
		return out, fault.New(fault.Invalid, "%q is no id.", b.ID)
	}
	send := v.sendFile
	if b.Format == model.BackupChunks {
		send = v.sendBackup
	}
	n, err := send(ctx, e, row.ID, b)
	if err == nil {
		out.Done, out.Bytes = true, n
		return out, nil
	}
	if kind := fault.KindOf(err); kind == fault.Unavailable || kind == fault.Internal && !v.last(row.ID, row.Generation) {
		return out, fmt.Errorf("send %s of volume %s: %w", b.ID, row.ID, err)
	}
	v.a.log.Error("a volume cannot be sent", "volume", row.ID, "id", b.ID, "err", err)
	text, ok := fault.Text(err)
	if !ok {
		text = "The volume could not be sent to the image store."
	}
	out.Fault = &model.Fault{Code: 500, Message: text, Details: err.Error(), At: v.a.now()}
	return out, nil
}

// sendFile sends a file of what a volume, or a snapshot of it, holds, and gives its length.
func (v *volumeKeeper) sendFile(ctx context.Context, e block.Engine, volume model.ID, b model.HostBlob) (int64, error) {
	path := v.scratch(b.ID)
	if err := forget(path); err != nil {
		return 0, err
	}
	defer forget(path)
	err := e.Export(ctx, volume, b.SnapshotID, b.Format, path)
	if fault.Is(err, fault.Conflict) && b.SnapshotID == "" && b.Format == "qcow2" {
		if copied, cerr := v.copyOut(ctx, volume, path); copied || cerr != nil {
			err = cerr
		}
	}
	if err != nil {
		return 0, err
	}
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	kind := link.UploadImage
	if b.Backup {
		kind = link.UploadBackup
	}
	return st.Size(), v.a.link.Upload(ctx, kind, b.ID, st.Size(), f)
}

// forget removes a file; absent is success.
func forget(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
