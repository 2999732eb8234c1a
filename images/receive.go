package images

import (
	"context"
	"io"
	"slices"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// Receive takes the bytes of an image that a host has made, size of them, and makes the image active. The image waits
// in the state queued, or in saving with nobody who uploads; one without formats becomes a bare qcow2. may tells,
// inside the transaction that begins the upload, whether the sender may; see OfServer. An image that is active already
// is a success, and body is not read: the sender did not hear of it.
//
// Errors: those of Upload and of may; fault.Unavailable while somebody else uploads to the image.
func (m *Images) Receive(ctx context.Context, id model.ID, size int64, body io.Reader, may func(store.Reader) error) (*model.Image, error) {
	if err := m.st.Sync(ctx); err != nil {
		return nil, err
	}
	snap := m.st.Snapshot()
	if err := may(snap); err != nil {
		return nil, err
	}
	if img, ok := store.Images.Get(snap, id); ok && img.Status == model.ImageActive {
		return img, nil
	}
	return m.take(ctx, id, Expect{Size: size}, body, func(tx *store.Tx) (*model.Image, error) {
		if err := may(tx); err != nil {
			return nil, err
		}
		old, ok := store.Images.Get(tx, id)
		if !ok {
			return nil, fault.New(fault.NotFound, "No image found with ID %s", id)
		}
		if _, busy := store.ImageUploads.Get(tx, id); busy {
			return nil, fault.New(fault.Unavailable, "Somebody else uploads to image %s. Try again.", id)
		}
		img := clone(old)
		if img.Status == model.ImageSaving { // its sender was told so before there were bytes
			img.Status = model.ImageQueued
		}
		if img.DiskFormat == "" {
			img.DiskFormat = "qcow2"
		}
		if img.ContainerFormat == "" {
			img.ContainerFormat = bootableContainer
		}
		return img, nil
	})
}

// OfServer lets a host send an image that a server on it is to be saved as.
func OfServer(host, image model.ID) func(store.Reader) error {
	return func(r store.Reader) error {
		for s := range store.Servers.List(r, "host", host) {
			if slices.Contains(s.Saving, image) {
				return nil
			}
		}
		return fault.New(fault.Forbidden, "Image %s is not to be made on this host.", image)
	}
}
