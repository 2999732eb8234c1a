package container

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"yakumo/fault"
)

// idCount is how many users and groups a container has: 0 to 65535.
const idCount = 1 << 16

// openArchive gives the tar in r, which may be compressed with gzip (RFC 1952).
func openArchive(r io.Reader) (*tar.Reader, error) {
	b := bufio.NewReaderSize(r, 64<<10)
	head, err := b.Peek(512)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if bytes.HasPrefix(head, []byte{0x1f, 0x8b}) {
		z, err := gzip.NewReader(b)
		if err != nil {
			return nil, badArchive(err)
		}
		return tar.NewReader(z), nil
	}
	// POSIX.1-1988, ustar: the magic is at byte 257, for GNU's format too.
	if len(head) < 512 || !bytes.HasPrefix(head[257:], []byte("ustar")) {
		return nil, badArchive(errors.New("it begins as neither tar nor gzip"))
	}
	return tar.NewReader(b), nil
}

func badArchive(err error) error {
	return fault.Wrap(fault.Invalid, err, "The image is no archive that a container can be made of: tar, or tar compressed with gzip (%v).", err)
}

// unpack writes what an archive holds below root. Names and links that lead out of root are errors: root lets none
// through. Devices are left out, as a container gets its own.
func unpack(ctx context.Context, archive *tar.Reader, root *os.Root) error {
	entries := 0
	for {
		h, err := archive.Next()
		if err == io.EOF {
			break
		}
		if err == nil {
			err = ctx.Err()
		}
		if err == nil {
			err = unpackOne(ctx, h, archive, root)
		}
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, unix.ENOSPC):
			return fault.Wrap(fault.Invalid, err, "The flavor's disk is too small for the image.")
		case err != nil:
			return badArchive(err)
		}
		entries++
	}
	if entries == 0 {
		return badArchive(errors.New("it is empty"))
	}
	return nil
}

func unpackOne(ctx context.Context, h *tar.Header, data io.Reader, root *os.Root) error {
	name := path.Clean(strings.TrimLeft(h.Name, "/"))
	if h.Uid < 0 || h.Uid >= idCount || h.Gid < 0 || h.Gid >= idCount {
		return fmt.Errorf("%s is of user %d and group %d, which a container has not", h.Name, h.Uid, h.Gid)
	}
	mode := h.FileInfo().Mode()
	if dir := path.Dir(name); dir != "." {
		if err := root.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if h.Typeflag != tar.TypeDir && name != "." { // a later entry takes an earlier one's place
		if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	switch h.Typeflag {
	case tar.TypeDir:
		if err := root.Mkdir(name, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	case tar.TypeReg:
		f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, stopAtEnd{ctx, data})
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	case tar.TypeSymlink:
		if err := root.Symlink(h.Linkname, name); err != nil {
			return err
		}
		return root.Lchown(name, h.Uid, h.Gid)
	case tar.TypeLink:
		return root.Link(path.Clean(strings.TrimLeft(h.Linkname, "/")), name)
	default: // devices, pipes, and what archives say of themselves
		return nil
	}
	if err := root.Lchown(name, h.Uid, h.Gid); err != nil {
		return err
	}
	return root.Chmod(name, mode.Perm()|mode&(fs.ModeSetuid|fs.ModeSetgid|fs.ModeSticky)) // after the owner, who would take setuid away
}
