package images

import (
	"bufio"
	"context"
	"crypto/md5"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"time"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// HashAlgo is the algorithm of every image's HashValue.
const HashAlgo = "sha512"

// cleanUpTimeout bounds what is done after an upload whose own context may have ended.
const cleanUpTimeout = 10 * time.Second

// Expect is what the sender says of the bytes it is about to send.
type Expect struct {
	Size int64  // bytes; -1: not said
	MD5  string // hex; empty: not said
}

// Upload takes the bytes of a queued image from body until io.EOF and makes the image
// active. Where that fails in any way, the image is queued again and nothing of the bytes
// is left. Memory use does not depend on the size.
//
// Errors: fault.NotFound, Forbidden; fault.Conflict where the image is not queued or
// somebody else uploads; fault.Invalid where the formats are not set, the stream breaks
// off or is not what Expect says; fault.Unsupported where the bytes are not what
// disk_format says or are not safe to boot; fault.TooLarge; fault.Gone where the image
// was deleted meanwhile; fault.Unavailable.
func (m *Images) Upload(ctx context.Context, by Caller, id model.ID, want Expect, body io.Reader) (*model.Image, error) {
	return m.take(ctx, id, want, body, func(tx *store.Tx) (*model.Image, error) { return m.owned(tx, by, id, "upload_image") })
}

// take is Upload but for who may: may gives the image inside the transaction that begins the upload.
func (m *Images) take(ctx context.Context, id model.ID, want Expect, body io.Reader, may func(*store.Tx) (*model.Image, error)) (*model.Image, error) {
	if want.Size > m.cfg.MaxSize {
		return nil, m.tooLarge()
	}
	lease, err := m.st.NewLease(ctx, m.cfg.UploadTTL)
	if err != nil {
		return nil, fmt.Errorf("upload image: %w", err)
	}
	up := &upload{m: m, id: id, blob: model.NewID(), want: want}
	defer func() {
		// Where this fails the lease runs out by itself, and Run does the rest.
		cctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUpTimeout)
		defer cancel()
		if err := lease.Close(cctx); err != nil {
			m.log.Warn("the lease of an upload was not given back; it runs out", "image", id, "err", err)
		}
	}()
	if err := up.begin(ctx, lease, may); err != nil {
		return nil, fmt.Errorf("upload image: %w", err)
	}
	m.log.Info("upload begins", "image", id, "blob", up.blob, "size", want.Size)
	img, err := up.run(ctx, lease, body)
	if err != nil {
		m.log.Info("upload failed", "image", id, "blob", up.blob, "err", err)
		up.undo(context.WithoutCancel(ctx))
		return nil, fmt.Errorf("upload image: %w", err)
	}
	m.log.Info("upload ends", "image", id, "blob", up.blob, "size", img.Size)
	return img, nil
}

func (m *Images) tooLarge() error {
	return fault.New(fault.TooLarge, "The image is larger than the limit of %d bytes.", m.cfg.MaxSize)
}

type upload struct {
	m      *Images
	id     model.ID
	blob   model.ID
	want   Expect
	format string // disk_format as it was at the beginning; it cannot change while saving
}

// begin takes the image from queued to saving; of several at once, one succeeds.
func (u *upload) begin(ctx context.Context, lease *store.Lease, may func(*store.Tx) (*model.Image, error)) error {
	_, err := u.m.st.Update(ctx, func(tx *store.Tx) error {
		old, err := may(tx)
		if err != nil {
			return err
		}
		if old.Status != model.ImageQueued {
			return fault.New(fault.Conflict, "Image status transition from %s to saving is not allowed", old.Status)
		}
		if old.DiskFormat == "" || old.ContainerFormat == "" {
			return fault.New(fault.Invalid, "Properties disk_format, container_format must be set prior to saving data.")
		}
		u.format = old.DiskFormat
		img := clone(old)
		img.Status = model.ImageSaving
		img.Touch(u.m.cfg.Now())
		if err := store.Images.Put(tx, img); err != nil {
			return err
		}
		return store.ImageUploads.PutLeased(tx, &model.ImageUpload{ImageID: u.id, BlobID: u.blob, StartedAt: u.m.cfg.Now().UTC()}, lease)
	})
	return err
}

func (u *upload) run(ctx context.Context, lease *store.Lease, body io.Reader) (*model.Image, error) {
	stream := newStream(body, u.m.cfg.MaxSize)
	virtual, err := u.receive(ctx, lease, stream)
	if err != nil {
		return nil, err
	}
	return u.activate(ctx, func(img *model.Image) {
		img.Size, img.VirtualSize = stream.n, virtual
		img.Checksum, img.HashAlgo, img.HashValue = stream.md5(), HashAlgo, stream.sha512()
	})
}

// receive stores the stream, checks it, and gives the virtual size. It ends early where
// the upload has lost its right to go on.
func (u *upload) receive(ctx context.Context, lease *store.Lease, stream *stream) (int64, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		u.watch(ctx, lease, cancel)
	}()
	// Nothing may cancel any more once activate runs, which removes the row itself.
	defer func() { cancel(nil); <-watched }()
	start, err := stream.peek()
	if err != nil {
		return 0, u.broken(ctx, stream, err)
	}
	if err := u.m.checkStart(u.format, start); err != nil {
		return 0, err
	}
	size, err := u.m.cfg.Blobs.Put(ctx, u.blob, stream)
	if err != nil {
		return 0, u.broken(ctx, stream, err)
	}
	switch {
	case size != stream.n:
		return 0, fmt.Errorf("blob %s has %d bytes of %d", u.blob, size, stream.n)
	case u.want.Size >= 0 && size != u.want.Size:
		return 0, fault.New(fault.Invalid, "The upload has %d bytes; %d were announced.", size, u.want.Size)
	case u.want.MD5 != "" && stream.md5() != u.want.MD5:
		return 0, fault.New(fault.Invalid, "The MD5 of the upload is %s; %s was announced.", stream.md5(), u.want.MD5)
	}
	virtual, err := u.m.checkBlob(ctx, u.format, u.blob)
	if err != nil {
		return 0, u.broken(ctx, stream, err)
	}
	return virtual, nil
}

