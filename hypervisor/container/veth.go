package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"yakumo/netspace"
)

// Veths makes the devices that stand for containers' network cards on the host: one end of a veth pair has the name that a tap
// would have and is the switch's; on the other stands the card of the container (macvlan, which passes everything through) while there is
// one. So the switch's device stays when its container ends. Both ends leave nothing to a network card that does not exist: a switch in
// user space takes packets as they are, checksums and sizes too.
type Veths struct {
	// Netns is the path of the network namespace that the devices live in; empty: this process's own.
	Netns string
}

// peerOf gives the name of the pair's other end, and cardOf that of the card until its container has it.
func peerOf(name string) string { return "yp" + strings.TrimPrefix(name, "yk") }
func cardOf(name string) string { return "yc" + strings.TrimPrefix(name, "yk") }

// Ensure makes a pair whose end for the switch has this name; both ends are up and have this MTU in bytes; 0 leaves the MTU alone.
func (v Veths) Ensure(_ context.Context, name string, mtu int) error {
	return v.inside(func() error { return ensure(name, mtu) })
}

func ensure(name string, mtu int) error {
	l, err := netlink.LinkByName(name)
	var absent netlink.LinkNotFoundError
	if errors.As(err, &absent) {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = name
		if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: peerOf(name)}); err != nil {
			return fmt.Errorf("make the veth pair %s: %w", name, err)
		}
		l, err = netlink.LinkByName(name)
	}
	if err != nil {
		return fmt.Errorf("find device %s: %w", name, err)
	}
	if l.Type() != "veth" {
		return fmt.Errorf("device %s is a %s, not an end of a veth pair", name, l.Type())
	}
	peer, err := netlink.LinkByName(peerOf(name))
	if err != nil {
		return fmt.Errorf("find device %s: %w", peerOf(name), err)
	}
	return errors.Join(settle(peer, mtu), settle(l, mtu))
}

// settle has an end of a pair be as it should.
func settle(l netlink.Link, mtu int) error {
	name := l.Attrs().Name
	if mtu > 0 && l.Attrs().MTU != mtu {
		if err := netlink.LinkSetMTU(l, mtu); err != nil {
			return fmt.Errorf("set MTU %d of %s: %w", mtu, name, err)
		}
	}
	if l.Attrs().RawFlags&unix.IFF_UP != 0 {
		return nil
	}
	// Before it is up, so that the host never talks on it.
	if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+name+"/disable_ipv6", []byte("1"), 0); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("turn IPv6 of the host off on %s: %w", name, err)
	}
	if err := bare(name); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(l); err != nil {
		return fmt.Errorf("set %s up: %w", name, err)
	}
	return nil
}

// bare has a device finish checksums itself, and so cut packets to their size.
func bare(name string) error {
	if err := ethtool(name, unix.ETHTOOL_STXCSUM, 0); err != nil {
		return fmt.Errorf("have %s finish checksums: %w", name, err)
	}
	return nil
}

// Remove deletes a pair by the name of its end for the switch, and a card that stands on it; absent is success.
func (v Veths) Remove(_ context.Context, name string) error {
	return v.inside(func() error { return remove(name) })
}

func remove(name string) error {
	l, err := netlink.LinkByName(name)
	var absent netlink.LinkNotFoundError
	if errors.As(err, &absent) {
		return nil
	}
	if err == nil {
		err = netlink.LinkDel(l)
	}
	if err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("remove device %s: %w", name, err)
	}
	return nil
}

// List gives the ends for the switch whose names begin with prefix.
func (v Veths) List(_ context.Context, prefix string) (names []string, err error) {
	err = v.inside(func() error {
		all, err := netlink.LinkList()
		if err != nil {
			return fmt.Errorf("list devices: %w", err)
		}
		for _, l := range all {
			if l.Type() == "veth" && strings.HasPrefix(l.Attrs().Name, prefix) {
				names = append(names, l.Attrs().Name)
			}
		}
		return nil
	})
	return names, err
}

// Card is a network card of a container.
type Card struct {
	MAC string `json:"mac"`           // in lower case, colon-separated
	Tap string `json:"tap"`           // name of the pair's end for the switch
	MTU int    `json:"mtu,omitempty"` // 0: the kernel's default
}

// give makes a card on the pair's other end, in the network namespace of process pid, and names it ethN by the first number that is
// free. It may be repeated, whatever became of it before.
func (v Veths) give(ctx context.Context, pid int, c Card) error {
	mac, err := net.ParseMAC(c.MAC)
	if err != nil {
		return err
	}
	in, err := enterNet(pid)
	if err != nil {
		return err
	}
	defer in.Close()
	if err := v.Ensure(ctx, c.Tap, c.MTU); err != nil {
		return err
	}
	lower, err := v.lower(c.Tap)
	if err != nil {
		return err
	}
	l, err := in.card(lower)
	if err != nil {
		return err
	}
	if l == nil {
		if err := v.inside(func() error { return move(ctx, in, c, mac, lower) }); err != nil {
			return err
		}
		if l, err = in.card(lower); err != nil {
			return err
		}
		if l == nil {
			return fmt.Errorf("the card %s is not where it was moved to", c.MAC)
		}
	}
	if l.Attrs().Name != cardOf(c.Tap) {
		return nil
	}
	taken := map[string]bool{}
	all, err := in.LinkList()
	if err != nil {
		return err
	}
	for _, other := range all {
		taken[other.Attrs().Name] = true
	}
	n := 0
	for taken["eth"+strconv.Itoa(n)] {
		n++
	}
	return in.LinkSetName(l, "eth"+strconv.Itoa(n))
}

