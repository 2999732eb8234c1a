package ovs

import (
	"fmt"
	"runtime"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// dropProgram is a BPF program for traffic control: r0 = TC_ACT_SHOT; exit.
var dropProgram = [...]uint64{0x00000002_0000_00_b7, 0x00000000_0000_00_95}

// shield keeps a guest's frames from the host's own IP stack. The user-space datapath only
// listens in on a device, so the kernel sees every frame too, and would answer a guest's ARP
// requests for the host's addresses and take packets for them. Listeners come before traffic
// control on a packet's way in: the switch still sees what is dropped here. With the
// kernel datapath the switch owns the device, and nothing of this is needed.
func shield(h *netlink.Handle, device string) error {
	link, err := h.LinkByName(device)
	if err != nil {
		return fmt.Errorf("shield %s: %w", device, err)
	}
	fd, err := loadDrop()
	if err != nil {
		return fmt.Errorf("shield %s: load program: %w", device, err)
	}
	defer unix.Close(fd)
	index := link.Attrs().Index
	err = h.QdiscReplace(&netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}})
	if err != nil {
		return fmt.Errorf("shield %s: add queue: %w", device, err)
	}
	err = h.FilterReplace(&netlink.BpfFilter{
		FilterAttrs:  netlink.FilterAttrs{LinkIndex: index, Parent: netlink.HANDLE_MIN_INGRESS, Handle: 1, Protocol: unix.ETH_P_ALL, Priority: 1},
		Fd:           fd,
		Name:         "yakumo-shield",
		DirectAction: true,
	})
	if err != nil {
		return fmt.Errorf("shield %s: add filter: %w", device, err)
	}
	return nil
}

// loadDrop loads dropProgram and gives its descriptor.
func loadDrop() (int, error) {
	licence := [...]byte{'A', 'p', 'a', 'c', 'h', 'e', 0}
	code := dropProgram
	attr := struct { // the first members of union bpf_attr for BPF_PROG_LOAD
		kind, count     uint32
		code, licence   uint64
		logLevel, logSz uint32
		log             uint64
	}{kind: unix.BPF_PROG_TYPE_SCHED_CLS, count: uint32(len(code)), code: uint64(uintptr(unsafe.Pointer(&code))), licence: uint64(uintptr(unsafe.Pointer(&licence)))}
	fd, _, e := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	runtime.KeepAlive(&code)
	runtime.KeepAlive(&licence)
	if e != 0 {
		return -1, e
	}
	return int(fd), nil
}