// watch cancels the upload when its image or its row is gone, so that no more bytes are
// taken for nothing.
func (u *upload) watch(ctx context.Context, lease *store.Lease, cancel context.CancelCauseFunc) {
	sub := u.m.st.Subscribe(store.ImageUploads.Kind())
	defer sub.Close()
	lctx, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		select {
		case <-lease.Done():
			stop()
		case <-lctx.Done():
		}
	}()
	for {
		d, err := sub.Next(lctx)
		if err == nil {
			if row, ok := store.ImageUploads.Get(d.Snapshot, u.id); ok && row.BlobID == u.blob {
				continue
			}
			if _, ok := store.Images.Get(d.Snapshot, u.id); !ok {
				cancel(u.gone())
				return
			}
		}
		if ctx.Err() == nil {
			cancel(errInterrupted)
		}
		return
	}
}

var errInterrupted = fault.New(fault.Unavailable, "The upload was interrupted. Try again.")

func (u *upload) gone() error {
	return fault.New(fault.Gone, "Image %s could not be found after upload. The image may have been deleted during the upload.", u.id)
}

// broken tells a failure of the sender from one of ours.
func (u *upload) broken(ctx context.Context, s *stream, err error) error {
	if cause := context.Cause(ctx); cause != nil && fault.KindOf(cause) != fault.Internal {
		return cause
	}
	switch {
	case errors.Is(err, errTooLarge):
		return u.m.tooLarge()
	case s.err != nil && fault.KindOf(s.err) != fault.Internal:
		return s.err
	case s.err != nil:
		return fault.Wrap(fault.Invalid, s.err, "The upload broke off after %d bytes.", s.n)
	}
	return err
}

func (u *upload) activate(ctx context.Context, fill func(*model.Image)) (*model.Image, error) {
	var out *model.Image
	_, err := u.m.st.Update(ctx, func(tx *store.Tx) error {
		old, there := store.Images.Get(tx, u.id)
		if !there {
			return u.gone()
		}
		// The row is compared at commit: an upload whose lease has run out commits nothing.
		row, ours := store.ImageUploads.Get(tx, u.id)
		if !ours || row.BlobID != u.blob || old.Status != model.ImageSaving {
			return errInterrupted
		}
		img := clone(old)
		fill(img)
		img.Status, img.BlobID = model.ImageActive, u.blob
		img.Touch(u.m.cfg.Now())
		if err := store.ImageUploads.Delete(tx, u.id); err != nil {
			return err
		}
		out = img
		return store.Images.Put(tx, img)
	})
	return out, err
}

// undo sets the image back to queued and removes the bytes. What fails here is done by
// Run once the lease has run out.
func (u *upload) undo(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, cleanUpTimeout)
	defer cancel()
	used := false
	_, err := u.m.st.Update(ctx, func(tx *store.Tx) error {
		img, ok := store.Images.Get(tx, u.id)
		// A commit whose answer was lost may have made the image active after all.
		used = ok && img.BlobID == u.blob
		row, ours := store.ImageUploads.Get(tx, u.id)
		if !ours || row.BlobID != u.blob {
			return nil
		}
		if err := store.ImageUploads.Delete(tx, u.id); err != nil {
			return err
		}
		if !ok {
			return nil
		}
		return u.m.requeue(tx, img)
	})
	if err == nil && !used {
		err = u.m.cfg.Blobs.Delete(ctx, u.blob)
	}
	if err != nil {
		u.m.log.Warn("a broken upload is cleaned up later", "image", u.id, "blob", u.blob, "err", err)
	}
}

// requeue sets an image that lost its upload back to queued.
func (m *Images) requeue(tx *store.Tx, old *model.Image) error {
	if old.Status != model.ImageSaving {
		return nil
	}
	img := clone(old)
	img.Status = model.ImageQueued
	img.Touch(m.cfg.Now())
	return store.Images.Put(tx, img)
}

var errTooLarge = errors.New("the stream is longer than allowed")

// stream hashes and counts what passes, and fails where it is too long.
type stream struct {
	r      *bufio.Reader
	hashes io.Writer
	sums   [2]interface{ Sum([]byte) []byte }
	max    int64
	n      int64
	err    error // of the source, io.EOF aside
}

func newStream(r io.Reader, max int64) *stream {
	m, s := md5.New(), sha512.New()
	return &stream{r: bufio.NewReaderSize(r, startLen), hashes: io.MultiWriter(m, s), sums: [2]interface{ Sum([]byte) []byte }{m, s}, max: max}
}

// peek gives the first startLen bytes, or all there are, and leaves them to be read.
func (s *stream) peek() ([]byte, error) {
	b, err := s.r.Peek(startLen)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
		return nil, err
	}
	return b, nil
}

// Read implements io.Reader.
func (s *stream) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if s.n+int64(n) > s.max {
		s.err = errTooLarge
		return 0, errTooLarge
	}
	s.hashes.Write(p[:n]) // a hash never fails
	s.n += int64(n)
	if err != nil && err != io.EOF {
		s.err = err
	}
	return n, err
}

func (s *stream) md5() string    { return hex.EncodeToString(s.sums[0].Sum(nil)) }
func (s *stream) sha512() string { return hex.EncodeToString(s.sums[1].Sum(nil)) }
