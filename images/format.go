package images

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"yakumo/fault"
	"yakumo/images/qcow2"
	"yakumo/model"
)

// startLen is how much of an image is looked at before the rest is taken; the mark of an
// ISO 9660 image is the furthest in, at 0x8001.
const startLen = 64 << 10

// signatures are what disk formats begin with, or hold at a place (their specifications).
var signatures = []struct {
	format string
	at     int
	mark   string
}{
	{"qcow2", 0, "QFI\xfb"},
	{"vmdk", 0, "KDMV"},
	{"vmdk", 0, "COWD"},
	{"vmdk", 0, "# Disk DescriptorFile"},
	{"vhdx", 0, "vhdxfile"},
	{"vhd", 0, "conectix"},
	{"vdi", 0x40, "\x7f\x10\xda\xbe"},
	{"qed", 0, "QED\x00"},
	{"iso", 0x8001, "CD001"},
}

// detect gives the formats that the first bytes show, none for what may be anything.
func detect(start []byte) (found []string) {
	for _, s := range signatures {
		if len(start) >= s.at+len(s.mark) && bytes.Equal(start[s.at:s.at+len(s.mark)], []byte(s.mark)) {
			found = append(found, s.format)
		}
	}
	return found
}

// checkStart refuses, by the first bytes, an image that is not what it says. A raw disk
// may begin as an ISO image does (hybrid images), but never as a format that a hypervisor
// would follow to other files.
func (m *Images) checkStart(format string, start []byte) error {
	is := map[string]bool{}
	for _, f := range detect(start) {
		is[f] = true
	}
	switch format {
	case "raw":
		delete(is, "iso")
		for other := range is {
			return mismatch(format, "it is of format "+other)
		}
	case "qcow2":
		if _, err := qcow2.ParseHeader(start, uint64(m.cfg.MaxVirtualSize)); err != nil {
			return unsafe(format, err)
		}
	case "vmdk", "vhdx", "vdi", "iso":
		if !is[format] {
			return mismatch(format, "its content does not begin as one")
		}
	case "vhd": // a fixed one has its mark at the end alone
		delete(is, "vhd")
		for other := range is {
			return mismatch(format, "it is of format "+other)
		}
	}
	return nil
}

// checkBlob looks at the whole of a stored image, and gives its virtual size in bytes; 0
// where the format does not tell.
func (m *Images) checkBlob(ctx context.Context, format string, blob model.ID) (int64, error) {
	f, size, err := m.cfg.Blobs.Open(ctx, blob)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	switch format {
	case "raw", "iso":
		return size, nil
	case "qcow2":
		h, err := qcow2.Check(f, size, uint64(m.cfg.MaxVirtualSize))
		if err != nil {
			return 0, unsafe(format, err)
		}
		return int64(h.VirtualSize), nil
	case "vhd":
		mark := make([]byte, 8)
		if _, err := f.ReadAt(mark, max(0, size-512)); err != nil && !errors.Is(err, io.EOF) {
			return 0, fmt.Errorf("read the end of blob %s: %w", blob, err)
		}
		if string(mark) != "conectix" {
			return 0, mismatch(format, "its content does not end as one")
		}
	}
	return 0, nil
}

func mismatch(format, why string) error {
	return fault.New(fault.Unsupported, "The content of the image does not match its disk_format '%s': %s.", format, why)
}

func unsafe(format string, err error) error {
	var why qcow2.Refusal
	if errors.As(err, &why) {
		return fault.New(fault.Unsupported, "The content of the image is not acceptable as '%s': %s.", format, why)
	}
	return err
}
