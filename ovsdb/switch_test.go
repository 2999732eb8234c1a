package ovsdb_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"yakumo/ovsdb"
	"yakumo/ovsdb/ovsdbtest"
)

// within bounds every wait of a test.
const within = 90 * time.Second

func testContext(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	t.Cleanup(cancel)
	return ctx
}

func openSwitch(t testing.TB, s *ovsdbtest.Server) *ovsdb.Switch {
	t.Helper()
	sw, err := ovsdb.OpenSwitch(testContext(t), ovsdb.Config{Addresses: []string{s.Address()}, MinBackoff: 5 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sw.Close)
	return sw
}

var testBridge = ovsdb.BridgeConfig{Name: "br0", DatapathType: "netdev", FailMode: "secure", Protocols: []string{"OpenFlow15"},
	ExternalIDs: map[string]string{"owner": "test"}}

func TestBridgesAndPorts(t *testing.T) {
	server := ovsdbtest.Start(t, ovsdbtest.Options{})
	server.StartSwitch()
	sw := openSwitch(t, server)
	ctx := testContext(t)

	b, err := sw.EnsureBridge(ctx, testBridge)
	if err != nil {
		t.Fatal(err)
	}
	if b.DatapathID == nil || len(*b.DatapathID) != 16 || b.FailMode == nil || *b.FailMode != "secure" || b.ExternalIDs["owner"] != "test" {
		t.Errorf("bridge is %+v", b)
	}
	serial := sw.Client().Snapshot().Serial()
	if again, err := sw.EnsureBridge(ctx, testBridge); err != nil || again.UUID != b.UUID {
		t.Errorf("second EnsureBridge: %v, %v instead of %v", err, again.UUID, b.UUID)
	}

	changed := testBridge
	changed.FailMode = ""
	changed.Protocols = []string{"OpenFlow15", "OpenFlow13"}
	changed.ExternalIDs = map[string]string{"owner": "other", "more": "x"}
	changed.Controllers = []ovsdb.Controller{{Target: "tcp:127.0.0.1:1", ConnectionMode: new("out-of-band")}}
	server.VSCtl("set", "bridge", "br0", "external_ids:foreign=yes")
	if b, err = sw.EnsureBridge(ctx, changed); err != nil {
		t.Fatal(err)
	}
	if b.FailMode != nil || len(b.Protocols) != 2 || b.ExternalIDs["owner"] != "other" || b.ExternalIDs["more"] != "x" ||
		b.ExternalIDs["foreign"] != "yes" || len(b.Controller) != 1 {
		t.Errorf("changed bridge is %+v", b)
	}
	if got := strings.TrimSpace(server.VSCtl("get-controller", "br0")); got != "tcp:127.0.0.1:1" {
		t.Errorf("controller is %q", got)
	}
	kept := b.Controller[0]
	changed.Controllers = []ovsdb.Controller{{Target: "tcp:127.0.0.1:1", InactivityProbe: new(int64(0))}, {Target: "tcp:127.0.0.1:2"}}
	if b, err = sw.EnsureBridge(ctx, changed); err != nil {
		t.Fatal(err)
	}
	if len(b.Controller) != 2 {
		t.Errorf("controllers are %v", b.Controller)
	}
	c, ok, err := ovsdb.Get[ovsdb.Controller](sw.Client().Snapshot(), kept)
	if err != nil || !ok || c.InactivityProbe == nil || *c.InactivityProbe != 0 || c.ConnectionMode == nil {
		t.Errorf("controller that was there is %+v, %v, %v", c, ok, err)
	}
	changed.Controllers = []ovsdb.Controller{}
	if b, err = sw.EnsureBridge(ctx, changed); err != nil || len(b.Controller) != 0 {
		t.Errorf("controllers are %v (%v), want none", b.Controller, err)
	}

	vx := ovsdb.PortConfig{Name: "vx0", Type: "vxlan", OFPortRequest: 77,
		Options: map[string]string{"remote_ip": "flow", "key": "flow"}, ExternalIDs: map[string]string{"id": "1"}}
	ports, err := sw.EnsurePorts(ctx, "br0", vx, ovsdb.PortConfig{Name: "in0", Type: "internal", MTURequest: 1400, Tag: new(int64(12))})
	if err != nil {
		t.Fatal(err)
	}
	if ports[0].OFPort != 77 || ports[0].Interface.Options["remote_ip"] != "flow" || ports[1].OFPort < 1 {
		t.Errorf("ports are %+v", ports)
	}
	if err := sw.Client().Wait(ctx, func(*ovsdb.Snapshot) (bool, error) {
		all, err := sw.Ports("br0")
		return err == nil && len(all) == 3 && all[1].Interface.MTU != nil && *all[1].Interface.MTU == 1400, err
	}); err != nil {
		t.Errorf("MTU of in0 is not in force: %v", err)
	}
	cfg := vx
	cfg.Options = map[string]string{"remote_ip": "192.0.2.1"}
	if p, err := sw.EnsurePort(ctx, "br0", cfg); err != nil || len(p.Interface.Options) != 1 || p.OFPort != 77 {
		t.Errorf("changed port is %+v, %v", p, err)
	}

	var pe *ovsdb.PortError
	if _, err := sw.EnsurePort(ctx, "br0", ovsdb.PortConfig{Name: "nodevice"}); !errors.As(err, &pe) || pe.Port != "nodevice" {
		t.Errorf("port without a device: %v", err)
	}
	if _, err := sw.EnsurePort(ctx, "br0", ovsdb.PortConfig{Name: "nodevice"}); !errors.As(err, &pe) {
		t.Errorf("port without a device, again: %v", err)
	}
	if _, err := sw.EnsureBridge(ctx, ovsdb.BridgeConfig{Name: "br1", DatapathType: "netdev"}); err != nil {
		t.Fatal(err)
	}
	if _, err := sw.EnsurePort(ctx, "br1", vx); !errors.As(err, &pe) || pe.Port != "vx0" {
		t.Errorf("port of another bridge: %v", err)
	}
	if _, err := sw.EnsurePort(ctx, "br9", vx); err == nil {
		t.Error("a port of a bridge that is not there was made")
	}
	for range 2 {
		if err := sw.RemovePorts(ctx, "br0", "nodevice", "vx0", "never"); err != nil {
			t.Fatal(err)
		}
	}
	if got := strings.Fields(server.VSCtl("list-ports", "br0")); len(got) != 1 || got[0] != "in0" {
		t.Errorf("ports are %v", got)
	}
	for range 2 {
		if err := sw.RemoveBridge(ctx, "br0"); err != nil {
			t.Fatal(err)
		}
	}
	snap := sw.Client().Snapshot()
	if n := snap.Len("Bridge"); n != 1 || snap.Len("Port") != 1 || snap.Len("Interface") != 1 || snap.Serial() <= serial {
		t.Errorf("%d bridges, %d ports, %d interfaces left", n, snap.Len("Port"), snap.Len("Interface"))
	}
}

func TestApplyWithoutSwitch(t *testing.T) {
	server := ovsdbtest.Start(t, ovsdbtest.Options{})
	sw := openSwitch(t, server)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err := sw.EnsureBridge(ctx, testBridge)
	if !errors.Is(err, ovsdb.ErrNotApplied) || !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("EnsureBridge without a switch: %v", err)
	}
	if _, ok, err := sw.Bridge("br0"); !ok || err != nil {
		t.Errorf("the bridge is not in the database: %v, %v", ok, err)
	}
	server.StartSwitch()
	if _, err := sw.EnsureBridge(testContext(t), testBridge); err != nil {
		t.Errorf("EnsureBridge with a switch at last: %v", err)
	}
}

