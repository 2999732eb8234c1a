// Package rbd is a block.Engine of images in a pool of a Ceph cluster, by Ceph's own command-line tools (Debian's ceph-common) and
// QEMU's driver (qemu-block-extra).
//
// It owns, in the pool, images whose names begin with "volume-", and their snapshots. What is made of a snapshot is a copy, so that any
// snapshot may go at any time. An image that is being made has a name of its own (".new") until it is whole. May import: fault, block. Must not import: another part of the project.
package rbd

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"yakumo/block"
	"yakumo/fault"
)

// Config makes an Engine.
type Config struct {
	Pool string // exists, and is initialised for RBD
	Conf string // path of ceph.conf
	User string // without "client."; its key is found by Conf
	// Forgets is after how long the cluster forgets a client that was killed while it had an image open; default: Ceph's own 30 s, and a little.
	Forgets time.Duration
}

// Engine implements block.Engine, Filler and Meter.
type Engine struct {
	cfg   Config
	turns block.Turns

	mu    sync.Mutex
	way   block.Access // to the cluster, as it was found at asked
	asked time.Time
}

var (
	_ block.Engine = (*Engine)(nil)
	_ block.Filler = (*Engine)(nil)
	_ block.Meter  = (*Engine)(nil)
)

const (
	prefix     = "volume-"
	newSuffix  = ".new"
	tempPrefix = "tmp-"
)

// Open gives an engine. The cluster need not answer yet.
func Open(cfg Config) (*Engine, error) {
	for _, s := range []string{cfg.Pool, cfg.Conf, cfg.User} {
		if s == "" || strings.ContainsAny(s, ":@,") {
			return nil, fault.New(fault.Invalid, "A pool, a configuration file and a user are needed, without %q.", ":@,")
		}
	}
	cfg.Forgets = cmp.Or(cfg.Forgets, 35*time.Second)
	return &Engine{cfg: cfg}, nil
}

func (e *Engine) image(id string) string { return e.cfg.Pool + "/" + prefix + id }

// uri is QEMU's name of an image, or of a snapshot of one.
func (e *Engine) uri(image string) string {
	return "rbd:" + image + ":conf=" + e.cfg.Conf + ":id=" + e.cfg.User
}

// whole enters an image that is there.
func (e *Engine) whole(ctx context.Context, id string) (leave func(), size int64, err error) {
	if err := block.Check(id); err != nil {
		return nil, 0, err
	}
	if leave, err = e.turns.Enter(ctx, id); err != nil {
		return nil, 0, err
	}
	if size, err = e.size(ctx, e.image(id)); err != nil {
		leave()
		if fault.Is(err, fault.NotFound) {
			err = block.NoVolume(id)
		}
		return nil, 0, err
	}
	return leave, size, nil
}

func (e *Engine) size(ctx context.Context, image string) (int64, error) {
	var i struct {
		Size int64 `json:"size"`
	}
	return i.Size, e.ask(ctx, &i, "info", image)
}

// Make implements block.Engine.
func (e *Engine) Make(ctx context.Context, id string, size int64, from block.Source) error {
	if err := block.Check(id); err != nil {
		return err
	}
	leave, err := e.turns.Enter(ctx, id)
	if err != nil {
		return err
	}
	defer leave()
	if _, err := e.size(ctx, e.image(id)); !fault.Is(err, fault.NotFound) {
		return err
	}
	tmp := e.image(id) + newSuffix
	if err := e.purge(ctx, tmp); err != nil {
		return err
	}
	switch {
	case from.File != "":
		err = e.load(ctx, from, tmp, size)
	case from.Volume == id:
		err = fault.New(fault.Invalid, "Volume %s cannot be made of itself.", id)
	case from.Volume != "":
		err = e.clone(ctx, from, id, tmp, size)
	default:
		_, err = e.rbd(ctx, "create", "--size", bytesOf(size), tmp)
	}
	if err != nil {
		return errors.Join(err, e.purge(context.WithoutCancel(ctx), tmp))
	}
	_, err = e.rbd(ctx, "rename", tmp, e.image(id))
	return err
}

func bytesOf(n int64) string { return fmt.Sprintf("%dB", n) }

// load makes an image of a file's content.
func (e *Engine) load(ctx context.Context, from block.Source, image string, size int64) error {
	have, err := fileSize(ctx, from.File, from.Format)
	if err != nil {
		return err
	}
	if have > size {
		return fault.New(fault.Invalid, "A volume of %d bytes is too small for %d bytes.", size, have)
	}
	if _, err := e.rbd(ctx, "create", "--size", bytesOf(size), image); err != nil {
		return err
	}
	return e.over(ctx, from.File, from.Format, image)
}

