package main

import (
	"context"

	"yakumo/fault"
	"yakumo/images"
	"yakumo/link"
)

// receiver gives what hosts upload to whom it belongs.
func receiver(img *images.Images) func(context.Context, link.Upload) error {
	return func(ctx context.Context, up link.Upload) error {
		switch up.Kind {
		case link.UploadImage:
			_, err := img.Receive(ctx, up.ID, up.Size, up.Body, images.OfServer(up.Host, up.ID))
			return err
		}
		return fault.New(fault.NotFound, "Nothing of the kind %q is taken.", up.Kind)
	}
}
