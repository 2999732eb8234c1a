package ovs_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"

	"yakumo/datapath"
	"yakumo/datapath/dptest"
	"yakumo/datapath/ovs"
)

// remote is the addresses at which a host's switch is reached by TCP, through pipes from this namespace into
// the host's.
type remote struct {
	ovsdb, openflow string
	tls             *tls.Config // nil: plain TCP
}

// newRemote opens a host's switch to the network, with certificates where there is an authority.
func newRemote(t testing.TB, h *host, ca *authority) *remote {
	t.Helper()
	r, scheme := &remote{}, "tcp"
	if ca != nil {
		scheme, r.tls = "ssl", ca.client(t)
		ca.trust(t, h.sw, ca)
	}
	h.sw.Vsctl("set-manager", "p"+scheme+":6640:127.0.0.1")
	near := pipe(t, h.ns, 6653)
	_, port, err := net.SplitHostPort(near)
	if err != nil {
		t.Fatal(err)
	}
	// The driver has the switch listen on the port that it is told of: the pipe's.
	r.ovsdb, r.openflow = scheme+":"+pipe(t, h.ns, 6640), scheme+":127.0.0.1:"+port
	return r
}

// pipe listens on this side and passes each connection on to the same port (or to far, where that is not
// 6653) of the namespace's loopback address.
func pipe(t testing.TB, ns string, far int) string {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	if far == 6653 {
		far = l.Addr().(*net.TCPAddr).Port
	}
	go func() {
		for {
			a, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer a.Close()
				var b net.Conn
				inNetns(t, ns, func() error {
					b, _ = net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", far)) // refused: the other side sees the end
					return nil
				})
				if b == nil {
					return
				}
				defer b.Close()
				go func() {
					_, _ = io.Copy(b, a)
					b.Close()
				}()
				_, _ = io.Copy(a, b)
			}()
		}
	}()
	return l.Addr().String()
}

// The whole suite again on a driver that has nothing but two TCP connections.
func TestRemoteConformance(t *testing.T) {
	t.Parallel()
	f := newFabric(t)
	f.remote = true
	dptest.Run(t, f)
}

func TestRemoteConfig(t *testing.T) {
	for _, addr := range []string{"", "unix:/run/x", "tcp:", "tcp:host", "ptcp:6653", "tcp::6653"} {
		c := ovs.Config{Remote: true, OpenFlow: addr, Ordinals: datapath.NewMemoryOrdinals(), TunnelIP: netip.MustParseAddr("192.0.2.1")}
		if d, err := ovs.Open(c); err == nil {
			t.Errorf("%q: opened", addr)
			if err := d.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}
