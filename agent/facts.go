package agent

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"math"
	"os"
	"reflect"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"yakumo/hypervisor"
	"yakumo/model"
)

// Facts implements link.Handler. While the hypervisor does not answer, its last word counts.
func (a *Agent) Facts(ctx context.Context) (model.Host, error) {
	h, err := a.collectFacts(ctx)
	if err == nil {
		a.mu.Lock()
		a.facts = h
		a.mu.Unlock()
	}
	return h, err
}

func (a *Agent) collectFacts(ctx context.Context) (model.Host, error) {
	h := model.Host{
		Meta: model.Meta{Name: a.cfg.HostName}, Zone: a.cfg.Zone, TunnelIP: a.cfg.TunnelIP, Version: a.cfg.Version,
		BootID: a.cfg.BootID, StartedAt: a.started, Bandwidth: a.cfg.Bandwidth, Channel: a.cfg.Channel,
	}
	for _, n := range slices.Sorted(maps.Keys(a.cfg.Providers)) {
		h.BridgeMappings = append(h.BridgeMappings, n)
		h.ProviderBridges = append(h.ProviderBridges, a.cfg.Providers[n])
	}
	var err error
	h.Engines, h.Rooms = a.keeper.rooms(ctx)
	if h.Underlay, err = a.cfg.Taps.MTU(ctx, a.cfg.TunnelIP); err != nil {
		return h, fmt.Errorf("underlay: %w", err)
	}
	cctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	c, err := a.cfg.Hypervisor.Capacity(cctx)
	if err == nil {
		a.cpus.learn(c)
		h.Capacity = capacityOf(c)
		h.Capacity.Dedicated = a.cpus.told()
		if old, ok := a.ledger.lastCapacity(); !ok || !reflect.DeepEqual(old, h.Capacity) {
			if err := a.ledger.setCapacity(h.Capacity); err != nil {
				return h, err
			}
		}
	} else {
		last, ok := a.ledger.lastCapacity()
		if !ok {
			return h, fmt.Errorf("capacity: %w", err)
		}
		a.log.Warn("the hypervisor does not tell the host's capacity; the last one known is reported", "err", err)
		h.Capacity = last
	}
	h.Capacity.Given = a.cpus.given()
	if h.Capacity.MemoryFreeMiB, err = memoryFree(); err != nil {
		return h, err
	}
	var st unix.Statfs_t
	if err := unix.Statfs(a.cfg.Dir, &st); err != nil {
		return h, fmt.Errorf("free space of %s: %w", a.cfg.Dir, err)
	}
	h.Capacity.DiskFreeGiB = int(uint64(st.Frsize) * st.Bavail >> 30)
	if h.Capacity.DiskGiB == 0 {
		h.Capacity.DiskGiB = int(uint64(st.Frsize) * st.Blocks >> 30)
	}
	return h, nil
}

func capacityOf(c hypervisor.Capacity) model.HostCapacity {
	var pages []model.HugePages
	for _, p := range c.HugePages {
		pages = append(pages, model.HugePages(p))
	}
	return model.HostCapacity{
		HugePages: pages, UEFI: c.UEFI, SecureBoot: c.SecureBoot, TPM: c.TPM,
		VCPUs: c.VCPUs, MemoryMiB: c.MemoryMiB, DiskGiB: c.DiskGiB, Arch: c.Arch, CPUModel: c.CPUModel, CPUVendor: c.CPUVendor,
		Sockets: c.Sockets * max(c.Cells, 1), Cores: c.Cores, Threads: c.Threads, Features: c.CPUFeatures,
		HypervisorType: c.HypervisorType, HypervisorVersion: c.HypervisorVersion, Accelerator: c.Accelerator,
	}
}

// memoryFree gives the MiB that new guests could have, by the kernel's estimate (proc(5), MemAvailable).
func memoryFree() (int, error) {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	_, rest, ok := bytes.Cut(b, []byte("MemAvailable:"))
	fields := bytes.Fields(rest)
	if !ok || len(fields) == 0 {
		return 0, fmt.Errorf("/proc/meminfo has no MemAvailable")
	}
	kib, err := strconv.Atoi(string(fields[0]))
	return kib >> 10, err
}

// tellFacts has the facts sent again when they have changed.
func (a *Agent) tellFacts(ctx context.Context) {
	tick := time.NewTicker(6 * a.cfg.Resync)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		now, err := a.collectFacts(ctx)
		if err != nil {
			if ctx.Err() == nil {
				a.log.Warn("the host's facts cannot be read", "err", err)
			}
			continue
		}
		a.mu.Lock()
		told := a.facts
		a.mu.Unlock()
		if factsDiffer(told, now) {
			a.link.FactsChanged()
		}
	}
}

// factsDiffer ignores small changes of what is free.
func factsDiffer(a, b model.Host) bool {
	few := func(x, y, all int) bool { return math.Abs(float64(x-y)) < 0.1*float64(all) }
	if few(a.Capacity.MemoryFreeMiB, b.Capacity.MemoryFreeMiB, b.Capacity.MemoryMiB) {
		a.Capacity.MemoryFreeMiB = b.Capacity.MemoryFreeMiB
	}
	if few(a.Capacity.DiskFreeGiB, b.Capacity.DiskFreeGiB, b.Capacity.DiskGiB) {
		a.Capacity.DiskFreeGiB = b.Capacity.DiskFreeGiB
	}
	if len(a.Rooms) == len(b.Rooms) {
		rooms := maps.Clone(b.Rooms)
		for name, old := range a.Rooms {
			if now, ok := rooms[name]; ok && now.TotalGiB == old.TotalGiB && few(old.FreeGiB, now.FreeGiB, now.TotalGiB) {
				rooms[name] = old
			}
		}
		b.Rooms = rooms
	}
	return !reflect.DeepEqual(a, b)
}
