package pipeline

import "fmt"

// Stage is a step of the pipeline. Packets go to a stage with a higher number, but for what a
// router sends on: from Lookup back to Admit, and from an answer back to Route.
// The numbers are spaced and reserved, so that a feature that comes later does not renumber
// the others; a driver may use them as table numbers.
type Stage uint8

// The stages in order.
const (
	Classify  Stage = 0
	AntiSpoof Stage = 5
	Discover  Stage = 6
	TapOut    Stage = 7
	Arrive    Stage = 8
	Respond   Stage = 10
	Advertise Stage = 11
	TrackOut  Stage = 15
	GroupOut  Stage = 16
	AcceptOut Stage = 17
	Intent    Stage = 20
	Chain     Stage = 25
	Balance   Stage = 30
	Admit     Stage = 32
	Restore   Stage = 33
	Redirect  Stage = 34
	Route     Stage = 35
	Fit       Stage = 37
	NAT       Stage = 40
	SNAT      Stage = 41
	Leave     Stage = 42
	Resolve   Stage = 43
	Lookup    Stage = 45
	FloodOut  Stage = 46
	FloodIn   Stage = 47
	Listen    Stage = 48
	TrackIn   Stage = 50
	GroupIn   Stage = 51
	AcceptIn  Stage = 52
	TapIn     Stage = 55
	Output    Stage = 60
	Return    Stage = 61
	Mirror    Stage = 62
)

// StageInfo describes a stage.
type StageInfo struct {
	Stage  Stage
	Name   string
	Active bool // false: reserved, no feature claims it yet, and no entry leads to it
	// Inner stages are reached only from the stage before them, never by Next.
	Inner bool
	Text  string
}

var stages = [...]StageInfo{
	{Classify, "classify", true, false, "Where a packet comes from: a local port, the tunnel or the metadata device. Sets net and from. Tagged frames, unknown ports and unknown tunnel ids end here."},
	{AntiSpoof, "anti-spoof", true, false, "A port with port security may send only from its own MAC and addresses and from its allowed address pairs. Miss: drop."},
	{Discover, "discover", true, true, "IPv6 of such a port: neighbour solicitations and advertisements must tell its own MAC and addresses. Miss: on to respond."},
	{TapOut, "tap-out", true, false, "A copy of what a mirrored port sends."},
	{Arrive, "arrive", true, true, "What comes in from a provider bridge: ARP and neighbour discovery for floating and gateway addresses, answers of neighbours outside, packets for routers. Miss: lookup."},
	{Respond, "respond", true, false, "Answers given on the spot: ARP by the switch, DHCP by the agent, metadata by a stateless rewrite to the host's listener. An ARP request for an address that nobody owns is dropped."},
	{Advertise, "advertise", true, true, "Second half of the switch's answer to a neighbour solicitation."},
	{TrackOut, "track-out", true, false, "Looks the connection up in the conntrack zone of the sending port. ARP and ports without port security pass by."},
	{GroupOut, "group-out", true, true, "Egress rules of the sending port's security groups, as conjunctive matches. Miss: drop, and the connection is marked blocked."},
	{AcceptOut, "accept-out", true, true, "Commits a connection that a rule allows, or clears its mark."},
	{Intent, "intent", false, false, "Verdict of intents between groups of ports."},
	{Chain, "chain", false, false, "Steering into service chains."},
	{Balance, "balance", false, false, "Load balancing to members."},
	{Admit, "admit", true, false, "Frames to the MAC of a router's interface are given to the router; all others go on to lookup."},
	{Restore, "restore", true, true, "What comes from outside to a router's or a floating address: translated back where its connection is known."},
	{Redirect, "redirect", true, true, "Its first packet: destination translated to the fixed address, or by port forwarding."},
	{Route, "route", true, true, "A router: its own addresses, time to live, the longest prefix. Sets net, source MAC and next hop."},
	{Fit, "fit", true, true, "Packets too large for the next network."},
	{NAT, "nat", true, true, "What leaves for outside: translated where its connection is known."},
	{SNAT, "snat", true, true, "Its first packet: source translated to the floating address or the gateway's."},
	{Leave, "leave", true, true, "Only what was really translated goes out."},
	{Resolve, "resolve", true, true, "Next hop to destination MAC."},
	{Lookup, "lookup", true, false, "Destination MAC to local port or to the host that has it. Miss: drop; the switch never learns and never floods unknown unicast."},
	{FloodOut, "flood-out", true, true, "Broadcast and multicast, first half: one copy to each other host with a port in the network, unless the packet came from a tunnel."},
	{FloodIn, "flood-in", true, true, "Second half: one copy for each local port of the network; IP multicast wider than the link goes on to listen."},
	{Listen, "listen", true, true, "One copy for each local port that listens to the group. Miss: drop."},
	{TrackIn, "track-in", true, false, "Looks the connection up in the conntrack zone of the receiving port."},
	{GroupIn, "group-in", true, true, "Ingress rules of the receiving port's security groups."},
	{AcceptIn, "accept-in", true, true, "Commits a connection that a rule allows, or clears its mark."},
	{TapIn, "tap-in", true, false, "A copy of what a mirrored port receives."},
	{Output, "output", true, false, "To the device of the local port. A packet is never sent back where it came in."},
	{Return, "return", true, true, "An answer that the switch has made goes back where its question came from, with the tag that it had."},
	{Mirror, "mirror", true, true, "A copy goes to each port that it is meant for, here or on another host."},
}

// Stages describes all stages in order.
func Stages() []StageInfo { return append([]StageInfo(nil), stages[:]...) }

// String gives the stage's name.
func (s Stage) String() string {
	for i := range stages {
		if stages[i].Stage == s {
			return stages[i].Name
		}
	}
	return fmt.Sprintf("stage-%d", uint8(s))
}

// Next gives the first active stage behind s that is not inner: where a packet goes that
// s is done with. Nothing is behind Output; Next(Output) is Output.
func Next(s Stage) Stage {
	for i := range stages {
		if st := &stages[i]; st.Stage > s && st.Active && !st.Inner {
			return st.Stage
		}
	}
	return Output
}
