package libvirt_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"yakumo/hypervisor"
	"yakumo/hypervisor/hypertest"
	"yakumo/hypervisor/libvirt"
	"yakumo/hypervisor/libvirt/libvirttest"
)

// TestSpecs starts a guest with every spec that needs nothing of the kernel, and looks at what QEMU was told.
func TestSpecs(t *testing.T) {
	t.Parallel() // its daemons are its own
	h := host{libvirttest.Start(t)}
	d, ctx := h.driver(t), t.Context()
	g := h.guest(t, libvirttest.Sector{Greeting: hypertest.Greeting})
	g.VCPUs = 4
	g.NICs = []hypervisor.NIC{{ID: hypertest.NewID(), MAC: "fa:16:3e:00:00:01", Tap: h.Tap(t), MTU: 1450}}
	g.Disks = append(g.Disks, h.Disk(t))
	g.Specs = map[string]string{
		"hw:cpu_sockets": "1", "hw:cpu_cores": "2", "hw:cpu_threads": "2", "hw:watchdog_action": "poweroff", "hw_disk_bus": "scsi", "hw_vif_model": "e1000e",
		"quota:disk_read_iops_sec": "111", "quota:disk_write_bytes_sec": "22222222", "hw_rng:rate_bytes": "333", "hw_rng:rate_period": "44",
		"hw:numa_nodes": "2", "hw:boot_menu": "true", "hw_machine_type": "pc-q35-7.0", "hw_qemu_guest_agent": "yes",
	}
	own, others := cpusHere(t)
	g.CPUs = hypervisor.HostCPUs{Pins: map[int]int{2: own}, Shared: others, Emulator: others}
	if err := errors.Join(d.Ensure(ctx, g), d.Start(ctx, g.ID)); err != nil {
		t.Fatal(err)
	}
	wantPinned(t, h.GuestPID(t, g.Name), "CPU 2/", own, others)
	if got, err := d.CPUs(ctx, g.ID); err != nil || !reflect.DeepEqual(got, g.CPUs) {
		t.Errorf("libvirt has it on %+v, %v, want %+v", got, err, g.CPUs)
	}
	if c, err := d.Capacity(ctx); err != nil || !slices.ContainsFunc(c.CPUs, func(c hypervisor.CPU) bool { return c.ID == own && slices.Contains(c.Siblings, own) }) {
		t.Errorf("the host has the CPUs %+v, %v", c.CPUs, err)
	}
	cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", h.GuestPID(t, g.Name)))
	if err != nil {
		t.Fatal(err)
	}
	args := string(bytes.ReplaceAll(cmdline, []byte{0}, []byte{'\n'}))
	for _, want := range []string{"sockets=1,dies=1,cores=2,threads=2", "i6300esb", "poweroff", "nodeid=1,cpus=2-3", "menu=on", "pc-q35-7.0", "org.qemu.guest_agent.0", "scsi-hd", "e1000e", `"max-bytes":333`, `"period":44`} {
		if !strings.Contains(args, want) {
			t.Errorf("QEMU was not told %q", want)
		}
	}
	if t.Failed() {
		t.Log(args)
	}
	// A disk on that bus is plugged in while the guest runs.
	more := g
	bound := h.Disk(t)
	bound.Limits = hypervisor.DiskLimits{TotalIOPS: 555, TotalIOPSMax: 777, ReadBytes: 888888}
	more.Disks = append(g.Disks[:2:2], bound)
	if err := d.Plug(ctx, more); err != nil {
		t.Error(err)
	}
	// It has bounds of its own, the others those of all.
	for serial, want := range map[string]string{bound.Serial: "<total_iops_sec>555< <total_iops_sec_max>777< <read_bytes_sec>888888<",
		g.Disks[1].Serial: "<read_iops_sec>111< <write_bytes_sec>22222222<"} {
		got, err := d.LiveDisk(ctx, g.ID, serial)
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range strings.Fields(want) {
			if !strings.Contains(got, w) {
				t.Errorf("disk %s has no %q: %s", serial, w, got)
			}
		}
		if strings.Contains(got, "<read_iops_sec>") != (serial != bound.Serial) {
			t.Errorf("disk %s has others' bounds: %s", serial, got)
		}
	}

	g.Specs, g.CPUs = map[string]string{"hw_rng:allowed": "False", "hw:mem_page_size": "small"}, hypervisor.HostCPUs{}
	if err := errors.Join(d.Stop(ctx, g.ID, 0), d.Ensure(ctx, g), d.Start(ctx, g.ID)); err != nil {
		t.Fatal(err)
	}
	cmdline, err = os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", h.GuestPID(t, g.Name)))
	if err != nil || bytes.Contains(cmdline, []byte("virtio-rng")) || bytes.Contains(cmdline, []byte("watchdog")) {
		t.Errorf("%v: QEMU was told %s", err, cmdline)
	}
}

// cpusHere gives the last CPU that this process may run on, and the others (the same where there is one alone).
func cpusHere(t *testing.T) (own int, others []int) {
	t.Helper()
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		t.Fatal(err)
	}
	for c := range 1024 {
		if set.IsSet(c) {
			others = append(others, c)
		}
	}
	if own = others[len(others)-1]; len(others) > 1 {
		others = others[:len(others)-1]
	}
	return own, others
}

// wantPinned looks, thread by thread, that the one with the name runs on its own CPU alone and the others stay off it.
func wantPinned(t *testing.T, pid int, name string, own int, others []int) {
	t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	if err != nil {
		t.Fatal(err)
	}
	seen := false
	for _, task := range tasks {
		comm, err := os.ReadFile(filepath.Join(task, "comm"))
		status, err2 := os.ReadFile(filepath.Join(task, "status"))
		if err != nil || err2 != nil {
			continue // it has ended
		}
		_, rest, _ := strings.Cut(string(status), "Cpus_allowed_list:")
		allowed, _, _ := strings.Cut(rest, "\n")
		list, ok := libvirt.Numbers(strings.TrimSpace(allowed))
		mine := strings.HasPrefix(string(comm), name)
		want := others
		if mine {
			want, seen = []int{own}, true
		}
		if !ok || !slices.Equal(list, want) {
			t.Errorf("thread %s runs on %s, want %v", bytes.TrimSpace(comm), allowed, want)
		}
	}
	if !seen {
		t.Errorf("the guest has no thread %s", name)
	}
}
