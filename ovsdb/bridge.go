package ovsdb

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// A BridgeConfig is what a bridge shall be.
type BridgeConfig struct {
	Name         string
	DatapathType string   // "" or "system", or "netdev"
	FailMode     string   // "standalone" or "secure"; "": not set, which is standalone
	Protocols    []string // such as "OpenFlow15"; none: the switch's default
	// Controllers, where not nil, are all controllers that the bridge shall have, by their
	// Target; other fields with a value are set, those without are left alone.
	Controllers []Controller
	// ExternalIDs and OtherConfig are set; other keys are left alone.
	ExternalIDs map[string]string
	OtherConfig map[string]string
}

// A PortConfig is what a port with one interface shall be.
type PortConfig struct {
	Name          string            // of port and interface; a network device's where Type is "" or "internal"
	Type          string            // "", "internal", "tap", "patch", "vxlan"…
	Options       map[string]string // all options that the interface shall have
	OFPortRequest int64             // 1…65279; 0: the switch chooses
	MTURequest    int64             // bytes; 0: the switch chooses
	Tag           *int64            // VLAN; nil: none
	Trunks        []int64
	// ExternalIDs of the interface are set; other keys are left alone.
	ExternalIDs map[string]string
}

// A PortStatus is a port as the switch has it.
type PortStatus struct {
	Port      Port
	Interface Interface
	// OFPort is the OpenFlow port number; 0: none yet.
	OFPort int64
}

// A PortError is why the switch could not make a port.
type PortError struct {
	Port string
	Text string // the switch's words
}

// Error gives port and reason.
func (e *PortError) Error() string { return fmt.Sprintf("port %s: %s", e.Port, e.Text) }

// A BridgeError is why there is no bridge in the switch although it is configured.
type BridgeError struct {
	Bridge string
	Text   string
}

// Error gives bridge and reason.
func (e *BridgeError) Error() string { return fmt.Sprintf("bridge %s: %s", e.Bridge, e.Text) }

// one finds the row of T's table whose name is as given.
func one[T Model](snap *Snapshot, name string) (T, bool, error) {
	var none T
	rows, err := Find[T](snap, "name", name)
	if err != nil || len(rows) == 0 {
		return none, false, err
	}
	return rows[0], true, nil
}

// Bridge finds a bridge by name.
func (s *Switch) Bridge(name string) (Bridge, bool, error) {
	return one[Bridge](s.client.Snapshot(), name)
}

// EnsureBridge makes a bridge, with the internal port of its name, or makes the one there is
// as cfg says, and gives it with the datapath id that the switch gave it. Where all is as
// it should be, nothing is written. A bridge that the switch cannot make, such as one with a
// datapath type that it lacks, stays configured and is a *BridgeError.
func (s *Switch) EnsureBridge(ctx context.Context, cfg BridgeConfig) (Bridge, error) {
	ctx, cancel := deadline(ctx)
	defer cancel()
	changed, err := s.converge(ctx, func(snap *Snapshot, t *Txn) error { return planBridge(snap, t, cfg) })
	var b Bridge
	if err == nil {
		b, err = s.bridgeMade(cfg.Name)
		if err != nil && !changed {
			// An old failure; or the database has just restarted, and the switch has yet to
			// tell what it made: make it look again.
			if _, err = s.Apply(ctx, NewTxn()); err == nil {
				b, err = s.bridgeMade(cfg.Name)
			}
		}
	}
	if err != nil {
		return Bridge{}, fmt.Errorf("ensure bridge %s: %w", cfg.Name, err)
	}
	return b, nil
}

