package network_test

import (
	"slices"
	"testing"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/network"
	"yakumo/store"
	"yakumo/store/storetest"
)

func TestRules(t *testing.T) {
	s, n := storetest.New(t), unlimited()
	g := must(t, s, func(tx *store.Tx) (*model.SecurityGroup, error) { return n.CreateGroup(tx, owner, network.GroupSpec{}) })
	in := func(spec network.RuleSpec) network.RuleSpec {
		if spec.Direction == "" {
			spec.Direction = model.Ingress
		}
		spec.GroupID = g.ID
		return spec
	}
	for name, tc := range map[string]struct {
		spec     network.RuleSpec
		code     string // "": it is made
		protocol string
	}{
		"any":                     {spec: network.RuleSpec{}},
		"any by name":             {spec: network.RuleSpec{Protocol: "any", EtherType: "ipv6"}},
		"tcp":                     {spec: network.RuleSpec{Protocol: "TCP", PortMin: ptr(1), PortMax: ptr(65535)}, protocol: "tcp"},
		"tcp by number":           {spec: network.RuleSpec{Protocol: "6", PortMin: ptr(22), PortMax: ptr(22)}, protocol: "tcp"},
		"udp":                     {spec: network.RuleSpec{Protocol: "17"}, protocol: "udp"},
		"a nameless number":       {spec: network.RuleSpec{Protocol: "255"}, protocol: "255"},
		"ip in ip":                {spec: network.RuleSpec{Protocol: "4"}, protocol: "ipip"},
		"vrrp":                    {spec: network.RuleSpec{Protocol: "vrrp"}, protocol: "vrrp"},
		"icmp":                    {spec: network.RuleSpec{Protocol: "icmp", PortMin: ptr(8), PortMax: ptr(0)}, protocol: "icmp"},
		"icmp type":               {spec: network.RuleSpec{Protocol: "1", PortMin: ptr(0)}, protocol: "icmp"},
		"icmp of v6":              {spec: network.RuleSpec{Protocol: "icmp", EtherType: "IPv6"}, protocol: "ipv6-icmp"},
		"icmpv6 by number":        {spec: network.RuleSpec{Protocol: "58", EtherType: "IPv6", PortMin: ptr(128)}, protocol: "ipv6-icmp"},
		"prefix":                  {spec: network.RuleSpec{Protocol: "sctp", RemotePrefix: prefix("10.1.2.3/8")}, protocol: "sctp"},
		"prefix of v6":            {spec: network.RuleSpec{EtherType: "IPv6", RemotePrefix: prefix("fd00::/8")}},
		"remote group":            {spec: network.RuleSpec{RemoteGroupID: g.ID}},
		"unknown protocol":        {spec: network.RuleSpec{Protocol: "tcpp"}, code: "SecurityGroupRuleInvalidProtocol"},
		"protocol 256":            {spec: network.RuleSpec{Protocol: "256"}, code: "SecurityGroupRuleInvalidProtocol"},
		"protocol -2":             {spec: network.RuleSpec{Protocol: "-2"}, code: "SecurityGroupRuleInvalidProtocol"},
		"ports without protocol":  {spec: network.RuleSpec{PortMin: ptr(1), PortMax: ptr(2)}, code: "SecurityGroupProtocolRequiredWithPorts"},
		"ports of gre":            {spec: network.RuleSpec{Protocol: "gre", PortMin: ptr(1), PortMax: ptr(2)}, code: "SecurityGroupInvalidProtocolForPort"},
		"port 0":                  {spec: network.RuleSpec{Protocol: "tcp", PortMin: ptr(0), PortMax: ptr(2)}, code: "SecurityGroupInvalidPortRange"},
		"port 65536":              {spec: network.RuleSpec{Protocol: "tcp", PortMin: ptr(1), PortMax: ptr(65536)}, code: "SecurityGroupInvalidPortRange"},
		"range backwards":         {spec: network.RuleSpec{Protocol: "tcp", PortMin: ptr(3), PortMax: ptr(2)}, code: "SecurityGroupInvalidPortRange"},
		"half a range":            {spec: network.RuleSpec{Protocol: "udp", PortMin: ptr(3)}, code: "SecurityGroupInvalidPortRange"},
		"icmp type 256":           {spec: network.RuleSpec{Protocol: "icmp", PortMin: ptr(256)}, code: "SecurityGroupInvalidIcmpValue"},
		"icmp code without type":  {spec: network.RuleSpec{Protocol: "icmp", PortMax: ptr(1)}, code: "SecurityGroupMissingIcmpType"},
		"ether type":              {spec: network.RuleSpec{EtherType: "IPv5"}, code: "HTTPBadRequest"},
		"direction":               {spec: network.RuleSpec{Direction: "in"}, code: "HTTPBadRequest"},
		"v6 prefix of v4":         {spec: network.RuleSpec{RemotePrefix: prefix("fd00::/8")}, code: "SecurityGroupRuleParameterConflict"},
		"v4 prefix of v6":         {spec: network.RuleSpec{EtherType: "IPv6", RemotePrefix: prefix("10.0.0.0/8")}, code: "SecurityGroupRuleParameterConflict"},
		"icmpv6 of v4":            {spec: network.RuleSpec{Protocol: "icmpv6"}, code: "SecurityGroupEthertypeConflictWithProtocol"},
		"prefix and group":        {spec: network.RuleSpec{RemotePrefix: prefix("10.0.0.0/8"), RemoteGroupID: g.ID}, code: "SecurityGroupMultipleRemoteEntites"},
		"description of 256":      {spec: network.RuleSpec{Protocol: "ah", Description: ptr(string(slices.Repeat([]rune{'x'}, 256)))}, code: "HTTPBadRequest"},
		"description of 255":      {spec: network.RuleSpec{Protocol: "ah", Description: ptr(string(slices.Repeat([]rune{'é'}, 255)))}, protocol: "ah"},
		"everything, v4, as any":  {spec: network.RuleSpec{Protocol: "egp", RemotePrefix: prefix("0.0.0.0/0")}, protocol: "egp"},
		"number with leading 000": {spec: network.RuleSpec{Protocol: "00253"}, protocol: "253"},
	} {
		r, err := act(t.Context(), s, func(tx *store.Tx) (*model.SecurityRule, error) { return n.CreateRule(tx, owner, in(tc.spec)) })
		switch {
		case tc.code != "":
			if !fault.Is(err, fault.Invalid) || fault.CodeOf(err) != tc.code {
				t.Errorf("%s: %v, want %s", name, err, tc.code)
			}
		case err != nil:
			t.Errorf("%s: %v", name, err)
		case r.Protocol != tc.protocol:
			t.Errorf("%s: protocol %q, want %q", name, r.Protocol, tc.protocol)
		}
	}
	// The same rule in other words is the same rule.
	for name, spec := range map[string]network.RuleSpec{
		"tcp":      {Protocol: "tcp", PortMin: ptr(22), PortMax: ptr(22)},
		"prefix":   {Protocol: "132", RemotePrefix: prefix("10.0.0.0/8")},
		"icmpv6":   {Protocol: "ipv6-icmp", EtherType: "IPv6"},
		"any":      {Protocol: "any", RemotePrefix: prefix("0.0.0.0/0")},
		"any text": {Description: ptr("another description")},
	} {
		_, err := act(t.Context(), s, func(tx *store.Tx) (*model.SecurityRule, error) { return n.CreateRule(tx, owner, in(spec)) })
		if fault.CodeOf(err) != "SecurityGroupRuleExists" || !fault.Is(err, fault.Conflict) {
			t.Errorf("%s again: %v", name, err)
		}
	}
}

