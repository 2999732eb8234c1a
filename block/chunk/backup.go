package chunk

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"os"

	"yakumo/fault"
)

// A backup is: magic, the head's length (8 bytes, big-endian as all numbers), the head's SHA-256, the head, and then the bytes of those chunks that it keeps itself, in their order
// and with nothing between. The head is: the volume's size in bytes (8), the size of a chunk (4), the ID of the backup that it builds on (32; zero where it is whole), and runs of chunks
// of one kind until all are told: the kind (1), how many (8), and, but for zeroes, the SHA-256 of each (32).
const (
	magic = "YKBACK1\n"
	fixed = len(magic) + 8 + sha256.Size // before the head
	least = 8 + 4 + sha256.Size          // of a head

	// mostBytes is the largest volume that a backup may be of.
	mostBytes = 1 << 50
)

// kind tells where the bytes of a chunk are.
type kind byte

const (
	zero  kind = iota // nowhere: it is all zeroes
	here              // in this backup
	below             // in one that it builds on
)

// Head tells what a backup holds.
type Head struct {
	size   int64
	parent Sum // of the backup that it builds on
	sums   []Sum
	kinds  []kind
	raw    []byte // as it is kept
}

// New tells what a backup of a raw file is to hold: all that is not zeroes, or where parent is not nil what is not in parent either. The file must not change until it is sent.
func New(ctx context.Context, f *os.File, parent *Head) (*Head, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	sums, err := Sums(ctx, f)
	if err != nil {
		return nil, err
	}
	h := &Head{size: st.Size(), sums: sums, kinds: make([]kind, len(sums))}
	if parent != nil {
		h.parent = parent.ID()
	}
	for i, s := range sums {
		switch {
		case s == Sum{}:
		case parent != nil && i < len(parent.sums) && parent.sums[i] == s:
			h.kinds[i] = below
		default:
			h.kinds[i] = here
		}
	}
	h.raw = h.encode()
	return h, nil
}

// ID tells the backup from every other one: the SHA-256 of its head.
func (h *Head) ID() Sum { return sha256.Sum256(h.raw) }

// Volume is how large the volume was, bytes.
func (h *Head) Volume() int64 { return h.size }

// Whole tells that the backup builds on no other.
func (h *Head) Whole() bool { return h.parent == Sum{} }

// Bytes is how long the backup is.
func (h *Head) Bytes() int64 {
	n := int64(fixed + len(h.raw))
	for i, k := range h.kinds {
		if k == here {
			n += int64(length(int64(i), h.size))
		}
	}
	return n
}

// Reader gives the backup's bytes, of the file that New had.
func (h *Head) Reader(f io.ReaderAt) io.Reader {
	id := h.ID()
	top := append(binary.BigEndian.AppendUint64([]byte(magic), uint64(len(h.raw))), id[:]...)
	return io.MultiReader(bytes.NewReader(top), bytes.NewReader(h.raw), &body{h: h, f: f})
}

// body reads the chunks that a backup keeps.
type body struct {
	h    *Head
	f    io.ReaderAt
	next int64
	part io.Reader
}

func (b *body) Read(p []byte) (int, error) {
	for {
		if b.part != nil {
			if n, err := b.part.Read(p); n > 0 || err != io.EOF {
				return n, err
			}
			b.part = nil
		}
		for b.next < int64(len(b.h.kinds)) && b.h.kinds[b.next] != here {
			b.next++
		}
		if b.next == int64(len(b.h.kinds)) {
			return 0, io.EOF
		}
		b.part = io.NewSectionReader(b.f, b.next*Size, int64(length(b.next, b.h.size)))
		b.next++
	}
}

func (h *Head) encode() []byte {
	out := binary.BigEndian.AppendUint64(nil, uint64(h.size))
	out = binary.BigEndian.AppendUint32(out, Size)
	out = append(out, h.parent[:]...)
	for i := 0; i < len(h.kinds); {
		n := i
		for n < len(h.kinds) && h.kinds[n] == h.kinds[i] {
			n++
		}
		out = append(out, byte(h.kinds[i]))
		out = binary.BigEndian.AppendUint64(out, uint64(n-i))
		if h.kinds[i] != zero {
			for _, s := range h.sums[i:n] {
				out = append(out, s[:]...)
			}
		}
		i = n
	}
	return out
}

// damaged is the error of a backup that is not what was once written.
func damaged(how string) error { return fault.New(fault.Invalid, "The backup is damaged: %s.", how) }

