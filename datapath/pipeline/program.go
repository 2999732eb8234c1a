package pipeline

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"yakumo/model"
)

// Program keeps a changing set of rows and the entries that they compile to. A change of
// rows gives a Delta: the work is in proportion to the change and to the rows that refer
// to what changed. It is not safe for use by several goroutines.
//
// Whatever the order in which the rows came, equal rows and ordinals give equal entries.
type Program struct {
	env   Env
	ord   Ordinals
	rows  map[model.RowID]*compiledRow
	slots map[Key]*slot
	next  uint32 // row ordinals, see Installed.Row
	free  []uint32

	mirrorsOf    map[model.ID]map[model.RowID]struct{} // port → mirrors with it as source or sink
	subports     map[model.ID]map[model.RowID]struct{} // by their parent
	networkPorts map[model.ID]map[model.RowID]struct{}
	routersIn    map[model.ID]map[model.RowID]struct{} // network → routers with an interface there
	groupPorts   map[model.ID]map[model.RowID]struct{}
	groupMembers map[model.ID]map[model.RowID]struct{}
	routerFloats map[model.ID]map[model.RowID]struct{}
	heldBy       map[string]map[model.RowID]struct{} // heldKey → ports that hold it
	outside      map[model.RowID]struct{}            // rows with an address outside
	referring    map[model.RowID][]*model.HostRule   // remote group or address group → rules, by id

	applies  uint64  // calls of Apply
	replaces uint64  // calls of replace
	scratch  []Entry // where rows are compiled
	spare    []slot  // to be used next
	touched  []*slot // by the Apply under way, in order

	inUse     map[OrdinalKey]int
	released  map[OrdinalKey]struct{}
	conflicts map[Key]struct{}
	errs      map[model.RowID]error
}

type compiledRow struct {
	id      model.RowID
	row     model.HostRow
	ordinal uint32
	slots   []*slot // where its entries are
	owns    []OrdinalKey
}

type owner struct {
	row *compiledRow
	e   *Entry
	gen uint64 // of the replace that put it here
}

// slot is one key of the switch and the rows that want an entry there, by row id. Most have one owner and never
// change, so there is room for that in the slot itself.
type slot struct {
	key     Key
	owners  []owner
	now     *Installed // what the last Delta said; nil: nothing
	touched uint64     // the last Apply that changed its owners

	sole  [1]owner
	first Installed // what now is at first; written once
}

// Installed is an entry as it stands in a switch.
type Installed struct {
	Key   Key
	Entry *Entry
	// Row is the small number of the row that the entry belongs to, 0 where it is shared by
	// rows or comes from Base. It holds for the life of the Program.
	Row uint32
}

// Delta is what a change of rows changes in the switch.
type Delta struct {
	Put    []*Installed // add, or replace what has the same key
	Delete []*Installed
}

// Empty tells whether nothing changes.
func (d *Delta) Empty() bool { return len(d.Put)+len(d.Delete) == 0 }

// NewProgram makes a Program without rows. Its first Delta has the entries of Base.
func NewProgram(env Env, ord Ordinals) *Program {
	return &Program{
		env: env, ord: ord,
		rows: map[model.RowID]*compiledRow{}, slots: map[Key]*slot{},
		mirrorsOf: map[model.ID]map[model.RowID]struct{}{}, subports: map[model.ID]map[model.RowID]struct{}{}, routersIn: map[model.ID]map[model.RowID]struct{}{},
		networkPorts: map[model.ID]map[model.RowID]struct{}{}, groupPorts: map[model.ID]map[model.RowID]struct{}{},
		groupMembers: map[model.ID]map[model.RowID]struct{}{}, routerFloats: map[model.ID]map[model.RowID]struct{}{}, heldBy: map[string]map[model.RowID]struct{}{}, outside: map[model.RowID]struct{}{}, referring: map[model.RowID][]*model.HostRule{},
		inUse: map[OrdinalKey]int{}, released: map[OrdinalKey]struct{}{}, conflicts: map[Key]struct{}{}, errs: map[model.RowID]error{},
	}
}

// baseRow owns the entries of Base.
var baseRow = model.RowID{Kind: "base"}

