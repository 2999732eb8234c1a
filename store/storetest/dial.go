package storetest

import (
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Dial connects to an etcd that another process serves, for tests that kill processes.
func Dial(t testing.TB, endpoint string) *clientv3.Client {
	t.Helper()
	cl, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, DialTimeout: 10 * time.Second})
	if err != nil {
		t.Fatalf("connect to etcd: %v", err)
	}
	t.Cleanup(func() {
		if err := cl.Close(); err != nil {
			t.Errorf("leave etcd: %v", err)
		}
	})
	return cl
}
