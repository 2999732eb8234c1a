// Package trace explains what becomes of a packet: which stage of the network's pipeline it
// meets on which host, which row decided, where it ends and why. It takes the rows that
// each host is told, compiles them as the host's agent does, and walks the packet through
// the entries; nothing is sent. So it tells what the rows say, and a difference to what a real
// packet does is a defect of a host. Package trace also reads captures, to follow a real one.
//
// It reads every table that hosts learn from, and writes nothing. May import: fault, model,
// store, hostview, datapath, its pipeline and sim. Must not import: a driver, api, agent, another part.
package trace

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"yakumo/datapath"
	"yakumo/datapath/pipeline"
	"yakumo/datapath/pipeline/sim"
	"yakumo/fault"
	"yakumo/hostview"
	"yakumo/model"
	"yakumo/store"
)

// Scope says on whose behalf a packet is traced.
type Scope struct {
	ProjectID model.ID
	// Admin: an administrator, who reads hosts, entries and everybody's rows.
	Admin bool
}

func (s Scope) owns(project model.ID) bool {
	return s.Admin || s.ProjectID != "" && s.ProjectID == project
}

// Verdict is how a packet ended.
type Verdict string

// The verdicts.
const (
	Delivered Verdict = "delivered" // to a port
	Answered  Verdict = "answered"  // by the switch or a responder of the sender's host
	Outside   Verdict = "outside"   // it left by a provider bridge
	Service   Verdict = "service"   // to the metadata service
	Dropped   Verdict = "dropped"
)

// Result is what became of a packet.
type Result struct {
	Verdict Verdict  `json:"verdict"`
	Reason  string   `json:"reason"`         // one sentence
	Port    model.ID `json:"port,omitempty"` // with Delivered, where the caller may know it
	Packet  string   `json:"packet"`         // what was sent, on one line
	Hops    []Hop    `json:"hops"`
	// Reply is the way of the answer that the receiver would give, where one was asked for.
	Reply *Result `json:"reply,omitempty"`
	// Real is what a real packet did, where one was sent.
	Real *Followed `json:"real,omitempty"`
}

// Hop is a packet's way through one host.
type Hop struct {
	Host  string `json:"host"` // its name for administrators, "host 1" and so on for others
	In    string `json:"in"`   // where it came in
	Steps []Step `json:"steps"`
	Out   []Out  `json:"out"`
}

// Step is a stage that the packet, or a copy of it, met.
type Step struct {
	Stage  string `json:"stage"`
	Action string `json:"action"` // what was done, in a few words
	// Decided names the rows whose entry acted: "security_group_rule <id>", "port <id>". Rows of others
	// are "another project's".
	Decided []string `json:"decided,omitempty"`
	Entry   string   `json:"entry,omitempty"` // for administrators
}

// Out is where a copy of the packet left a host.
type Out struct {
	To     string `json:"to"` // "port <id>", "tunnel to <host>", "provider <physical network>", "agent: <responder>", "back to the sender"
	Packet string `json:"packet"`
}

// Tracer traces packets.
type Tracer struct {
	Store *store.Store
	Views *hostview.Engine
	// Env is the pipeline's, the same on every host.
	Env pipeline.Env
	// Ask puts a question to a host; link.Server has it. Follow and Frames need it.
	Ask func(ctx context.Context, host model.ID, question string, body []byte) ([]byte, error)
}

// maxHops bounds how many hosts a packet is followed through: from the sender over a gateway to the
// receiver are three, and a broadcast goes to as many as there are.
const maxHops = 64

// Trace follows a packet from its port.
//
// Errors: fault.NotFound where the scope does not see the port, fault.Invalid (code
// BadPacket) where the packet makes no sense, fault.Conflict where the port is on no host.
func (t *Tracer) Trace(ctx context.Context, sc Scope, req Request) (*Result, error) {
	r, err := t.run(ctx, sc, req)
	if err != nil {
		return nil, err
	}
	return r.result, nil
}

// run is a trace under way.
type run struct {
	t      *Tracer
	ctx    context.Context
	snap   store.Snapshot
	sc     Scope
	hosts  map[model.ID]*hostState
	names  map[model.ID]string
	result *Result
	at     *model.Port // of the delivery
	last   sim.Packet  // as delivered
	frame  []byte      // of the packet that was sent
	from   *model.Port
}

// hostState is a host as its agent would have it.
type hostState struct {
	host *model.Host
	prog *pipeline.Program
	ord  datapath.Ordinals
	sw   *sim.Switch
}