// Uses tells whether rows of a kind mean anything to the pipeline.
func Uses(k model.RowKind) bool {
	switch k {
	case model.RowPort, model.RowPeer, model.RowNetwork, model.RowGroup, model.RowMember, model.RowRouter, model.RowFloating,
		model.RowAddresses, model.RowMirror, model.RowNeighbor, model.RowListener:
		return true
	}
	return false
}

// Apply changes the set of rows. Where a row is in both lists, it stays. The error joins
// those of rows that could not be compiled; they are held without entries, and all the
// others are in the Delta.
func (p *Program) Apply(upserts []model.HostRow, removes []model.RowID) (Delta, error) {
	dirty := make(map[model.RowID]struct{}, len(upserts)+len(removes))
	if many := 8 * len(upserts); len(p.slots) == 0 && many > 1024 { // all rows of a host at its start
		p.slots = make(map[Key]*slot, many)
	}
	p.applies++
	p.touched = p.touched[:0]
	if p.next == 0 {
		p.next = 1
		base := Base(&p.env)
		p.rows[baseRow] = &compiledRow{id: baseRow}
		p.replace(baseRow, base, nil)
	}
	for _, id := range removes {
		if c := p.rows[id]; c != nil && c.row != nil {
			p.unlink(c.row, dirty)
			c.row = nil
			dirty[id] = struct{}{}
		}
	}
	for _, row := range upserts {
		id := row.RowID()
		if !Uses(id.Kind) {
			continue
		}
		c := p.rows[id]
		if c == nil {
			c = &compiledRow{id: id, ordinal: p.rowOrdinal()}
			p.rows[id] = c
		} else if c.row != nil {
			if c.row == row && p.errs[id] == nil {
				continue
			}
			p.unlink(c.row, dirty)
		}
		c.row = row
		p.link(row, dirty)
		dirty[id] = struct{}{}
	}
	ids := make([]model.RowID, 0, len(dirty))
	for id := range dirty {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, compareRows)
	var errs []error
	for _, id := range ids {
		c := p.rows[id]
		if c == nil {
			continue
		}
		delete(p.errs, id)
		if c.row == nil {
			p.replace(id, nil, nil)
			p.free = append(p.free, c.ordinal)
			delete(p.rows, id)
			continue
		}
		out, err := compile(&p.env, c.row, (*lookup)(p), p.scratch[:0])
		p.scratch = out.Entries
		out.Entries = slices.Clone(out.Entries)
		if err != nil {
			p.errs[id] = err
			errs = append(errs, err)
		}
		p.replace(id, out.Entries, out.Owns)
	}
	var d Delta
	for _, s := range p.touched {
		p.settle(s, &d)
	}
	clear(p.touched)
	return d, errors.Join(errs...)
}

// rowOrdinal gives a number that no row has.
func (p *Program) rowOrdinal() uint32 {
	if n := len(p.free); n > 0 {
		o := p.free[n-1]
		p.free = p.free[:n-1]
		return o
	}
	o := p.next
	p.next++
	return o
}

func compareRows(a, b model.RowID) int {
	if c := cmp.Compare(a.Kind, b.Kind); c != 0 {
		return c
	}
	return cmp.Compare(a.Key, b.Key)
}

// touch notes that the owners of a slot change.
func (p *Program) touch(s *slot) {
	if s.touched != p.applies {
		s.touched = p.applies
		p.touched = append(p.touched, s)
	}
}

// at finds a row among the owners.
func (s *slot) at(id model.RowID) (int, bool) {
	if len(s.owners) == 1 && s.owners[0].row.id == id {
		return 0, true
	}
	return slices.BinarySearchFunc(s.owners, id, func(o owner, id model.RowID) int { return compareRows(o.row.id, id) })
}

// newSlot makes the slot of a key. They are made in batches, because a row's come and go together.
func (p *Program) newSlot(k Key) *slot {
	if len(p.spare) == 0 {
		p.spare = make([]slot, 16)
	}
	s := &p.spare[0]
	p.spare = p.spare[1:]
	s.key, s.owners = k, s.sole[:0]
	p.slots[k] = s
	return s
}

