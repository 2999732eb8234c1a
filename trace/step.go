package trace

import (
	"fmt"
	"slices"
	"strings"

	"yakumo/datapath/pipeline"
	"yakumo/datapath/pipeline/sim"
	"yakumo/model"
	"yakumo/store"
)

// hop shows a packet's way through a host. went says why nothing left it, where nothing did.
func (r *run) hop(h *hostState, in sim.Arrival, out sim.Result) (hop Hop, went string) {
	hop = Hop{Host: r.names[h.host.ID], In: r.place(h, in.In), Steps: []Step{}, Out: []Out{}}
	went = "The packet met no entry."
	for _, s := range out.Steps {
		step := Step{Stage: s.Stage.String(), Action: action(s)}
		if s.Entry != nil {
			step.Decided = r.decided(h, s)
			if r.sc.Admin {
				step.Entry = s.Entry.String()
			}
		}
		hop.Steps = append(hop.Steps, step)
		if s.Entry == nil || len(s.Entry.Actions) == 0 {
			went = reason(s)
			if len(step.Decided) > 0 {
				went += " Decided by " + strings.Join(step.Decided, ", ") + "."
			}
		}
	}
	for _, d := range out.Out {
		hop.Out = append(hop.Out, Out{To: r.left(h, in, d), Packet: d.Packet.Summary()})
	}
	return hop, went
}

// place names where a packet comes in.
func (r *run) place(h *hostState, in uint64) string {
	switch {
	case in >= pipeline.PortProvider:
		name, _ := h.ord.Find(pipeline.OrdinalProvider, uint32(in-pipeline.PortProvider))
		return "provider " + name
	case in == pipeline.PortService:
		return "metadata service"
	case in >= pipeline.PortTunnel:
		return "tunnel"
	}
	id, _ := h.ord.Find(pipeline.OrdinalPort, uint32(in))
	return "port " + r.portName(id)
}

// portName is a port's id for who may see it.
func (r *run) portName(id model.ID) string {
	if p, ok := store.Ports.Get(r.snap, id); ok && !r.sc.owns(p.ProjectID) && !r.sc.owns(p.NetworkOwner) {
		return "of another project"
	}
	return id
}

// left names where a copy went.
func (r *run) left(h *hostState, in sim.Arrival, d sim.Departure) string {
	switch {
	case d.Responder != 0:
		return "agent: " + d.Responder.String()
	case d.To >= pipeline.PortProvider, d.To == pipeline.PortService:
		return r.place(h, d.To)
	case d.To >= pipeline.PortTunnel:
		if !r.sc.Admin {
			return "another host"
		}
		to := r.behindTunnel(d.Host)
		if row, ok := store.Hosts.Get(r.snap, to); ok {
			return fmt.Sprintf("tunnel to %s (%v), id %d", row.Name, d.Host, d.VNI)
		}
		return fmt.Sprintf("tunnel to %v, id %d", d.Host, d.VNI)
	case d.To == in.In:
		return "back to the sender"
	}
	return r.place(h, d.To)
}

// action says what an entry does, in a few words.
func action(s sim.Step) string {
	if s.Entry == nil || len(s.Entry.Actions) == 0 {
		return "drop"
	}
	var out []string
	for _, a := range s.Entry.Actions {
		switch a := a.(type) {
		case pipeline.Goto:
			out = append(out, "go on to "+a.Stage.String())
		case pipeline.Track:
			text := "look the connection up"
			if a.NAT {
				text += " and translate as it says"
			}
			out = append(out, text)
		case pipeline.Translate:
			side := "destination"
			if a.Source {
				side = "source"
			}
			out = append(out, fmt.Sprintf("translate the %s to %v", side, a.Addr))
		case pipeline.Commit:
			if a.Mark == 0 {
				out = append(out, "remember the connection")
			} else {
				out = append(out, "block the connection")
			}
		case pipeline.AnswerARP, pipeline.AnswerND, pipeline.AnswerEcho:
			out = append(out, "answer")
		case pipeline.ToAgent:
			out = append(out, "hand over to the agent: "+a.Responder.String())
		case pipeline.Deliver:
			out = append(out, "deliver")
		case pipeline.Tunnel:
			out = append(out, "send to another host")
		case pipeline.Leg:
			out = append(out, "a copy for a port")
		case pipeline.DecTTL:
			out = append(out, "count the hop")
		case pipeline.Set:
			switch a.Field {
			case pipeline.Net:
				out = append(out, fmt.Sprintf("now in network %d", a.Value))
			case pipeline.EthDst:
				out = append(out, "next is "+pipeline.NumberMAC(a.Value).String())
			}
		}
	}
	if s.Entry.Feature == pipeline.FeatureHeld && s.Stage == pipeline.Resolve {
		out = append(out, "its guest has said that it holds the address")
	}
	if len(out) == 0 {
		return "go on"
	}
	return strings.Join(out, "; ")
}

