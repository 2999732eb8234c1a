package files

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"yakumo/fault"
)

// daemon is a connection to the QEMU machine protocol (QMP) of a volume's storage daemon. It takes one at a time.
type daemon struct {
	id string
	c  net.Conn
	r  *bufio.Reader
}

const (
	nbdSocket = ".n"
	qmpSocket = ".q"
	// node is the name of the volume's block node in its daemon, exportID that of its NBD export.
	node     = "volume"
	exportID = "nbd"
)

// patience bounds what a daemon does at once; copies are not made by it.
const patience = 30 * time.Second

// socket is the path of one of a volume's sockets. Its name is a hash, as there is little room in such a path.
func (e *Engine) socket(id, kind string) string { return socketIn(e.cfg.Run, id, kind) }

func socketIn(dir, id, kind string) string {
	sum := sha256.Sum256([]byte(id))
	return filepath.Join(dir, base64.RawURLEncoding.EncodeToString(sum[:12])+kind)
}

// daemon connects to a volume's daemon, nil where none runs.
func (e *Engine) daemon(ctx context.Context, id string) (*daemon, error) {
	if e.cfg.Shared {
		return nil, nil
	}
	return daemonIn(ctx, e.cfg.Run, id)
}

func daemonIn(ctx context.Context, dir, id string) (*daemon, error) {
	c, err := new(net.Dialer).DialContext(ctx, "unix", socketIn(dir, id, qmpSocket))
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("storage daemon of volume %s: %w", id, err)
	}
	d := &daemon{id: id, c: c, r: bufio.NewReader(c)}
	d.deadline(ctx)
	// A connection that comes just when QEMU (7.2) gives its monitor from its main thread to another is accepted by one, and the other waits for one more.
	nudge := time.AfterFunc(time.Second, func() {
		if more, err := net.Dial("unix", socketIn(dir, id, qmpSocket)); err == nil {
			more.Close()
		}
	})
	defer nudge.Stop()
	_, err = d.r.ReadBytes('\n') // its greeting
	if err == nil {
		err = d.call(ctx, "qmp_capabilities", nil, nil)
	}
	if err != nil {
		d.close()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		// It is ending, or hangs; either way a later look finds out.
		return nil, fault.Wrap(fault.Unavailable, err, "The storage daemon of volume %s does not answer.", id)
	}
	return d, nil
}

// startDaemon starts a volume's daemon, which is nobody's child and outlives this process.
func (e *Engine) startDaemon(ctx context.Context, id string) (*daemon, error) {
	file, err := json.Marshal(map[string]any{"driver": "file", "node-name": "file", "filename": e.disk(id), "discard": "unmap"})
	if err != nil {
		return nil, err
	}
	return daemonOf(ctx, e.cfg.Run, id, string(file), "driver=qcow2,node-name="+node+",file=file,discard=unmap")
}

// daemonOf starts a daemon that serves the last of the block nodes.
func daemonOf(ctx context.Context, dir, id string, nodes ...string) (*daemon, error) {
	comma := func(s string) string { return strings.ReplaceAll(s, ",", ",,") }
	args := []string{"--daemonize"}
	for _, n := range nodes {
		args = append(args, "--blockdev", n)
	}
	// Not ended half-way: its child would go on, and take the sockets of the next one away when it fails.
	whole, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	_, err := run(whole, "qemu-storage-daemon", append(args,
		"--nbd-server", "addr.type=unix,addr.path="+comma(socketIn(dir, id, nbdSocket))+",max-connections=0",
		"--export", "type=nbd,id="+exportID+",node-name="+node+",name="+id+",writable=on",
		"--chardev", "socket,id=qmp,path="+comma(socketIn(dir, id, qmpSocket))+",server=on,wait=off",
		"--monitor", "chardev=qmp")...)
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "Volume %s cannot be opened now.", id)
	}
	d, err := daemonIn(ctx, dir, id)
	if err == nil && d == nil {
		err = fault.New(fault.Unavailable, "The storage daemon of volume %s has ended at once.", id)
	}
	return d, err
}

func (d *daemon) close() { d.c.Close() }

func (d *daemon) deadline(ctx context.Context) {
	end := time.Now().Add(patience)
	if t, ok := ctx.Deadline(); ok && t.Before(end) {
		end = t
	}
	d.c.SetDeadline(end)
}