func (t *Tracer) run(ctx context.Context, sc Scope, req Request) (*run, error) {
	r := &run{t: t, ctx: ctx, snap: t.Store.Snapshot(), sc: sc, hosts: map[model.ID]*hostState{}, names: map[model.ID]string{}}
	p, err := r.source(req.Port)
	if err != nil {
		return nil, err
	}
	pkt, err := r.packet(p, req)
	if err != nil {
		return nil, err
	}
	r.from, r.frame = p, pkt.Frame()
	if r.result, err = r.walk(p, pkt); err != nil {
		return nil, err
	}
	if req.Reply && r.result.Verdict == Delivered && r.at != nil {
		back, ok := answer(r.last)
		if !ok {
			return nil, fault.Coded(fault.Invalid, "BadPacket", "A packet of this kind has no answer that could be traced.")
		}
		at := r.at
		if r.result.Reply, err = r.walk(at, back); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// source gives the port that the packet is sent from.
func (r *run) source(id model.ID) (*model.Port, error) {
	p, ok := store.Ports.Get(r.snap, id)
	if !ok || !r.sc.owns(p.ProjectID) && !r.sc.owns(p.NetworkOwner) {
		return nil, fault.Coded(fault.NotFound, "PortNotFound", "Port %s could not be found.", id)
	}
	if p.Host == "" {
		return nil, fault.Coded(fault.Conflict, "PortNotBound", "Port %s is on no host yet, so nothing can be sent from it.", id)
	}
	return p, nil
}

// walk follows a packet from a port.
func (r *run) walk(p *model.Port, pkt sim.Packet) (*Result, error) {
	res := &Result{Packet: pkt.Summary(), Hops: []Hop{}}
	h, err := r.host(p.Host)
	if err != nil {
		return nil, err
	}
	key := pipeline.OrdinalKey{Kind: pipeline.OrdinalPort, Key: p.ID}
	if !h.prog.InUse(key) {
		res.Verdict, res.Reason = Dropped, "The port is not wired on its host: it is down, or its network is."
		return res, nil
	}
	ord, err := h.ord.Get(key.Kind, key.Key, r.t.Env.Limit(key.Kind))
	if err != nil {
		return nil, err
	}
	r.at = nil
	type visit struct {
		h  *hostState
		in sim.Arrival
	}
	queue := []visit{{h, sim.Arrival{In: uint64(ord), Packet: pkt}}}
	var ends []end
	for len(queue) > 0 && len(res.Hops) < maxHops {
		v := queue[0]
		queue = queue[1:]
		out := v.h.sw.Run(v.in)
		hop, went := r.hop(v.h, v.in, out)
		res.Hops = append(res.Hops, hop)
		for _, d := range out.Out {
			e := r.end(v.h, v.in, d)
			if e.next != "" {
				next, err := r.host(e.next)
				if err != nil {
					return nil, err
				}
				queue = append(queue, visit{next, sim.Arrival{In: d.To, VNI: d.VNI, Packet: d.Packet}})
				continue
			}
			ends = append(ends, e)
		}
		if len(out.Out) == 0 {
			ends = append(ends, end{verdict: Dropped, reason: went})
		}
	}
	r.judge(res, ends)
	return res, nil
}

// end is one end of a packet or of a copy.
type end struct {
	verdict Verdict
	reason  string
	port    *model.Port
	packet  sim.Packet
	next    model.ID // the host that it goes on to; the packet has not ended
}

// judge takes the best end for the whole: a delivery, then an answer, then what left, then a drop.
func (r *run) judge(res *Result, ends []end) {
	order := []Verdict{Delivered, Answered, Service, Outside, Dropped}
	slices.SortStableFunc(ends, func(a, b end) int {
		return slices.Index(order, a.verdict) - slices.Index(order, b.verdict)
	})
	if len(ends) == 0 {
		res.Verdict, res.Reason = Dropped, "The packet went through more hosts than are followed."
		return
	}
	e := ends[0]
	res.Verdict, res.Reason = e.verdict, e.reason
	if e.port != nil {
		r.at, r.last = e.port, e.packet
		if r.sc.owns(e.port.ProjectID) {
			res.Port = e.port.ID
		}
	}
}

// end tells where a copy of the packet went.
func (r *run) end(h *hostState, in sim.Arrival, d sim.Departure) end {
	switch {
	case d.Responder == pipeline.ResponderResolve:
		return end{verdict: Outside, reason: "It leaves the cloud; the host asks the outside who the next hop is.", packet: d.Packet}
	case d.Responder != 0:
		return end{verdict: Answered, reason: fmt.Sprintf("The agent of the host takes it over: %v.", d.Responder), packet: d.Packet}
	case d.To >= pipeline.PortProvider:
		if next := r.behindProvider(h, d); next != "" {
			return end{next: next}
		}
		name, _ := h.ord.Find(pipeline.OrdinalProvider, uint32(d.To-pipeline.PortProvider))
		return end{verdict: Outside, reason: "It leaves the cloud by the physical network " + name + ".", packet: d.Packet}
	case d.To == pipeline.PortService:
		return end{verdict: Service, reason: "It is given to the metadata service of the host.", packet: d.Packet}
	case d.To >= pipeline.PortTunnel:
		if next := r.behindTunnel(d.Host); next != "" {
			return end{next: next}
		}
		return end{verdict: Dropped, reason: fmt.Sprintf("It is sent to %v, where no host is.", d.Host)}
	case d.To == in.In:
		return end{verdict: Answered, reason: "The switch of the sender's host answers it.", packet: d.Packet}
	}
	id, _ := h.ord.Find(pipeline.OrdinalPort, uint32(d.To))
	p, ok := store.Ports.Get(r.snap, id)
	if !ok {
		return end{verdict: Dropped, reason: "The port that it was for has just gone."}
	}
	reason := "It reaches port " + id + "." + r.moving(p)
	if !r.sc.owns(p.ProjectID) {
		reason = "It reaches a port of another project."
	}
	return end{verdict: Delivered, reason: reason, port: p, packet: d.Packet}
}

// moving tells of the host that stands by for a port, "" where none does.
func (r *run) moving(p *model.Port) string {
	switch h, ok := store.Hosts.Get(r.snap, p.NextHost); {
	case p.NextHost == "":
		return ""
	case ok && r.sc.Admin:
		return " Its server is on its way to host " + h.Name + ", which stands by for the port."
	}
	return " Its server is on its way to another host, which stands by for the port."
}

// behindTunnel gives the host that a tunnel leads to.
func (r *run) behindTunnel(a netip.Addr) model.ID {
	for h := range store.Hosts.All(r.snap) {
		if h.TunnelIP == a {
			return h.ID
		}
	}
	return ""
}

// behindProvider gives the other host that takes a frame from a physical network: the one
// that has a port with the frame's destination. Routers and addresses outside are outside.
func (r *run) behindProvider(h *hostState, d sim.Departure) model.ID {
	for p := range store.Ports.List(r.snap, "mac", d.Packet.EthDst.String()) {
		if p.Host != "" && p.Host != h.host.ID {
			return p.Host
		}
		if p.DeviceOwner == model.OwnerFloatingIP {
			if host := r.servedAt(p); host != "" && host != h.host.ID {
				return host
			}
		}
	}
	return ""
}

// servedAt gives the host of the port behind a floating address's own port.
func (r *run) servedAt(p *model.Port) model.ID {
	f, ok := store.FloatingIPs.Get(r.snap, p.DeviceID)
	if !ok {
		return ""
	}
	fixed, _ := store.Ports.Get(r.snap, f.PortID)
	if fixed == nil {
		return ""
	}
	return fixed.Host
}

// host gives a host's switch, compiled from what the host would be told now.
func (r *run) host(id model.ID) (*hostState, error) {
	if h := r.hosts[id]; h != nil {
		return h, nil
	}
	row, ok := store.Hosts.Get(r.snap, id)
	if !ok {
		return nil, fault.New(fault.Conflict, "A host of the packet's way has just been removed.")
	}
	v := r.t.Views.Open(id)
	defer v.Close()
	b, err := v.Next(r.ctx)
	if err != nil {
		return nil, fmt.Errorf("rows of host %s: %w", id, err)
	}
	ord := datapath.NewMemoryOrdinals()
	prog := pipeline.NewProgram(r.t.Env, ord)
	// The error names rows that cannot be compiled. They have no entries on the host either, so the trace is right without them.
	d, _ := prog.Apply(b.Upserts, nil)
	h := &hostState{host: row, prog: prog, ord: ord, sw: sim.New()}
	h.sw.Load(d)
	r.hosts[id] = h
	r.names[id] = row.Name
	if !r.sc.Admin {
		r.names[id] = fmt.Sprintf("host %d", len(r.hosts))
	}
	return h, nil
}
