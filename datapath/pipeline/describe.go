package pipeline

import (
	"fmt"
	"net/netip"
	"strings"

	"yakumo/model"
)

// Describe writes the pipeline as a page in Markdown: stages, fields, actions, the entries
// that are always there, and what one example of each row compiles to. docs/pipeline.md is
// its output.
func Describe() (string, error) {
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format, args...) }
	env := DefaultEnv()
	env.PhysicalNetworks = []string{"physnet1"}
	p("# The pipeline\n\n<!-- Made by `go generate ./datapath/pipeline`. Do not edit. -->\n\n")
	p("Every packet of a guest walks through the stages below, on the host of the sender, and again on the host of the\n")
	p("receiver where that is another one. A row that a host is told becomes *entries*; an entry stands in one stage, has a\n")
	p("priority, a match and actions. Of the entries that a packet meets in a stage the one with the highest priority acts; a\n")
	p("packet that meets none is dropped.\n\n## Stages\n\n| number | stage | | what it does |\n|---|---|---|---|\n")
	for _, s := range Stages() {
		note := ""
		if !s.Active {
			note = "reserved"
		}
		p("| %d | %s | %s | %s |\n", s.Stage, s.Name, note, s.Text)
	}
	p("\nA reserved stage has no entries and none leads to it. With Open vSwitch the number is the table.\n")
	p("\n## Fields\n\nThe pipeline's own fields are zero when a packet comes in.\n\n| field | bits | meaning |\n|---|---|---|\n")
	for f := range numFields {
		p("| %s | %d | %s |\n", fields[f].name, fields[f].bits, fields[f].text)
	}
	p("\n## Actions\n\n| action | meaning |\n|---|---|\n")
	for _, a := range actionTexts {
		p("| %s | %s |\n", a[0], a[1])
	}
	p("\n## Rules of the pipeline\n\n")
	for _, r := range principles {
		p("- %s\n", r)
	}
	p("\n## Entries that are always there\n\n```\n")
	for _, e := range Base(&env) {
		p("%v\n", &e)
	}
	p("```\n\n## What a row becomes\n\n")
	program := NewProgram(env, &exampleOrdinals{})
	rows := exampleRows()
	if _, err := program.Apply(rows, nil); err != nil {
		return "", err
	}
	for _, r := range rows {
		p("%s:\n\n```\n", exampleTexts[r.RowID().Kind])
		for _, in := range program.All() {
			for _, id := range program.OwnersOf(in.Key) {
				if id == r.RowID() {
					p("%v\n", in.Entry)
				}
			}
		}
		p("```\n\n")
	}
	p("Entries of several rows with one match become one: the union of their `conj` actions or of their `leg` actions.\n")
	return b.String(), nil
}

var actionTexts = [][2]string{
	{"`set f=v`", "write a field"},
	{"`goto s`", "go on in a later stage"},
	{"`track zone=f then s`", "look the connection up in the conntrack zone whose number is in `f`, go on in `s` with `track` and `mark` filled"},
	{"`commit zone=f mark=m`", "create the connection, or find it, and mark it"},
	{"`untrack`", "forget what `track` has found"},
	{"`deliver p`", "to the device of a local port or to the metadata device, never back where the packet came in"},
	{"`tunnel h vni=n`", "to another host"},
	{"`answer-arp m`", "turn the request into the reply that `m` has the address, send it back"},
	{"`to-agent r p`", "to a responder in the agent, at a limited rate for each port"},
	{"`conj i c/n`", "clause `c` of the `n` clauses of rule `i` is met; when all are, `conj=i` matches"},
	{"`leg p s`", "a copy for the receiving port `p` goes on in `s`"},
	{"`copy f to g`", "write a field's content into another"},
	{"`translate zone=f src=a then s`", "create the connection with its source (or destination) translated to `a`, go on in `s`"},
	{"`track zone=f nat then s`", "as `track`, and a packet of a translated connection is translated"},
	{"`dec-ttl`", "lower the time to live by one"},
	{"`check-size n`", "set `large` where the IP packet has more than `n` bytes"},
	{"`answer-echo`, `answer-echo6`", "turn an echo request into its reply"},
	{"`answer-nd m`", "turn a neighbour solicitation into the advertisement that `m` has the address, go on in advertise"},
	{"`advertise-nd`", "let its option tell the frame's source MAC"},
	{"`push-vlan n`, `pop-vlan`", "put a tag on, take it off"},
	{"`hand p vlan=n`", "a copy to the device of a local port, with a tag, even where the packet came in there"},
	{"`turn-back`", "back where the packet came in"},
	{"`reenter`", "forget where the packet came in, so that it may leave there"},
	{"`branch s`", "a copy goes on in `s`, the packet with the next action"},
	{"`limit i r burst=b`", "drop what exceeds a rate"},
	{"`drop`", "no action"},
}

