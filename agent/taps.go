package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"yakumo/netspace"
)

// KernelTaps is the Taps of Linux.
type KernelTaps struct {
	// Netns is the path of the network namespace that the devices live in; empty: the agent's own.
	Netns string
}

// DeviceTaps are Taps whose devices another makes.
type DeviceTaps struct {
	Devices
	Kernel KernelTaps
}

// MTU implements Taps.
func (d DeviceTaps) MTU(ctx context.Context, addr netip.Addr) (int, error) {
	return d.Kernel.MTU(ctx, addr)
}

// Ensure implements Taps.
//
// The device has one queue: a guest's QEMU must open it with the flags it was made with
// (tuntap.rst: IFF_MULTI_QUEUE cannot change), and libvirt asks for one unless told otherwise.
// Where the device carries a virtio-net header, QEMU turns that on by itself when it opens it.
func (k KernelTaps) Ensure(_ context.Context, name string, mtu int) error {
	return k.inside(func() error {
		l, err := netlink.LinkByName(name)
		var absent netlink.LinkNotFoundError
		switch {
		case errors.As(err, &absent):
			if err := makeTap(name); err != nil {
				return err
			}
			if l, err = netlink.LinkByName(name); err != nil {
				return fmt.Errorf("find tap %s: %w", name, err)
			}
		case err != nil:
			return fmt.Errorf("find tap %s: %w", name, err)
		case l.Type() != "tuntap":
			return fmt.Errorf("device %s is a %s, not a tap", name, l.Type())
		}
		if mtu > 0 && l.Attrs().MTU != mtu {
			if err := netlink.LinkSetMTU(l, mtu); err != nil {
				return fmt.Errorf("set MTU %d of tap %s: %w", mtu, name, err)
			}
		}
		if l.Attrs().RawFlags&unix.IFF_UP == 0 {
			if err := netlink.LinkSetUp(l); err != nil {
				return fmt.Errorf("set tap %s up: %w", name, err)
			}
		}
		return nil
	})
}

// makeTap makes a persistent tap device without an address of the host on it.
func makeTap(name string) error {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open /dev/net/tun: %w", err)
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq(name)
	if err != nil {
		return fmt.Errorf("tap name %q: %w", name, err)
	}
	req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		return fmt.Errorf("make tap %s: %w", name, err)
	}
	// Before it stays: else a crash here would leave a device that the host talks on.
	if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+name+"/disable_ipv6", []byte("1"), 0); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("turn IPv6 of the host off on tap %s: %w", name, err)
	}
	if err := unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 1); err != nil {
		return fmt.Errorf("make tap %s stay: %w", name, err)
	}
	return nil
}

// Remove implements Taps.
func (k KernelTaps) Remove(_ context.Context, name string) error {
	return k.inside(func() error {
		l, err := netlink.LinkByName(name)
		var absent netlink.LinkNotFoundError
		if errors.As(err, &absent) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("find tap %s: %w", name, err)
		}
		if err := netlink.LinkDel(l); err != nil && !errors.Is(err, unix.ENODEV) {
			return fmt.Errorf("remove tap %s: %w", name, err)
		}
		return nil
	})
}

// List implements Taps.
func (k KernelTaps) List(_ context.Context, prefix string) (names []string, err error) {
	err = k.inside(func() error {
		all, err := netlink.LinkList()
		if err != nil {
			return fmt.Errorf("list devices: %w", err)
		}
		for _, l := range all {
			if l.Type() == "tuntap" && strings.HasPrefix(l.Attrs().Name, prefix) {
				names = append(names, l.Attrs().Name)
			}
		}
		return nil
	})
	return names, err
}

// MTU implements Taps.
func (k KernelTaps) MTU(_ context.Context, addr netip.Addr) (mtu int, err error) {
	err = k.inside(func() error {
		l, err := holder(addr)
		if err == nil {
			mtu = l.Attrs().MTU
		}
		return err
	})
	return mtu, err
}

// holder gives the device that has an address.
func holder(addr netip.Addr) (netlink.Link, error) {
	family := netlink.FAMILY_V4
	if addr.Is6() {
		family = netlink.FAMILY_V6
	}
	all, err := netlink.AddrList(nil, family)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range all {
		if ip, ok := netip.AddrFromSlice(a.IP); ok && ip.Unmap() == addr {
			l, err := netlink.LinkByIndex(a.LinkIndex)
			if err != nil {
				return nil, fmt.Errorf("device of address %s: %w", addr, err)
			}
			return l, nil
		}
	}
	return nil, fmt.Errorf("no device has the address %s", addr)
}

// inside runs f in the namespace.
func (k KernelTaps) inside(f func() error) error { return netspace.Do(k.Netns, f) }
