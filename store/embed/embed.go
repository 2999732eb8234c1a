// Package embed runs etcd inside this process, for a cloud whose state lives on one
// machine. It imports etcd's server and nothing of the project.
package embed

import (
	"context"
	"fmt"
	"net/url"
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
	Client *clientv3.Client // in process: no socket between
}

// Start starts the member and waits until it serves or ctx ends.
func Start(ctx context.Context, cfg Config) (*Member, error) {
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
	peer := url.URL{Scheme: "unix", Path: cfg.Dir + "/peer.sock"}
	client := url.URL{Scheme: "unix", Path: cfg.Dir + "/client.sock"}
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
	return &Member{etcd: e, Client: v3client.New(e.Server)}, nil
}

// Err tells of an end that nobody asked for.
func (m *Member) Err() <-chan error { return m.etcd.Err() }

// Close stops the member; what was committed stays.
func (m *Member) Close() {
	m.Client.Close()
	done := make(chan struct{})
	go func() { m.etcd.Close(); close(done) }()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
	}
}
