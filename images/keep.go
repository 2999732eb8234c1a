package images

import (
	"context"
	"fmt"
	"io"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// Keep takes size bytes that are no image, such as a volume's backup, under the id of what they belong to. may tells,
// inside the transaction that begins it, whether they are wanted; done refers to the blob in the transaction that ends
// it. Until then nothing readable is left of what fails; the bytes last while something refers to them (Collect).
//
// Errors: those of may and done; fault.TooLarge; fault.Unavailable while another upload under the id is going on.
func (m *Images) Keep(ctx context.Context, id model.ID, size int64, body io.Reader, may func(store.Reader) error, done func(tx *store.Tx, blob model.ID, bytes int64) error) error {
	if size > m.cfg.MaxSize {
		return m.tooLarge()
	}
	lease, err := m.st.NewLease(ctx, m.cfg.UploadTTL)
	if err != nil {
		return fmt.Errorf("keep %s: %w", id, err)
	}
	blob := model.NewID()
	defer func() {
		// Where this fails the lease runs out by itself, and Run removes the bytes.
		cctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUpTimeout)
		defer cancel()
		if err := lease.Close(cctx); err != nil {
			m.log.Warn("the lease of an upload was not given back; it runs out", "id", id, "err", err)
		}
	}()
	if _, err := m.st.Update(ctx, func(tx *store.Tx) error {
		if err := may(tx); err != nil {
			return err
		}
		if _, busy := store.ImageUploads.Get(tx, id); busy {
			return fault.New(fault.Unavailable, "Somebody else uploads %s. Try again.", id)
		}
		return store.ImageUploads.PutLeased(tx, &model.ImageUpload{ImageID: id, BlobID: blob, StartedAt: m.cfg.Now().UTC()}, lease)
	}); err != nil {
		return fmt.Errorf("keep %s: %w", id, err)
	}
	n, err := m.cfg.Blobs.Put(ctx, blob, body)
	if err == nil && n != size {
		err = fault.New(fault.Invalid, "The upload has %d bytes; %d were announced.", n, size)
	}
	if err == nil {
		_, err = m.st.Update(ctx, func(tx *store.Tx) error {
			// The row is compared at commit: an upload whose lease has run out commits nothing.
			if row, ours := store.ImageUploads.Get(tx, id); !ours || row.BlobID != blob {
				return errInterrupted
			}
			if err := store.ImageUploads.Delete(tx, id); err != nil {
				return err
			}
			return done(tx, blob, n)
		})
	}
	if err != nil {
		// The end of the lease takes the row, and that the bytes, unless the commit whose answer was lost refers to them.
		return fmt.Errorf("keep %s: %w", id, err)
	}
	m.log.Info("an upload is kept", "id", id, "blob", blob, "size", n)
	return nil
}