func TestGroups(t *testing.T) {
	s, n := storetest.New(t), unlimited()
	g := must(t, s, func(tx *store.Tx) (*model.SecurityGroup, error) {
		return n.CreateGroup(tx, owner, network.GroupSpec{Name: ptr("g")})
	})
	d, ok := n.FindDefaultGroup(s.Snapshot(), project)
	if !ok || !d.Default || d.Name != "default" {
		t.Fatalf("the default group: %+v", d)
	}
	type short struct{ direction, ether, remote string }
	rules := func(id string) (out []short) {
		for r := range store.SecurityRules.List(s.Snapshot(), "group", id) {
			out = append(out, short{r.Direction, r.EtherType, r.RemoteGroupID})
		}
		slices.SortFunc(out, func(a, b short) int {
			if a.direction+a.ether < b.direction+b.ether {
				return -1
			}
			return 1
		})
		return out
	}
	if got := rules(d.ID); !slices.Equal(got, []short{{"egress", "IPv4", ""}, {"egress", "IPv6", ""}, {"ingress", "IPv4", d.ID}, {"ingress", "IPv6", d.ID}}) {
		t.Errorf("default rules: %v", got)
	}
	if got := rules(g.ID); !slices.Equal(got, []short{{"egress", "IPv4", ""}, {"egress", "IPv6", ""}}) {
		t.Errorf("rules of a new group: %v", got)
	}
	remove := func(sc network.Scope, id string) error {
		_, err := s.Update(t.Context(), func(tx *store.Tx) error { return n.DeleteGroup(tx, sc, id) })
		return err
	}
	wantCode(t, remove(owner, d.ID), fault.Conflict, "SecurityGroupCannotRemoveDefault")
	_, err := act(t.Context(), s, func(tx *store.Tx) (*model.SecurityGroup, error) {
		return n.UpdateGroup(tx, owner, d.ID, network.GroupSpec{Name: ptr("x")})
	})
	wantCode(t, err, fault.Conflict, "SecurityGroupCannotUpdateDefault")
	w := makeNetwork(t, s, n)
	p := must(t, s, func(tx *store.Tx) (*model.Port, error) {
		return n.CreatePort(tx, owner, network.PortSpec{NetworkID: w.ID, Groups: &[]string{g.ID, g.ID}})
	})
	if !slices.Equal(p.Groups, []string{g.ID}) {
		t.Errorf("groups %v", p.Groups)
	}
	wantCode(t, remove(owner, g.ID), fault.Conflict, "SecurityGroupInUse")
	refers := must(t, s, func(tx *store.Tx) (*model.SecurityRule, error) {
		return n.CreateRule(tx, owner, network.RuleSpec{GroupID: d.ID, Direction: model.Ingress, Protocol: "tcp", RemoteGroupID: g.ID})
	})
	if _, err := s.Update(t.Context(), func(tx *store.Tx) error { return n.DeletePort(tx, owner, p.ID) }); err != nil {
		t.Fatal(err)
	}
	if err := remove(owner, g.ID); err != nil {
		t.Fatal(err)
	}
	snap := s.Snapshot()
	if _, there := store.SecurityRules.Get(snap, refers.ID); there || len(rules(g.ID)) != 0 {
		t.Error("rules of a group that is gone, or about it, are there")
	}
	if len(rules(d.ID)) != 4 {
		t.Errorf("the default group's rules: %v", rules(d.ID))
	}
}

