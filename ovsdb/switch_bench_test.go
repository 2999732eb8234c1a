package ovsdb_test

import (
	"fmt"
	"testing"

	"yakumo/ovsdb"
	"yakumo/ovsdb/ovsdbtest"
)

// BenchmarkTransact is the round trip of a small transaction to a real ovsdb-server.
func BenchmarkTransact(b *testing.B) {
	server := ovsdbtest.Start(b, ovsdbtest.Options{})
	server.VSCtl("init")
	c := openReal(b, server)
	ctx := b.Context()
	for b.Loop() {
		tx := ovsdb.NewTxn()
		tx.Mutate("Open_vSwitch", nil, ovsdb.Mutation{"next_cfg", "+=", 1})
		tx.Select("Open_vSwitch", nil, "next_cfg")
		if _, err := c.Transact(ctx, tx); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkApply is the same until ovs-vswitchd has it in force.
func BenchmarkApply(b *testing.B) {
	server := ovsdbtest.Start(b, ovsdbtest.Options{})
	server.StartSwitch()
	sw := openSwitch(b, server)
	ctx := b.Context()
	if _, err := sw.EnsureBridge(ctx, testBridge); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := sw.Apply(ctx, ovsdb.NewTxn()); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkEnsurePort makes a port until it has its OpenFlow number; removal is included.
func BenchmarkEnsurePort(b *testing.B) {
	server := ovsdbtest.Start(b, ovsdbtest.Options{})
	server.StartSwitch()
	sw := openSwitch(b, server)
	ctx := b.Context()
	if _, err := sw.EnsureBridge(ctx, testBridge); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := sw.EnsurePort(ctx, "br0", ovsdb.PortConfig{Name: "p0", Type: "internal"}); err != nil {
			b.Fatal(err)
		}
		if err := sw.RemovePort(ctx, "br0", "p0"); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkEnsure200Ports makes 200 ports in one transaction; removal is included.
func BenchmarkEnsure200Ports(b *testing.B) {
	server := ovsdbtest.Start(b, ovsdbtest.Options{})
	server.StartSwitch()
	sw := openSwitch(b, server)
	ctx := b.Context()
	if _, err := sw.EnsureBridge(ctx, testBridge); err != nil {
		b.Fatal(err)
	}
	var cfgs []ovsdb.PortConfig
	var names []string
	for i := range 200 {
		names = append(names, fmt.Sprintf("p%d", i))
		cfgs = append(cfgs, ovsdb.PortConfig{Name: names[i], Type: "internal"})
	}
	for b.Loop() {
		if _, err := sw.EnsurePorts(ctx, "br0", cfgs...); err != nil {
			b.Fatal(err)
		}
		if err := sw.RemovePorts(ctx, "br0", names...); err != nil {
			b.Fatal(err)
		}
	}
}