// over writes a file's content over the beginning of an image.
func (e *Engine) over(ctx context.Context, file, format, image string) error {
	_, err := run(ctx, "qemu-img", "convert", "-n", "-f", format, "-O", "raw", file, e.uri(image))
	return err
}

func fileSize(ctx context.Context, file, format string) (int64, error) {
	var i struct {
		Size int64 `json:"virtual-size"`
	}
	out, err := run(ctx, "qemu-img", "info", "-f", format, "--output=json", file)
	if err == nil {
		err = json.Unmarshal(out, &i)
	}
	return i.Size, err
}

// clone makes an image of a volume or of a snapshot, as a copy that depends on nothing.
func (e *Engine) clone(ctx context.Context, from block.Source, id, image string, size int64) error {
	return e.still(ctx, from.Volume, from.Snapshot, id, func(at string, have int64) error {
		if have > size {
			return fault.New(fault.Invalid, "A volume of %d bytes is too small for %d bytes.", size, have)
		}
		if _, err := e.rbd(ctx, "cp", at, image); err != nil {
			return err
		}
		if have == size {
			return nil
		}
		_, err := e.rbd(ctx, "resize", "--size", bytesOf(size), image)
		return err
	})
}

// still calls do with the name of something that holds a volume or a snapshot and does not change, and its size. Of a volume it is
// a snapshot for that purpose, which is gone afterwards; one that a kill left is replaced by the next call for the purpose, or goes with the volume.
func (e *Engine) still(ctx context.Context, id, snapshot, purpose string, do func(image string, size int64) error) error {
	leave, size, err := e.whole(ctx, id)
	if err != nil {
		return err
	}
	name, temp := snapshot, ""
	if snapshot == "" {
		temp = tempPrefix + purpose
		name = temp
		if err = e.dropSnapshot(ctx, id, temp); err == nil {
			_, err = e.rbd(ctx, "snap", "create", e.image(id)+"@"+temp)
		}
	} else {
		var sizes map[string]int64
		if sizes, err = e.snapshots(ctx, id); err == nil {
			var there bool
			if size, there = sizes[snapshot]; !there {
				err = block.NoSnapshot(snapshot)
			}
		}
	}
	leave()
	if err != nil {
		return err
	}
	err = do(e.image(id)+"@"+name, size)
	if temp != "" {
		err = errors.Join(err, e.dropSnapshot(context.WithoutCancel(ctx), id, temp))
	}
	return err
}

// Grow implements block.Engine.
func (e *Engine) Grow(ctx context.Context, id string, size int64) error {
	leave, have, err := e.whole(ctx, id)
	if err != nil {
		return err
	}
	defer leave()
	if have >= size {
		return nil
	}
	_, err = e.rbd(ctx, "resize", "--size", bytesOf(size), e.image(id))
	return err
}

// Remove implements block.Engine.
func (e *Engine) Remove(ctx context.Context, id string) error {
	if err := block.Check(id); err != nil {
		return err
	}
	leave, err := e.turns.Enter(ctx, id)
	if err != nil {
		return err
	}
	defer leave()
	if err := e.unwatched(ctx, id); err != nil {
		return err
	}
	return errors.Join(e.purge(ctx, e.image(id)), e.purge(ctx, e.image(id)+newSuffix))
}

// watched tells whether somebody has the image open.
func (e *Engine) watched(ctx context.Context, id string) (bool, error) {
	var s struct {
		Watchers []struct {
			Address string `json:"address"`
		} `json:"watchers"`
	}
	err := e.ask(ctx, &s, "status", e.image(id))
	if fault.Is(err, fault.NotFound) {
		return false, nil
	}
	return len(s.Watchers) > 0, err
}