// TestHundredRules: one group takes a hundred rules, each a request of its own, from two servers at once.
func TestHundredRules(t *testing.T) {
	cl, pre := storetest.Client(t)
	servers := []*store.Store{storetest.Open(t, cl, pre), storetest.Open(t, cl, pre)}
	n := unlimited()
	g := must(t, servers[0], func(tx *store.Tx) (*model.SecurityGroup, error) { return n.CreateGroup(tx, owner, network.GroupSpec{}) })
	if err := servers[1].Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	errs := make(chan error, 4)
	for worker := range 4 {
		go func() {
			for i := range 25 {
				port := worker*25 + i + 1
				if _, err := servers[worker%2].Update(t.Context(), func(tx *store.Tx) error {
					_, err := n.CreateRule(tx, owner, network.RuleSpec{GroupID: g.ID, Direction: model.Ingress, Protocol: "tcp", PortMin: &port, PortMax: &port})
					return err
				}); err != nil {
					errs <- err
					return
				}
			}
			errs <- nil
		}()
	}
	for range 4 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if err := servers[0].Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := store.SecurityRules.Count(servers[0].Snapshot(), "group", g.ID); got != 102 {
		t.Errorf("%d rules, want 102", got)
	}
}

func TestProtocolNumbers(t *testing.T) {
	for name, want := range map[string]uint8{"tcp": 6, "udp": 17, "icmp": 1, "ipv6-icmp": 58, "sctp": 132, "vrrp": 112, "255": 255, "ah": 51} {
		if got, ok := network.ProtocolNumber(name); !ok || got != want {
			t.Errorf("%s = %d, %v", name, got, ok)
		}
	}
	for _, name := range []string{"", "256", "-1", "x"} {
		if got, ok := network.ProtocolNumber(name); ok {
			t.Errorf("%q = %d", name, got)
		}
	}
}
