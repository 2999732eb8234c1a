package responder

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"

	"yakumo/datapath/pipeline"
	"yakumo/model"
)

// serverDUID is the cloud's identity as a DHCPv6 server, the same on every host.
var serverDUID = &dhcpv6.DUIDLL{HWType: iana.HWTypeEthernet, LinkLayerAddr: net.HardwareAddr(pipeline.ServiceMAC[:])}

// leases6 is what a port gets by DHCPv6: its addresses in subnets whose addresses DHCPv6 gives, and
// the subnets whose other options it tells.
func leases6(port *model.HostPort, network *model.HostNetwork) (addrs []netip.Addr, subnets []*model.HostSubnet) {
	for _, f := range port.FixedIPs {
		if !f.Address.Is6() {
			continue
		}
		for i := range network.Subnets {
			s := &network.Subnets[i]
			if s.ID != f.SubnetID || !s.DHCP || s.AddressMode != model.DHCPv6Stateful && s.AddressMode != model.DHCPv6Stateless {
				continue
			}
			subnets = append(subnets, s)
			if s.AddressMode == model.DHCPv6Stateful {
				addrs = append(addrs, f.Address)
			}
		}
	}
	return addrs, subnets
}

// DHCPv6 answers a DHCPv6 client (RFC 8415) that came from port: one of a stateful subnet gets the
// port's addresses, one of a stateless subnet only options. An error that is ErrIgnored means that
// silence is right.
func DHCPv6(frame []byte, port *model.HostPort, network *model.HostNetwork) ([]byte, error) {
	p, src, dst, ok := parseUDP6(frame)
	if !ok || src != dhcpv6.DefaultClientPort || dst != dhcpv6.DefaultServerPort {
		return nil, ignored("not a DHCPv6 request")
	}
	mac, err := pipeline.ParseMAC(port.MAC)
	if err != nil {
		return nil, fmt.Errorf("answer DHCPv6: %w", err)
	}
	if !p.src.IsLinkLocalUnicast() {
		return nil, ignored("from %v", p.src)
	}
	if len(p.payload) == 0 || p.payload[0] == byte(dhcpv6.MessageTypeRelayForward) || p.payload[0] == byte(dhcpv6.MessageTypeRelayReply) {
		return nil, ignored("relayed")
	}
	req, err := dhcpv6.MessageFromBytes(p.payload)
	if err != nil {
		return nil, ignored("malformed: %v", err)
	}
	addrs, subnets := leases6(port, network)
	if len(subnets) == 0 {
		return nil, ignored("no subnet of port %s serves DHCPv6", port.ID)
	}
	reply, err := answer6(req, addrs)
	if err != nil {
		return nil, err
	}
	options6(reply, port, network, subnets)
	out := packet6{srcMAC: pipeline.ServiceMAC, dstMAC: mac, src: serverLinkLocal, dst: p.src, proto: pipeline.ProtoUDP, hops: 64, check: 6,
		payload: udp6(dhcpv6.DefaultServerPort, dhcpv6.DefaultClientPort, reply.ToBytes())}
	return out.frame(), nil
}

// answer6 makes the reply but for the options that tell of the network.
func answer6(req *dhcpv6.Message, addrs []netip.Addr) (*dhcpv6.Message, error) {
	client, server := req.Options.ClientID(), req.Options.ServerID()
	reply := &dhcpv6.Message{MessageType: dhcpv6.MessageTypeReply, TransactionID: req.TransactionID}
	reply.AddOption(dhcpv6.OptServerID(serverDUID))
	if client != nil {
		reply.AddOption(dhcpv6.OptClientID(client))
	}
	// RFC 8415, 16: which messages must, may and must not name a client and a server.
	switch req.MessageType {
	case dhcpv6.MessageTypeSolicit, dhcpv6.MessageTypeConfirm, dhcpv6.MessageTypeRebind:
		if client == nil || server != nil {
			return nil, ignored("%v names no client, or a server", req.MessageType)
		}
	case dhcpv6.MessageTypeRequest, dhcpv6.MessageTypeRenew, dhcpv6.MessageTypeRelease, dhcpv6.MessageTypeDecline:
		if client == nil || server == nil || !server.Equal(serverDUID) {
			return nil, ignored("%v names no client, or another server", req.MessageType)
		}
	case dhcpv6.MessageTypeInformationRequest:
		if server != nil && !server.Equal(serverDUID) || len(req.Options.IANA())+len(req.Options.IATA())+len(req.Options.IAPD()) > 0 {
			return nil, ignored("for another server, or asks for addresses")
		}
		return reply, nil
	default:
		return nil, ignored("message type %v", req.MessageType)
	}
	if len(addrs) == 0 {
		return nil, ignored("no address of the port comes by DHCPv6")
	}
	status := func(code iana.StatusCode) *dhcpv6.OptStatusCode { return &dhcpv6.OptStatusCode{StatusCode: code} }
	switch req.MessageType {
	case dhcpv6.MessageTypeConfirm:
		all := true
		for _, ia := range req.Options.IANA() {
			for _, a := range ia.Options.Addresses() {
				all = all && slices.Contains(addrs, fromIP(a.IPv6Addr))
			}
		}
		code := iana.StatusSuccess
		if !all {
			code = iana.StatusNotOnLink
		}
		reply.AddOption(status(code))
		return reply, nil
	case dhcpv6.MessageTypeRelease, dhcpv6.MessageTypeDecline: // the address stays the port's
		reply.AddOption(status(iana.StatusSuccess))
		return reply, nil
	case dhcpv6.MessageTypeSolicit:
		if req.GetOneOption(dhcpv6.OptionRapidCommit) != nil {
			reply.AddOption(&dhcpv6.OptionGeneric{OptionCode: dhcpv6.OptionRapidCommit})
		} else {
			reply.MessageType = dhcpv6.MessageTypeAdvertise
		}
	}
	for i, ia := range req.Options.IANA() {
		got := &dhcpv6.OptIANA{IaId: ia.IaId, T1: LeaseTime / 2, T2: LeaseTime / 5 * 4}
		if i > 0 { // all addresses are in the first one
			got.T1, got.T2 = 0, 0
			got.Options.Add(status(iana.StatusNoAddrsAvail))
			reply.AddOption(got)
			continue
		}
		for _, a := range addrs {
			got.Options.Add(&dhcpv6.OptIAAddress{IPv6Addr: a.AsSlice(), PreferredLifetime: LeaseTime, ValidLifetime: LeaseTime})
		}
		for _, a := range ia.Options.Addresses() { // what it has and must not use
			if !slices.Contains(addrs, fromIP(a.IPv6Addr)) && req.MessageType != dhcpv6.MessageTypeSolicit {
				got.Options.Add(&dhcpv6.OptIAAddress{IPv6Addr: a.IPv6Addr})
			}
		}
		reply.AddOption(got)
	}
	for _, ia := range req.Options.IATA() {
		got := &dhcpv6.OptIATA{IaId: ia.IaId}
		got.Options.Add(status(iana.StatusNoAddrsAvail))
		reply.AddOption(got)
	}
	for _, ia := range req.Options.IAPD() {
		got := &dhcpv6.OptIAPD{IaId: ia.IaId}
		got.Options.Add(status(iana.StatusNoPrefixAvail))
		reply.AddOption(got)
	}
	return reply, nil
}

