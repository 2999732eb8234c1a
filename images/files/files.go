// Package files keeps the bytes of images as files in one directory, a file per blob,
// named by the blob's id. It implements images.Blobs.
//
// Several server processes may use the same directory at once; where servers run on
// different machines, the directory must be on storage that they share. Half-written
// blobs have the suffix ".part" and are never read; Put flushes the file and the directory
// before and after it takes the suffix away, so a power cut leaves a whole blob or a part.
//
// Imports fault and images of the project.
package files

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"yakumo/fault"
	"yakumo/images"
	"yakumo/model"
)

const partSuffix = ".part"

// copyBuffer is the size of one write; memory for a Put is this much.
const copyBuffer = 1 << 20

// Config says where the files are.
type Config struct {
	Dir string // made with mode 0700 where it is missing
}

// Store is a directory of blobs.
type Store struct{ dir string }

var _ images.Blobs = (*Store)(nil)

// New opens the directory.
func New(cfg Config) (*Store, error) {
	if cfg.Dir == "" {
		return nil, errors.New("the directory of the image files is not set")
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of the image files: %w", err)
	}
	return &Store{dir: cfg.Dir}, nil
}

// path refuses whatever is not a canonical UUID, so that no id leaves the directory.
func (s *Store) path(id model.ID) (string, error) {
	if !validID(id) {
		return "", fmt.Errorf("%q is not the id of a blob", id)
	}
	return filepath.Join(s.dir, id), nil
}

func validID(id string) bool {
	if len(id) != 36 {
		return false
	}
	for i := range len(id) {
		c := id[i]
		switch {
		case i == 8 || i == 13 || i == 18 || i == 23:
			if c != '-' {
				return false
			}
		case c >= '0' && c <= '9', c >= 'a' && c <= 'f':
		default:
			return false
		}
	}
	return true
}

// Put implements images.Blobs.
func (s *Store) Put(ctx context.Context, id model.ID, r io.Reader) (int64, error) {
	path, err := s.path(id)
	if err != nil {
		return 0, err
	}
	if _, err := os.Stat(path); err == nil {
		return 0, fmt.Errorf("write blob %s: %w", id, fs.ErrExist)
	}
	f, err := os.OpenFile(path+partSuffix, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return 0, fmt.Errorf("write blob %s: %w", id, err)
	}
	n, err := s.fill(ctx, f, path, r)
	if err != nil {
		if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
			err = fault.Wrap(fault.TooLarge, err, "The storage of images is full.")
		}
		err = fmt.Errorf("write blob %s: %w", id, err)
		if rm := os.Remove(path + partSuffix); rm != nil && !errors.Is(rm, fs.ErrNotExist) {
			err = errors.Join(err, rm)
		}
		return 0, err
	}
	return n, nil
}

func (s *Store) fill(ctx context.Context, f *os.File, path string, r io.Reader) (int64, error) {
	n, err := io.CopyBuffer(onlyWriter{f}, &cancelled{ctx, r}, make([]byte, copyBuffer))
	if err == nil {
		err = f.Sync()
	}
	if cl := f.Close(); err == nil {
		err = cl
	}
	if err == nil {
		err = os.Rename(path+partSuffix, path)
	}
	if err == nil {
		err = s.syncDir()
	}
	return n, err
}

func (s *Store) syncDir() error {
	d, err := os.Open(s.dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if cl := d.Close(); err == nil {
		err = cl
	}
	return err
}

// Open implements images.Blobs.
func (s *Store) Open(_ context.Context, id model.ID) (images.Blob, int64, error) {
	path, err := s.path(id)
	if err != nil {
		return nil, 0, fault.Wrap(fault.NotFound, err, "The image has no data.")
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, fault.Wrap(fault.NotFound, err, "The image has no data.")
	}
	if err != nil {
		return nil, 0, fmt.Errorf("read blob %s: %w", id, err)
	}
	st, err := f.Stat()
	if err != nil {
		return nil, 0, errors.Join(fmt.Errorf("read blob %s: %w", id, err), f.Close())
	}
	return f, st.Size(), nil
}

// Delete implements images.Blobs.
func (s *Store) Delete(_ context.Context, id model.ID) error {
	path, err := s.path(id)
	if err != nil {
		return nil // no blob has such an id
	}
	// The part first: a Put that ends in between renames nothing, or is removed next.
	for _, p := range []string{path + partSuffix, path} {
		if err := os.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove blob %s: %w", id, err)
		}
	}
	return nil
}

// List implements images.Blobs. Files that are not blobs are left out.
func (s *Store) List(context.Context) ([]model.ID, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("list blobs: %w", err)
	}
	var out []model.ID
	for _, e := range entries {
		// A part and its whole are never both there but for the moment of a rename.
		if id := strings.TrimSuffix(e.Name(), partSuffix); validID(id) && (len(out) == 0 || out[len(out)-1] != id) {
			out = append(out, id)
		}
	}
	return out, nil
}

// onlyWriter hides ReadFrom, so that the copy uses our buffer and sees every read.
type onlyWriter struct{ io.Writer }

// cancelled ends a stream with its context.
type cancelled struct {
	ctx context.Context
	r   io.Reader
}

func (c *cancelled) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