// unwatched waits until nobody has the image open, for as long as it may only seem so; then it is Conflict.
func (e *Engine) unwatched(ctx context.Context, id string) error {
	for end := time.Now().Add(e.cfg.Forgets); ; {
		watched, err := e.watched(ctx, id)
		if err != nil || !watched {
			return err
		}
		if time.Now().After(end) {
			return block.InUse(id)
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// purge removes an image with its snapshots; absent is success.
func (e *Engine) purge(ctx context.Context, image string) error {
	for _, args := range [][]string{{"snap", "purge", "--no-progress", image}, {"rm", "--no-progress", image}} {
		if _, err := e.rbd(ctx, args...); err != nil && !fault.Is(err, fault.NotFound) {
			return err
		}
	}
	return nil
}

// snapshots gives the sizes of a volume's snapshots, bytes.
func (e *Engine) snapshots(ctx context.Context, id string) (map[string]int64, error) {
	var list []struct {
		Name string `json:"name"`
		Size int64  `json:"size"`
	}
	if err := e.ask(ctx, &list, "snap", "ls", e.image(id)); err != nil {
		return nil, err
	}
	out := map[string]int64{}
	for _, s := range list {
		out[s.Name] = s.Size
	}
	return out, nil
}

// Snapshot implements block.Engine.
func (e *Engine) Snapshot(ctx context.Context, id, snapshot string) error {
	if err := block.Check(snapshot); err != nil {
		return err
	}
	leave, _, err := e.whole(ctx, id)
	if err != nil {
		return err
	}
	defer leave()
	list, err := e.snapshots(ctx, id)
	if _, there := list[snapshot]; err != nil || there {
		return err
	}
	_, err = e.rbd(ctx, "snap", "create", e.image(id)+"@"+snapshot)
	return err
}

// RemoveSnapshot implements block.Engine.
func (e *Engine) RemoveSnapshot(ctx context.Context, id, snapshot string) error {
	if err := block.Check(id, snapshot); err != nil {
		return err
	}
	return e.dropSnapshot(ctx, id, snapshot)
}

func (e *Engine) dropSnapshot(ctx context.Context, id, snapshot string) error {
	_, err := e.rbd(ctx, "snap", "rm", "--no-progress", e.image(id)+"@"+snapshot)
	if fault.Is(err, fault.NotFound) {
		return nil
	}
	return err
}

// Open implements block.Engine.
func (e *Engine) Open(ctx context.Context, id string) (block.Access, error) {
	leave, _, err := e.whole(ctx, id)
	if err != nil {
		return block.Access{}, err
	}
	defer leave()
	a, err := e.cluster(ctx)
	a.Pool, a.Image, a.User, a.Everywhere = e.cfg.Pool, prefix+id, e.cfg.User, true
	return a, err
}

// wayLasts is for how long it is believed how the cluster is reached: a guest needs one of the monitors, and to ask takes two programs that are slow to start.
const wayLasts = time.Minute

// cluster gives the monitors, and the user's key.
func (e *Engine) cluster(ctx context.Context) (block.Access, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if time.Since(e.asked) < wayLasts {
		return e.way, nil
	}
	a, err := e.ways(ctx)
	if err == nil {
		e.way, e.asked = a, time.Now()
	}
	return a, err
}

func (e *Engine) ways(ctx context.Context) (block.Access, error) {
	var a block.Access
	out, err := run(ctx, "ceph", "--conf", e.cfg.Conf, "--id", e.cfg.User, "--connect-timeout", "10", "auth", "print-key", "client."+e.cfg.User)
	if err != nil {
		return a, err
	}
	a.Key = strings.TrimSpace(string(out))
	if out, err = run(ctx, "ceph", "--conf", e.cfg.Conf, "--id", e.cfg.User, "--connect-timeout", "10", "mon", "dump", "--format", "json"); err != nil {
		return a, err
	}
	var m struct {
		Mons []struct {
			Addrs struct {
				Vec []struct {
					Type string `json:"type"`
					Addr string `json:"addr"`
				} `json:"addrvec"`
			} `json:"public_addrs"`
		} `json:"mons"`
	}
	if err := json.Unmarshal(out, &m); err != nil {
		return a, fmt.Errorf("ceph mon dump: %w", err)
	}
	for _, mon := range m.Mons {
		for _, v := range mon.Addrs.Vec {
			// One address for each: the older protocol where there is one, as a bare host:port means that to QEMU.
			if v.Type == "v1" || len(mon.Addrs.Vec) == 1 {
				a.Monitors = append(a.Monitors, v.Addr)
				break
			}
		}
	}
	if len(a.Monitors) == 0 {
		return a, fault.New(fault.Unavailable, "The Ceph cluster names no monitor.")
	}
	return a, nil
}

// Export implements block.Engine.
func (e *Engine) Export(ctx context.Context, id, snapshot, format, path string) error {
	if err := block.Check(id); err != nil {
		return err
	}
	if format != "qcow2" && format != "raw" {
		return fault.New(fault.Invalid, "A volume cannot be written as %q.", format)
	}
	return e.still(ctx, id, snapshot, "export", func(at string, _ int64) error {
		if _, err := run(ctx, "qemu-img", "convert", "-f", "raw", "-O", format, e.uri(at), path); err != nil {
			if rerr := os.Remove(path); rerr != nil && !errors.Is(rerr, os.ErrNotExist) {
				err = errors.Join(err, rerr)
			}
			return err
		}
		return nil
	})
}

// Revert implements block.Filler.
func (e *Engine) Revert(ctx context.Context, id, snapshot string) error {
	if err := block.Check(snapshot); err != nil {
		return err
	}
	leave, err := e.closed(ctx, id)
	if err != nil {
		return err
	}
	defer leave()
	list, err := e.snapshots(ctx, id)
	if err != nil {
		return err
	}
	if _, there := list[snapshot]; !there {
		return block.NoSnapshot(snapshot)
	}
	_, err = e.rbd(ctx, "snap", "rollback", "--no-progress", e.image(id)+"@"+snapshot)
	return err
}

// Fill implements block.Filler.
func (e *Engine) Fill(ctx context.Context, id, file, format string) error {
	leave, err := e.closed(ctx, id)
	if err != nil {
		return err
	}
	defer leave()
	have, err := fileSize(ctx, file, format)
	if err != nil {
		return err
	}
	if size, err := e.size(ctx, e.image(id)); err != nil || have > size {
		return errors.Join(err, fault.New(fault.Invalid, "Volume %s of %d bytes is too small for %d bytes.", id, size, have))
	}
	return e.over(ctx, file, format, e.image(id))
}

// closed enters an image that is there and that nobody has open.
func (e *Engine) closed(ctx context.Context, id string) (leave func(), err error) {
	if leave, _, err = e.whole(ctx, id); err != nil {
		return nil, err
	}
	if err := e.unwatched(ctx, id); err != nil {
		leave()
		return nil, err
	}
	return leave, nil
}

// List implements block.Engine.
func (e *Engine) List(ctx context.Context) ([]block.Entry, error) {
	var names []string
	if err := e.ask(ctx, &names, "ls", e.cfg.Pool); err != nil {
		return nil, err
	}
	whole := map[string]bool{}
	for _, n := range names {
		id, ours := strings.CutPrefix(n, prefix)
		id, part := strings.CutSuffix(id, newSuffix)
		if ours && block.Check(id) == nil {
			whole[id] = whole[id] || !part
		}
	}
	var out []block.Entry
	for id, w := range whole {
		out = append(out, block.Entry{ID: id, Whole: w})
	}
	slices.SortFunc(out, func(a, b block.Entry) int { return strings.Compare(a.ID, b.ID) })
	return out, nil
}

// Room implements block.Meter.
func (e *Engine) Room(ctx context.Context) (total, free int64, err error) {
	out, err := run(ctx, "ceph", "--conf", e.cfg.Conf, "--id", e.cfg.User, "--connect-timeout", "10", "df", "--format", "json")
	if err != nil {
		return 0, 0, err
	}
	var df struct {
		Stats struct {
			Total int64 `json:"total_bytes"`
			Free  int64 `json:"total_avail_bytes"`
		} `json:"stats"`
	}
	err = json.Unmarshal(out, &df)
	if err == nil && df.Stats.Total == 0 {
		err = fault.New(fault.Unavailable, "The Ceph cluster does not know its room: no manager daemon runs.")
	}
	return df.Stats.Total, df.Stats.Free, err
}

// ask runs an rbd command that answers in JSON.
func (e *Engine) ask(ctx context.Context, into any, args ...string) error {
	out, err := e.rbd(ctx, append(args, "--format", "json")...)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(out, into); err != nil {
		return fmt.Errorf("rbd %s: %w", args[0], err)
	}
	return nil
}

func (e *Engine) rbd(ctx context.Context, args ...string) ([]byte, error) {
	return run(ctx, "rbd", append([]string{"--conf", e.cfg.Conf, "--id", e.cfg.User}, args...)...)
}

// run gives a program's output. The tools of Ceph end with the number of an error (errno(3)).
func run(ctx context.Context, name string, args ...string) ([]byte, error) {
	var out, complaint bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = &out, &complaint
	err := cmd.Run()
	if err == nil {
		return out.Bytes(), nil
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	err = fmt.Errorf("%s: %w: %s", name, err, bytes.TrimSpace(complaint.Bytes()))
	if name == "qemu-img" {
		return nil, err
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return nil, err
	}
	const enoent, ebusy, etimedout = 2, 16, 110
	switch exit.ExitCode() {
	case enoent:
		return nil, fault.Wrap(fault.NotFound, err, "It is not in the Ceph cluster.")
	case ebusy:
		return nil, fault.Wrap(fault.Conflict, err, "It is in use in the Ceph cluster.")
	case etimedout:
		return nil, fault.Wrap(fault.Unavailable, err, "The Ceph cluster does not answer.")
	}
	return nil, err
}
