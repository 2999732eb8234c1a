// Package responder makes the answers that the agent gives to guests' packets on behalf
// of a network. It is pure: a request frame and the rows of the port go in, a reply frame
// comes out. It owns the DHCP options that guests are told; it reads and writes nothing.
// The frames come from guests and are not to be trusted. It must not import a driver.
package responder

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"yakumo/datapath/pipeline"
	"yakumo/model"
)

// LeaseTime is how long guests may keep an address without asking again. Addresses never
// change hands while a port exists, so this only sets how soon other options arrive.
const LeaseTime = 86400 * time.Second

// ErrIgnored says that a frame deserves no answer; the error around it says why.
var ErrIgnored = errors.New("no answer is due")

func ignored(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrIgnored, fmt.Sprintf(format, args...))
}

// lease is what a port gets by DHCP.
type lease struct {
	addr   netip.Addr
	subnet *model.HostSubnet
}

// leaseOf gives the first IPv4 address of the port in a subnet that serves DHCP.
func leaseOf(port *model.HostPort, network *model.HostNetwork) (lease, bool) {
	for _, f := range port.FixedIPs {
		a := f.Address.Unmap()
		if !a.Is4() {
			continue
		}
		for i := range network.Subnets {
			if s := &network.Subnets[i]; s.ID == f.SubnetID && s.DHCP {
				return lease{a, s}, true
			}
		}
	}
	return lease{}, false
}

// DHCP answers a DHCP request (RFC 2131) that came from port. Only the port's own address
// is ever given out; a client that wants another one gets a NAK. An error that is
// ErrIgnored means that silence is right.
func DHCP(frame []byte, port *model.HostPort, network *model.HostNetwork) ([]byte, error) {
	d, ok := parseUDP(frame)
	if !ok || d.srcPort != 68 || d.dstPort != 67 {
		return nil, ignored("not a DHCP request")
	}
	req, err := dhcpv4.FromBytes(d.payload)
	if err != nil {
		return nil, ignored("malformed: %v", err)
	}
	mac, err := pipeline.ParseMAC(port.MAC)
	if err != nil {
		return nil, fmt.Errorf("answer DHCP: %w", err)
	}
	if req.OpCode != dhcpv4.OpcodeBootRequest || len(req.ClientHWAddr) != 6 || pipeline.MAC(req.ClientHWAddr) != mac {
		return nil, ignored("client %v is not port %s", req.ClientHWAddr, port.ID)
	}
	if !req.GatewayIPAddr.IsUnspecified() {
		return nil, ignored("relayed")
	}
	l, ok := leaseOf(port, network)
	if !ok {
		return nil, ignored("no subnet of port %s serves DHCP", port.ID)
	}
	if id := req.ServerIdentifier(); id != nil && !id.Equal(serverID) {
		return nil, ignored("for server %v", id)
	}
	var kind dhcpv4.MessageType
	switch req.MessageType() {
	case dhcpv4.MessageTypeDiscover:
		kind = dhcpv4.MessageTypeOffer
	case dhcpv4.MessageTypeRequest:
		kind = dhcpv4.MessageTypeAck
		wanted := req.RequestedIPAddress()
		if wanted == nil || wanted.IsUnspecified() {
			wanted = req.ClientIPAddr
		}
		if !wanted.Equal(l.addr.AsSlice()) {
			kind = dhcpv4.MessageTypeNak
		}
	case dhcpv4.MessageTypeInform:
		kind = dhcpv4.MessageTypeAck
	default:
		return nil, ignored("message type %v", req.MessageType())
	}
	reply, err := answer(req, kind, l, port, network)
	if err != nil {
		return nil, err
	}
	out := datagram{srcMAC: pipeline.ServiceMAC, dstMAC: mac, src: pipeline.ServiceAddr, srcPort: 67, dstPort: 68, payload: reply.ToBytes()}
	// RFC 2131, 4.1: how the reply is addressed.
	switch {
	case kind == dhcpv4.MessageTypeNak:
		out.dst = limitedBroadcast
	case !req.ClientIPAddr.IsUnspecified():
		out.dst = netip.AddrFrom4([4]byte(req.ClientIPAddr.To4()))
	case req.IsBroadcast():
		out.dst = limitedBroadcast
	default:
		out.dst = l.addr
	}
	if out.dst == limitedBroadcast {
		out.dstMAC = pipeline.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	}
	return out.frame(), nil
}

