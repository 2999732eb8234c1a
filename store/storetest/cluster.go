package storetest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sys/unix"

	"yakumo/store"
)

// Cluster is an etcd of other processes: Debian's etcd, on loopback, with data in
// directories of the test. It ends with the test.
type Cluster struct {
	t       testing.TB
	args    []string
	members []*member
}

type member struct {
	name, client, peer, dir string
	log                     lockedBuffer
	mu                      sync.Mutex
	cmd                     *exec.Cmd
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) tail() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.b.Bytes()
	return string(b[max(0, len(b)-3000):])
}

// StartCluster starts n members with --max-txn-ops 1024, or with args, and waits until they serve.
func StartCluster(t testing.TB, n int, args ...string) *Cluster {
	t.Helper()
	if len(args) == 0 {
		args = []string{"--max-txn-ops", fmt.Sprint(store.MaxOps)}
	}
	c := &Cluster{t: t, args: args}
	dir := t.TempDir()
	for i := range n {
		name := fmt.Sprint("m", i)
		c.members = append(c.members, &member{name: name, client: FreeAddress(t), peer: FreeAddress(t), dir: filepath.Join(dir, name)})
	}
	t.Cleanup(func() {
		for i := range c.members {
			c.Kill(i)
		}
	})
	for i := range c.members {
		c.Start(i)
	}
	cl := c.Client()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	for {
		if _, err := cl.Put(ctx, "/ready", ""); err == nil {
			return c
		} else if ctx.Err() != nil {
			t.Fatalf("etcd does not serve: %v\n%s", err, c.members[0].log.tail())
		}
	}
}

// FreeAddress gives a loopback address that nobody listens on, and gives none twice: neither to this process
// nor to another test's while this one lives. Its port is below those that the kernel hands out, so that a
// process that is restarted finds it free again.
func FreeAddress(t testing.TB) string {
	t.Helper()
	for range 100 {
		port := 15000 + rand.IntN(15000)
		// A name that only one process may have, for as long as it lives: the socket is never closed.
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Bind(fd, &unix.SockaddrUnix{Name: fmt.Sprintf("@yakumo-test-port-%d", port)}); err != nil {
			unix.Close(fd)
			continue
		}
		addr := fmt.Sprintf("127.0.0.1:%d", port)
		l, err := net.Listen("tcp", addr)
		if err != nil {
			continue
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		return addr
	}
	t.Fatal("no free port")
	return ""
}

// Endpoints are the members' client addresses.
func (c *Cluster) Endpoints() []string {
	var out []string
	for _, m := range c.members {
		out = append(out, "http://"+m.client)
	}
	return out
}

// Client connects to all members, as a server does; closed with the test.
func (c *Cluster) Client() *clientv3.Client {
	c.t.Helper()
	cl, err := store.Dial(store.DialConfig{Endpoints: c.Endpoints()})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { cl.Close() })
	return cl
}

// Start starts a member, for the first time or again.
func (c *Cluster) Start(i int) {
	c.t.Helper()
	var all []string
	for _, m := range c.members {
		all = append(all, m.name+"=http://"+m.peer)
	}
	m := c.members[i]
	cmd := exec.Command("etcd", append([]string{
		"--name", m.name, "--data-dir", m.dir, "--initial-cluster", strings.Join(all, ","),
		"--listen-client-urls", "http://" + m.client, "--advertise-client-urls", "http://" + m.client,
		"--listen-peer-urls", "http://" + m.peer, "--initial-advertise-peer-urls", "http://" + m.peer,
		"--unsafe-no-fsync", // members are killed, the machine is not
	}, c.args...)...)
	cmd.Stdout, cmd.Stderr = io.Writer(&m.log), io.Writer(&m.log)
	if err := cmd.Start(); err != nil {
		c.t.Fatalf("start etcd: %v", err)
	}
	m.mu.Lock()
	m.cmd = cmd
	m.mu.Unlock()
}

// Kill ends a member at once (SIGKILL), and waits until it is gone.
func (c *Cluster) Kill(i int) {
	m := c.members[i]
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cmd == nil {
		return
	}
	m.cmd.Process.Kill()
	m.cmd.Wait() // tells of the kill
	m.cmd = nil
}

// Leader gives the index of the member that leads; it waits for an election to end.
func (c *Cluster) Leader(ctx context.Context) (int, error) {
	cl := c.Client()
	for {
		for i, m := range c.members {
			st, err := cl.Status(ctx, "http://"+m.client)
			if err == nil && st.Leader == st.Header.MemberId {
				return i, nil
			}
		}
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("no member leads")
		case <-time.After(20 * time.Millisecond):
		}
	}
}
