package files_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"yakumo/block"
	"yakumo/block/blocktest"
	"yakumo/block/files"
	"yakumo/fault"
)

func open(t testing.TB, cfg files.Config) block.Engine {
	t.Helper()
	e, err := files.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// runDir gives a folder whose path is short enough for sockets.
func runDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "nbd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func TestLocal(t *testing.T) {
	blocktest.Run(t, func(t *testing.T) blocktest.World {
		cfg := files.Config{Dir: filepath.Join(t.TempDir(), "volumes"), Run: runDir(t)}
		t.Cleanup(func() { closeAll(t, cfg) })
		return blocktest.World{Open: func(t testing.TB) block.Engine { return open(t, cfg) }}
	})
}

// closeAll ends the daemons of all volumes.
func closeAll(t testing.TB, cfg files.Config) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute) // the test's own has ended
	defer cancel()
	e := open(t, cfg)
	l, err := e.List(ctx)
	if err != nil {
		t.Error(err)
	}
	for _, v := range l {
		if err := e.(block.Closer).Close(ctx, v.ID); err != nil {
			t.Error(err)
		}
	}
}

func TestShared(t *testing.T) {
	blocktest.Run(t, func(t *testing.T) blocktest.World {
		cfg := files.Config{Dir: filepath.Join(t.TempDir(), "volumes"), Shared: true}
		return blocktest.World{Locked: true, Open: func(t testing.TB) block.Engine { return open(t, cfg) }}
	})
}

// A volume that is laid aside is none any more, and its file is as it was.
func TestLayAside(t *testing.T) {
	cfg := files.Config{Dir: filepath.Join(t.TempDir(), "volumes"), Run: runDir(t)}
	t.Cleanup(func() { closeAll(t, cfg) })
	e := open(t, cfg)
	aside := e.(block.Sider)
	ctx := t.Context()
	if err := e.Make(ctx, "v1", 1<<20, block.Source{}); err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(aside.Aside(), "x")
	if err := os.MkdirAll(aside.Aside(), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Open(ctx, "v1"); err != nil {
		t.Fatal(err)
	}
	if err := aside.LayAside(ctx, "v1", to); !fault.Is(err, fault.Conflict) {
		t.Errorf("one that is open: %v", err)
	}
	if err := e.(block.Closer).Close(ctx, "v1"); err != nil {
		t.Fatal(err)
	}
	for range 2 { // absent is success
		if err := aside.LayAside(ctx, "v1", to); err != nil {
			t.Fatal(err)
		}
	}
	if l, err := e.List(ctx); err != nil || len(l) != 0 {
		t.Errorf("volumes %v, %v", l, err)
	}
	if st, err := os.Stat(filepath.Join(to, "disk.qcow2")); err != nil || st.Size() == 0 {
		t.Errorf("what was laid aside: %v", err)
	}
	if err := aside.LayAside(ctx, "../x", to); !fault.Is(err, fault.Invalid) {
		t.Errorf("an id that is none: %v", err)
	}
}