var (
	serverID         = net.IP(pipeline.ServiceAddr.AsSlice())
	limitedBroadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})
)

// answer makes the reply's content.
func answer(req *dhcpv4.DHCPv4, kind dhcpv4.MessageType, l lease, port *model.HostPort, network *model.HostNetwork) (*dhcpv4.DHCPv4, error) {
	reply, err := dhcpv4.NewReplyFromRequest(req, dhcpv4.WithMessageType(kind), dhcpv4.WithServerIP(serverID))
	if err != nil {
		return nil, fmt.Errorf("answer DHCP: %w", err)
	}
	reply.UpdateOption(dhcpv4.OptServerIdentifier(serverID))
	if id := req.Options.Get(dhcpv4.OptionClientIdentifier); id != nil { // RFC 6842
		reply.UpdateOption(dhcpv4.OptGeneric(dhcpv4.OptionClientIdentifier, id))
	}
	if kind == dhcpv4.MessageTypeNak {
		reply.ServerIPAddr = net.IPv4zero
		return reply, nil
	}
	if req.MessageType() != dhcpv4.MessageTypeInform {
		reply.YourIPAddr = l.addr.AsSlice()
		reply.UpdateOption(dhcpv4.OptIPAddressLeaseTime(LeaseTime))
	}
	s := l.subnet
	reply.UpdateOption(dhcpv4.OptSubnetMask(net.CIDRMask(s.CIDR.Bits(), 32)))
	// A client that takes option 121 ignores option 3 (RFC 3442), so the default route is in both.
	var routes dhcpv4.Routes
	if !network.Bare {
		routes = append(routes, &dhcpv4.Route{Dest: &net.IPNet{IP: serverID, Mask: net.CIDRMask(32, 32)}, Router: net.IPv4zero.To4()})
	}
	for _, r := range s.Routes {
		if r.Destination.Addr().Is4() && r.NextHop.Is4() {
			routes = append(routes, route(r.Destination.Masked(), r.NextHop))
		}
	}
	if s.Gateway.IsValid() && s.Gateway.Is4() {
		reply.UpdateOption(dhcpv4.OptRouter(s.Gateway.AsSlice()))
		routes = append(routes, route(netip.PrefixFrom(netip.AddrFrom4([4]byte{}), 0), s.Gateway))
	}
	if len(routes) > 0 {
		reply.UpdateOption(dhcpv4.OptClasslessStaticRoute(routes...))
	}
	var dns []net.IP
	for _, a := range s.DNS {
		if a = a.Unmap(); a.Is4() {
			dns = append(dns, a.AsSlice())
		}
	}
	if len(dns) == 0 && !network.Bare { // the host resolves names itself
		dns = append(dns, serverID)
	}
	if len(dns) > 0 {
		reply.UpdateOption(dhcpv4.OptDNS(dns...))
	}
	if network.MTU >= 68 && network.MTU <= 65535 { // RFC 2132, 5.1
		reply.UpdateOption(dhcpv4.OptGeneric(dhcpv4.OptionInterfaceMTU, binary.BigEndian.AppendUint16(nil, uint16(network.MTU))))
	}
	if port.HostName != "" {
		reply.UpdateOption(dhcpv4.OptHostName(port.HostName))
	}
	if d := strings.TrimSuffix(network.DNSDomain, "."); d != "" {
		reply.UpdateOption(dhcpv4.OptDomainName(d))
	}
	for _, o := range port.DHCPOptions {
		if o.IPVersion == 4 || o.IPVersion == 0 {
			extra(reply, o.Name, o.Value)
		}
	}
	return reply, nil
}

func route(dst netip.Prefix, via netip.Addr) *dhcpv4.Route {
	return &dhcpv4.Route{Dest: &net.IPNet{IP: dst.Addr().AsSlice(), Mask: net.CIDRMask(dst.Bits(), 32)}, Router: via.AsSlice()}
}

