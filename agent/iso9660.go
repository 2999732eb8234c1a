package agent

import (
	"bytes"
	"encoding/binary"
	"path"
	"slices"
	"strings"
	"time"
)

const isoSector = 2048

// isoNode is a file or a folder of an image under construction.
type isoNode struct {
	name   string // as it is shown, by Rock Ridge
	parent *isoNode
	kids   []*isoNode // of a folder, by isoName
	folder bool
	data   []byte
	sector uint32
	size   uint32 // bytes; of a folder, whole sectors
	number uint16 // of a folder in the path table, from 1
}

// isoName is the name for readers without Rock Ridge (ECMA-119, 7.5 and 7.6, of level 2
// but for its character set: configuration drives need '-' and '_').
func (n *isoNode) isoName() string {
	up := strings.ToUpper(n.name)
	if n.folder {
		return up
	}
	if !strings.Contains(up, ".") {
		up += "."
	}
	return up + ";1"
}

// isoImage makes an ISO 9660 image (ECMA-119) with Rock Ridge names (IEEE P1282) that holds
// files, by path with slashes. Names have at most 27 bytes of ASCII; label at most 32. The same input gives the
// same bytes.
func isoImage(label string, at time.Time, files map[string][]byte) []byte {
	root := &isoNode{folder: true}
	root.parent = root
	folders := []*isoNode{root} // by depth, then by parent, then by name: the path table's order (6.9.1)
	for _, p := range sortedKeys(files) {
		dir := root
		parts := strings.Split(path.Clean(p), "/")
		for _, part := range parts[:len(parts)-1] {
			dir = dir.folderOf(part)
		}
		dir.kids = append(dir.kids, &isoNode{name: parts[len(parts)-1], parent: dir, data: files[p], size: uint32(len(files[p]))})
	}
	for i := 0; i < len(folders); i++ {
		f := folders[i]
		f.number = uint16(i + 1)
		slices.SortFunc(f.kids, func(a, b *isoNode) int { return strings.Compare(a.isoName(), b.isoName()) })
		for _, k := range f.kids {
			if k.folder {
				folders = append(folders, k)
			}
		}
	}
	// Layout: 16 empty sectors, the descriptors, both path tables, folders, files.
	const lTable = 18
	table := 0
	for _, f := range folders {
		table += 8 + (len(f.tableName())+1)/2*2
	}
	tableSectors := uint32((table + isoSector - 1) / isoSector)
	next := lTable + 2*tableSectors
	for _, f := range folders {
		f.sector = next
		f.size = uint32(len(f.records(at)))
		next += f.size / isoSector
	}
	for _, f := range folders {
		for _, k := range f.kids {
			if !k.folder {
				k.sector = next
				next += (k.size + isoSector - 1) / isoSector
			}
		}
	}
	img := make([]byte, int(next)*isoSector)
	isoVolume(img[16*isoSector:17*isoSector], label, at, root, next, uint32(table), lTable, lTable+tableSectors)
	end := img[17*isoSector:]
	end[0], end[6] = 255, 1 // volume descriptor set terminator (8.3)
	copy(end[1:], "CD001")
	l, m := img[lTable*isoSector:], img[(lTable+tableSectors)*isoSector:]
	for _, f := range folders {
		name := f.tableName()
		l[0], m[0] = byte(len(name)), byte(len(name))
		binary.LittleEndian.PutUint32(l[2:], f.sector)
		binary.BigEndian.PutUint32(m[2:], f.sector)
		binary.LittleEndian.PutUint16(l[6:], f.parent.number)
		binary.BigEndian.PutUint16(m[6:], f.parent.number)
		copy(l[8:], name)
		copy(m[8:], name)
		step := 8 + (len(name)+1)/2*2
		l, m = l[step:], m[step:]
		copy(img[int(f.sector)*isoSector:], f.records(at))
		for _, k := range f.kids {
			copy(img[int(k.sector)*isoSector:], k.data)
		}
	}
	return img
}

func sortedKeys(m map[string][]byte) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// folderOf gives the folder of that name inside n, made if need be.
func (n *isoNode) folderOf(name string) *isoNode {
	for _, k := range n.kids {
		if k.folder && k.name == name {
			return k
		}
	}
	k := &isoNode{name: name, parent: n, folder: true}
	n.kids = append(n.kids, k)
	return k
}

func (n *isoNode) tableName() string {
	if n.parent == n {
		return "\x00"
	}
	return n.isoName()
}