// replace exchanges the entries of a row.
func (p *Program) replace(id model.RowID, entries []Entry, owns []OrdinalKey) {
	c := p.rows[id]
	for _, k := range owns {
		p.inUse[k]++
		delete(p.released, k)
	}
	for _, k := range c.owns {
		if p.inUse[k]--; p.inUse[k] == 0 {
			delete(p.inUse, k)
			p.released[k] = struct{}{}
		}
	}
	c.owns = owns
	p.replaces++
	fresh := make([]*slot, 0, len(entries))
	var buf [160]byte
	for i := range entries {
		e := &entries[i]
		k := e.appendKey(buf[:0])
		s := p.slots[Key(k)]
		if s == nil {
			s = p.newSlot(Key(k))
		}
		at, found := s.at(id)
		switch {
		case !found:
			s.owners = slices.Insert(s.owners, at, owner{c, e, p.replaces})
		case s.owners[at].gen != p.replaces:
			s.owners[at].e, s.owners[at].gen = e, p.replaces
		default: // one row, twice the same key: two equal prefixes
			if e.merge() != mergeNone {
				merged := *s.owners[at].e
				merged.Actions = unite(merged.merge(), merged.Actions, e.Actions)
				s.owners[at].e = &merged
			}
			continue
		}
		p.touch(s)
		fresh = append(fresh, s)
	}
	for _, s := range c.slots {
		if at, found := s.at(id); found && s.owners[at].gen != p.replaces {
			s.owners = slices.Delete(s.owners, at, at+1)
			p.touch(s)
		}
	}
	c.slots = fresh
}

// settle compares a slot with what the switch was told, and adds the difference to d.
func (p *Program) settle(s *slot, d *Delta) {
	k := s.key
	delete(p.conflicts, k)
	if len(s.owners) == 0 {
		if s.now != nil {
			d.Delete = append(d.Delete, s.now)
		}
		delete(p.slots, k)
		return
	}
	first := s.owners[0]
	entry, row := first.e, uint32(0)
	how := first.e.merge()
	switch {
	case how != mergeNone:
		if len(s.owners) > 1 {
			e := *first.e
			for _, o := range s.owners[1:] {
				e.Actions = unite(how, e.Actions, o.e.Actions)
			}
			entry = &e
		}
	case len(s.owners) == 1:
		row = first.row.ordinal
	default:
		for _, o := range s.owners[1:] {
			if !o.e.acts(first.e) {
				p.conflicts[k] = struct{}{}
			}
		}
	}
	if s.now != nil && s.now.Row == row && s.now.Entry.acts(entry) {
		return
	}
	in := &s.first
	if s.now != nil { // what was told stays as it was
		in = new(Installed)
	}
	*in = Installed{Key: k, Entry: entry, Row: row}
	s.now = in
	d.Put = append(d.Put, in)
}

func compareConj(a, b Action) int {
	x, y := a.(Conj), b.(Conj)
	return cmp.Or(cmp.Compare(x.ID, y.ID), cmp.Compare(x.Clause, y.Clause), cmp.Compare(x.Of, y.Of))
}

func sortConj(as []Action) { slices.SortFunc(as, compareConj) }

func compareLeg(a, b Action) int {
	x, leg := a.(Leg)
	y, also := b.(Leg)
	if !leg || !also {
		return bytes.Compare(a.appendKey(nil), b.appendKey(nil))
	}
	return cmp.Or(cmp.Compare(x.To, y.To), cmp.Compare(x.Stage, y.Stage))
}

// unite merges the actions of two entries with one key, in a fixed order.
func unite(how merge, a, b []Action) []Action {
	all := append(slices.Clone(a), b...)
	if how == mergeConj {
		slices.SortFunc(all, compareConj)
	} else {
		slices.SortFunc(all, compareLeg)
	}
	return slices.Compact(all)
}

func linkTo(index map[model.ID]map[model.RowID]struct{}, key model.ID, id model.RowID) {
	set := index[key]
	if set == nil {
		set = map[model.RowID]struct{}{}
		index[key] = set
	}
	set[id] = struct{}{}
}

