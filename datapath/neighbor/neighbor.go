// Package neighbor finds out who is outside: the MACs of next hops in external networks, by ARP (RFC 826)
// and neighbour discovery (RFC 4861). It also says there which addresses this host has, when they come to
// it, so that the outside's tables move at once.
//
// It is pure: packets and the time go in; rows to learn and forget and frames to send come out. It owns what it
// has learnt, as HostNeighbor rows. What it reads comes from outside and from guests, and is bounded: so
// many addresses, so many packets that wait for each. It must not import a driver.
package neighbor

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"yakumo/datapath/pipeline"
	"yakumo/datapath/responder"
	"yakumo/model"
)

// What bounds and paces it.
const (
	MaxKnown   = 4096 // addresses that are known or asked for; beyond, new ones are not asked for
	MaxWaiting = 3    // packets that wait for an address (RFC 1122, 2.3.2.2, wants at least one)

	Retry    = time.Second      // between questions
	Attempts = 3                // questions without an answer, after which a neighbour is given up
	Silence  = 5 * time.Second  // how long one that was given up is not asked for again
	Refresh  = 45 * time.Second // after which a known neighbour is asked again
)

// pauses are those after each announcement of an address that came to this host; after the last there is none. The second is soon and looks
// different: a switch that goes by rules made of earlier frames (Open vSwitch's own learning bridge does) may count the
// traffic from where the address was after it has seen the first, and believe that. The others are there because a frame may be lost.
var pauses = [...]time.Duration{25 * time.Millisecond, Retry, Retry, 0}

// Claims is how often an address that came to this host is announced.
const Claims = len(pauses)

// Outcome is what is to be done: rows first, then frames.
type Outcome struct {
	Learn  []model.HostRow
	Forget []model.RowID
	Send   []responder.Reply
}

// Empty tells that nothing is to be done.
func (o *Outcome) Empty() bool { return len(o.Learn)+len(o.Forget)+len(o.Send) == 0 }

type key struct {
	vni  uint32
	addr netip.Addr
}

// entry is an address that is known or asked for.
type entry struct {
	key
	network model.ID
	mac     pipeline.MAC // zero: not known
	asked   int          // questions since the last answer
	due     time.Time    // when the next step is: a question, or to give up
	waiting []waiting
	lost    bool // given up; not asked for until due
}

type waiting struct {
	ask   responder.Ask
	reply responder.Reply
}

// claim is an address of ours that is being announced.
type claim struct {
	outer pipeline.Outer
	said  int
	due   time.Time
}

// Table is the state of one host. It is not safe for use by several goroutines.
type Table struct {
	entries map[key]*entry
	own     []pipeline.Outer
	claims  []claim
}

// New makes a table that knows nobody.
func New() *Table { return &Table{entries: map[key]*entry{}} }

// Own tells the addresses that this host has outside now. Those that are new are announced.
func (t *Table) Own(now time.Time, own []pipeline.Outer) Outcome {
	var out Outcome
	had := map[pipeline.Outer]bool{}
	for _, o := range t.own {
		had[o] = true
	}
	t.own = own
	networks := map[uint32]bool{}
	has := map[pipeline.Outer]bool{}
	for _, o := range own {
		has[o] = true
		networks[o.VNI] = true
		if !had[o] {
			t.claims = append(t.claims, claim{o, 0, now})
		}
		if e := t.entries[key{o.VNI, o.Address}]; e != nil { // it has come here
			t.drop(e, &out)
		}
	}
	t.claims = slices.DeleteFunc(t.claims, func(c claim) bool { return !has[c.outer] })
	for _, e := range t.sorted() {
		if !networks[e.vni] {
			t.drop(e, &out)
		}
	}
	t.step(now, &out)
	return out
}

func (t *Table) sorted() []*entry {
	list := make([]*entry, 0, len(t.entries))
	for _, e := range t.entries {
		list = append(list, e)
	}
	slices.SortFunc(list, func(a, b *entry) int { return cmp.Or(cmp.Compare(a.vni, b.vni), a.addr.Compare(b.addr)) })
	return list
}

// drop forgets an entry.
func (t *Table) drop(e *entry, out *Outcome) {
	delete(t.entries, e.key)
	if e.mac != (pipeline.MAC{}) {
		out.Forget = append(out.Forget, e.row().RowID())
	}
}

func (e *entry) row() *model.HostNeighbor {
	return &model.HostNeighbor{NetworkID: e.network, VNI: e.vni, Address: e.addr, MAC: e.mac.String()}
}

// Packet takes in what the switch has handed over: a packet whose next hop is not known
// (ResponderResolve), or something that a neighbour says (ResponderLearn).
func (t *Table) Packet(now time.Time, ask responder.Ask) Outcome {
	var out Outcome
	switch ask.Responder {
	case pipeline.ResponderResolve:
		t.resolve(now, ask, &out)
	case pipeline.ResponderLearn:
		t.hear(now, ask, &out)
	}
	return out
}

// Tick does what is due.
func (t *Table) Tick(now time.Time) Outcome {
	var out Outcome
	t.step(now, &out)
	return out
}

