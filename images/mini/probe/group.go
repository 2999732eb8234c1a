package probe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// groupHops is how many routers a datagram to a group may pass.
const groupHops = 8

// Hear is a member of the group on the interface (IGMP, MLD) until count datagrams have come or
// the patience is over, and prints each: "heard N bytes from ADDRESS: TEXT". It says "joined"
// when it is a member, and fails where fewer came.
func Hear(ctx context.Context, out io.Writer, device string, group netip.AddrPort, count int, patience time.Duration) error {
	i, err := net.InterfaceByName(device)
	if err != nil {
		return err
	}
	network := "udp4"
	if group.Addr().Is6() {
		network = "udp6"
	}
	c, err := net.ListenMulticastUDP(network, i, net.UDPAddrFromAddrPort(group))
	if err != nil {
		return err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(out, "joined %s on %s\n", group.Addr(), device); err != nil {
		return err
	}
	buf := make([]byte, 2048)
	for heard := range count {
		n, from, err := c.ReadFromUDPAddrPort(buf)
		if err != nil {
			return fmt.Errorf("heard %d of %d: %s", heard, count, reason(err))
		}
		if _, err := fmt.Fprintf(out, "heard %d bytes from %s: %.60q\n", n, from.Addr().Unmap(), buf[:n]); err != nil {
			return err
		}
	}
	return nil
}

// Tell sends a datagram to the group from the interface.
func Tell(device string, group netip.AddrPort, text string) error {
	i, err := net.InterfaceByName(device)
	if err != nil {
		return err
	}
	network := "udp4"
	if group.Addr().Is6() {
		network = "udp6"
	}
	c, err := net.ListenUDP(network, nil)
	if err != nil {
		return err
	}
	defer c.Close()
	if group.Addr().Is6() {
		p := ipv6.NewPacketConn(c)
		err = errors.Join(p.SetMulticastInterface(i), p.SetMulticastHopLimit(groupHops))
	} else {
		p := ipv4.NewPacketConn(c)
		err = errors.Join(p.SetMulticastInterface(i), p.SetMulticastTTL(groupHops))
	}
	if err != nil {
		return err
	}
	_, err = c.WriteToUDPAddrPort([]byte(text), group)
	return err
}