// bridgeMade gives a bridge that the switch has made: it writes the datapath id no later than
// the configuration's number.
func (s *Switch) bridgeMade(name string) (Bridge, error) {
	b, ok, err := s.Bridge(name)
	switch {
	case err != nil:
		return b, err
	case !ok:
		return b, &BridgeError{Bridge: name, Text: "it was removed by another"}
	case b.DatapathID == nil:
		return b, &BridgeError{Bridge: name, Text: fmt.Sprintf("the switch could not make it with datapath type %q; its log says why", b.DatapathType)}
	}
	return b, nil
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func optionalInt(n int64) *int64 {
	if n == 0 {
		return nil
	}
	return &n
}

func planBridge(snap *Snapshot, t *Txn, cfg BridgeConfig) error {
	if cfg.Name == "" {
		return errors.New("a bridge needs a name")
	}
	r, err := root(snap)
	if err != nil {
		return err
	}
	b, exists, err := one[Bridge](snap, cfg.Name)
	if err != nil {
		return err
	}
	if !exists {
		local := t.Insert(Interface{Name: cfg.Name, Type: "internal"})
		port := t.Insert(Port{Name: cfg.Name, Interfaces: []UUID{local}})
		row := Bridge{Name: cfg.Name, DatapathType: cfg.DatapathType, FailMode: optional(cfg.FailMode), Protocols: cfg.Protocols,
			Ports: []UUID{port}, ExternalIDs: cfg.ExternalIDs, OtherConfig: cfg.OtherConfig}
		for _, c := range cfg.Controllers {
			row.Controller = append(row.Controller, t.Insert(c))
		}
		id := t.Insert(row)
		t.Mutate("Open_vSwitch", []Condition{ByUUID(r.UUID)}, Mutation{"bridges", "insert", id})
		return nil
	}
	set := Columns{}
	if b.DatapathType != cfg.DatapathType {
		set["datapath_type"] = cfg.DatapathType
	}
	if !equalOptional(b.FailMode, optional(cfg.FailMode)) {
		set["fail_mode"] = optional(cfg.FailMode)
	}
	if !equalSet(b.Protocols, cfg.Protocols) {
		set["protocols"] = cfg.Protocols
	}
	where := ByUUID(b.UUID)
	if len(set) > 0 {
		t.UpdateRows("Bridge", set, where)
	}
	planMap(t, "Bridge", where, "external_ids", b.ExternalIDs, cfg.ExternalIDs)
	planMap(t, "Bridge", where, "other_config", b.OtherConfig, cfg.OtherConfig)
	if cfg.Controllers == nil {
		return nil
	}
	return planControllers(snap, t, b, cfg.Controllers)
}

// planControllers makes the bridge's controllers those that are wanted, and leaves rows
// that are right as they are, so that their connections stay.
func planControllers(snap *Snapshot, t *Txn, b Bridge, wanted []Controller) error {
	have := map[string]Controller{}
	var drop []UUID
	for _, id := range b.Controller {
		c, ok, err := Get[Controller](snap, id)
		if err != nil {
			return err
		}
		if _, twice := have[c.Target]; !ok || twice {
			drop = append(drop, id)
			continue
		}
		have[c.Target] = c
	}
	var add []UUID
	for _, w := range wanted {
		c, ok := have[w.Target]
		if !ok {
			add = append(add, t.Insert(w))
			continue
		}
		delete(have, w.Target)
		want, table, _, err := columnsOf(w, nil)
		if err != nil {
			return err
		}
		now, _, _, err := columnsOf(c, nil)
		if err != nil {
			return err
		}
		for column, x := range want {
			a, err := ValueOf(x)
			if err != nil {
				return err
			}
			if y, ok := now[column]; ok {
				if b, err := ValueOf(y); err != nil {
					return err
				} else if a.Equal(b) {
					delete(want, column)
				}
			}
		}
		if len(want) > 0 {
			t.UpdateRows(table, want, ByUUID(c.UUID))
		}
	}
	for _, target := range slices.Sorted(maps.Keys(have)) {
		drop = append(drop, have[target].UUID)
	}
	var muts []Mutation
	if len(drop) > 0 {
		muts = append(muts, Mutation{"controller", "delete", drop})
	}
	if len(add) > 0 {
		muts = append(muts, Mutation{"controller", "insert", add})
	}
	if len(muts) > 0 {
		t.Mutate("Bridge", []Condition{ByUUID(b.UUID)}, muts...)
	}
	return nil
}

// planMap sets keys of a map column. It touches no other key, also of those that another
// client adds at the same moment.
func planMap(t *Txn, table string, where Condition, column string, have, want map[string]string) {
	var stale []string
	add := map[string]string{}
	for k, v := range want {
		if old, ok := have[k]; !ok || old != v {
			add[k] = v
			if ok {
				stale = append(stale, k)
			}
		}
	}
	if len(add) == 0 {
		return
	}
	var muts []Mutation
	if len(stale) > 0 { // insert does not replace (RFC 7047, 5.1, <mutation>)
		muts = append(muts, Mutation{column, "delete", stale})
	}
	t.Mutate(table, []Condition{where}, append(muts, Mutation{column, "insert", add})...)
}

func equalOptional[T comparable](a, b *T) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}

// equalSet compares a set of the database, in order and without duplicates, with a list.
func equalSet[T ~string | ~int64](have, want []T) bool {
	want = slices.Clone(want)
	slices.Sort(want)
	return slices.Equal(slices.Sorted(slices.Values(have)), slices.Compact(want))
}

// RemoveBridge removes a bridge with all its ports; one that is absent is success.
func (s *Switch) RemoveBridge(ctx context.Context, name string) error {
	ctx, cancel := deadline(ctx)
	defer cancel()
	_, err := s.converge(ctx, func(snap *Snapshot, t *Txn) error {
		b, ok, err := one[Bridge](snap, name)
		if err != nil || !ok {
			return err
		}
		r, err := root(snap)
		if err != nil {
			return err
		}
		t.Mutate("Open_vSwitch", []Condition{ByUUID(r.UUID)}, Mutation{"bridges", "delete", b.UUID})
		return nil
	})
	if err != nil {
		return fmt.Errorf("remove bridge %s: %w", name, err)
	}
	return nil
}