// Read reads what a backup holds, up to the first chunk that it keeps.
//
// Errors: fault.Invalid where it is damaged; else those of r, as fault.Unavailable.
func Read(r io.Reader) (*Head, error) {
	top := make([]byte, fixed)
	if err := full(r, top); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint64(top[len(magic):])
	if string(top[:len(magic)]) != magic || n < uint64(least) || n > mostBytes/Size*(sha256.Size+9) {
		return nil, damaged("it does not begin as one")
	}
	var raw bytes.Buffer // grows as bytes come, whatever the length says
	if m, err := io.Copy(&raw, io.LimitReader(r, int64(n))); err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "The backup cannot be read now.")
	} else if m < int64(n) {
		return nil, damaged("it ends too early")
	}
	if sha256.Sum256(raw.Bytes()) != Sum(top[len(magic)+8:]) {
		return nil, damaged("its index has another digest")
	}
	return decode(raw.Bytes())
}

func decode(raw []byte) (*Head, error) {
	bad := damaged("its index is malformed")
	if len(raw) < least {
		return nil, bad
	}
	h := &Head{size: int64(binary.BigEndian.Uint64(raw)), parent: Sum(raw[12:least]), raw: raw}
	if h.size < 0 || h.size > mostBytes || binary.BigEndian.Uint32(raw[8:]) != Size {
		return nil, bad
	}
	all := uint64(chunks(h.size))
	for raw = raw[least:]; len(raw) > 0; {
		if len(raw) < 9 {
			return nil, bad
		}
		k, n := kind(raw[0]), binary.BigEndian.Uint64(raw[1:])
		raw = raw[9:]
		if k > below || n == 0 || n > all-uint64(len(h.kinds)) || k == below && h.Whole() {
			return nil, bad
		}
		if k != zero && uint64(len(raw)) < n*sha256.Size {
			return nil, bad
		}
		for range n {
			s := Sum{}
			if k != zero {
				s, raw = Sum(raw[:sha256.Size]), raw[sha256.Size:]
				if s == (Sum{}) {
					return nil, bad
				}
			}
			h.sums, h.kinds = append(h.sums, s), append(h.kinds, k)
		}
	}
	if uint64(len(h.kinds)) != all {
		return nil, bad
	}
	return h, nil
}

// Apply writes what a backup holds to a raw file: over what the file has of the backup on which it builds, whose head is under; nil for one that is whole. The file is then as large as
// the volume was, and every chunk has the digest that the backup tells.
//
// Errors: fault.Invalid where it is damaged or builds on another backup; fault.Unavailable where it cannot be read now.
func Apply(ctx context.Context, r io.Reader, f *os.File, under *Head) (*Head, error) {
	h, err := Read(r)
	if err != nil {
		return nil, err
	}
	if under == nil && !h.Whole() || under != nil && h.parent != under.ID() {
		return nil, fault.New(fault.Invalid, "The backup builds on another one than that which is there.")
	}
	if err := f.Truncate(h.size); err != nil {
		return nil, err
	}
	was := func(i int) Sum {
		// The last chunk of a smaller volume is longer in a larger one: it is another, but for what Truncate has made of zeroes.
		if under == nil || i >= len(under.sums) || length(int64(i), under.size) != length(int64(i), h.size) {
			return Sum{}
		}
		return under.sums[i]
	}
	buf := make([]byte, Size)
	for i, k := range h.kinds {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		b := buf[:length(int64(i), h.size)]
		switch {
		case k == below && was(i) != h.sums[i]:
			return nil, damaged("what it builds on holds something else")
		case k == here:
			if err := full(r, b); err != nil {
				return nil, err
			}
			if sumOf(b) != h.sums[i] {
				return nil, damaged("a piece of it has another digest")
			}
			if _, err := f.WriteAt(b, int64(i)*Size); err != nil {
				return nil, err
			}
		case k == zero && under != nil && i < len(under.sums) && under.sums[i] != Sum{}:
			if _, err := f.WriteAt(zeroes[:len(b)], int64(i)*Size); err != nil {
				return nil, err
			}
		}
	}
	return h, nil
}

// full fills b. A stream that ends early is a damaged backup; one that breaks is not.
func full(r io.Reader, b []byte) error {
	for n := 0; n < len(b); {
		m, err := r.Read(b[n:])
		n += m
		switch {
		case n == len(b):
		case errors.Is(err, io.EOF):
			return damaged("it ends too early")
		case err != nil:
			return fault.Wrap(fault.Unavailable, err, "The backup cannot be read now.")
		}
	}
	return nil
}