func (t *Table) resolve(now time.Time, ask responder.Ask, out *Outcome) {
	r := ask.Router
	if r == nil || r.Gateway == nil || r.Gateway.VNI != ask.Arg {
		return
	}
	_, dst, ok := responder.Addresses(ask.Frame)
	if !ok {
		return
	}
	way, ok := pipeline.WayTo(r, dst)
	if !ok || way.Port != nil {
		return
	}
	k := key{ask.Arg, way.NextHop}
	field := pipeline.NextHop
	if way.NextHop.Is6() {
		field = pipeline.NextHop6
	}
	w := waiting{ask, responder.Reply{Stage: pipeline.Resolve, Frame: ask.Frame, Fields: []pipeline.Set{
		pipeline.Put(pipeline.Net, uint64(ask.Arg)), pipeline.Put(pipeline.Router, uint64(ask.ToAgent.Port)), pipeline.SetAddr(field, way.NextHop)}}}
	e := t.entries[k]
	switch {
	case e == nil && len(t.entries) >= MaxKnown:
		return
	case e == nil:
		e = &entry{key: k, network: r.Gateway.NetworkID, due: now}
		t.entries[k] = e
	case e.lost:
		return
	case e.mac != (pipeline.MAC{}): // it was learnt while this one was on its way
		out.Send = append(out.Send, w.reply)
		return
	}
	if len(e.waiting) < MaxWaiting {
		e.waiting = append(e.waiting, w)
	}
	t.ask(now, e, out)
}

// ask puts the question for an entry where it is due.
func (t *Table) ask(now time.Time, e *entry, out *Outcome) {
	if now.Before(e.due) {
		return
	}
	src, ok := t.source(e.key)
	if !ok { // nothing of ours is in its network any more
		t.drop(e, out)
		return
	}
	e.asked++
	e.due = now.Add(Retry)
	out.Send = append(out.Send, flood(e.vni, question(src, e.addr, e.mac)))
}

// source gives the address of ours that asks, of the family of the address asked for.
func (t *Table) source(k key) (pipeline.Outer, bool) {
	for _, o := range t.own {
		if o.VNI == k.vni && o.Address.Is4() == k.addr.Is4() {
			return o, true
		}
	}
	return pipeline.Outer{}, false
}

func (t *Table) hear(now time.Time, ask responder.Ask, out *Outcome) {
	addr, mac, ok := responder.Said(ask.Frame)
	if !ok {
		return
	}
	e := t.entries[key{ask.Arg, addr}]
	if e == nil { // nobody has asked
		return
	}
	changed := e.mac != mac
	e.mac, e.asked, e.lost, e.due = mac, 0, false, now.Add(Refresh)
	if changed {
		out.Learn = append(out.Learn, e.row())
	}
	for _, w := range e.waiting {
		out.Send = append(out.Send, w.reply)
	}
	e.waiting = nil
}

func (t *Table) step(now time.Time, out *Outcome) {
	for _, e := range t.sorted() {
		switch {
		case now.Before(e.due):
		case e.lost:
			t.drop(e, out)
		case e.asked < Attempts:
			t.ask(now, e, out)
		default:
			t.giveUp(now, e, out)
		}
	}
	keep := t.claims[:0]
	for _, c := range t.claims {
		if !now.Before(c.due) {
			out.Send = append(out.Send, flood(c.outer.VNI, announcement(c.outer, c.said%2 == 0)))
			c.due = now.Add(pauses[c.said])
			c.said++
		}
		if c.said < Claims {
			keep = append(keep, c)
		}
	}
	t.claims = keep
}

// giveUp tells those who wait for an entry that nobody answers.
func (t *Table) giveUp(now time.Time, e *entry, out *Outcome) {
	for _, w := range e.waiting {
		if replies, err := responder.Unreached(w.ask); err == nil {
			out.Send = append(out.Send, replies...)
		}
	}
	if e.mac != (pipeline.MAC{}) {
		out.Forget = append(out.Forget, e.row().RowID())
	}
	e.waiting, e.mac, e.asked, e.lost, e.due = nil, pipeline.MAC{}, 0, true, now.Add(Silence)
}

// Concerns tells whether a change of rows may change which addresses this host has outside.
func Concerns(upserts []model.HostRow, removes []model.RowID) bool {
	says := func(k model.RowKind) bool { return k == model.RowRouter || k == model.RowFloating }
	return slices.ContainsFunc(upserts, func(r model.HostRow) bool { return says(r.RowID().Kind) }) ||
		slices.ContainsFunc(removes, func(id model.RowID) bool { return says(id.Kind) })
}

// Idle tells that there is nothing to do until a packet comes.
func (t *Table) Idle() bool { return len(t.entries)+len(t.claims) == 0 }

// Wait gives for how long Tick has nothing to do that could not wait: until the next announcement, at most a quarter of
// Retry, for questions need not be on time.
func (t *Table) Wait(now time.Time) time.Duration {
	wait := Retry / 4
	for i := range t.claims {
		wait = min(wait, t.claims[i].due.Sub(now))
	}
	return max(wait, 0)
}

// Len gives the number of addresses that are known or asked for.
func (t *Table) Len() int { return len(t.entries) }
