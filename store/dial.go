package store

import (
	"crypto/tls"
	"fmt"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
)

// DialConfig says where an external etcd is.
type DialConfig struct {
	Endpoints []string    // http://10.0.0.1:2379 or https://…
	TLS       *tls.Config // for https; nil: none
}

// Dial makes a client of an external etcd. It does not wait for etcd: what uses the client does.
//
// A connection that was lost is tried again at least every 2 s, so that a server is back soon
// after its etcd is; gRPC's own default goes up to 2 minutes. A connection that is silent is
// given up after 13 s.
func Dial(cfg DialConfig) (*clientv3.Client, error) {
	cl, err := clientv3.New(clientv3.Config{
		Logger:    zap.NewNop(), // what matters comes as errors, and the store logs it
		Endpoints: cfg.Endpoints, TLS: cfg.TLS, MaxCallSendMsgSize: 8 << 20,
		DialKeepAliveTime: 10 * time.Second, DialKeepAliveTimeout: 3 * time.Second,
		DialOptions: []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
			MinConnectTimeout: 3 * time.Second,
		})},
	})
	if err != nil {
		return nil, fmt.Errorf("etcd at %s: %w", strings.Join(cfg.Endpoints, ", "), err)
	}
	return cl, nil
}
