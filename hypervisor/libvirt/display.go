package libvirt

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"yakumo/fault"
	"yakumo/hypervisor"
)

var _ hypervisor.Displayer = (*Driver)(nil)

// Display implements hypervisor.Displayer. The guest's VNC server listens nowhere: libvirtd hands one end
// of a new pair of sockets to QEMU and the other to us, so that nobody else can come.
func (d *Driver) Display(ctx context.Context, id string) (io.ReadWriteCloser, error) {
	ref, _, err := d.known(ctx, id, "open the display of")
	if err != nil {
		return nil, err
	}
	taken := &descriptors{}
	c, err := dial(ctx, connConfig{socket: d.cfg.SocketPath, stall: 3 * d.cfg.Keepalive, files: taken})
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("open the display of guest %s: %w", id, unavailable(d.cfg.SocketPath, err))
	}
	const first, skipAuth = 0, 1 // VIR_DOMAIN_OPEN_GRAPHICS_SKIPAUTH
	_, err = c.call(ctx, procDomainOpenGraphics, new(encoder).dom(ref).u32(first).u32(skipAuth))
	c.end(net.ErrClosed)
	files := taken.all()
	switch {
	case err == nil && len(files) == 1:
	case hasCode(err, codeOperationInvalid):
		err = fault.Wrap(fault.Conflict, err, "Guest %s is not running; start it first.", id)
	case hasCode(err, codeInternal, codeInvalidArg, codeUnsupported):
		err = fault.Wrap(fault.Conflict, err, "Guest %s has no display; stop and start it to give it one.", id)
	case err == nil:
		err = fmt.Errorf("open the display of guest %s: libvirtd gave %d descriptors, not one", id, len(files))
	default:
		err = refused(id, "open the display of", err)
	}
	if err != nil {
		for _, f := range files {
			f.Close()
		}
		return nil, err
	}
	defer files[0].Close()
	nc, err := net.FileConn(files[0])
	if err != nil {
		return nil, fmt.Errorf("open the display of guest %s: %w", id, err)
	}
	return nc, nil
}

// descriptors are open files that came over a connection, in order.
type descriptors struct {
	mu   sync.Mutex
	list []*os.File
}

func (t *descriptors) all() []*os.File {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.list
}

// fileConn is a connection whose peer may send open files (SCM_RIGHTS, unix(7)).
type fileConn struct {
	*net.UnixConn
	taken *descriptors
}

func (c fileConn) Read(b []byte) (int, error) {
	oob := make([]byte, unix.CmsgSpace(4*4))
	n, oobn, _, _, err := c.ReadMsgUnix(b, oob)
	if err != nil {
		return max(n, 0), err
	}
	if n == 0 && len(b) > 0 {
		return 0, io.EOF
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return n, fmt.Errorf("control message of libvirtd: %w", err)
	}
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			return n, fmt.Errorf("control message of libvirtd: %w", err)
		}
		c.taken.mu.Lock()
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			c.taken.list = append(c.taken.list, os.NewFile(uintptr(fd), "libvirt"))
		}
		c.taken.mu.Unlock()
	}
	return n, nil
}

// takeFiles reads past what follows a reply with open files: each comes with one byte of its own
// (virNetMessage in libvirt's virnetmessage.c). It gives the payload behind their count.
func takeFiles(r io.Reader, payload []byte) ([]byte, error) {
	if len(payload) < 4 {
		return nil, errors.New("a reply with files does not say how many")
	}
	n := binary.BigEndian.Uint32(payload)
	if n > maxFiles {
		return nil, fmt.Errorf("a reply with %d files", n)
	}
	if _, err := io.ReadFull(r, make([]byte, n)); err != nil {
		return nil, unexpected(err)
	}
	return payload[4:], nil
}

// maxFiles is VIR_NET_MESSAGE_NUM_FDS_MAX.
const maxFiles = 32
