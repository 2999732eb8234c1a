package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"yakumo/fault"
	"yakumo/hypervisor"
	"yakumo/link"
	"yakumo/model"
)

// copiesAtOnce is how many disks are copied at once: more would only share the host's disk.
const copiesAtOnce = 2

// savingFile is the name of the copy of a root disk that is to become an image.
func savingFile(image model.ID) string { return "saving-" + image + ".qcow2" }

// saveImages copies the root disk for each image that is to be made of it, and has the copies sent. That an image is
// begun is kept before there is a file of it, and the file goes before that is forgotten.
func (a *Agent) saveImages(ctx context.Context, row *model.HostServer, p *progress, power hypervisor.Power) error {
	for _, u := range p.Saved {
		if !slices.Contains(row.Saving, u.ID) {
			if err := a.dropSaving(row.ID, u.ID); err != nil {
				return err
			}
		}
	}
	saved := slices.DeleteFunc(slices.Clone(p.Saved), func(u model.UploadReport) bool { return !slices.Contains(row.Saving, u.ID) })
	for _, id := range row.Saving {
		if isFileName(id) && !slices.ContainsFunc(saved, func(u model.UploadReport) bool { return u.ID == id }) {
			saved = append(saved, model.UploadReport{ID: id})
		}
	}
	if len(saved) == 0 {
		saved = nil
	}
	if len(saved) > 0 || len(p.Saved) > 0 {
		p.Saved = saved
		if err := a.keep(row.ID, p); err != nil {
			return err
		}
	}
	for _, u := range p.Saved {
		if u.Done || u.Fault != nil {
			continue
		}
		if !a.ledger.newest(row.ID, p) { // this one may have ended meanwhile, and its copy gone
			return errOvertaken
		}
		if err := a.copyRoot(ctx, row, u.ID, power); err != nil {
			if ctx.Err() != nil {
				return err
			}
			if err := a.cannotSave(row.ID, u.ID, err); err != nil {
				return err
			}
			continue
		}
		a.uploads.add(row.ID)
	}
	return nil
}

// copyRoot makes the copy of the root disk as it is now, where there is none yet.
func (a *Agent) copyRoot(ctx context.Context, row *model.HostServer, image model.ID, power hypervisor.Power) error {
	path := filepath.Join(a.dir(row.ID), savingFile(image))
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	if !ownRoot(row) {
		return fault.New(fault.Invalid, "The server's root disk is a volume; no image is made of it here.")
	}
	select {
	case a.copying <- struct{}{}:
		defer func() { <-a.copying }()
	case <-ctx.Done():
		return ctx.Err()
	}
	began := time.Now()
	err := replace(path, func(tmp string) error {
		if power != hypervisor.Running && power != hypervisor.Paused {
			return a.cfg.Disks.Flatten(ctx, tmp, filepath.Join(a.dir(row.ID), a.diskFile()))
		}
		return a.copyDisk(ctx, row, row.ID, tmp)
	})
	if err == nil {
		a.log.Info("a server's disk is copied", "server", row.ID, "image", image, "took", time.Since(began))
	}
	return err
}

// cannotSave decides what becomes of an image that could not be made or sent: nil where that is told as its fault, err
// where it is tried again.
func (a *Agent) cannotSave(server, image model.ID, err error) error {
	kind := fault.KindOf(err)
	a.mu.Lock()
	if kind != fault.Unavailable {
		a.saves[image]++
	}
	often := a.saves[image] >= a.cfg.Repeat.Limit
	a.mu.Unlock()
	switch kind {
	case fault.Invalid, fault.Unsupported, fault.TooLarge, fault.Forbidden, fault.NotFound, fault.Gone, fault.OverQuota, fault.NotImplemented:
	default:
		if !often {
			return err
		}
	}
	text, ok := fault.Text(err)
	if !ok {
		text = "The image could not be made on the server's host."
	}
	a.log.Error("an image cannot be made of a server", "server", server, "image", image, "err", err)
	return a.endSaving(server, image, func(u *model.UploadReport) {
		u.Fault = &model.Fault{Code: 500, Message: text, Details: err.Error(), At: a.now()}
	})
}

// endSaving keeps and reports how an image has ended, and removes the copy.
func (a *Agent) endSaving(server, image model.ID, end func(*model.UploadReport)) error {
	err := a.ledger.note(server, func(p *progress) {
		p.Saved = slices.Clone(p.Saved)
		for i := range p.Saved {
			if p.Saved[i].ID == image {
				end(&p.Saved[i])
			}
		}
	})
	if err != nil {
		return err
	}
	a.report(server)
	return a.dropSaving(server, image)
}

// dropSaving removes the copy of a disk.
func (a *Agent) dropSaving(server, image model.ID) error {
	a.mu.Lock()
	delete(a.saves, image)
	a.mu.Unlock()
	path := filepath.Join(a.dir(server), savingFile(image))
	for _, f := range []string{path, path + ".tmp"} {
		if err := os.Remove(f); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove the copy of a disk: %w", err)
		}
	}
	return nil
}

// upload sends the copies of a server's disk that wait for it, and says when to try again.
func (a *Agent) upload(ctx context.Context, server model.ID) time.Duration {
	p, _ := a.ledger.progressOf(server)
	row := a.ledger.server(server)
	if row == nil || row.Deleted {
		return 0
	}
	again := time.Duration(0)
	for _, u := range p.Saved {
		if u.Done || u.Fault != nil || !slices.Contains(row.Saving, u.ID) {
			continue
		}
		err := a.sendCopy(ctx, server, u.ID)
		if ctx.Err() != nil {
			return 0
		}
		if err != nil {
			err = a.cannotSave(server, u.ID, err)
		}
		if err != nil {
			a.log.Warn("an image could not be sent; it is tried again", "server", server, "image", u.ID, "err", err)
			again = a.cfg.Repeat.Max
		}
	}
	return again
}

// sendCopy sends one copy, where it is there: the server's own turn makes it.
func (a *Agent) sendCopy(ctx context.Context, server, image model.ID) error {
	f, err := os.Open(filepath.Join(a.dir(server), savingFile(image)))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("send the copy of a disk: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return fmt.Errorf("send the copy of a disk: %w", err)
	}
	if err := a.link.Upload(ctx, link.UploadImage, image, st.Size(), f); err != nil {
		return err
	}
	a.log.Info("an image of a server is sent", "server", server, "image", image, "bytes", st.Size())
	return a.endSaving(server, image, func(u *model.UploadReport) { u.Done, u.Bytes = true, st.Size() })
}
