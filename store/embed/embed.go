// Package embed runs etcd inside this process, for a cloud whose state lives on one
// machine. It imports etcd's server and nothing of the project.
package embed

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
)

// Config says where the member keeps its data.
type Config struct {
	Dir string // data directory; made where it is missing
	// Unsafe leaves out the flush to disk after a commit: for tests only.
	Unsafe bool
	// ListenClient is where other processes reach etcd, such as "http://127.0.0.1:2379";
	// empty: a unix socket in Dir that nobody needs.
	ListenClient string
	// QuotaBytes is the limit of the database, default 8 GiB.
	QuotaBytes int64
}

// Member is a running etcd of one member.
type Member struct {
	etcd   *embed.Etcd
	lock   *os.File         // held while etcd runs
	Client *clientv3.Client // in process: no socket between
}

// Start starts the member and waits until it serves or ctx ends.
//
// Errors: where the directory cannot be made, or another process serves it.
func Start(ctx context.Context, cfg Config) (_ *Member, err error) {
	if cfg.Dir, err = filepath.Abs(cfg.Dir); err != nil {
		return nil, fmt.Errorf("directory of etcd: %w", err)
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("directory of etcd: %w", err)
	}
	lock, err := occupy(cfg.Dir)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			lock.Close()
		}
	}()
	sockets, err := socketDir(cfg.Dir)
	if err != nil {
		return nil, err
	}
	c := embed.NewConfig()
	c.Name = "yakumo"
	c.Dir = cfg.Dir
	c.LogLevel = "error"
	c.Logger = "zap"
	c.LogOutputs = []string{"stderr"}
	c.UnsafeNoFsync = cfg.Unsafe
	c.MaxTxnOps = 1024
	c.MaxRequestBytes = 8 << 20
	c.QuotaBackendBytes = cfg.QuotaBytes
	if c.QuotaBackendBytes == 0 {
		c.QuotaBackendBytes = 8 << 30
	}
	c.AutoCompactionMode = "periodic"
	c.AutoCompactionRetention = "30m"
	c.SnapshotCount = 20000
	c.SnapshotCatchUpEntries = 100 // kept in memory for members that lag, of which there are none
	peer := url.URL{Scheme: "unix", Path: filepath.Join(sockets, "peer.sock")}
	client := url.URL{Scheme: "unix", Path: filepath.Join(sockets, "client.sock")}
	if cfg.ListenClient != "" {
		u, err := url.Parse(cfg.ListenClient)
		if err != nil {
			return nil, fmt.Errorf("etcd client address: %w", err)
		}
		client = *u
	}
	c.ListenPeerUrls, c.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	c.InitialCluster = c.Name + "=" + peer.String()
	e, err := embed.StartEtcd(c)
	if err != nil {
		return nil, fmt.Errorf("start etcd in %s: %w", cfg.Dir, err)
	}
	select {
	case <-e.Server.ReadyNotify():
	case err := <-e.Err():
		e.Close()
		return nil, fmt.Errorf("start etcd in %s: %w", cfg.Dir, err)
	case <-ctx.Done():
		e.Close()
		return nil, fmt.Errorf("start etcd in %s: %w", cfg.Dir, ctx.Err())
	}
	return &Member{etcd: e, lock: lock, Client: v3client.New(e.Server)}, nil
}

// occupy keeps other processes away from the directory for as long as this one lives. etcd
// itself would wait for the other without a word.
func occupy(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("directory of etcd: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("another process keeps its state in %s: %w", dir, err)
	}
	return f, nil
}

// maxSocketPath is the longest path of a unix socket (unix(7): sun_path holds 108 bytes), less
// the names in the directory.
const maxSocketPath = 107 - len("/client.sock")

// socketDir gives where the sockets stand that etcd wants: in the data directory, or below the
// directory for temporary files where that path is too long for a socket.
func socketDir(dir string) (string, error) {
	if len(dir) <= maxSocketPath {
		return dir, nil
	}
	short := filepath.Join(os.TempDir(), fmt.Sprintf("ykm-etcd-%.12x", sha256.Sum256([]byte(dir))))
	if err := os.MkdirAll(short, 0o700); err != nil {
		return "", fmt.Errorf("sockets of etcd: %w", err)
	}
	// Anybody may make names in a directory for temporary files.
	fi, err := os.Lstat(short)
	if err != nil {
		return "", fmt.Errorf("sockets of etcd: %w", err)
	}
	if st, ok := fi.Sys().(*syscall.Stat_t); !ok || !fi.IsDir() || int(st.Uid) != os.Geteuid() {
		return "", fmt.Errorf("sockets of etcd: %s is not a directory of this user", short)
	}
	return short, nil
}

// Err tells of an end that nobody asked for.
func (m *Member) Err() <-chan error { return m.etcd.Err() }

// Close stops the member; what was committed stays.
func (m *Member) Close() {
	m.Client.Close()
	done := make(chan struct{})
	go func() { m.etcd.Close(); m.lock.Close(); close(done) }()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
	}
}
