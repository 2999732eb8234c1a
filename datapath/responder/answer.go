package responder

import (
	"fmt"
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

// Ask is a packet that a switch has handed over, with what is known of who it stands for: Port and Network,
// or Router.
type Ask struct {
	pipeline.ToAgent
	Frame   []byte // from the Ethernet header on, without a tag; not to be trusted
	Port    *model.HostPort
	Network *model.HostNetwork // of Port
	Router  *model.HostRouter
}

// Rows is what a driver knows; a *pipeline.Program is one.
type Rows interface {
	// Row gives a row, nil where it is not known.
	Row(id model.RowID) model.HostRow
}

// Resolve finds out who a packet stands for. The error says that it is gone.
func Resolve(rows Rows, ord pipeline.Ordinals, to pipeline.ToAgent, frame []byte) (Ask, error) {
	ask := Ask{ToAgent: to, Frame: frame}
	key, _ := ord.Find(pipeline.OrdinalPort, to.Port)
	if id, is := strings.CutPrefix(key, pipeline.RouterKey("")); is {
		ask.Router, _ = rows.Row(model.RowID{Kind: model.RowRouter, Key: id}).(*model.HostRouter)
	} else if ask.Port, _ = rows.Row(model.RowID{Kind: model.RowPort, Key: key}).(*model.HostPort); ask.Port != nil {
		ask.Network, _ = rows.Row(model.RowID{Kind: model.RowNetwork, Key: ask.Port.NetworkID}).(*model.HostNetwork)
	}
	if ask.Router == nil && ask.Network == nil {
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
	}
	return nil, fmt.Errorf("no responder for %v", ask.ToAgent)
}

// ForRouter tells whether a responder acts for a router, and not for a port.
func ForRouter(r pipeline.Responder) bool {
	switch r {
	case pipeline.ResponderTimeExceeded, pipeline.ResponderTooBig, pipeline.ResponderUnreachable, pipeline.ResponderResolve, pipeline.ResponderLearn:
		return true
	}
	return false
}

func isError(r pipeline.Responder) bool {
	return r == pipeline.ResponderTimeExceeded || r == pipeline.ResponderTooBig || r == pipeline.ResponderUnreachable
}
