package fake

import (
	"context"
	"encoding/binary"
	"io"
	"net"

	"yakumo/fault"
	"yakumo/hypervisor"
)

var _ hypervisor.Displayer = (*Driver)(nil)

// side is the width and height of a fake screen: its left half is black, its right half white.
const side = 64

// Display implements hypervisor.Displayer by a VNC server that shows a still picture.
func (d *Driver) Display(ctx context.Context, id string) (io.ReadWriteCloser, error) {
	if err := d.h.enter(ctx, Display, id); err != nil {
		return nil, err
	}
	d.h.mu.Lock()
	defer d.h.mu.Unlock()
	g, err := d.h.running(id)
	if err != nil {
		return nil, err
	}
	if !g.spec.Display {
		return nil, fault.New(fault.Conflict, "Guest %s has no display; stop and start it to give it one.", id)
	}
	near, far := net.Pipe()
	go func(off <-chan struct{}) { <-off; far.Close() }(g.off)
	go func() {
		defer far.Close()
		paint(far) // ends with the user or the guest
	}()
	return near, nil
}

// paint speaks the server's side of RFB 3.8 (RFC 6143), for a client that does as it is asked.
func paint(c io.ReadWriter) error {
	hello := make([]byte, 12)
	for _, step := range []struct {
		say  string
		hear int
	}{{"RFB 003.008\n", 12}, {"\x01\x01", 1}, {"\x00\x00\x00\x00", 1}} {
		if _, err := io.WriteString(c, step.say); err != nil {
			return err
		}
		if _, err := io.ReadFull(c, hello[:step.hear]); err != nil {
			return err
		}
	}
	init := []byte{0, side, 0, side, 32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0, 0, 0, 0, 4}
	if _, err := c.Write(append(init, "fake"...)); err != nil {
		return err
	}
	// What a client may say, and how much follows; of 2 and 6 the rest is counted.
	sizes := map[byte]int{0: 19, 2: 3, 3: 9, 4: 7, 5: 5, 6: 7}
	for {
		kind := make([]byte, 1)
		if _, err := io.ReadFull(c, kind); err != nil {
			return err
		}
		rest := make([]byte, sizes[kind[0]])
		if _, err := io.ReadFull(c, rest); err != nil {
			return err
		}
		more := int64(0)
		switch kind[0] {
		case 2:
			more = 4 * int64(binary.BigEndian.Uint16(rest[1:]))
		case 6:
			more = int64(binary.BigEndian.Uint32(rest[3:]))
		}
		if _, err := io.CopyN(io.Discard, c, more); err != nil {
			return err
		}
		if kind[0] != 3 || rest[0] != 0 { // nothing ever changes
			continue
		}
		update := []byte{0, 0, 0, 1, 0, 0, 0, 0, 0, side, 0, side, 0, 0, 0, 0}
		for i := range side * side {
			if i%side < side/2 {
				update = append(update, 0, 0, 0, 0)
			} else {
				update = append(update, 255, 255, 255, 0)
			}
		}
		if _, err := c.Write(update); err != nil {
			return err
		}
	}
}
