package embed_test

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"yakumo/store"
	"yakumo/store/embed"
)

type note struct {
	ID string
	N  int
}

var notes = store.Define("note", func(r *note) string { return r.ID })

const dirVar = "YAKUMO_TEST_EMBED_DIR"

// TestMain runs the test binary a second time as the process that is killed.
func TestMain(m *testing.M) {
	if dir := os.Getenv(dirVar); dir != "" {
		if err := write(dir); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func open(ctx context.Context, dir string) (*store.Store, func(), error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	m, err := embed.Start(ctx, embed.Config{Dir: dir})
	if err != nil {
		return nil, nil, err
	}
	s, err := store.Open(ctx, store.Config{Client: m.Client, Tables: []store.AnyTable{notes}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		m.Close()
		return nil, nil, err
	}
	return s, func() { s.Close(); m.Close() }, nil
}

// write counts for ever, and says what is acknowledged.
func write(dir string) error {
	s, _, err := open(context.Background(), dir)
	if err != nil {
		return err
	}
	for {
		n := 0
		if _, err := s.Update(context.Background(), func(tx *store.Tx) error {
			n = 1
			if r, ok := notes.Get(tx, "count"); ok {
				n = r.N + 1
			}
			if err := notes.Put(tx, &note{ID: "count", N: n}); err != nil {
				return err
			}
			return notes.Put(tx, &note{ID: fmt.Sprint("n", n), N: n})
		}); err != nil {
			return err
		}
		fmt.Println("acknowledged", n)
	}
}

// TestKilled: what was acknowledged before kill -9 is there afterwards, again and again.
func TestKilled(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "by", "start")
	last := 0
	for round := range 3 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), dirVar+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cmd.Process.Kill() })
		timer := time.AfterFunc(3*time.Minute, func() { cmd.Process.Kill() })
		first := 0
		for lines := bufio.NewScanner(out); lines.Scan(); {
			var n int
			if _, err := fmt.Sscanf(lines.Text(), "acknowledged %d", &n); err != nil {
				t.Fatalf("the process says: %s", lines.Text())
			}
			if first == 0 {
				if first = n; first <= last {
					t.Fatalf("round %d begins at %d, but %d was acknowledged before", round, first, last)
				}
			}
			last = n
			if n == first+40 {
				cmd.Process.Kill() // in the middle: it does not stop writing
			}
		}
		timer.Stop()
		cmd.Wait() // tells of the kill
		if last < first+40 || first == 0 {
			t.Fatalf("round %d ended at %d of %d", round, last, first+40)
		}
	}
	s, closeAll, err := open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer closeAll()
	snap := s.Snapshot()
	for n := 1; n <= last; n++ {
		if r, ok := notes.Get(snap, fmt.Sprint("n", n)); !ok || r.N != n {
			t.Fatalf("%d was acknowledged, and is %+v now", n, r)
		}
	}
	count, _ := notes.Get(snap, "count")
	rows := 0
	for range notes.All(snap) {
		rows++
	}
	if count == nil || count.N < last || rows != count.N+1 {
		t.Errorf("count %+v, %d acknowledged, %d rows", count, last, rows)
	}
}

func TestDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("long/", 30)+"x") // longer than a socket's path may be
	s, closeAll, err := open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Update(t.Context(), func(tx *store.Tx) error { return notes.Put(tx, &note{ID: "a", N: 7}) }); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if _, err := embed.Start(t.Context(), embed.Config{Dir: dir}); err == nil || !strings.Contains(err.Error(), "another process keeps its state in") {
		t.Errorf("a second member on the same directory: %v", err)
	}
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("it was told after %s", took)
	}
	closeAll()
	s, closeAll, err = open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer closeAll()
	if r, ok := notes.Get(s.Snapshot(), "a"); !ok || r.N != 7 {
		t.Errorf("after the restart: %+v", r)
	}
	if _, err := embed.Start(t.Context(), embed.Config{Dir: "/proc/nowhere"}); err == nil {
		t.Error("a directory that cannot be made was taken")
	}
}