// move runs where the pairs are.
func move(ctx context.Context, in *netNamespace, c Card, mac net.HardwareAddr, lower int) error {
	name := cardOf(c.Tap)
	card, err := netlink.LinkByName(name)
	var absent netlink.LinkNotFoundError
	for errors.As(err, &absent) {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.ParentIndex, attrs.HardwareAddr = name, lower, mac
		err = netlink.LinkAdd(&netlink.Macvlan{LinkAttrs: attrs, Mode: netlink.MACVLAN_MODE_PASSTHRU})
		switch {
		case err == nil:
			card, err = netlink.LinkByName(name)
		case errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EBUSY):
			// A pair bears one card, and the kernel takes the network of a container that has ended apart in its own time.
			select {
			case <-time.After(20 * time.Millisecond):
				err = absent
			case <-ctx.Done():
				return errors.Join(fmt.Errorf("make card %s: %w", c.MAC, err), ctx.Err())
			}
		}
	}
	if err != nil {
		return fmt.Errorf("make card %s: %w", c.MAC, err)
	}
	if err := netlink.LinkSetHardwareAddr(card, mac); err != nil {
		return fmt.Errorf("set the address of card %s: %w", c.MAC, err)
	}
	if c.MTU > 0 {
		if err := netlink.LinkSetMTU(card, c.MTU); err != nil {
			return fmt.Errorf("set MTU %d of card %s: %w", c.MTU, c.MAC, err)
		}
	}
	if err := netlink.LinkSetNsFd(card, int(in.ns)); err != nil {
		return fmt.Errorf("move card %s into its container: %w", c.MAC, err)
	}
	return nil
}

// take takes a card away from the container in whose network it is; none is a success.
func (v Veths) take(in *netNamespace, c Card) error {
	lower, err := v.lower(c.Tap)
	if err != nil || lower == 0 {
		return err
	}
	l, err := in.card(lower)
	if err != nil || l == nil {
		return err
	}
	if err := in.LinkDel(l); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("take card %s away: %w", c.MAC, err)
	}
	return nil
}

// lower gives the number of the device that a card stands on; 0: there is none.
func (v Veths) lower(tap string) (index int, err error) {
	err = v.inside(func() error {
		peer, err := netlink.LinkByName(peerOf(tap))
		var absent netlink.LinkNotFoundError
		if errors.As(err, &absent) {
			return nil
		}
		if err == nil {
			index = peer.Attrs().Index
		}
		return err
	})
	return index, err
}

// Count is what has passed a card, as its container sees directions.
type Count struct {
	MAC                                                                              string
	InBytes, InPackets, InErrors, InDrops, OutBytes, OutPackets, OutErrors, OutDrops int64
}

// Counts gives the cards of a container whose process 1 is pid.
func (f Folder) Counts(v Veths, pid int) ([]Count, error) {
	given, err := f.given()
	if err != nil {
		return nil, err
	}
	in, err := enterNet(pid)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	var out []Count
	for _, card := range given {
		lower, err := v.lower(card.Tap)
		if err != nil {
			return nil, err
		}
		l, err := in.card(lower)
		if err != nil {
			return nil, err
		}
		if l == nil { // its container took it away itself
			continue
		}
		c := Count{MAC: card.MAC}
		if s := l.Attrs().Statistics; s != nil {
			c.InBytes, c.InPackets, c.InErrors, c.InDrops = int64(s.RxBytes), int64(s.RxPackets), int64(s.RxErrors), int64(s.RxDropped)
			c.OutBytes, c.OutPackets, c.OutErrors, c.OutDrops = int64(s.TxBytes), int64(s.TxPackets), int64(s.TxErrors), int64(s.TxDropped)
		}
		out = append(out, c)
	}
	return out, nil
}

// Give has a container whose process 1 is pid have exactly these cards. What it was given before stands in its folder, as a container
// may have devices of its own.
func (f Folder) Give(ctx context.Context, v Veths, pid int, cards []Card) error {
	before, err := f.given()
	if err != nil {
		return err
	}
	in, err := enterNet(pid)
	if err != nil {
		return err
	}
	defer in.Close()
	for _, c := range before {
		if slices.ContainsFunc(cards, func(w Card) bool { return w.MAC == c.MAC && w.Tap == c.Tap }) {
			continue
		}
		if err := v.take(in, c); err != nil {
			return err
		}
	}
	text, err := json.Marshal(cards)
	if err != nil {
		return err
	}
	path := f.place(cardsFile)
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	for _, c := range cards {
		if err := v.give(ctx, pid, c); err != nil {
			return err
		}
	}
	return nil
}

// given gives the cards that the container was given.
func (f Folder) given() ([]Card, error) {
	text, err := os.ReadFile(f.place(cardsFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var cards []Card
	return cards, json.Unmarshal(text, &cards)
}

// netNamespace is the network namespace of a container.
type netNamespace struct {
	*netlink.Handle
	ns netns.NsHandle
}

func enterNet(pid int) (*netNamespace, error) {
	ns, err := netns.GetFromPid(pid)
	if err != nil {
		return nil, fmt.Errorf("find the container's network: %w", err)
	}
	h, err := netlink.NewHandleAt(ns)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("enter the container's network: %w", err), ns.Close())
	}
	return &netNamespace{h, ns}, nil
}

// Close lets go of the namespace.
func (n *netNamespace) Close() error {
	n.Handle.Close()
	return n.ns.Close()
}

// card finds a card by the device that it stands on, on the host; nil: there is none.
func (n *netNamespace) card(lower int) (netlink.Link, error) {
	all, err := n.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list the container's devices: %w", err)
	}
	for _, l := range all {
		if l.Type() == "macvlan" && l.Attrs().ParentIndex == lower {
			return l, nil
		}
	}
	return nil, nil
}

// inside runs f in the namespace of the pairs.
func (v Veths) inside(f func() error) error { return netspace.Do(v.Netns, f) }
