package responder

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"yakumo/datapath/pipeline"
	"yakumo/model"
)

// Reply is a frame that the agent makes. The switch takes it in at Stage with Fields set, as if it
// had come that far by itself.
type Reply struct {
	Stage  pipeline.Stage
	Fields []pipeline.Set
	Frame  []byte
}

// ToPort is a reply straight to the guest of a local port, given by its ordinal.
func ToPort(ordinal uint32, frame []byte) Reply {
	return Reply{pipeline.Output, []pipeline.Set{pipeline.Put(pipeline.To, uint64(ordinal))}, frame}
}

func toPort(ordinal uint32, frames [][]byte) []Reply {
	var out []Reply
	for _, f := range frames {
		out = append(out, ToPort(ordinal, f))
	}
	return out
}

// Announce makes what is told to the guest of a port unasked, when its port is wired, when the
// network or its allowed address pairs change, when the guest has come to a port that stood by, and every AdvertInterval. To a port in stand-by
// nothing is told: there is no guest yet.
func Announce(rows Rows, ord pipeline.Ordinals, port model.ID) []Reply {
	p, _ := rows.Row(model.RowID{Kind: model.RowPort, Key: port}).(*model.HostPort)
	if p == nil || p.Standby {
		return nil
	}
	n, _ := rows.Row(model.RowID{Kind: model.RowNetwork, Key: p.NetworkID}).(*model.HostNetwork)
	ordinal, err := ord.Get(pipeline.OrdinalPort, port, pipeline.MaxPort)
	if n == nil || err != nil { // a port that is known has one
		return nil
	}
	frames, err := RA(p, n, rows.RouterPorts(n.ID), netip.Addr{})
	if err != nil { // its row could not be compiled either, and the driver has said so
		return nil
	}
	six := pipeline.Speaks6(addresses(p), p.Pairs)
	return toPort(ordinal, append(append(frames, queries(six)...), probes(p)...))
}

func addresses(p *model.HostPort) []netip.Addr {
	out := make([]netip.Addr, 0, len(p.FixedIPs))
	for _, f := range p.FixedIPs {
		out = append(out, f.Address)
	}
	return out
}

// News gives the networks whose guests must be told anew when the rows come: what they are told
// comes from the subnets of the network and from the interfaces that routers have there.
func News(rows Rows, upserts []model.HostRow) []model.ID {
	var out []model.ID
	for _, row := range upserts {
		switch r := row.(type) {
		case *model.HostNetwork:
			old, _ := rows.Row(row.RowID()).(*model.HostNetwork)
			if old == nil || old != r && (old.MTU != r.MTU || old.Bare != r.Bare || old.DNSDomain != r.DNSDomain || !reflect.DeepEqual(old.Subnets, r.Subnets)) {
				out = append(out, r.ID)
			}
		case *model.HostRouter:
			old, _ := rows.Row(row.RowID()).(*model.HostRouter)
			if old == nil || old != r && (old.AdminStateUp != r.AdminStateUp || !reflect.DeepEqual(old.Interfaces, r.Interfaces)) {
				for i := range r.Interfaces {
					out = append(out, r.Interfaces[i].NetworkID)
				}
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Ask is a packet that a switch has handed over, with what is known of who it stands for: Port and Network,
// or Router.
type Ask struct {
	pipeline.ToAgent
	Frame   []byte // from the Ethernet header on, without a tag; not to be trusted
	Port    *model.HostPort
	Network *model.HostNetwork // of Port
	Router  *model.HostRouter
	Routers []*model.HostRouterPort // interfaces of routers in Network
	Floats  bool                    // a floating address of Router, served here, stands for the packet's destination
}

// Asks tells whether the guest asks for its address, which is a sign of life.
func (a *Ask) Asks() bool {
	return a.Port != nil && (a.Responder == pipeline.ResponderDHCP || a.Responder == pipeline.ResponderDHCPv6 || a.Responder == pipeline.ResponderRA)
}

// Rows is what a driver knows; a *pipeline.Program is one.
type Rows interface {
	// Row gives a row, nil where it is not known.
	Row(id model.RowID) model.HostRow
	// RouterPorts gives the interfaces that routers have in a network, by port id.
	RouterPorts(network model.ID) []*model.HostRouterPort
	// Floating gives the floating address of a router, served here, that stands for an address inside; nil: none.
	Floating(router model.ID, fixed netip.Addr) *model.HostFloating
}

// Resolve finds out who a packet stands for. The error says that it is gone.
func Resolve(rows Rows, ord pipeline.Ordinals, to pipeline.ToAgent, frame []byte) (Ask, error) {
	ask := Ask{ToAgent: to, Frame: frame}
	key, _ := ord.Find(pipeline.OrdinalPort, to.Port)
	if id, is := strings.CutPrefix(key, pipeline.RouterKey("")); is {
		ask.Router, _ = rows.Row(model.RowID{Kind: model.RowRouter, Key: id}).(*model.HostRouter)
		if p, ok := parseIP(frame); ok && ask.Router != nil {
			ask.Floats = rows.Floating(id, p.dst) != nil
		}
	} else if ask.Port, _ = rows.Row(model.RowID{Kind: model.RowPort, Key: key}).(*model.HostPort); ask.Port != nil {
		ask.Network, _ = rows.Row(model.RowID{Kind: model.RowNetwork, Key: ask.Port.NetworkID}).(*model.HostNetwork)
		ask.Routers = rows.RouterPorts(ask.Port.NetworkID)
	}
	if ask.Router == nil && ask.Network == nil && to.Responder != pipeline.ResponderLearn {
		return ask, fmt.Errorf("packet of port %d, which is gone", to.Port)
	}
	return ask, nil
}

// Answer makes the replies to a packet. An error that is ErrIgnored means that silence is right.
func Answer(ask Ask) ([]Reply, error) {
	switch {
	case ask.Responder == pipeline.ResponderDHCP && ask.Network != nil:
		frame, err := DHCP(ask.Frame, ask.Port, ask.Network)
		if err != nil {
			return nil, err
		}
		return []Reply{ToPort(ask.ToAgent.Port, frame)}, nil
	case ask.Router != nil && isError(ask.Responder):
		return icmpError(ask)
	case ask.Responder == pipeline.ResponderDHCPv6 && ask.Network != nil:
		frame, err := DHCPv6(ask.Frame, ask.Port, ask.Network)
		if err != nil {
			return nil, err
		}
		return []Reply{ToPort(ask.ToAgent.Port, frame)}, nil
	case ask.Responder == pipeline.ResponderRA && ask.Network != nil:
		frames, err := SolicitedRA(ask.Frame, ask.Port, ask.Network, ask.Routers)
		if err != nil {
			return nil, err
		}
		return toPort(ask.ToAgent.Port, frames), nil
	}
	return nil, fmt.Errorf("no responder for %v", ask.ToAgent)
}

// Share tells how many times as many packets as from a port a responder takes at a time: a router is asked by all
// guests of its networks.
func Share(r pipeline.Responder) uint32 {
	switch {
	case isError(r):
		return 10
	case r == pipeline.ResponderResolve, r == pipeline.ResponderLearn:
		return 50
	case r == pipeline.ResponderHeld: // many addresses may move at once
		return 10
	}
	return 1
}

func isError(r pipeline.Responder) bool {
	return r == pipeline.ResponderTimeExceeded || r == pipeline.ResponderTooBig || r == pipeline.ResponderUnreachable
}