func TestDatapathTypeThatTheSwitchLacks(t *testing.T) {
	server := ovsdbtest.Start(t, ovsdbtest.Options{})
	server.StartSwitch() // without the kernel's datapath
	sw := openSwitch(t, server)
	ctx := testContext(t)
	for range 2 {
		var be *ovsdb.BridgeError
		if b, err := sw.EnsureBridge(ctx, ovsdb.BridgeConfig{Name: "br0", DatapathType: "system"}); !errors.As(err, &be) || be.Bridge != "br0" {
			t.Fatalf("bridge is %+v, %v", b, err)
		}
	}
	if _, err := sw.EnsureBridge(ctx, testBridge); err != nil {
		t.Errorf("the same bridge with a good type: %v", err)
	}
}

// Whichever daemon dies, what was begun is done when it is back.
func TestDaemonsDieWhilePortsAreMade(t *testing.T) {
	server := ovsdbtest.Start(t, ovsdbtest.Options{})
	server.StartSwitch()
	sw := openSwitch(t, server)
	ctx := testContext(t)
	if _, err := sw.EnsureBridge(ctx, testBridge); err != nil {
		t.Fatal(err)
	}
	const ports = 40
	progress, done := make(chan int, ports), make(chan error, 1)
	go func() {
		for n := range ports {
			cfg := ovsdb.PortConfig{Name: fmt.Sprintf("p%d", n), Type: "internal", OFPortRequest: int64(100 + n)}
			if p, err := sw.EnsurePort(ctx, "br0", cfg); err != nil || p.OFPort != cfg.OFPortRequest {
				done <- fmt.Errorf("port %d: %d, %w", n, p.OFPort, err)
				return
			}
			progress <- n
		}
		done <- nil
	}()
	reach := func(n int) {
		for {
			select {
			case got := <-progress:
				if got == n {
					return
				}
			case err := <-done:
				t.Fatalf("ended before port %d: %v", n, err)
			}
		}
	}
	reach(5)
	server.Kill()
	server.Restart()
	reach(15)
	server.KillSwitch()
	server.StartSwitch()
	reach(25)
	server.Kill()
	server.KillSwitch()
	server.Restart()
	server.StartSwitch()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	all, err := sw.Ports("br0")
	if err != nil || len(all) != ports+1 {
		t.Errorf("%d ports, %v", len(all), err)
	}
}