var principles = []string{
	"A flat or VLAN network's frames leave by a provider bridge, which learns where who is: unknown unicast and questions for unknown addresses go there too, with the network's tag. What comes from a provider bridge stays on the host.",
	"In a network of tunnels the switch learns nothing and floods no unknown unicast. What came by a tunnel leaves by a tunnel only where its port has just moved to another host.",
	"ARP requests for addresses of ports are answered by the switch that the guest is plugged into. A request for an address in an allowed address pair is flooded, since it may move; for any other it is dropped. A guest's question for its own address is not answered.",
	"A port with port security sends only from its MAC and addresses and from its pairs, untagged IPv4, IPv6 and ARP only; it cannot act as a DHCP server or as a router that advertises itself. A port without port security carries any untagged frame, and its groups do not count.",
	"A port speaks IPv6 if it has an address or a pair of that family: then it may also use the link-local address of its MAC, and its neighbour solicitations and advertisements must tell its own MAC and addresses. Solicitations are answered as ARP requests are; that of a guest without an address yet, for an address of another, is answered to all nodes.",
	"IP multicast goes to the hosts that have ports in the network; there, packets to 224.0.0.0/24 and to groups of IPv6 no wider than the link reach all ports, others only ports that listen. Guests' IGMP and MLD messages go to the agent, which asks all guests regularly, and no further.",
	"Rules of security groups are conjunctions of membership, remote side and service, so a rule for m ports and n remote addresses costs m + n entries. Rules for ports of protocols other than TCP, UDP, SCTP and ICMP have no entries and so allow nothing. Neighbour discovery, multicast listeners' reports and what servers of addresses say to clients pass whatever the rules.",
	"A port with a group that is not stateful is judged packet by packet: its answers need rules of their own.",
	"Each port has its own conntrack zone, and both ends check: egress where the packet starts, ingress where it arrives, also on one host. Each packet in the opening direction of a connection meets the rules as they are now. Where none allows it any more the connection is marked, and then its replies are dropped too; when a rule allows it again, the mark goes.",
	"The metadata service is reached by a stateless rewrite: each fixed address has an alias on the host's metadata device, from which its connections seem to come. 169.254.169.254 is also the DHCP server's identity, and at its port 53 is the host's resolver. By IPv6 both are at fe80::a9fe:a9fe, for a port's link-local address.",
	"Tagged frames are dropped at the door, at both ends.",
	"What a guest says of an address in its allowed address pairs goes to the agent too, unless the port's row says already that it holds it; routers find such an address at the port whose row says so.",
	"A router whose networks are in several address scopes sends nothing from one to another as it is; what it translates is held to none.",
	"A port whose server is on its way here stands by: it has all entries of a port but those that bring it frames, and its peer's row says where they go. When the guest has come, one change makes it a port as any other. On the host that it left, what others still send for it goes on to where it is.",
}

var exampleTexts = map[model.RowKind]string{
	model.RowNetwork: "A network with ports on one other host",
	model.RowGroup:   "A security group: all out, SSH from 192.0.2.0/24, anything from its own members",
	model.RowPort:    "A port of that network and group",
	model.RowMember:  "A member of that group",
	model.RowPeer:    "A port on the other host",
}

func exampleRows() []model.HostRow {
	ssh := 22
	addr := netip.MustParseAddr
	return []model.HostRow{
		&model.HostNetwork{ID: "net", VNI: 70000, MTU: 1450, Flood: []netip.Addr{addr("198.51.100.2")},
			Subnets: []model.HostSubnet{{ID: "sub", CIDR: netip.MustParsePrefix("10.0.0.0/24"), DHCP: true}}},
		&model.HostGroup{ID: "group", Stateful: true, Rules: []model.HostRule{
			{ID: "rule-1", Direction: model.Egress, EtherType: model.IPv4},
			{ID: "rule-2", Direction: model.Ingress, EtherType: model.IPv4, Protocol: "tcp", PortMin: &ssh, PortMax: &ssh, RemotePrefix: netip.MustParsePrefix("192.0.2.0/24")},
			{ID: "rule-3", Direction: model.Ingress, EtherType: model.IPv4, RemoteGroupID: "group"},
		}},
		&model.HostPort{ID: "port", NetworkID: "net", VNI: 70000, MAC: "fa:16:3e:00:00:05", AdminStateUp: true, PortSecurity: true, Groups: []model.ID{"group"},
			FixedIPs: []model.FixedIP{{SubnetID: "sub", Address: addr("10.0.0.5")}}},
		&model.HostMember{GroupID: "group", PortID: "peer", Prefixes: []netip.Prefix{netip.MustParsePrefix("10.0.0.6/32")}},
		&model.HostPeer{ID: "peer", NetworkID: "net", VNI: 70000, MAC: "fa:16:3e:00:00:06", Addresses: []netip.Addr{addr("10.0.0.6")}, TunnelIP: addr("198.51.100.2")},
	}
}

// exampleOrdinals counts from 1.
type exampleOrdinals struct{ keys []OrdinalKey }

func (o *exampleOrdinals) Get(kind OrdinalKind, key string, _ uint32) (uint32, error) {
	n := uint32(0)
	for _, k := range o.keys {
		if k.Kind == kind {
			n++
			if k.Key == key {
				return n, nil
			}
		}
	}
	o.keys = append(o.keys, OrdinalKey{kind, key})
	return n + 1, nil
}

func (o *exampleOrdinals) Find(OrdinalKind, uint32) (string, bool) { return "", false }
func (o *exampleOrdinals) Keys(OrdinalKind) []string               { return nil }
func (o *exampleOrdinals) Release(OrdinalKind, string)             {}
func (o *exampleOrdinals) Sync() error                             { return nil }