// EnsurePort is EnsurePorts for one port.
func (s *Switch) EnsurePort(ctx context.Context, bridge string, cfg PortConfig) (PortStatus, error) {
	all, err := s.EnsurePorts(ctx, bridge, cfg)
	if err != nil {
		return PortStatus{}, err
	}
	return all[0], nil
}

// EnsurePorts makes ports of a bridge, or makes those that are there as cfgs say, all in one
// transaction, waits until each has an OpenFlow port number, and gives them in the order of cfgs.
// A port that the switch cannot make stays configured and is a *PortError (several are
// joined); the switch tries again when the device appears, and so does a second call. A name that
// a port of another bridge has is an error.
func (s *Switch) EnsurePorts(ctx context.Context, bridge string, cfgs ...PortConfig) ([]PortStatus, error) {
	ctx, cancel := deadline(ctx)
	defer cancel()
	changed, err := s.converge(ctx, func(snap *Snapshot, t *Txn) error { return planPorts(snap, t, bridge, cfgs) })
	if err == nil {
		var out []PortStatus
		out, err = s.portsMade(ctx, cfgs)
		if err != nil && !changed && ctx.Err() == nil {
			// The failure is an old one: make the switch look again.
			if _, err = s.Apply(ctx, NewTxn()); err == nil {
				out, err = s.portsMade(ctx, cfgs)
			}
		}
		if err == nil {
			return out, nil
		}
	}
	return nil, fmt.Errorf("ensure ports of bridge %s: %w", bridge, err)
}

// portsMade waits until the switch has made or failed to make each port.
func (s *Switch) portsMade(ctx context.Context, cfgs []PortConfig) ([]PortStatus, error) {
	out := make([]PortStatus, len(cfgs))
	var waiting string
	err := s.client.Wait(ctx, func(snap *Snapshot) (bool, error) {
		var failed []error
		for i, cfg := range cfgs {
			p, ok, err := one[Port](snap, cfg.Name)
			if err != nil {
				return false, err
			}
			if !ok || len(p.Interfaces) != 1 {
				return false, &PortError{Port: cfg.Name, Text: "it was removed by another"}
			}
			st, err := portStatus(snap, p)
			if err != nil {
				return false, err
			}
			out[i] = st
			switch iface := st.Interface; {
			case iface.Error != nil && *iface.Error != "":
				failed = append(failed, &PortError{Port: cfg.Name, Text: *iface.Error})
			case iface.OFPort == nil:
				waiting = cfg.Name
				return false, nil
			case *iface.OFPort < 0:
				failed = append(failed, &PortError{Port: cfg.Name, Text: "the switch could not make it"})
			}
		}
		return true, joinErrors(failed)
	})
	if err != nil && ctx.Err() != nil && waiting != "" {
		err = fmt.Errorf("port %s has no OpenFlow port number yet: %w", waiting, err)
	}
	if err != nil {
		return nil, err
	}
	return out, nil
}

// A portErrors is several errors on one line.
type portErrors []error

func (e portErrors) Error() string {
	texts := make([]string, len(e))
	for i, err := range e {
		texts[i] = err.Error()
	}
	return strings.Join(texts, "; ")
}

func (e portErrors) Unwrap() []error { return e }

func joinErrors(errs []error) error {
	switch len(errs) {
	case 0:
		return nil
	case 1:
		return errs[0]
	}
	return portErrors(errs)
}

func portStatus(snap *Snapshot, p Port) (PortStatus, error) {
	st := PortStatus{Port: p}
	if len(p.Interfaces) == 0 {
		return st, nil
	}
	iface, _, err := Get[Interface](snap, p.Interfaces[0])
	if err != nil {
		return st, err
	}
	st.Interface = iface
	if iface.OFPort != nil && *iface.OFPort > 0 {
		st.OFPort = *iface.OFPort
	}
	return st, nil
}

