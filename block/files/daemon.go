package files

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"yakumo/fault"
)

// daemon is a connection to the QEMU machine protocol (QMP) of a volume's storage daemon. It takes one at a time.
type daemon struct {
	id string
	c  net.Conn
	r  *bufio.Reader
}

const (
	nbdSocket = ".nbd"
	qmpSocket = ".qmp"
	// node is the name of the volume's block node in its daemon, exportID that of its NBD export.
	node     = "volume"
	exportID = "nbd"
)

// patience bounds what a daemon does at once; copies are not made by it.
const patience = 30 * time.Second

// socket is the path of one of a volume's sockets; a UUID's dashes are left out, as there is little room in such a path.
func (e *Engine) socket(id, kind string) string {
	return filepath.Join(e.cfg.Run, strings.ReplaceAll(id, "-", "")+kind)
}

// daemon connects to a volume's daemon, nil where none runs.
func (e *Engine) daemon(ctx context.Context, id string) (*daemon, error) {
	if e.cfg.Shared {
		return nil, nil
	}
	c, err := new(net.Dialer).DialContext(ctx, "unix", e.socket(id, qmpSocket))
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("storage daemon of volume %s: %w", id, err)
	}
	d := &daemon{id: id, c: c, r: bufio.NewReader(c)}
	d.deadline(ctx)
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
	comma := func(s string) string { return strings.ReplaceAll(s, ",", ",,") }
	file, err := json.Marshal(map[string]any{"driver": "file", "node-name": "file", "filename": e.disk(id), "discard": "unmap"})
	if err != nil {
		return nil, err
	}
	_, err = run(ctx, "qemu-storage-daemon", "--daemonize",
		"--blockdev", string(file),
		"--blockdev", "driver=qcow2,node-name="+node+",file=file,discard=unmap",
		"--nbd-server", "addr.type=unix,addr.path="+comma(e.socket(id, nbdSocket))+",max-connections=0",
		"--export", "type=nbd,id="+exportID+",node-name="+node+",name="+id+",writable=on",
		"--chardev", "socket,id=qmp,path="+comma(e.socket(id, qmpSocket))+",server=on,wait=off",
		"--monitor", "chardev=qmp")
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "Volume %s cannot be opened now.", id)
	}
	d, err := e.daemon(ctx, id)
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
	var exports []struct {
		ID string `json:"id"`
	}
	if err := d.call(ctx, "query-block-exports", nil, &exports); err != nil {
		return false, err
	}
	return len(exports) > 0, nil
}

// serve makes the daemon serve the volume: it stopped where a growth was cut off.
func (d *daemon) serve(ctx context.Context) error {
	if is, err := d.exported(ctx); err != nil || is {
		return err
	}
	return d.call(ctx, "block-export-add", map[string]any{"type": "nbd", "id": exportID, "node-name": node, "name": d.id, "writable": true}, nil)
}

// grow makes the volume larger. A server of NBD tells its clients the size when they connect, so all are cut off first; they
// connect anew and repeat what had no answer. What they wrote is kept: the node stays open.
func (d *daemon) grow(ctx context.Context, size int64) error {
	is, err := d.exported(ctx)
	if err != nil {
		return err
	}
	if is {
		if err := d.call(ctx, "block-export-del", map[string]any{"id": exportID, "mode": "hard"}, nil); err != nil {
			return err
		}
	}
	for is {
		if is, err = d.exported(ctx); err != nil {
			return err
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	err = d.call(ctx, "block_resize", map[string]any{"node-name": node, "size": size}, nil)
	return errors.Join(err, d.serve(ctx))
}

// quit ends the daemon and waits until it has let go of the file.
func (d *daemon) quit(ctx context.Context) error {
	if err := d.call(ctx, "quit", nil, nil); err != nil && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
		return err
	}
	d.deadline(ctx)
	for {
		if _, err := d.r.ReadBytes('\n'); err != nil { // events, then its end
			var t net.Error
			if errors.As(err, &t) && t.Timeout() {
				return fault.Wrap(fault.Unavailable, err, "The storage daemon of volume %s does not end.", d.id)
			}
			return nil
		}
	}
}
