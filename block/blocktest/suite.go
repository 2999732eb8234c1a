// Package blocktest proves that an engine for volumes does what package block says. Contents are written and read with
// QEMU's own tools, as a guest's QEMU would.
package blocktest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"yakumo/block"
	"yakumo/fault"
)

// World is where an engine's volumes are.
type World struct {
	// Open gives an engine on the same volumes, as a process has it that starts after another was killed.
	Open func(t testing.TB) block.Engine
	// Locked tells that QEMU opens the volume's file itself: snapshots, growth and fillings of one that is open are Conflict.
	Locked bool
	// NoRoom tells that the engine is without what would know its room: Room is Unavailable.
	NoRoom bool
}

// MiB is what sizes and contents are made of, bytes.
const MiB int64 = 1 << 20

// Run runs the suite; fresh makes a World without volumes.
func Run(t *testing.T, fresh func(t *testing.T) World) {
	// The longest begin first: they are side by side, as much of what they do is to wait for other programs.
	for _, c := range []struct {
		name string
		test func(*testing.T, World)
	}{
		{"CutOff", testCutOff}, {"Open", testOpen}, {"Snapshots", testSnapshots}, {"Together", testTogether}, {"Fill", testFill}, {"Make", testMake}, {"Grow", testGrow}, {"Remove", testRemove},
		{"Refusals", testRefusals}, {"MakeFromFile", testMakeFromFile},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.test(t, fresh(t))
		})
	}
}

// bench is one test's: an engine and what is written to its volumes.
type bench struct {
	*testing.T
	block.Engine
	w World
}

func begin(t *testing.T, w World) bench { return bench{t, w.Open(t), w} }