func planPorts(snap *Snapshot, t *Txn, bridge string, cfgs []PortConfig) error {
	b, ok, err := one[Bridge](snap, bridge)
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("there is no bridge %s", bridge)
	}
	var add []UUID
	seen := map[string]bool{}
	for _, cfg := range cfgs {
		if cfg.Name == "" || seen[cfg.Name] {
			return fmt.Errorf("port name %q is empty or given twice", cfg.Name)
		}
		seen[cfg.Name] = true
		p, ok, err := one[Port](snap, cfg.Name)
		if err != nil {
			return err
		}
		if !ok {
			iface := t.Insert(Interface{Name: cfg.Name, Type: cfg.Type, Options: cfg.Options, ExternalIDs: cfg.ExternalIDs,
				OFPortRequest: optionalInt(cfg.OFPortRequest), MTURequest: optionalInt(cfg.MTURequest)})
			add = append(add, t.Insert(Port{Name: cfg.Name, Interfaces: []UUID{iface}, Tag: cfg.Tag, Trunks: cfg.Trunks}))
			continue
		}
		if !slices.Contains(b.Ports, p.UUID) {
			return &PortError{Port: cfg.Name, Text: "it is a port of another bridge"}
		}
		if err := planPort(snap, t, p, cfg); err != nil {
			return err
		}
	}
	if len(add) > 0 {
		t.Mutate("Bridge", []Condition{ByUUID(b.UUID)}, Mutation{"ports", "insert", add})
	}
	return nil
}

// planPort makes a port that is there as cfg says.
func planPort(snap *Snapshot, t *Txn, p Port, cfg PortConfig) error {
	if len(p.Interfaces) != 1 {
		return &PortError{Port: cfg.Name, Text: fmt.Sprintf("it is a bond of %d interfaces", len(p.Interfaces))}
	}
	iface, ok, err := Get[Interface](snap, p.Interfaces[0])
	if err != nil {
		return err
	}
	if !ok {
		return &PortError{Port: cfg.Name, Text: "its interface is not in the replica"}
	}
	set := Columns{}
	if !equalOptional(p.Tag, cfg.Tag) {
		set["tag"] = cfg.Tag
	}
	if !equalSet(p.Trunks, cfg.Trunks) {
		set["trunks"] = cfg.Trunks
	}
	if len(set) > 0 {
		t.UpdateRows("Port", set, ByUUID(p.UUID))
	}
	set = Columns{}
	if iface.Type != cfg.Type {
		set["type"] = cfg.Type
	}
	if !maps.Equal(iface.Options, cfg.Options) {
		set["options"] = cfg.Options
	}
	if want := optionalInt(cfg.OFPortRequest); !equalOptional(iface.OFPortRequest, want) {
		set["ofport_request"] = want
	}
	if want := optionalInt(cfg.MTURequest); !equalOptional(iface.MTURequest, want) {
		set["mtu_request"] = want
	}
	where := ByUUID(iface.UUID)
	if len(set) > 0 {
		t.UpdateRows("Interface", set, where)
	}
	planMap(t, "Interface", where, "external_ids", iface.ExternalIDs, cfg.ExternalIDs)
	return nil
}

// RemovePorts removes ports of a bridge; ports, or a bridge, that are absent are success, and so
// is a port of another bridge, which stays.
func (s *Switch) RemovePorts(ctx context.Context, bridge string, names ...string) error {
	ctx, cancel := deadline(ctx)
	defer cancel()
	_, err := s.converge(ctx, func(snap *Snapshot, t *Txn) error {
		b, ok, err := one[Bridge](snap, bridge)
		if err != nil || !ok {
			return err
		}
		var drop []UUID
		for _, name := range names {
			if name == bridge {
				return &PortError{Port: name, Text: "a bridge cannot be without its own port"}
			}
			p, ok, err := one[Port](snap, name)
			if err != nil {
				return err
			}
			if ok && slices.Contains(b.Ports, p.UUID) {
				drop = append(drop, p.UUID)
			}
		}
		if len(drop) > 0 {
			t.Mutate("Bridge", []Condition{ByUUID(b.UUID)}, Mutation{"ports", "delete", drop})
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("remove ports of bridge %s: %w", bridge, err)
	}
	return nil
}

// RemovePort is RemovePorts for one port.
func (s *Switch) RemovePort(ctx context.Context, bridge, name string) error {
	return s.RemovePorts(ctx, bridge, name)
}

// Ports gives the ports of a bridge in the order of their names, the bridge's own among
// them; none where there is no such bridge.
func (s *Switch) Ports(bridge string) ([]PortStatus, error) {
	snap := s.client.Snapshot()
	b, ok, err := one[Bridge](snap, bridge)
	if err != nil || !ok {
		return nil, err
	}
	out := make([]PortStatus, 0, len(b.Ports))
	for _, id := range b.Ports {
		p, ok, err := Get[Port](snap, id)
		if err != nil {
			return nil, err
		}
		if !ok {
			return nil, fmt.Errorf("port %v of bridge %s is not in the replica", id, bridge)
		}
		st, err := portStatus(snap, p)
		if err != nil {
			return nil, err
		}
		out = append(out, st)
	}
	slices.SortFunc(out, func(a, b PortStatus) int { return strings.Compare(a.Port.Name, b.Port.Name) })
	return out, nil
}
