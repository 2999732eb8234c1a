package main

import (
	"encoding/binary"
	"testing"
)

// table makes a DOS partition table; each entry is {start, sectors}.
func table(entries ...[2]uint32) []byte {
	mbr := make([]byte, sector)
	mbr[510], mbr[511] = 0x55, 0xaa
	for i, e := range entries {
		if e[1] == 0 {
			continue
		}
		entry := mbr[446+16*i:]
		entry[4] = 0x83
		binary.LittleEndian.PutUint32(entry[8:], e[0])
		binary.LittleEndian.PutUint32(entry[12:], e[1])
	}
	return mbr
}

func TestGrowEntry(t *testing.T) {
	const mib = 2048 // sectors
	for _, c := range []struct {
		name   string
		mbr    []byte
		number int
		start  uint64
		disk   uint64
		want   uint64 // 0: an error
	}{
		{"grows", table([2]uint32{mib, 20 * mib}, [2]uint32{21 * mib, 91 * mib}), 2, 21 * mib, 1024 * mib, 1003 * mib},
		{"ends on a whole MiB", table([2]uint32{mib, 10 * mib}), 1, mib, 100*mib + 5, 99 * mib},
		{"fits already", table([2]uint32{mib, 99 * mib}), 1, mib, 100 * mib, 99 * mib},
		{"disk shrank", table([2]uint32{mib, 99 * mib}), 1, mib, 50 * mib, 99 * mib},
		{"something behind", table([2]uint32{mib, 10 * mib}, [2]uint32{11 * mib, mib}), 1, mib, 100 * mib, 10 * mib},
		{"2 TiB at most", table([2]uint32{mib, 10 * mib}), 1, mib, 1 << 33, 1<<32 - 2*mib},
		{"kernel disagrees", table([2]uint32{mib, 10 * mib}), 1, 2 * mib, 100 * mib, 0},
		{"no table", make([]byte, sector), 1, mib, 100 * mib, 0},
		{"logical partition", table(), 5, mib, 100 * mib, 0},
	} {
		got, err := growEntry(c.mbr, c.number, c.start, c.disk)
		if (err != nil) != (c.want == 0) || got != c.want {
			t.Errorf("%s: got %d, %v; want %d", c.name, got, err, c.want)
			continue
		}
		if err == nil {
			if on := binary.LittleEndian.Uint32(c.mbr[446+16*(c.number-1)+12:]); uint64(on) != c.want {
				t.Errorf("%s: the table says %d, want %d", c.name, on, c.want)
			}
		}
	}
}

func FuzzGrowEntry(f *testing.F) {
	f.Add(table([2]uint32{2048, 4096}), 1, uint64(2048), uint64(1<<20))
	f.Fuzz(func(t *testing.T, mbr []byte, number int, start, disk uint64) {
		before := append([]byte(nil), mbr...)
		got, err := growEntry(mbr, number, start, disk)
		if err != nil {
			return
		}
		for i := range mbr {
			if at := 446 + 16*(number-1) + 12; (i < at || i >= at+4) && mbr[i] != before[i] {
				t.Fatalf("byte %d changed", i)
			}
		}
		old := uint64(binary.LittleEndian.Uint32(before[446+16*(number-1)+12:]))
		if got < old || (got > old && start+got > disk) {
			t.Errorf("from %d to %d sectors at %d on a disk of %d", old, got, start, disk)
		}
	})
}