func (b bench) must(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

func (b bench) wants(kind fault.Kind, err error) {
	b.Helper()
	if !fault.Is(err, kind) {
		b.Errorf("got %v, want an error of kind %v", err, kind)
	}
}

func (b bench) open(id string) block.Access {
	b.Helper()
	a, err := b.Open(b.Context(), id)
	b.must(err)
	return a
}

func (b bench) shut(id string) {
	b.Helper()
	if c, ok := b.Engine.(block.Closer); ok {
		b.must(c.Close(b.Context(), id))
	}
}

// put writes n MiB of a byte at MiB at, and get checks that they are there; the volume is open for that time only.
func (b bench) put(id string, value byte, at, n int64) {
	b.Helper()
	b.must(IO(b.Context(), b.open(id), fmt.Sprintf("write -P %d %dM %dM", value, at, n), "flush"))
	b.shut(id)
}

func (b bench) get(id string, value byte, at, n int64) {
	b.Helper()
	if err := IO(b.Context(), b.open(id), fmt.Sprintf("read -P %d %dM %dM", value, at, n)); err != nil {
		b.Errorf("volume %s: want %d at MiB %d: %v", id, value, at, err)
	}
	b.shut(id)
}

// holds checks that a snapshot, or the volume for "", exports as a value in its first MiB.
func (b bench) holds(id, snapshot string, value byte) {
	b.Helper()
	for _, format := range []string{"raw", "qcow2"} {
		path := filepath.Join(b.TempDir(), "export")
		b.must(b.Export(b.Context(), id, snapshot, format, path))
		if err := IO(b.Context(), block.Access{File: path, Format: format}, fmt.Sprintf("read -P %d 0 1M", value)); err != nil {
			b.Errorf("volume %s, snapshot %q as %s: want %d: %v", id, snapshot, format, value, err)
		}
	}
}

// file makes a file that holds n MiB of a value.
func (b bench) file(format string, value byte, n int64) string {
	b.Helper()
	path := filepath.Join(b.TempDir(), "source")
	b.must(command(b.Context(), "qemu-img", "create", "-q", "-f", format, path, fmt.Sprint(n*MiB)))
	b.must(IO(b.Context(), block.Access{File: path, Format: format}, fmt.Sprintf("write -P %d 0 %dM", value, n)))
	return path
}

func (b bench) list() (whole, part []string) {
	b.Helper()
	l, err := b.List(b.Context())
	b.must(err)
	for _, e := range l {
		if e.Whole {
			whole = append(whole, e.ID)
		} else {
			part = append(part, e.ID)
		}
	}
	return whole, part
}

// newID gives a UUID, as volumes have.
func newID() string {
	return fmt.Sprintf("%08x-0000-4000-8000-%012x", rand.Uint32(), rand.Uint64N(1<<48))
}

// Image is QEMU's words for an open volume: options of its command-line tools.
func Image(a block.Access) []string {
	comma := func(s string) string { return strings.ReplaceAll(s, ",", ",,") }
	switch {
	case a.File != "":
		return []string{"--image-opts", "driver=" + a.Format + ",file.driver=file,file.filename=" + comma(a.File)}
	case a.Socket != "":
		return []string{"--image-opts", "driver=nbd,server.type=unix,server.path=" + comma(a.Socket) + ",export=" + comma(a.Export)}
	}
	o := "driver=rbd,pool=" + a.Pool + ",image=" + a.Image + ",user=" + a.User + ",key-secret=key"
	for i, m := range a.Monitors {
		at := strings.LastIndexByte(m, ':')
		o += fmt.Sprintf(",server.%d.host=%s,server.%d.port=%s", i, m[:at], i, m[at+1:])
	}
	return []string{"--object", "secret,id=key,format=base64,data=" + a.Key, "--image-opts", o}
}

// IO runs commands of qemu-io(1) on an open volume.
func IO(ctx context.Context, a block.Access, commands ...string) error {
	args := Image(a)
	for _, c := range commands {
		args = append(args, "-c", c)
	}
	return command(ctx, "qemu-io", args...)
}

func command(ctx context.Context, name string, args ...string) error {
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err == nil && bytes.Contains(out, []byte("failed")) {
		err = errors.New("it failed")
	}
	if err != nil {
		return fmt.Errorf("%s %v: %w: %s", name, args, err, out)
	}
	return nil
}

func testMake(t *testing.T, w World) {
	b, v := begin(t, w), newID()
	b.must(b.Make(t.Context(), v, 8*MiB, block.Source{}))
	b.get(v, 0, 0, 8)
	if err := IO(t.Context(), b.open(v), "read 8M 1M"); err == nil {
		t.Error("a volume of 8 MiB is larger than that")
	}
	b.shut(v)
	b.put(v, 7, 1, 2)
	b.must(b.Make(t.Context(), v, 8*MiB, block.Source{})) // again: nothing changes
	b.get(v, 7, 1, 2)
	clone := newID()
	b.wants(fault.Invalid, b.Make(t.Context(), clone, 4*MiB, block.Source{Volume: v}))
	b.must(b.Make(t.Context(), clone, 16*MiB, block.Source{Volume: v}))
	b.get(clone, 7, 1, 2)
	b.get(clone, 0, 8, 8)
	b.put(clone, 9, 1, 1)
	b.get(v, 7, 1, 2)
	if whole, part := b.list(); len(whole) != 2 || len(part) != 0 {
		t.Errorf("the list has %v and parts %v", whole, part)
	}
}

func testMakeFromFile(t *testing.T, w World) {
	b := begin(t, w)
	for _, format := range []string{"raw", "qcow2"} {
		v := newID()
		from := block.Source{File: b.file(format, 5, 4), Format: format}
		b.wants(fault.Invalid, b.Make(t.Context(), v, 2*MiB, from))
		b.must(b.Make(t.Context(), v, 8*MiB, from))
		b.get(v, 5, 0, 4)
		b.get(v, 0, 4, 4)
	}
}

func testSnapshots(t *testing.T, w World) {
	b, v := begin(t, w), newID()
	b.must(b.Make(t.Context(), v, 8*MiB, block.Source{}))
	ids := []string{newID(), newID(), newID(), newID()}
	for i, s := range ids {
		b.put(v, byte(i+1), 0, 2)
		b.must(b.Snapshot(t.Context(), v, s))
		b.must(b.Snapshot(t.Context(), v, s))
	}
	b.put(v, 99, 0, 2)
	b.must(b.Snapshot(t.Context(), v, ids[0])) // there already: it keeps what it had
	clone := newID()
	b.must(b.Make(t.Context(), clone, 8*MiB, block.Source{Volume: v, Snapshot: ids[1]}))
	for _, gone := range []int{1, 3, 0} {
		b.must(b.RemoveSnapshot(t.Context(), v, ids[gone]))
		b.must(b.RemoveSnapshot(t.Context(), v, ids[gone]))
		b.wants(fault.NotFound, b.Export(t.Context(), v, ids[gone], "raw", filepath.Join(t.TempDir(), "x")))
		b.holds(v, ids[2], 3)
		b.get(v, 99, 0, 2)
	}
	b.get(clone, 2, 0, 2)
	b.must(b.RemoveSnapshot(t.Context(), v, ids[2]))
	b.holds(v, "", 99)
	b.must(b.Remove(t.Context(), v))
	b.must(b.RemoveSnapshot(t.Context(), v, ids[2]))
	b.get(clone, 2, 0, 2)
}

// testOpen looks at a volume that is open and written to while all is done to it.
func testOpen(t *testing.T, w World) {
	b, v := begin(t, w), newID()
	b.must(b.Make(t.Context(), v, 8*MiB, block.Source{}))
	if again := b.open(v); !slices.Equal(Image(again), Image(b.open(v))) {
		t.Error("a volume that is open is opened elsewhere")
	}
	b.must(IO(t.Context(), b.open(v), "write -P 1 0 2M"))
	s := newID()
	if w.Locked {
		Hold(t, b.open(v))
		b.wants(fault.Conflict, b.Snapshot(t.Context(), v, s))
		b.wants(fault.Conflict, b.Grow(t.Context(), v, 16*MiB))
		copied := filepath.Join(t.TempDir(), "copy")
		b.must(command(t.Context(), "qemu-img", "convert", "-U", "-O", "qcow2", b.open(v).File, copied))
		b.must(b.Engine.(block.Adopter).Adopt(t.Context(), v, s, copied))
		b.must(b.Snapshot(t.Context(), v, s))
		if _, err := os.Stat(copied); err == nil {
			t.Error("what was adopted is still where it was")
		}
		b.holds(v, s, 1)
		b.wants(fault.Conflict, b.Remove(t.Context(), v))
		return
	}
	b.must(b.Snapshot(t.Context(), v, s))
	b.must(IO(t.Context(), b.open(v), "write -P 2 0 2M"))
	b.holds(v, s, 1)
	b.holds(v, "", 2)
	clone := newID()
	b.must(b.Make(t.Context(), clone, 8*MiB, block.Source{Volume: v}))
	b.get(clone, 2, 0, 2)
	b.must(b.Grow(t.Context(), v, 16*MiB))
	b.must(IO(t.Context(), b.open(v), "read -P 2 0 2M", "write -P 3 15M 1M"))
	// Whoever is started after a kill finds it open.
	b.Engine = w.Open(t)
	b.must(b.RemoveSnapshot(t.Context(), v, s))
	b.must(IO(t.Context(), b.open(v), "read -P 2 0 2M", "read -P 3 15M 1M"))
	Hold(t, b.open(v))
	b.wants(fault.Conflict, b.Remove(t.Context(), v))
}

// Hold has a process keep a volume open until the test ends.
func Hold(t *testing.T, a block.Access) {
	t.Helper()
	cmd := exec.Command("qemu-io", Image(a)...)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); cmd.Wait() })
	if _, err := fmt.Fprintln(in, "read 0 512"); err != nil {
		t.Fatal(err)
	}
	var seen []byte
	for !bytes.Contains(seen, []byte("ops")) {
		buf := make([]byte, 512)
		n, err := out.Read(buf)
		if seen = append(seen, buf[:n]...); err != nil {
			t.Fatalf("%v: %s", err, seen)
		}
	}
}