// optionForm is how an option's text becomes bytes.
type optionForm uint8

const (
	formText optionForm = iota
	formAddrs
	formUint8
	formUint16
	formUint32
	formNames  // domain names, as DNS has them on the wire
	formRoutes // prefix, next hop, prefix, next hop and so on (RFC 3442)
	formNTP    // addresses in suboptions, of DHCPv6 alone
)

// extraOptions are the options that users may name, with dnsmasq's names (RFC 2132 has the numbers).
var extraOptions = map[string]struct {
	code uint8
	form optionForm
}{
	"netmask": {1, formAddrs}, "router": {3, formAddrs}, "time-server": {4, formAddrs}, "dns-server": {6, formAddrs},
	"log-server": {7, formAddrs}, "hostname": {12, formText}, "domain-name": {15, formText}, "root-path": {17, formText},
	"default-ttl": {23, formUint8}, "mtu": {26, formUint16}, "broadcast": {28, formAddrs}, "ntp-server": {42, formAddrs},
	"netbios-ns": {44, formAddrs}, "netbios-nodetype": {46, formUint8}, "lease-time": {51, formUint32}, "T1": {58, formUint32},
	"T2": {59, formUint32}, "tftp-server": {66, formText}, "tftp-server-name": {66, formText}, "bootfile-name": {67, formText}, "smtp-server": {69, formAddrs},
	"domain-search": {119, formNames}, "classless-static-route": {121, formRoutes}, "ms-classless-static-route": {249, formRoutes},
	"posix-timezone": {100, formText}, "tzdb-timezone": {101, formText}, "tftp-server-address": {150, formAddrs},
	"config-file": {209, formText}, "path-prefix": {210, formText}, "reboot-time": {211, formUint32},
}

// extra adds an option that a user named, by name or number (a number's value is text).
// What does not fit is left out: a guest must get its address whatever its owner wrote.
func extra(reply *dhcpv4.DHCPv4, name, value string) {
	name = strings.TrimPrefix(name, "option:")
	o, known := extraOptions[name]
	if !known {
		if name == "server-ip-address" {
			if a, err := netip.ParseAddr(value); err == nil && a.Is4() {
				reply.ServerIPAddr = a.AsSlice()
			}
			return
		}
		n, err := strconv.ParseUint(name, 10, 8)
		if err != nil || n == 0 || n > 254 {
			return
		}
		o.code = uint8(n)
		for _, k := range extraOptions {
			if k.code == o.code {
				o.form = k.form
			}
		}
	}
	switch dhcpv4.GenericOptionCode(o.code) {
	case 50, 52, 53, 54, 55, 57, 61, 82: // the protocol's own
		return
	}
	var b []byte
	switch o.form {
	case formText:
		b = []byte(value)
	case formAddrs:
		for _, s := range fields(value) {
			a, err := netip.ParseAddr(s)
			if err != nil || !a.Is4() {
				return
			}
			b = append(b, a.AsSlice()...)
		}
	case formNames:
		for _, s := range fields(value) {
			n := nameBytes(s)
			if n == nil {
				return
			}
			b = append(b, n...)
		}
	case formRoutes:
		list := fields(value)
		if len(list)%2 != 0 {
			return
		}
		var routes dhcpv4.Routes
		for i := 0; i < len(list); i += 2 {
			dst, err := netip.ParsePrefix(list[i])
			via, err2 := netip.ParseAddr(list[i+1])
			if err != nil || err2 != nil || !dst.Addr().Is4() || !via.Is4() {
				return
			}
			routes = append(routes, route(dst.Masked(), via))
		}
		b = routes.ToBytes()
	case formUint8, formUint16, formUint32:
		width := map[optionForm]int{formUint8: 8, formUint16: 16, formUint32: 32}[o.form]
		n, err := strconv.ParseUint(value, 10, width)
		if err != nil {
			return
		}
		b = binary.BigEndian.AppendUint32(nil, uint32(n))[4-width/8:]
	}
	if len(b) == 0 || len(b) > 255 {
		return
	}
	reply.UpdateOption(dhcpv4.OptGeneric(dhcpv4.GenericOptionCode(o.code), b))
}
