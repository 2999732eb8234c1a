package ec2_test

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"testing"
	"time"

	"yakumo/api/apitest"
	"yakumo/compute"
	"yakumo/compute/computetest"
	"yakumo/model"
	"yakumo/network"
	"yakumo/reconcile"
	"yakumo/store"
	"yakumo/volume/volumetest"
)

// Projects of the tests.
const (
	red  = apitest.Red
	blue = apitest.Blue
)

const patience = 90 * time.Second

// running starts the controllers, a host that runs guests and one that keeps volumes, both without guests or disks.
func running(t testing.TB) *cloud {
	t.Helper()
	c := newCloud(t)
	quiet := slog.New(slog.DiscardHandler)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, ctl := range []reconcile.Controller{c.compute.Placer(), c.compute.Sweeper(), c.volumes.Placer(), c.volumes.Sweeper(), c.network.GatewayPlacer()} {
		wg.Go(func() { reconcile.Run(ctx, reconcile.Config{Store: c.store, Identity: "t", Log: quiet}, ctl) })
	}
	t.Cleanup(func() { cancel(); wg.Wait() })
	guests := &model.Host{Meta: model.NewMeta("", "host1", time.Now()), Zone: "nova", TunnelIP: netip.MustParseAddr("192.0.2.1"), Underlay: 1500,
		Capacity: model.HostCapacity{VCPUs: 64, MemoryMiB: 1 << 16, DiskGiB: 2000, Arch: "x86_64", HypervisorType: "QEMU", HypervisorVersion: 7002000}}
	disks := &model.Host{Meta: model.NewMeta("", "store1", time.Now()), Zone: "nova", Engines: []string{"local"}, Capacity: model.HostCapacity{DiskGiB: 500}}
	c.update(func(tx *store.Tx) error {
		for _, h := range []*model.Host{guests, disks} {
			if err := store.Hosts.Put(tx, h); err != nil {
				return err
			}
			if err := store.Heartbeats.Put(tx, &model.Heartbeat{HostID: h.ID, At: time.Now()}); err != nil {
				return err
			}
		}
		return nil
	})
	c.host.Host = computetest.Start(t, computetest.Config{Store: c.store, Sink: c.compute, Host: guests.ID})
	volumetest.Start(t, volumetest.Config{Store: c.store, Volumes: c.volumes, Host: disks.ID})
	return c
}

// guest makes a server of the project at the ports, and waits until it runs; it gives EC2's id of it.
func (c *cloud) guest(project model.ID, ports ...model.ID) string {
	c.t.Helper()
	img := &model.Image{Meta: model.NewMeta(apitest.Staff, "mini", time.Now()), Status: model.ImageActive, Visibility: model.VisibilityPublic,
		DiskFormat: "qcow2", ContainerFormat: "bare", Size: 1000, VirtualSize: 64 << 20, BlobID: model.NewID(), HashAlgo: "sha512", HashValue: "00"}
	id := model.NewID()
	c.update(func(tx *store.Tx) error {
		if err := store.Images.Put(tx, img); err != nil {
			return err
		}
		for _, p := range ports {
			if _, err := c.network.AttachPort(tx, network.Scope{ProjectID: project}, p, id, "compute:nova"); err != nil {
				return err
			}
		}
		_, err := c.compute.Create(tx, scopeOf(project), compute.NewServer{ID: id, Name: "guest", Image: img, Ports: ports,
			Flavor: &model.Flavor{ID: "1", Name: "tiny", VCPUs: 1, MemoryMiB: 128, DiskGiB: 1, Public: true, RxTxFactor: 1}})
		return err
	})
	c.eventually("the guest runs", func() bool {
		s, ok := store.Servers.Get(c.store.Snapshot(), id)
		return ok && s.Status.Phase == model.PhaseReady
	})
	return ec2ID("i", id)
}

func scopeOf(project model.ID) compute.Scope {
	return compute.Scope{ProjectID: project, UserID: "u1", RequestID: "req-t"}
}

// eventually waits for a state, woken by every change of the store.
func (c *cloud) eventually(what string, ok func() bool) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	sub := c.store.Subscribe()
	defer sub.Close()
	for !ok() {
		if _, err := sub.Next(ctx); err != nil {
			c.t.Fatalf("it never came to be: %s", what)
		}
	}
}

// ec2ID gives EC2's id of a row.
func ec2ID(prefix string, id model.ID) string {
	return prefix + "-" + id[:8] + id[9:13] + id[14:18] + id[19:20]
}

// server gives the row of an instance that EC2's id names.
func (c *cloud) server(id string) *model.Server {
	c.t.Helper()
	for s := range store.Servers.All(c.store.Snapshot()) {
		if ec2ID("i", s.ID) == id {
			return s
		}
	}
	c.t.Fatalf("there is no %s", id)
	return nil
}