func unlinkFrom(index map[model.ID]map[model.RowID]struct{}, key model.ID, id model.RowID) {
	delete(index[key], id)
	if len(index[key]) == 0 {
		delete(index, key)
	}
}

func markAll(dirty, set map[model.RowID]struct{}) {
	for id := range set {
		dirty[id] = struct{}{}
	}
}

// markSet marks the rows that hold the addresses of a security group's members or of an address group.
func (p *Program) markSet(set model.RowID, dirty map[model.RowID]struct{}) {
	if set.Kind == model.RowGroup {
		markAll(dirty, p.groupMembers[set.Key])
	} else if p.rows[set] != nil {
		dirty[set] = struct{}{}
	}
}

// link enters a row into the indexes and marks the rows that refer to it.
func (p *Program) link(row model.HostRow, dirty map[model.RowID]struct{}) {
	switch r := row.(type) {
	case *model.HostPeer:
		p.linkHeld(r.NetworkID, r.Held, r.RowID())
	case *model.HostPort:
		p.linkHeld(r.NetworkID, r.Held, r.RowID())
		linkTo(p.networkPorts, r.NetworkID, r.RowID())
		markAll(dirty, p.mirrorsOf[r.ID])
		if r.Parent != "" {
			linkTo(p.subports, r.Parent, r.RowID())
			dirty[model.RowID{Kind: model.RowPort, Key: r.Parent}] = struct{}{}
		}
		for _, g := range r.Groups {
			linkTo(p.groupPorts, g, r.RowID())
		}
	case *model.HostMirror:
		linkTo(p.mirrorsOf, r.Source, r.RowID())
		linkTo(p.mirrorsOf, r.Sink, r.RowID())
	case *model.HostNetwork:
		markAll(dirty, p.networkPorts[r.ID])
	case *model.HostGroup:
		markAll(dirty, p.groupPorts[r.ID])
		for i := range r.Rules {
			rule := &r.Rules[i]
			set := referred(rule)
			if set.Key == "" {
				continue
			}
			rules := slices.Clone(p.referring[set])
			at, _ := slices.BinarySearchFunc(rules, rule.ID, func(r *model.HostRule, id model.ID) int { return cmp.Compare(r.ID, id) })
			p.referring[set] = slices.Insert(rules, at, rule)
			p.markSet(set, dirty)
		}
	case *model.HostRouter:
		for i := range r.Interfaces {
			linkTo(p.routersIn, r.Interfaces[i].NetworkID, r.RowID())
		}
		if r.Gateway != nil {
			p.outside[r.RowID()] = struct{}{}
		}
		markAll(dirty, p.routerFloats[r.ID])
	case *model.HostFloating:
		p.outside[r.RowID()] = struct{}{}
		linkTo(p.routerFloats, r.RouterID, r.RowID())
	case *model.HostMember:
		linkTo(p.groupMembers, r.GroupID, r.RowID())
	}
}

// unlink undoes link.
func (p *Program) unlink(row model.HostRow, dirty map[model.RowID]struct{}) {
	switch r := row.(type) {
	case *model.HostPeer:
		p.unlinkHeld(r.NetworkID, r.Held, r.RowID())
	case *model.HostPort:
		p.unlinkHeld(r.NetworkID, r.Held, r.RowID())
		unlinkFrom(p.networkPorts, r.NetworkID, r.RowID())
		markAll(dirty, p.mirrorsOf[r.ID])
		if r.Parent != "" {
			unlinkFrom(p.subports, r.Parent, r.RowID())
			dirty[model.RowID{Kind: model.RowPort, Key: r.Parent}] = struct{}{}
		}
		for _, g := range r.Groups {
			unlinkFrom(p.groupPorts, g, r.RowID())
		}
	case *model.HostMirror:
		unlinkFrom(p.mirrorsOf, r.Source, r.RowID())
		unlinkFrom(p.mirrorsOf, r.Sink, r.RowID())
	case *model.HostNetwork:
		markAll(dirty, p.networkPorts[r.ID])
	case *model.HostGroup:
		markAll(dirty, p.groupPorts[r.ID])
		for i := range r.Rules {
			rule := &r.Rules[i]
			set := referred(rule)
			if set.Key == "" {
				continue
			}
			rest := slices.DeleteFunc(slices.Clone(p.referring[set]), func(o *model.HostRule) bool { return o == rule })
			if len(rest) == 0 {
				delete(p.referring, set)
			} else {
				p.referring[set] = rest
			}
			p.markSet(set, dirty)
		}
	case *model.HostRouter:
		for i := range r.Interfaces {
			unlinkFrom(p.routersIn, r.Interfaces[i].NetworkID, r.RowID())
		}
		delete(p.outside, r.RowID())
		markAll(dirty, p.routerFloats[r.ID])
	case *model.HostFloating:
		delete(p.outside, r.RowID())
		unlinkFrom(p.routerFloats, r.RouterID, r.RowID())
	case *model.HostMember:
		unlinkFrom(p.groupMembers, r.GroupID, r.RowID())
	}
}