func testGrow(t *testing.T, w World) {
	b, v := begin(t, w), newID()
	b.must(b.Make(t.Context(), v, 4*MiB, block.Source{}))
	b.put(v, 1, 0, 4)
	s := newID()
	b.must(b.Snapshot(t.Context(), v, s))
	for range 2 {
		b.must(b.Grow(t.Context(), v, 8*MiB))
		b.get(v, 1, 0, 4)
		b.get(v, 0, 4, 4)
	}
	b.must(b.Grow(t.Context(), v, 2*MiB)) // it has them
	b.put(v, 2, 7, 1)
	b.holds(v, s, 1)
}

func testFill(t *testing.T, w World) {
	b, v := begin(t, w), newID()
	f := b.Engine.(block.Filler)
	b.must(b.Make(t.Context(), v, 8*MiB, block.Source{}))
	one, two := newID(), newID()
	b.put(v, 1, 0, 2)
	b.must(b.Snapshot(t.Context(), v, one))
	b.put(v, 2, 0, 2)
	b.must(b.Snapshot(t.Context(), v, two))
	b.put(v, 3, 0, 4)
	for range 2 {
		b.must(f.Revert(t.Context(), v, one))
		b.get(v, 1, 0, 2)
		b.get(v, 0, 2, 6)
	}
	b.holds(v, two, 2) // later ones stay
	for _, format := range []string{"qcow2", "raw"} {
		b.must(f.Fill(t.Context(), v, b.file(format, 6, 1), format))
		b.get(v, 6, 0, 1)
		b.get(v, 1, 1, 1)
		b.holds(v, one, 1)
		b.put(v, 1, 0, 2)
	}
	b.wants(fault.Invalid, f.Fill(t.Context(), v, b.file("raw", 6, 16), "raw"))
	b.wants(fault.NotFound, f.Revert(t.Context(), v, newID()))
	b.get(v, 1, 0, 2)
}

