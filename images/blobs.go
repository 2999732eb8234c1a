package images

import (
	"context"
	"io"

	"yakumo/model"
)

// Blobs keeps the bytes of images. Every server process must reach the same blobs.
// blobtest is its conformance suite.
type Blobs interface {
	// Put stores what r gives until io.EOF under a new id, and returns the number of bytes
	// once they are durable. The blob is readable only then. Where r or the store fails, or
	// Delete of the id comes meanwhile, Put fails and nothing readable is left. An id that
	// was put before is refused. Memory use does not depend on the number of bytes.
	Put(ctx context.Context, id model.ID, r io.Reader) (int64, error)
	// Open gives a complete blob and its size in bytes. It reports fault.NotFound where
	// there is none. A blob that is open stays readable when it is deleted.
	Open(ctx context.Context, id model.ID) (Blob, int64, error)
	// Delete removes the blob, complete or not; absent is success.
	Delete(ctx context.Context, id model.ID) error
	// List gives the id of every blob, those included whose Put never ended.
	List(ctx context.Context) ([]model.ID, error)
}

// Blob is an open blob.
type Blob interface {
	io.ReadSeekCloser
	io.ReaderAt
}