func fromIP(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a
}

// options6 tells of the network.
func options6(reply *dhcpv6.Message, port *model.HostPort, network *model.HostNetwork, subnets []*model.HostSubnet) {
	var dns []byte
	for _, s := range subnets {
		for _, d := range s.DNS {
			if d.Is6() && len(dns) < 16*maxAddrs {
				dns = append(dns, d.AsSlice()...)
			}
		}
	}
	set := func(code uint16, b []byte) {
		if len(b) > 0 {
			reply.UpdateOption(&dhcpv6.OptionGeneric{OptionCode: dhcpv6.OptionCode(code), OptionData: b})
		}
	}
	set(23, dns)
	set(24, nameBytes(network.DNSDomain))
	for _, o := range port.DHCPOptions {
		if o.IPVersion == 6 {
			code, b := extra6(o.Name, o.Value)
			set(code, b)
		}
	}
}

// maxAddrs bounds the addresses in one option.
const maxAddrs = 64

// extraOptions6 are the DHCPv6 options that users may name, with dnsmasq's names.
var extraOptions6 = map[string]struct {
	code uint16
	form optionForm
}{
	"sip-server-domain": {21, formNames}, "sip-server": {22, formAddrs}, "dns-server": {23, formAddrs}, "domain-search": {24, formNames},
	"nis-server": {27, formAddrs}, "nis+-server": {28, formAddrs}, "nis-domain": {29, formNames}, "nis+-domain": {30, formNames},
	"sntp-server": {31, formAddrs}, "information-refresh-time": {32, formUint32}, "FQDN": {39, formText}, "ntp-server": {56, formNTP},
	"bootfile-url": {59, formText}, "bootfile-param": {60, formText},
}

// extra6 gives an option that a user named, by name or number (a number's value is text); nil for one
// that is the protocol's own, or that does not fit.
func extra6(name, value string) (uint16, []byte) {
	name = strings.TrimPrefix(name, "option6:")
	o, known := extraOptions6[name]
	if !known {
		n, err := strconv.ParseUint(name, 10, 16)
		if err != nil || n <= 20 { // up to 20: the protocol's own
			return 0, nil
		}
		o.code = uint16(n)
		for _, k := range extraOptions6 {
			if k.code == o.code {
				o.form = k.form
			}
		}
	}
	var b []byte
	switch o.form {
	case formText:
		b = []byte(value)
	case formUint32:
		n, err := strconv.ParseUint(value, 10, 32)
		if err != nil {
			return 0, nil
		}
		b = binary.BigEndian.AppendUint32(nil, uint32(n))
	case formNames:
		for _, s := range fields(value) {
			n := nameBytes(s)
			if n == nil {
				return 0, nil
			}
			b = append(b, n...)
		}
	case formAddrs, formNTP:
		for _, s := range fields(value) {
			a, err := netip.ParseAddr(strings.Trim(s, "[]"))
			if err != nil || !a.Is6() || a.Is4In6() {
				return 0, nil
			}
			if o.form == formNTP { // RFC 5908, 4.1
				b = append(b, 0, 1, 0, 16)
			}
			b = append(b, a.AsSlice()...)
		}
	}
	if len(b) > 20*maxAddrs {
		return 0, nil
	}
	return o.code, b
}

// fields splits a list of values.
func fields(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' || r == ';' })
}
