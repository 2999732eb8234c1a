package main

import (
	"context"

	"yakumo/fault"
	"yakumo/images"
	"yakumo/link"
	"yakumo/model"
	"yakumo/store"
	"yakumo/volume"
)

// receiver gives what hosts upload to whom it belongs.
func receiver(img *images.Images, vols *volume.Volumes) func(context.Context, link.Upload) error {
	return func(ctx context.Context, up link.Upload) error {
		switch up.Kind {
		case link.UploadImage:
			_, err := img.Receive(ctx, up.ID, up.Size, up.Body, func(r store.Reader) error {
				if volume.MaySendImage(r, up.Host, up.ID) == nil {
					return nil
				}
				return images.OfServer(up.Host, up.ID)(r)
			})
			return err
		case link.UploadBackup:
			return img.Keep(ctx, up.ID, up.Size, up.Body,
				func(r store.Reader) error { return volume.Expected(r, up.Host, up.ID) },
				func(tx *store.Tx, blob model.ID, bytes int64) error { return vols.Received(tx, up.ID, blob, bytes) })
		}
		return fault.New(fault.NotFound, "Nothing of the kind %q is taken.", up.Kind)
	}
}
