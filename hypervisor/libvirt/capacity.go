package libvirt

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"syscall"

	"yakumo/hypervisor"
)

// Capacity implements hypervisor.Driver.
func (d *Driver) Capacity(ctx context.Context) (hypervisor.Capacity, error) {
	c, err := d.capacity(ctx)
	if err != nil {
		return hypervisor.Capacity{}, fmt.Errorf("ask for the host's capacity: %w", err)
	}
	return c, nil
}

func (d *Driver) capacity(ctx context.Context) (hypervisor.Capacity, error) {
	var c hypervisor.Capacity
	host, err := d.host(ctx)
	if err != nil {
		return c, err
	}
	out, err := d.ask(ctx, quick, procGetHostname, &encoder{})
	if err != nil {
		return c, err
	}
	if c.Hostname = out.str(); out.err != nil {
		return c, out.err
	}
	if out, err = d.ask(ctx, quick, procGetVersion, &encoder{}); err != nil {
		return c, err
	}
	if c.HypervisorVersion = int(out.u64()); out.err != nil {
		return c, out.err
	}
	if d.cfg.Emulator != "" {
		if c.HypervisorVersion, err = emulatorVersion(ctx, d.cfg.Emulator); err != nil {
			return c, err
		}
	}
	if out, err = d.ask(ctx, quick, procNodeGetInfo, &encoder{}); err != nil {
		return c, err
	}
	node := decodeNode(out)
	if out.err != nil {
		return c, out.err
	}
	c.HypervisorType = "LXC" // libvirt's names of its drivers
	if d.variant.uri == "" {
		c.HypervisorType = "QEMU" // with KVM and without
		if c.Accelerator, err = d.accelerator(ctx); err != nil {
			return c, err
		}
		if c.UEFI, err = d.hasFirmware(ctx, false); err != nil {
			return c, err
		}
		if c.TPM, err = d.tpmVersions(ctx); err != nil {
			return c, err
		}
		if c.SecureBoot, err = d.hasFirmware(ctx, true); err != nil {
			return c, err
		}
	}
	c.VCPUs, c.MemoryMiB = node.cpus, int(node.memoryKiB>>10)
	c.Cells, c.Sockets, c.Cores, c.Threads = node.cells, node.sockets, node.cores, node.threads
	c.Arch, c.CPUModel, c.CPUVendor = host.CPU.Arch, host.CPU.Model, host.CPU.Vendor
	if c.Arch == "" {
		c.Arch = node.model
	}
	if c.CPUModel == "" {
		c.CPUModel = node.model
	}
	for _, cell := range host.Cells {
		for _, p := range cell.Pages { // all hosts have the ordinary ones of 4 KiB
			if p.Unit == "KiB" && p.Size > 4 && p.N > 0 {
				c.HugePages = append(c.HugePages, hypervisor.HugePages{KiB: p.Size, Count: p.N, Node: cell.ID})
			}
		}
		for _, x := range cell.CPUs {
			siblings, ok := numbers(x.Siblings)
			if !ok || !slices.Contains(siblings, x.ID) {
				siblings = []int{x.ID} // it does not say: a core of its own
			}
			c.CPUs = append(c.CPUs, hypervisor.CPU{ID: x.ID, Node: cell.ID, Siblings: siblings})
		}
	}
	slices.SortFunc(c.HugePages, func(a, b hypervisor.HugePages) int {
		return cmp.Or(cmp.Compare(a.KiB, b.KiB), cmp.Compare(a.Node, b.Node))
	})
	slices.SortFunc(c.CPUs, func(a, b hypervisor.CPU) int { return cmp.Compare(a.ID, b.ID) })
	c.CPUFeatures = make([]string, 0, len(host.CPU.Features))
	for _, f := range host.CPU.Features {
		c.CPUFeatures = append(c.CPUFeatures, f.Name)
	}
	slices.Sort(c.CPUFeatures)
	if d.cfg.GuestDir != "" {
		var fs syscall.Statfs_t
		if err := syscall.Statfs(d.cfg.GuestDir, &fs); err != nil {
			return c, fmt.Errorf("look at the file system of %s: %w", d.cfg.GuestDir, err)
		}
		c.DiskGiB = int(fs.Blocks * uint64(fs.Bsize) >> 30)
	}
	return c, nil
}

// emulatorVersion asks a QEMU for its version: major*1000000 + minor*1000 + release.
func emulatorVersion(ctx context.Context, path string) (int, error) {
	out, err := exec.CommandContext(ctx, path, "--version").Output()
	if err != nil {
		return 0, fmt.Errorf("ask %s for its version: %w", path, err)
	}
	_, text, _ := strings.Cut(string(out), "version ")
	var major, minor, release int
	if _, err := fmt.Sscanf(text, "%d.%d.%d", &major, &minor, &release); err != nil {
		return 0, fmt.Errorf("read the version of %s in %q: %w", path, firstLine(out), err)
	}
	return major*1_000_000 + minor*1000 + release, nil
}

func firstLine(b []byte) []byte {
	line, _, _ := bytes.Cut(b, []byte("\n"))
	return line
}

type node struct {
	model                                string
	memoryKiB                            uint64
	cpus, cells, sockets, cores, threads int
}

// decodeNode reads remote_node_get_info_ret, whose model is 32 characters of one word each.
func decodeNode(d *decoder) node {
	var n node
	model := make([]byte, 0, 32)
	for range 32 {
		if c := byte(d.u32()); c != 0 {
			model = append(model, c)
		}
	}
	n.model = string(model)
	n.memoryKiB = d.u64()
	n.cpus = int(d.i32())
	d.i32() // MHz
	n.cells, n.sockets, n.cores, n.threads = int(d.i32()), int(d.i32()), int(d.i32()), int(d.i32())
	return n
}
