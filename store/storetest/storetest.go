// Package storetest gives tests a store on a real etcd that runs in their own process,
// without the flush to disk. One etcd serves all tests of a process; each test has a
// prefix of its own.
package storetest

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"yakumo/store"
	"yakumo/store/embed"
)

type process struct {
	once   sync.Once
	member *embed.Member
	err    error
	n      atomic.Int64
	pipe   io.WriteCloser // held open: see tempDir
}

// shared is the process's etcd; it lives until the process ends.
var shared process

// Client gives the process's etcd and a prefix that no other test has.
func Client(t testing.TB) (*clientv3.Client, string) {
	t.Helper()
	shared.once.Do(func() {
		dir, err := tempDir()
		if err != nil {
			shared.err = err
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		shared.member, shared.err = embed.Start(ctx, embed.Config{Dir: dir, Unsafe: true})
	})
	if shared.err != nil {
		t.Fatalf("start etcd: %v", shared.err)
	}
	return shared.member.Client, fmt.Sprintf("/t%d/", shared.n.Add(1))
}

// tempDir makes a folder that goes when this process has ended, however it ends: a shell
// waits for the end of a pipe that only this process holds.
func tempDir() (string, error) {
	dir, err := os.MkdirTemp("", "ykm-etcd-")
	if err != nil {
		return "", err
	}
	sweeper := exec.Command("/bin/sh", "-c", `read -r _; rm -rf -- "$0"`, dir)
	sweeper.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if shared.pipe, err = sweeper.StdinPipe(); err != nil {
		return "", err
	}
	return dir, sweeper.Start()
}

// New opens a store of its own for the test, with every table of the cloud or those named.
func New(t testing.TB, tables ...store.AnyTable) *store.Store {
	t.Helper()
	cl, prefix := Client(t)
	return Open(t, cl, prefix, tables...)
}

// Open opens another store (as another server process would) on the same state.
func Open(t testing.TB, cl *clientv3.Client, prefix string, tables ...store.AnyTable) *store.Store {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	s, err := store.Open(ctx, store.Config{Client: cl, Prefix: prefix, Tables: tables, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatalf("open the store: %v", err)
	}
	t.Cleanup(s.Close)
	return s
}