// reason says why a stage dropped a packet.
func reason(s sim.Step) string {
	miss := s.Entry == nil
	switch s.Stage {
	case pipeline.Classify:
		return "It is of no network that the host knows there, or its tag is not allowed."
	case pipeline.AntiSpoof:
		return "The port may not send from this MAC or address: add it to allowed_address_pairs, or turn port security off."
	case pipeline.Respond:
		return "The question has no answer here."
	case pipeline.GroupOut:
		return "No egress rule of the sender's security groups allows it."
	case pipeline.GroupIn:
		return "No ingress rule of the receiver's security groups allows it."
	case pipeline.Route:
		if !miss && s.Entry.Feature == pipeline.FeatureScope {
			return "The router does not send from one address scope to another: put both networks' subnet pools into one."
		}
		return "The router has no route for it."
	case pipeline.NAT:
		if !miss && s.Entry.Feature == pipeline.FeatureScope {
			return "The router does not translate (--disable-snat), and the external network is in another address scope."
		}
	case pipeline.Resolve:
		return "Nobody in the next network has the address that it goes to, and no guest has said that it holds it by its allowed_address_pairs."
	case pipeline.Lookup:
		if miss {
			return "No port of the network has this MAC."
		}
		return "It came from another host, and its receiver is not here."
	case pipeline.Output:
		return "The receiving port is down, or not wired."
	}
	if miss {
		return fmt.Sprintf("Nothing in the stage %v takes it.", s.Stage)
	}
	return fmt.Sprintf("The stage %v drops it.", s.Stage)
}

// decided names the rows whose entry acted.
func (r *run) decided(h *hostState, s sim.Step) []string {
	var out []string
	note := func(s string) {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	if t, ok := s.Entry.Match.Get(pipeline.ConjID); ok {
		if id, ok := h.ord.Find(pipeline.OrdinalRule, uint32(t.Value)); ok {
			id, _, _ = strings.Cut(id, "/")
			note(r.ruleName(id))
			return out
		}
	}
	for _, id := range h.prog.OwnersOf(s.Entry.Key()) {
		if id.Kind == model.RowPort && (s.Stage == pipeline.GroupOut || s.Stage == pipeline.GroupIn) && len(s.Entry.Actions) > 0 {
			for _, rule := range r.openRules(id.Key, s) {
				note(rule)
			}
			continue
		}
		if name := r.rowName(id); name != "" {
			note(name)
		}
	}
	return out
}

const foreign = "another project's"

func (r *run) ruleName(id model.ID) string {
	x, ok := store.SecurityRules.Get(r.snap, id)
	if ok && !r.sc.owns(x.ProjectID) {
		return foreign + " security group rule"
	}
	return "security_group_rule " + id
}

// openRules gives the rules of a port's groups that leave remote side and service open: they
// stand in the port's own entry.
func (r *run) openRules(port model.ID, s sim.Step) []string {
	p, ok := store.Ports.Get(r.snap, port)
	if !ok {
		return nil
	}
	direction, kind := model.Egress, model.IPv4
	if s.Stage == pipeline.GroupIn {
		direction = model.Ingress
	}
	if t, ok := s.Entry.Match.Get(pipeline.EthType); ok && t.Value == pipeline.TypeIPv6 {
		kind = model.IPv6
	}
	var out []string
	for _, g := range p.Groups {
		for x := range store.SecurityRules.List(r.snap, "group", g) {
			if x.Direction == direction && x.EtherType == kind && x.Protocol == "" && x.RemoteGroupID == "" && (!x.RemotePrefix.IsValid() || x.RemotePrefix.Bits() == 0) {
				out = append(out, r.ruleName(x.ID))
			}
		}
	}
	slices.Sort(out)
	return out
}

// rowName names a host row for who may see what it is made of; "" for what is always there.
func (r *run) rowName(id model.RowID) string {
	if id.Kind == "base" {
		return ""
	}
	project, what := "", string(id.Kind)
	key := id.Key
	switch id.Kind {
	case model.RowPort, model.RowPeer:
		what = "port"
		if p, ok := store.Ports.Get(r.snap, key); ok {
			project = p.ProjectID
		}
	case model.RowNetwork:
		if n, ok := store.Networks.Get(r.snap, key); ok {
			project = n.ProjectID
			if n.Shared || n.External {
				return "network " + key
			}
		}
	case model.RowGroup, model.RowMember:
		what = "security_group"
		key, _, _ = strings.Cut(key, ",")
		if g, ok := store.SecurityGroups.Get(r.snap, key); ok {
			project = g.ProjectID
		}
	case model.RowRouter:
		if x, ok := store.Routers.Get(r.snap, key); ok {
			project = x.ProjectID
		}
	case model.RowFloating:
		what = "floating_ip"
		if x, ok := store.FloatingIPs.Get(r.snap, key); ok {
			project = x.ProjectID
		}
	default:
		if !r.sc.Admin {
			return ""
		}
		return what + " " + key
	}
	if !r.sc.owns(project) {
		return foreign + " " + what
	}
	return what + " " + key
}