// records gives a folder's extent: itself, its parent and its kids (9.1).
func (n *isoNode) records(at time.Time) []byte {
	var out bytes.Buffer
	put := func(rec []byte) {
		if room := isoSector - out.Len()%isoSector; room < len(rec) { // no record crosses a sector (6.8.1.1)
			out.Write(make([]byte, room))
		}
		out.Write(rec)
	}
	self := isoRecord("\x00", n, at)
	if n.parent == n {
		// SUSP's SP, and ER that names Rock Ridge: readers look for them in the root's first record.
		self = isoRecord("\x00", n, at,
			[]byte{'S', 'P', 7, 1, 0xbe, 0xef, 0},
			append([]byte{'E', 'R', 8 + 10 + 10 + 10, 1, 10, 10, 10, 1}, "RRIP_1991ARRIP 1.09 P1282_1.10"...))
	}
	put(self)
	put(isoRecord("\x01", n.parent, at))
	for _, k := range n.kids {
		put(isoRecord(k.isoName(), k, at, append([]byte{'N', 'M', byte(5 + len(k.name)), 1, 0}, k.name...)))
	}
	if pad := out.Len() % isoSector; pad > 0 {
		out.Write(make([]byte, isoSector-pad))
	}
	return out.Bytes()
}

// isoRecord makes a directory record with system use fields: the given ones, then Rock Ridge's modes and owners.
func isoRecord(name string, n *isoNode, at time.Time, fields ...[]byte) []byte {
	b := make([]byte, 33, 255)
	putBoth32(b[2:], n.sector)
	putBoth32(b[10:], n.size)
	copy(b[18:], isoTime(at))
	mode, links := uint32(0o100444), uint32(1)
	if n.folder {
		b[25] = 2
		mode, links = 0o040555, 2
	}
	putBoth16(b[28:], 1)
	b[32] = byte(len(name))
	b = append(b, name...)
	if len(name)%2 == 0 {
		b = append(b, 0)
	}
	px := make([]byte, 36)
	copy(px, "PX")
	px[2], px[3] = 36, 1
	putBoth32(px[4:], mode)
	putBoth32(px[12:], links)
	if name == "\x00" && len(fields) > 0 {
		b = append(b, fields[0]...) // SP comes first
		fields = fields[1:]
	}
	b = append(b, px...)
	for _, f := range fields {
		b = append(b, f...)
	}
	if len(b)%2 == 1 {
		b = append(b, 0)
	}
	b[0] = byte(len(b))
	return b
}

// isoVolume fills the primary volume descriptor (8.4).
func isoVolume(b []byte, label string, at time.Time, root *isoNode, sectors, table, l, m uint32) {
	text := func(from, to int, s string) { copy(b[from-1:to], s+strings.Repeat(" ", to-from+1)) }
	b[0], b[6] = 1, 1
	copy(b[1:], "CD001")
	text(9, 40, "LINUX")
	text(41, 72, label)
	putBoth32(b[80:], sectors)
	putBoth16(b[120:], 1)
	putBoth16(b[124:], 1)
	putBoth16(b[128:], isoSector)
	putBoth32(b[132:], table)
	binary.LittleEndian.PutUint32(b[140:], l)
	binary.BigEndian.PutUint32(b[148:], m)
	rec := make([]byte, 34)
	rec[0], rec[25], rec[32] = 34, 2, 1
	putBoth32(rec[2:], root.sector)
	putBoth32(rec[10:], root.size)
	copy(rec[18:], isoTime(at))
	putBoth16(rec[28:], 1)
	copy(b[156:], rec)
	text(191, 318, "")
	text(319, 446, "")
	text(447, 574, "YAKUMO")
	text(575, 702, "YAKUMO")
	text(703, 813, "")
	for _, from := range []int{813, 830, 847, 864} {
		copy(b[from:], "0000000000000000\x00")
	}
	stamp := at.UTC().Format("20060102150405") + "00\x00"
	copy(b[813:], stamp)
	copy(b[830:], stamp)
	b[881] = 1
}

// isoTime is the short form of a time (9.1.5), in UTC.
func isoTime(t time.Time) []byte {
	t = t.UTC()
	year := min(max(t.Year()-1900, 0), 255)
	return []byte{byte(year), byte(t.Month()), byte(t.Day()), byte(t.Hour()), byte(t.Minute()), byte(t.Second()), 0}
}

func putBoth32(b []byte, v uint32) {
	binary.LittleEndian.PutUint32(b, v)
	binary.BigEndian.PutUint32(b[4:], v)
}

func putBoth16(b []byte, v uint16) {
	binary.LittleEndian.PutUint16(b, v)
	binary.BigEndian.PutUint16(b[2:], v)
}