// All gives every entry that a switch should hold, by stage, falling priority and key.
func (p *Program) All() []*Installed {
	out := make([]*Installed, 0, len(p.slots))
	for _, s := range p.slots {
		if s.now != nil {
			out = append(out, s.now)
		}
	}
	slices.SortFunc(out, CompareInstalled)
	return out
}

// CompareInstalled orders by stage, falling priority and key.
func CompareInstalled(a, b *Installed) int {
	return cmp.Or(cmp.Compare(a.Entry.Stage, b.Entry.Stage), cmp.Compare(b.Entry.Priority, a.Entry.Priority), cmp.Compare(a.Key, b.Key))
}

// Len gives the number of entries.
func (p *Program) Len() int { return len(p.slots) }

// Rows gives the number of rows held.
func (p *Program) Rows() int { return max(len(p.rows)-1, 0) }

// Row gives a row that is held.
func (p *Program) Row(id model.RowID) model.HostRow {
	if c := p.rows[id]; c != nil {
		return c.row
	}
	return nil
}

// Floating gives the floating address of a router, served here, that stands for an address inside; nil: none.
func (p *Program) Floating(router model.ID, fixed netip.Addr) *model.HostFloating {
	for id := range p.routerFloats[router] {
		if f, ok := p.Row(id).(*model.HostFloating); ok && f.Fixed == fixed && !f.Standby {
			return f
		}
	}
	return nil
}

// RowIDs gives all rows held, in no particular order.
func (p *Program) RowIDs() []model.RowID {
	ids := make([]model.RowID, 0, len(p.rows))
	for id := range p.rows {
		if id != baseRow {
			ids = append(ids, id)
		}
	}
	return ids
}

// PortsIn gives the ports here of a network, in no particular order.
func (p *Program) PortsIn(network model.ID) []model.ID {
	var out []model.ID
	for id := range p.networkPorts[network] {
		out = append(out, id.Key)
	}
	return out
}

// RouterPorts gives the interfaces that routers have in a network, by port id.
func (p *Program) RouterPorts(network model.ID) []*model.HostRouterPort {
	var out []*model.HostRouterPort
	for id := range p.routersIn[network] {
		r, _ := p.Row(id).(*model.HostRouter)
		if r == nil || !r.AdminStateUp {
			continue
		}
		for i := range r.Interfaces {
			if r.Interfaces[i].NetworkID == network {
				out = append(out, &r.Interfaces[i])
			}
		}
	}
	slices.SortFunc(out, func(a, b *model.HostRouterPort) int { return cmp.Compare(a.PortID, b.PortID) })
	return out
}

// EntriesOf gives the keys of a row's entries and of the entries that it shares.
func (p *Program) EntriesOf(id model.RowID) []Key {
	c := p.rows[id]
	if c == nil {
		return nil
	}
	keys := make([]Key, len(c.slots))
	for i, s := range c.slots {
		keys[i] = s.key
	}
	return keys
}

// OwnersOf gives the rows that want the entry of a key.
func (p *Program) OwnersOf(k Key) []model.RowID {
	s := p.slots[k]
	if s == nil {
		return nil
	}
	ids := make([]model.RowID, len(s.owners))
	for i, o := range s.owners {
		ids[i] = o.row.id
	}
	return ids
}