func testRemove(t *testing.T, w World) {
	b, v := begin(t, w), newID()
	b.must(b.Remove(t.Context(), v))
	b.must(b.Make(t.Context(), v, MiB, block.Source{}))
	b.must(b.Snapshot(t.Context(), v, newID()))
	b.must(b.Remove(t.Context(), v))
	b.must(b.Remove(t.Context(), v))
	if whole, part := b.list(); len(whole)+len(part) != 0 {
		t.Errorf("there is still %v, and parts %v", whole, part)
	}
	b.must(b.Make(t.Context(), v, MiB, block.Source{}))
	b.get(v, 0, 0, 1)
}

// testCutOff cuts calls off at random points, as a kill does, and repeats them.
func testCutOff(t *testing.T, w World) {
	b := begin(t, w)
	source := b.file("qcow2", 4, 8)
	cut := func(do func(ctx context.Context, e block.Engine) error) {
		t.Helper()
		for try := range 4 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rand.Int64N(int64(30*time.Millisecond)<<try)))
			err := do(ctx, w.Open(t))
			cancel()
			if err == nil {
				return
			}
		}
		b.must(do(t.Context(), w.Open(t)))
	}
	for range 4 {
		v, s, clone := newID(), newID(), newID()
		cut(func(ctx context.Context, e block.Engine) error {
			return e.Make(ctx, v, 16*MiB, block.Source{File: source, Format: "qcow2"})
		})
		b.get(v, 4, 0, 8)
		b.get(v, 0, 8, 8)
		cut(func(ctx context.Context, e block.Engine) error { return e.Snapshot(ctx, v, s) })
		b.put(v, 5, 0, 8)
		cut(func(ctx context.Context, e block.Engine) error {
			return e.Make(ctx, clone, 16*MiB, block.Source{Volume: v})
		})
		b.get(clone, 5, 0, 8)
		cut(func(ctx context.Context, e block.Engine) error { return e.Grow(ctx, v, 32*MiB) })
		b.holds(v, s, 4)
		cut(func(ctx context.Context, e block.Engine) error { return e.(block.Filler).Revert(ctx, v, s) })
		b.get(v, 4, 0, 8)
		cut(func(ctx context.Context, e block.Engine) error { return e.RemoveSnapshot(ctx, v, s) })
		b.get(v, 4, 0, 8)
		for _, id := range []string{v, clone} {
			cut(func(ctx context.Context, e block.Engine) error { return e.Remove(ctx, id) })
		}
		// What is begun and never asked for again is found as no volume, and can be removed.
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rand.Int64N(int64(30*time.Millisecond))))
		v = newID()
		err := w.Open(t).Make(ctx, v, 16*MiB, block.Source{File: source, Format: "qcow2"})
		cancel()
		if whole, _ := b.list(); slices.Contains(whole, v) != (err == nil) && err == nil {
			t.Errorf("a volume that was made is not in the list")
		} else if slices.Contains(whole, v) {
			b.get(v, 4, 0, 8)
		}
		b.must(b.Remove(t.Context(), v))
		if whole, part := b.list(); len(whole)+len(part) != 0 {
			t.Fatalf("there is still %v, and parts %v", whole, part)
		}
	}
}