// call runs a command (QEMU's QMP reference) and reads its result into out, where that is not nil.
func (d *daemon) call(ctx context.Context, command string, args map[string]any, out any) error {
	d.deadline(ctx)
	defer context.AfterFunc(ctx, func() { d.c.SetDeadline(time.Unix(1, 0)) })()
	b, err := json.Marshal(struct {
		Execute   string         `json:"execute"`
		Arguments map[string]any `json:"arguments,omitempty"`
	}{command, args})
	if err != nil {
		return err
	}
	if _, err := d.c.Write(append(b, '\n')); err != nil {
		return fmt.Errorf("storage daemon of volume %s: %s: %w", d.id, command, err)
	}
	for {
		line, err := d.r.ReadBytes('\n')
		if err != nil {
			return fmt.Errorf("storage daemon of volume %s: %s: %w", d.id, command, err)
		}
		var answer struct {
			Event  string          `json:"event"`
			Return json.RawMessage `json:"return"`
			Error  *struct {
				Desc string `json:"desc"`
			} `json:"error"`
		}
		if err := json.Unmarshal(line, &answer); err != nil {
			return fmt.Errorf("storage daemon of volume %s: %s: %w", d.id, command, err)
		}
		switch {
		case answer.Event != "":
		case answer.Error != nil:
			return fmt.Errorf("storage daemon of volume %s: %s: %s", d.id, command, answer.Error.Desc)
		case out != nil:
			return json.Unmarshal(answer.Return, out)
		default:
			return nil
		}
	}
}

// exported tells whether the volume is served.
func (d *daemon) exported(ctx context.Context) (bool, error) {
	var l []struct {
		ID string `json:"id"`
	}
	err := d.call(ctx, "query-block-exports", nil, &l)
	return len(l) > 0, err
}

// unexport ends the service of the volume, with all connections; one that is not served is a success.
func (d *daemon) unexport(ctx context.Context) error {
	there, err := d.exported(ctx)
	if err != nil || !there {
		return err
	}
	if err := d.call(ctx, "block-export-del", map[string]any{"id": exportID, "mode": "hard"}, nil); err != nil {
		return err
	}
	// It ends beside.
	for end := time.Now().Add(patience); there; {
		if there, err = d.exported(ctx); err != nil {
			return err
		}
		if time.Now().After(end) {
			return fault.New(fault.Unavailable, "Volume %s is still being read or written.", d.id)
		}
	}
	return nil
}

// export serves the volume, as daemonOf does; one that is served is a success.
func (d *daemon) export(ctx context.Context) error {
	there, err := d.exported(ctx)
	if err != nil || there {
		return err
	}
	return d.call(ctx, "block-export-add", map[string]any{"type": "nbd", "id": exportID, "node-name": node, "name": d.id, "writable": true}, nil)
}

// process opens the daemon's process; nil where it has ended. Its number is nobody else's, as it has the socket open at which this connection was made.
func (d *daemon) process() (*os.File, error) {
	raw, err := d.c.(*net.UnixConn).SyscallConn()
	if err != nil {
		return nil, err
	}
	var who *unix.Ucred
	var cerr error
	err = raw.Control(func(fd uintptr) { who, cerr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err = errors.Join(err, cerr); err != nil {
		return nil, err
	}
	fd, err := unix.PidfdOpen(int(who.Pid), 0)
	if errors.Is(err, unix.ESRCH) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("storage daemon of volume %s: %w", d.id, err)
	}
	return os.NewFile(uintptr(fd), "pidfd"), nil
}

// ended waits until a process has ended: until then it has the volume's file, and removes the sockets' names on its way.
func ended(ctx context.Context, id string, p *os.File) error {
	for end := time.Now().Add(patience); ; {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(p.Fd()), Events: unix.POLLIN}}, 50)
		switch {
		case err != nil && !errors.Is(err, unix.EINTR):
			return err
		case n > 0:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case time.Now().After(end):
			return fault.New(fault.Unavailable, "The storage daemon of volume %s does not end.", id)
		}
	}
}

// kill ends a daemon that holds nothing of its own, whatever it waits for.
func (d *daemon) kill(ctx context.Context) error {
	p, err := d.process()
	if err != nil || p == nil {
		return err
	}
	defer p.Close()
	if err := unix.PidfdSendSignal(int(p.Fd()), unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}
	return ended(ctx, d.id, p)
}

// quit ends the daemon and waits until it has let go of the file.
func (d *daemon) quit(ctx context.Context) error {
	p, err := d.process()
	if err != nil || p == nil {
		return err
	}
	defer p.Close()
	// It may be gone before it has answered.
	if err := d.call(ctx, "quit", nil, nil); err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
		return err
	}
	return ended(ctx, d.id, p)
}