// Complete tells whether everything that a port refers to is known and compiled: its row,
// its network and its groups, and whether the host has a bridge to its physical network. The error says what is missing.
func (p *Program) Complete(port model.ID) ([]model.RowID, error) {
	id := model.RowID{Kind: model.RowPort, Key: port}
	r, ok := p.Row(id).(*model.HostPort)
	if !ok {
		return nil, fmt.Errorf("port %s is not known", port)
	}
	ids := []model.RowID{id, {Kind: model.RowNetwork, Key: r.NetworkID}}
	if r.Parent != "" {
		ids = append(ids, model.RowID{Kind: model.RowPort, Key: r.Parent})
	}
	if r.PortSecurity {
		for _, g := range r.Groups {
			ids = append(ids, model.RowID{Kind: model.RowGroup, Key: g})
		}
	}
	for _, id := range ids {
		if p.Row(id) == nil {
			return nil, fmt.Errorf("port %s: %v is not known", port, id)
		}
		if err := p.errs[id]; err != nil {
			return nil, err
		}
	}
	if n := (*lookup)(p).Network(r.NetworkID); n.Provider() && !p.env.Maps(n.PhysicalNetwork) {
		return nil, fmt.Errorf("port %s: this host has no bridge to physical network %q", port, n.PhysicalNetwork)
	}
	return ids, nil
}

// DeviceOf gives the port whose device carries a port: the port itself, or the parent of a subport.
func (p *Program) DeviceOf(port model.ID) model.ID {
	if r, ok := p.Row(model.RowID{Kind: model.RowPort, Key: port}).(*model.HostPort); ok && r.Parent != "" {
		return r.Parent
	}
	return port
}

// CarriedBy gives the ports that the device of a port carries: the port itself, then its subports.
func (p *Program) CarriedBy(port model.ID) []model.ID {
	out := []model.ID{port}
	for id := range p.subports[port] {
		out = append(out, id.Key)
	}
	return out
}

// Err gives the error of a row that could not be compiled.
func (p *Program) Err(id model.RowID) error { return p.errs[id] }

// Conflicts gives the number of keys for which rows want different actions. The first row
// by id has its way there.
func (p *Program) Conflicts() int { return len(p.conflicts) }

// TakeReleased gives the ordinals that no row needs any more, once each. The caller frees
// them when the switch has forgotten them.
func (p *Program) TakeReleased() []OrdinalKey {
	out := make([]OrdinalKey, 0, len(p.released))
	for k := range p.released {
		out = append(out, k)
	}
	clear(p.released)
	slices.SortFunc(out, func(a, b OrdinalKey) int { return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Key, b.Key)) })
	return out
}

// InUse tells whether a row holds an ordinal.
func (p *Program) InUse(k OrdinalKey) bool { return p.inUse[k] > 0 }

// Env gives what the Program was made with.
func (p *Program) Env() *Env { return &p.env }

// lookup is the Program as Compile sees it.
type lookup Program

func (l *lookup) Network(id model.ID) *model.HostNetwork {
	n, _ := (*Program)(l).Row(model.RowID{Kind: model.RowNetwork, Key: id}).(*model.HostNetwork)
	return n
}

func (l *lookup) Router(id model.ID) *model.HostRouter {
	r, _ := (*Program)(l).Row(model.RowID{Kind: model.RowRouter, Key: id}).(*model.HostRouter)
	return r
}

func (l *lookup) Group(id model.ID) *model.HostGroup {
	g, _ := (*Program)(l).Row(model.RowID{Kind: model.RowGroup, Key: id}).(*model.HostGroup)
	return g
}

func (l *lookup) Referring(kind model.RowKind, id model.ID) []*model.HostRule {
	return l.referring[model.RowID{Kind: kind, Key: id}]
}

func (l *lookup) Port(id model.ID) *model.HostPort {
	p, _ := (*Program)(l).Row(model.RowID{Kind: model.RowPort, Key: id}).(*model.HostPort)
	return p
}

func (l *lookup) Trunk(id model.ID) bool { return len(l.subports[id]) > 0 }

func (l *lookup) Ordinal(kind OrdinalKind, key string) (uint32, error) {
	return l.ord.Get(kind, key, l.env.Limit(kind))
}
