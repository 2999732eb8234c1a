package rbd_test

import (
	"fmt"
	"os/exec"
	"sync/atomic"
	"testing"

	"yakumo/block"
	"yakumo/block/blocktest"
	"yakumo/block/rbd"
	"yakumo/block/rbd/rbdtest"
	"yakumo/fault"
)

// TestCeph runs the suite on a real cluster, with a pool for each test.
func TestCeph(t *testing.T) {
	cfg := rbdtest.Start(t)
	var pools atomic.Int64
	blocktest.Run(t, func(t *testing.T) blocktest.World {
		mine := cfg
		mine.Pool = fmt.Sprint("pool", pools.Add(1))
		for _, args := range [][]string{{"ceph", "-c", cfg.Conf, "osd", "pool", "create", mine.Pool, "4"}, {"rbd", "-c", cfg.Conf, "pool", "init", mine.Pool}} {
			if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
				t.Fatalf("%v: %v: %s", args, err, out)
			}
		}
		return blocktest.World{NoRoom: true, Open: func(t testing.TB) block.Engine {
			e, err := rbd.Open(mine)
			if err != nil {
				t.Fatal(err)
			}
			return e
		}}
	})
}

func TestConfig(t *testing.T) {
	for _, bad := range []rbd.Config{{}, {Pool: "a:b", Conf: "/c", User: "u"}, {Pool: "p", Conf: "/c", User: "u@v"}} {
		if _, err := rbd.Open(bad); !fault.Is(err, fault.Invalid) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}
