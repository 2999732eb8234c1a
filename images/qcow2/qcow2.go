// Package qcow2 reads, and never writes, the metadata of a QCOW2 image that somebody else
// made, in order to decide whether a host may safely boot from a copy of it. It holds no
// more than one table of the image in memory. It imports nothing of the project.
//
// Source: docs/interop/qcow2.rst of QEMU.
package qcow2

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
)

// HeaderLen is the number of bytes at the start of a file that ParseHeader looks at.
const HeaderLen = 112

const (
	magic          = 0x514649fb
	minClusterBits = 9
	maxClusterBits = 21
	maxL1Bytes     = 32 << 20 // QEMU's own limit
	offsetMask     = 0x00ff_ffff_ffff_fe00

	incompatDirty       = 1 << 0
	incompatCorrupt     = 1 << 1
	incompatDataFile    = 1 << 2
	incompatCompression = 1 << 3
	incompatExtendedL2  = 1 << 4
	incompatKnown       = incompatDirty | incompatCorrupt | incompatDataFile | incompatCompression | incompatExtendedL2
)

// Refusal says what is wrong with an image: half a sentence that its owner may read, such
// as "it has a backing file".
type Refusal string

// Error gives the reason.
func (r Refusal) Error() string { return string(r) }

func unsafe(format string, args ...any) error { return Refusal(fmt.Sprintf(format, args...)) }

// Header is what the start of an image says.
type Header struct {
	Version     uint32
	ClusterBits uint32 // log2 of the cluster size in bytes, 9 to 21
	VirtualSize uint64 // bytes
	L1Size      uint32 // entries
	L1Offset    uint64 // bytes
	Extended    bool   // L2 entries are 16 bytes
}

// Is tells whether the bytes begin as a QCOW (any version) does.
func Is(start []byte) bool { return len(start) >= 4 && binary.BigEndian.Uint32(start) == magic }

// ParseHeader reads the header and refuses what makes an image depend on anything outside
// itself or on features that are not known here: a backing file, an external data file,
// encryption, unknown incompatible features, the corrupt mark, and sizes out of bounds.
// maxVirtual is the largest allowed virtual size in bytes.
func ParseHeader(start []byte, maxVirtual uint64) (Header, error) {
	var h Header
	if !Is(start) {
		return h, unsafe("it is not a QCOW2 image")
	}
	if len(start) < 72 {
		return h, unsafe("its header is cut off")
	}
	be := binary.BigEndian
	h.Version = be.Uint32(start[4:])
	if h.Version != 2 && h.Version != 3 {
		return h, unsafe("it is of QCOW version %d; only 2 and 3 are served", h.Version)
	}
	if be.Uint64(start[8:]) != 0 || be.Uint32(start[16:]) != 0 {
		return h, unsafe("it has a backing file")
	}
	h.ClusterBits = be.Uint32(start[20:])
	if h.ClusterBits < minClusterBits || h.ClusterBits > maxClusterBits {
		return h, unsafe("its cluster size is out of range")
	}
	h.VirtualSize = be.Uint64(start[24:])
	if h.VirtualSize == 0 || h.VirtualSize > maxVirtual {
		return h, unsafe("its virtual size of %d bytes is not between 1 and %d", h.VirtualSize, maxVirtual)
	}
	if be.Uint32(start[32:]) != 0 {
		return h, unsafe("it is encrypted")
	}
	h.L1Size = be.Uint32(start[36:])
	h.L1Offset = be.Uint64(start[40:])
	if h.Version == 3 {
		if len(start) < 104 {
			return h, unsafe("its header is cut off")
		}
		features, length := be.Uint64(start[72:]), be.Uint32(start[100:])
		switch {
		case features&^uint64(incompatKnown) != 0:
			return h, unsafe("it needs features that are not known here (%#x)", features&^uint64(incompatKnown))
		case features&incompatDataFile != 0:
			return h, unsafe("its data is in an external file")
		case features&incompatCorrupt != 0:
			return h, unsafe("it is marked as corrupt")
		case length < 104 || length%8 != 0 || length > 1<<h.ClusterBits:
			return h, unsafe("its header length is wrong")
		}
		if features&incompatCompression != 0 {
			if length < 112 || len(start) < 105 || start[104] > 1 {
				return h, unsafe("its compression method is not known here")
			}
		}
		if h.Extended = features&incompatExtendedL2 != 0; h.Extended && h.ClusterBits < 14 {
			return h, unsafe("its cluster size is too small for subclusters")
		}
	}
	cluster := uint64(1) << h.ClusterBits
	covers := cluster / h.entryBytes() * cluster // by one L2 table
	if need := (h.VirtualSize-1)/covers + 1; uint64(h.L1Size) < need || uint64(h.L1Size)*8 > maxL1Bytes {
		return h, unsafe("its first-level table of %d entries does not fit its size", h.L1Size)
	}
	if h.L1Offset == 0 || h.L1Offset%cluster != 0 {
		return h, unsafe("its first-level table is misplaced")
	}
	return h, nil
}

func (h Header) entryBytes() uint64 {
	if h.Extended {
		return 16
	}
	return 8
}

// Check reads every table of the image's disk, in a file of size bytes, and refuses a file
// that points outside itself: one that was cut off, or made to mislead.
func Check(r io.ReaderAt, size int64, maxVirtual uint64) (Header, error) {
	start := make([]byte, HeaderLen)
	n, err := r.ReadAt(start, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return Header{}, fmt.Errorf("read the header: %w", err)
	}
	h, err := ParseHeader(start[:n], maxVirtual)
	if err != nil {
		return h, err
	}
	cluster, total := uint64(1)<<h.ClusterBits, uint64(size)
	if h.L1Offset > total || uint64(h.L1Size)*8 > total-h.L1Offset {
		return h, unsafe("it is cut off before the end of its first-level table")
	}
	l1 := make([]byte, h.L1Size*8)
	if _, err := r.ReadAt(l1, int64(h.L1Offset)); err != nil && !errors.Is(err, io.EOF) {
		return h, fmt.Errorf("read the first-level table: %w", err)
	}
	tables := make([]uint64, 0, 64)
	for i := 0; i < len(l1); i += 8 {
		if at := binary.BigEndian.Uint64(l1[i:]) & offsetMask; at != 0 {
			tables = append(tables, at)
		}
	}
	// Each table once, however often it is named, so the work is bounded by the file's size.
	slices.Sort(tables)
	tables = slices.Compact(tables)
	table := make([]byte, cluster)
	for _, at := range tables {
		if at%cluster != 0 || at > total || cluster > total-at {
			return h, unsafe("it is cut off, or a second-level table is misplaced")
		}
		if _, err := r.ReadAt(table, int64(at)); err != nil && !errors.Is(err, io.EOF) {
			return h, fmt.Errorf("read a second-level table: %w", err)
		}
		if err := h.checkTable(table, total); err != nil {
			return h, err
		}
	}
	return h, nil
}

func (h Header) checkTable(table []byte, total uint64) error {
	step := int(h.entryBytes())
	for i := 0; i < len(table); i += step {
		e := binary.BigEndian.Uint64(table[i:])
		if e == 0 {
			continue
		}
		var at uint64
		if e&(1<<62) != 0 {
			at = e & (1<<(62-(h.ClusterBits-8)) - 1)
		} else if at = e & offsetMask; at%(1<<h.ClusterBits) != 0 {
			return unsafe("a cluster is misplaced")
		}
		if at >= total {
			return unsafe("it is cut off: it names data beyond its end")
		}
	}
	return nil
}
