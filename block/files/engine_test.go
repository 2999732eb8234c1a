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
