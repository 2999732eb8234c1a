// Package chunk looks at what a volume holds by pieces of one size: which of two are alike is seen by their digests alone. It keeps backups of volumes in a form of its own
// (Head), each whole or as what differs from the one before, and puts volumes together again from them.
//
// It reads and writes the files and streams that it is given, nothing else. May import: fault. Must not import: another part of the project.
package chunk

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Size is how large a chunk is, bytes; the last one of a volume may be smaller.
const Size = 1 << 20

// Sum is a chunk's SHA-256. The zero value is that of a chunk of zeroes alone.
type Sum [sha256.Size]byte

var zeroes = make([]byte, Size)

// sumOf gives the sum of a chunk.
func sumOf(data []byte) Sum {
	if string(data) == string(zeroes[:len(data)]) {
		return Sum{}
	}
	return sha256.Sum256(data)
}

// chunks tells how many chunks so many bytes are.
func chunks(size int64) int64 { return (size + Size - 1) / Size }

// length gives how many bytes the chunk i of a volume of the size has.
func length(i, size int64) int { return int(min(Size, size-i*Size)) }

// Sums gives the sums of a raw file's chunks, in their order. Holes in the file are not read.
func Sums(ctx context.Context, f *os.File) ([]Sum, error) {
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	out := make([]Sum, chunks(size))
	buf := make([]byte, Size)
	for at := int64(0); at < size; {
		data, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break // only a hole is left
		}
		if errors.Is(err, unix.EINVAL) { // the file system knows nothing of holes
			data, err = at, nil
		}
		if err != nil {
			return nil, fmt.Errorf("holes of %s: %w", f.Name(), err)
		}
		i := data / Size
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		b := buf[:length(i, size)]
		if _, err := f.ReadAt(b, i*Size); err != nil {
			return nil, fmt.Errorf("read %s: %w", f.Name(), err)
		}
		out[i] = sumOf(b)
		at = (i + 1) * Size
	}
	return out, nil
}