// testTogether does much to one volume at once.
func testTogether(t *testing.T, w World) {
	b, v := begin(t, w), newID()
	b.must(b.Make(t.Context(), v, 4*MiB, block.Source{}))
	b.put(v, 1, 0, 4)
	if !w.Locked {
		b.open(v)
	}
	var wg sync.WaitGroup
	fails := make(chan error, 100)
	for range 4 {
		wg.Go(func() {
			s, c := newID(), newID()
			fails <- b.Snapshot(t.Context(), v, s)
			fails <- b.Make(t.Context(), c, 8*MiB, block.Source{Volume: v, Snapshot: s})
			fails <- b.Make(t.Context(), c, 8*MiB, block.Source{Volume: v, Snapshot: s})
			fails <- b.RemoveSnapshot(t.Context(), v, s)
		})
		wg.Go(func() { fails <- b.Grow(t.Context(), v, 8*MiB) })
	}
	wg.Wait()
	close(fails)
	for err := range fails {
		b.must(err)
	}
	b.shut(v)
	whole, _ := b.list()
	if len(whole) != 5 {
		t.Errorf("there are %d volumes, want 5", len(whole))
	}
	for _, id := range whole {
		b.get(id, 1, 0, 4)
	}
}

func testRefusals(t *testing.T, w World) {
	b, v := begin(t, w), newID()
	ctx := t.Context()
	for _, bad := range []string{"", "../x", "a/b", ".", "-x", "a b", "a,b", "a@b", strings.Repeat("x", 65)} {
		b.wants(fault.Invalid, b.Make(ctx, bad, MiB, block.Source{}))
		b.wants(fault.Invalid, b.Remove(ctx, bad))
		b.wants(fault.Invalid, b.Snapshot(ctx, v, bad))
		_, err := b.Open(ctx, bad)
		b.wants(fault.Invalid, err)
	}
	path := filepath.Join(t.TempDir(), "x")
	b.wants(fault.NotFound, b.Snapshot(ctx, v, newID()))
	b.wants(fault.NotFound, b.Grow(ctx, v, MiB))
	b.wants(fault.NotFound, b.Export(ctx, v, "", "raw", path))
	b.wants(fault.NotFound, b.Make(ctx, newID(), MiB, block.Source{Volume: v}))
	_, err := b.Open(ctx, v)
	b.wants(fault.NotFound, err)
	b.must(b.Make(ctx, v, MiB, block.Source{}))
	b.wants(fault.NotFound, b.Export(ctx, v, newID(), "raw", path))
	b.wants(fault.NotFound, b.Make(ctx, newID(), MiB, block.Source{Volume: v, Snapshot: newID()}))
	b.wants(fault.Invalid, b.Export(ctx, v, "", "vmdk", path))
	if m, ok := b.Engine.(block.Meter); ok {
		if total, free, err := m.Room(ctx); w.NoRoom {
			b.wants(fault.Unavailable, err)
		} else if err != nil || total <= 0 || free <= 0 || free > total {
			t.Errorf("room: %d of %d, %v", free, total, err)
		}
	}
}
