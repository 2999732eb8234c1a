package trace_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"yakumo/datapath/pipeline"
	"yakumo/datapath/pipeline/sim"
	"yakumo/fault"
	"yakumo/hostview"
	"yakumo/model"
	"yakumo/store"
	"yakumo/store/storetest"
	"yakumo/trace"
)

func id(letter string, n int) model.ID {
	return fmt.Sprintf("%s0000000-0000-4000-8000-00000000000%d", letter, n)
}

var (
	tenant = trace.Scope{ProjectID: "mine"}
	admin  = trace.Scope{ProjectID: "admin", Admin: true}
	ssh    = 22
)

// cloud is a network with ports 1 and 2 of "mine" on two hosts and port 3 of "theirs" on the
// second; the group of all lets everything out and SSH in.
func cloud(t testing.TB) *trace.Tracer {
	t.Helper()
	st := storetest.New(t)
	if _, err := st.Update(t.Context(), func(tx *store.Tx) error {
		err := store.Networks.Put(tx, &model.Network{Meta: model.Meta{ID: id("n", 1), ProjectID: "mine"}, Type: model.NetworkVXLAN, VNI: 100, MTU: 1450, AdminStateUp: true, Shared: true})
		err = errors.Join(err, store.Subnets.Put(tx, &model.Subnet{Meta: model.Meta{ID: id("s", 1)}, NetworkID: id("n", 1), IPVersion: 4,
			CIDR: netip.MustParsePrefix("10.0.0.0/24"), Gateway: netip.MustParseAddr("10.0.0.1")}))
		for n, project := range []string{"mine", "theirs"} {
			g := id("g", n+1)
			err = errors.Join(err,
				store.SecurityGroups.Put(tx, &model.SecurityGroup{Meta: model.Meta{ID: g, ProjectID: project}, Stateful: true}),
				store.SecurityRules.Put(tx, &model.SecurityRule{Meta: model.Meta{ID: id("a", n+1), ProjectID: project}, GroupID: g, Direction: model.Egress, EtherType: model.IPv4}),
				store.SecurityRules.Put(tx, &model.SecurityRule{Meta: model.Meta{ID: id("b", n+1), ProjectID: project}, GroupID: g, Direction: model.Ingress, EtherType: model.IPv4, Protocol: "tcp", PortMin: &ssh, PortMax: &ssh}))
		}
		for n := 1; n <= 2; n++ {
			err = errors.Join(err, store.Hosts.Put(tx, &model.Host{Meta: model.Meta{ID: id("h", n), Name: fmt.Sprintf("node%d", n)}, TunnelIP: netip.AddrFrom4([4]byte{192, 0, 2, byte(n)})}))
		}
		for n, p := range []struct{ project, host, group string }{{"mine", id("h", 1), id("g", 1)}, {"mine", id("h", 2), id("g", 1)}, {"theirs", id("h", 2), id("g", 2)}, {"mine", "", id("g", 1)}} {
			err = errors.Join(err, store.Ports.Put(tx, &model.Port{Meta: model.Meta{ID: id("p", n+1), ProjectID: p.project}, NetworkID: id("n", 1), MAC: fmt.Sprintf("fa:16:3e:00:00:0%d", n+1),
				FixedIPs: []model.FixedIP{{SubnetID: id("s", 1), Address: netip.AddrFrom4([4]byte{10, 0, 0, byte(10 + n)})}}, AdminStateUp: true, PortSecurity: true, Groups: []model.ID{p.group}, Host: p.host}))
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return &trace.Tracer{Store: st, Views: hostview.NewEngine(st, slog.New(slog.DiscardHandler)), Env: pipeline.DefaultEnv()}
}

func TestTrace(t *testing.T) {
	tr := cloud(t)
	type packet = trace.Request
	for _, c := range []struct {
		name    string
		sc      trace.Scope
		req     packet
		verdict trace.Verdict
		reason  string
		hops    int
		decided string // by the last step of the last hop that names a row
	}{
		{"delivered across hosts", tenant, packet{To: id("p", 2), Protocol: "tcp", DstPort: 22}, trace.Delivered, "reaches port " + id("p", 2), 2, "port " + id("p", 2)},
		{"no ingress rule", tenant, packet{To: id("p", 2), Protocol: "tcp", DstPort: 23}, trace.Dropped, "No ingress rule", 2, ""},
		{"to another project", tenant, packet{Dst: netip.MustParseAddr("10.0.0.12"), Protocol: "tcp", DstPort: 22}, trace.Delivered, "a port of another project", 2, "another project's port"},
		{"the administrator reads all", admin, packet{Dst: netip.MustParseAddr("10.0.0.12"), Protocol: "tcp", DstPort: 22}, trace.Delivered, "reaches port " + id("p", 3), 2, "port " + id("p", 3)},
		{"forged source", tenant, packet{To: id("p", 2), Src: netip.MustParseAddr("10.0.0.99")}, trace.Dropped, "may not send from this MAC or address", 1, ""},
		{"forged MAC", tenant, packet{To: id("p", 2), EthSrc: "02:00:00:00:00:01"}, trace.Dropped, "may not send from this MAC or address", 1, ""},
		{"a MAC that nobody has", tenant, packet{To: id("p", 2), EthDst: "02:00:00:00:00:01"}, trace.Dropped, "No port of the network has this MAC", 1, ""},
		{"ARP", tenant, packet{Dst: netip.MustParseAddr("10.0.0.11"), Protocol: "arp"}, trace.Answered, "switch of the sender's host answers", 1, "port " + id("p", 2)},
		{"metadata", tenant, packet{Dst: pipeline.ServiceAddr, EthDst: pipeline.ServiceMAC.String(), Protocol: "tcp", DstPort: 80}, trace.Service, "metadata service", 1, "port " + id("p", 1)},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.req.Port = id("p", 1)
			r, err := tr.Trace(t.Context(), c.sc, c.req)
			if err != nil {
				t.Fatal(err)
			}
			if r.Verdict != c.verdict || !strings.Contains(r.Reason, c.reason) || len(r.Hops) != c.hops {
				t.Errorf("%s, %q over %d hosts; want %s, %q over %d", r.Verdict, r.Reason, len(r.Hops), c.verdict, c.reason, c.hops)
			}
			decided := ""
			for _, s := range r.Hops[len(r.Hops)-1].Steps {
				if len(s.Decided) > 0 {
					decided = strings.Join(s.Decided, ", ")
				}
			}
			if c.decided != "" && decided != c.decided {
				t.Errorf("decided by %q, want %q", decided, c.decided)
			}
		})
	}
}

// A port that stands by on another host is served where it is, and the trace says what goes on.
func TestTraceOfAPortThatMoves(t *testing.T) {
	tr := cloud(t)
	if _, err := tr.Store.Update(t.Context(), func(tx *store.Tx) error {
		old, _ := store.Ports.Get(tx, id("p", 2))
		p := *old
		p.NextHost = id("h", 1)
		return store.Ports.Put(tx, &p)
	}); err != nil {
		t.Fatal(err)
	}
	for sc, want := range map[trace.Scope]string{admin: "host node1, which stands by", tenant: "another host, which stands by"} {
		r, err := tr.Trace(t.Context(), sc, trace.Request{Port: id("p", 1), To: id("p", 2), Protocol: "tcp", DstPort: 22})
		if err != nil || r.Verdict != trace.Delivered || len(r.Hops) != 2 || !strings.Contains(r.Reason, want) {
			t.Errorf("%+v, %v; want %q", r, err, want)
		}
	}
}

// A tenant reads which of its rules let a packet pass, and nothing of hosts and of others.
func TestWhatATenantReads(t *testing.T) {
	tr := cloud(t)
	req := trace.Request{Port: id("p", 1), Dst: netip.MustParseAddr("10.0.0.12"), Protocol: "tcp", DstPort: 22, Reply: true}
	r, err := tr.Trace(t.Context(), tenant, req)
	if err != nil {
		t.Fatal(err)
	}
	if r.Reply == nil || r.Reply.Verdict != trace.Delivered || r.Reply.Port != id("p", 1) {
		t.Errorf("the answer: %+v", r.Reply)
	}
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	if !strings.Contains(text, "security_group_rule "+id("a", 1)) {
		t.Errorf("the tenant's own rule is not named: %s", text)
	}
	for _, secret := range []string{"node1", "node2", "192.0.2.", id("b", 2), id("g", 2), id("p", 3), "->"} {
		if strings.Contains(text, secret) {
			t.Errorf("a tenant reads %q: %s", secret, text)
		}
	}
	r, err = tr.Trace(t.Context(), admin, req)
	if err != nil {
		t.Fatal(err)
	}
	if b, err = json.Marshal(r); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"node1", "node2", "192.0.2.2", "security_group_rule " + id("b", 2), "group-in 400"} {
		if !strings.Contains(string(b), want) {
			t.Errorf("an administrator does not read %q: %s", want, b)
		}
	}
}

func TestRefusals(t *testing.T) {
	tr := cloud(t)
	for name, c := range map[string]struct {
		sc   trace.Scope
		req  trace.Request
		kind fault.Kind
	}{
		"another's port":         {tenant, trace.Request{Port: id("p", 3), To: id("p", 1)}, fault.NotFound},
		"to another's port":      {trace.Scope{ProjectID: "third"}, trace.Request{Port: id("p", 1), To: id("p", 3)}, fault.NotFound},
		"nobody":                 {trace.Scope{}, trace.Request{Port: id("p", 1), To: id("p", 2)}, fault.NotFound},
		"no such port":           {tenant, trace.Request{Port: "x", To: id("p", 2)}, fault.NotFound},
		"on no host":             {tenant, trace.Request{Port: id("p", 4), To: id("p", 2)}, fault.Conflict},
		"no destination":         {tenant, trace.Request{Port: id("p", 1)}, fault.Invalid},
		"no port number":         {tenant, trace.Request{Port: id("p", 1), To: id("p", 2), Protocol: "udp"}, fault.Invalid},
		"a protocol of its own":  {tenant, trace.Request{Port: id("p", 1), To: id("p", 2), Protocol: "carrier-pigeon"}, fault.Invalid},
		"protocol 256":           {tenant, trace.Request{Port: id("p", 1), To: id("p", 2), Protocol: "256"}, fault.Invalid},
		"a MAC that is none":     {tenant, trace.Request{Port: id("p", 1), To: id("p", 2), EthSrc: "x"}, fault.Invalid},
		"another family":         {tenant, trace.Request{Port: id("p", 1), Dst: netip.MustParseAddr("fd00::1")}, fault.Invalid},
		"an address nobody has":  {tenant, trace.Request{Port: id("p", 1), Dst: netip.MustParseAddr("10.0.0.200")}, fault.Invalid},
		"a gateway that is none": {tenant, trace.Request{Port: id("p", 1), Dst: netip.MustParseAddr("8.8.8.8")}, fault.Invalid},
		"too large":              {tenant, trace.Request{Port: id("p", 1), To: id("p", 2), Size: trace.MaxSize + 1}, fault.Invalid},
	} {
		t.Run(name, func(t *testing.T) {
			if r, err := tr.Trace(t.Context(), c.sc, c.req); !fault.Is(err, c.kind) {
				t.Errorf("%+v, %v; want the kind %v", r, err, c.kind)
			}
		})
	}
}

// hosts answer the questions of a trace that sends a real packet.
type hosts struct {
	t        *testing.T
	lose     bool // the packet does not arrive
	injected []byte
	asked    []string
}

func (h *hosts) ask(_ context.Context, host model.ID, question string, body []byte) ([]byte, error) {
	switch question {
	case "inject":
		var q model.InjectQuery
		if err := json.Unmarshal(body, &q); err != nil || q.Port != id("p", 1) || host != id("h", 1) {
			h.t.Errorf("inject at %s: %s", host, body)
		}
		h.injected = q.Frame
		return []byte("{}"), nil
	case "capture":
		var q model.CaptureQuery
		if err := json.Unmarshal(body, &q); err != nil {
			h.t.Errorf("capture: %s", body)
		}
		h.asked = append(h.asked, fmt.Sprintf("%s stop=%v wait=%v", host, q.Stop, q.Wait > 0))
		var a model.CaptureAnswer
		if h.injected != nil && !h.lose && host == id("h", 2) && !q.Stop {
			if !strings.Contains(string(h.injected), string(q.Token)) || len(q.Token) < 16 {
				h.t.Errorf("the frame does not hold the token %q", q.Token)
			}
			a.Frames = []model.CapturedFrame{{At: time.Now(), Size: 100, Data: []byte{0}}, {Port: id("p", 2), ToGuest: true, At: time.Now(), Size: 60, Data: []byte{0}}}
		}
		return json.Marshal(a)
	}
	return nil, fault.New(fault.NotImplemented, "no %s", question)
}

func TestFollow(t *testing.T) {
	for name, lose := range map[string]bool{"it arrives": false, "it gets lost": true} {
		t.Run(name, func(t *testing.T) {
			tr, h := cloud(t), &hosts{t: t, lose: lose}
			tr.Ask = h.ask
			r, err := tr.Follow(t.Context(), admin, trace.Request{Port: id("p", 1), To: id("p", 2), Protocol: "tcp", DstPort: 22})
			if err != nil {
				t.Fatal(err)
			}
			if r.Verdict != trace.Delivered || r.Real == nil || r.Real.Agrees == lose {
				t.Errorf("%s, really %+v", r.Verdict, r.Real)
			}
			p, err := sim.Parse(h.injected)
			if err != nil || p.DstPort != 22 || p.Dst != netip.MustParseAddr("10.0.0.11") {
				t.Errorf("injected %s, %v", p.Summary(), err)
			}
			// Both hosts listen before the packet is sent, and stop in the end.
			first, last := h.asked[:2], h.asked[len(h.asked)-2:]
			slices.Sort(first)
			slices.Sort(last)
			if first[0] != id("h", 1)+" stop=false wait=false" || last[0] != id("h", 1)+" stop=true wait=false" || !strings.HasPrefix(last[1], id("h", 2)+" stop=true") {
				t.Errorf("asked %q", h.asked)
			}
		})
	}
	tr := cloud(t)
	if _, err := tr.Follow(t.Context(), admin, trace.Request{Port: id("p", 1), Dst: netip.MustParseAddr("10.0.0.11"), Protocol: "arp"}); !fault.Is(err, fault.Invalid) {
		t.Errorf("ARP cannot be followed: %v", err)
	}
}

func TestFrames(t *testing.T) {
	tr := cloud(t)
	polls, stopped := 0, false
	tr.Ask = func(_ context.Context, host model.ID, question string, body []byte) ([]byte, error) {
		var q model.CaptureQuery
		if err := json.Unmarshal(body, &q); err != nil || host != id("h", 1) || question != "capture" || len(q.Ports) != 1 || q.Ports[0] != id("p", 1) || q.SnapLen != 64 {
			t.Errorf("%s %s %s", host, question, body)
		}
		stopped = q.Stop
		polls++
		return json.Marshal(model.CaptureAnswer{Frames: make([]model.CapturedFrame, 3)})
	}
	got := 0
	err := tr.Frames(t.Context(), tenant, trace.Capture{Port: id("p", 1), SnapLen: 64, Count: 7}, func(f []model.CapturedFrame) error { got += len(f); return nil })
	if err != nil || got != 7 || !stopped || polls != 5 {
		t.Errorf("%d frames in %d polls, stopped %v, %v", got, polls, stopped, err)
	}
	broken := errors.New("the client is gone")
	if err := tr.Frames(t.Context(), tenant, trace.Capture{Port: id("p", 1), SnapLen: 64}, func([]model.CapturedFrame) error { return broken }); !errors.Is(err, broken) || !stopped {
		t.Errorf("%v, stopped %v", err, stopped)
	}
	for port, kind := range map[model.ID]fault.Kind{id("p", 3): fault.NotFound, id("p", 4): fault.Conflict, "x": fault.NotFound} {
		if err := tr.Frames(t.Context(), tenant, trace.Capture{Port: port}, nil); !fault.Is(err, kind) {
			t.Errorf("port %s: %v", port, err)
		}
	}
}

func BenchmarkTrace(b *testing.B) {
	tr := cloud(b)
	for b.Loop() {
		if _, err := tr.Trace(b.Context(), admin, trace.Request{Port: id("p", 1), To: id("p", 2), Protocol: "tcp", DstPort: 22}); err != nil {
			b.Fatal(err)
		}
	}
}

// behindRouter adds network 2 behind a router of network 1's, with port 5 of "mine" on the first host, and lets port 2 hold an address
// by an allowed address pair.
func behindRouter(t *testing.T, tr *trace.Tracer, change func(tx *store.Tx) error) {
	t.Helper()
	if _, err := tr.Store.Update(t.Context(), func(tx *store.Tx) error {
		err := errors.Join(
			store.Networks.Put(tx, &model.Network{Meta: model.Meta{ID: id("n", 2), ProjectID: "mine"}, Type: model.NetworkVXLAN, VNI: 101, MTU: 1450, AdminStateUp: true}),
			store.Subnets.Put(tx, &model.Subnet{Meta: model.Meta{ID: id("s", 2)}, NetworkID: id("n", 2), IPVersion: 4, PoolID: id("l", 1), CIDR: netip.MustParsePrefix("10.2.0.0/24"), Gateway: netip.MustParseAddr("10.2.0.1")}),
			store.Routers.Put(tx, &model.Router{Meta: model.Meta{ID: id("r", 1), ProjectID: "mine"}, AdminStateUp: true}),
			store.Ports.Put(tx, &model.Port{Meta: model.Meta{ID: id("p", 5), ProjectID: "mine"}, NetworkID: id("n", 2), MAC: "fa:16:3e:00:00:05", AdminStateUp: true, PortSecurity: true,
				FixedIPs: []model.FixedIP{{SubnetID: id("s", 2), Address: netip.MustParseAddr("10.2.0.5")}}, Groups: []model.ID{id("g", 1)}, Host: id("h", 1)}))
		for n := 1; n <= 2; n++ {
			err = errors.Join(err, store.Ports.Put(tx, &model.Port{Meta: model.Meta{ID: id("i", n), ProjectID: "mine"}, NetworkID: id("n", n), MAC: fmt.Sprintf("fa:16:3f:00:00:0%d", n),
				DeviceID: id("r", 1), DeviceOwner: model.OwnerRouterInterface, FixedIPs: []model.FixedIP{{SubnetID: id("s", n), Address: netip.MustParseAddr(fmt.Sprintf("10.%d.0.1", 2*n-2))}}}))
		}
		return errors.Join(err, change(tx))
	}); err != nil {
		t.Fatal(err)
	}
	tr.Views = hostview.NewEngine(tr.Store, slog.New(slog.DiscardHandler)) // one that runs would have followed
}

// An address in an allowed address pair is where its holder is, and nowhere while nobody holds it.
func TestTraceOfAHeldAddress(t *testing.T) {
	vip := netip.MustParseAddr("10.0.0.100")
	for _, c := range []struct {
		holds   bool
		verdict trace.Verdict
		reason  string
	}{{true, trace.Delivered, "reaches port " + id("p", 2)}, {false, trace.Dropped, ""}} {
		tr := cloud(t)
		behindRouter(t, tr, func(tx *store.Tx) error {
			old, _ := store.Ports.Get(tx, id("p", 2))
			p := *old
			p.Pairs = []model.AddressPair{{Prefix: netip.PrefixFrom(vip, 32)}}
			if c.holds {
				p.Held = []model.Held{{Address: vip, MAC: p.MAC, Turn: 1}}
			}
			return store.Ports.Put(tx, &p)
		})
		r, err := tr.Trace(t.Context(), tenant, trace.Request{Port: id("p", 5), Dst: vip, Protocol: "tcp", DstPort: 22, TTL: 64})
		if err != nil || c.holds != (r.Verdict == trace.Delivered) || !strings.Contains(r.Reason, c.reason) {
			t.Fatalf("held %v: %+v, %v", c.holds, r, err)
		}
		found := false
		for _, h := range r.Hops {
			for _, s := range h.Steps {
				found = found || s.Stage == pipeline.Resolve.String() && slices.Contains(s.Decided, "port "+id("p", 2)) && strings.Contains(s.Action, "its guest has said that it holds the address")
			}
		}
		if found != c.holds {
			t.Errorf("held %v: the steps say so: %v", c.holds, found)
		}
	}
}

// A router does not send from one address scope to another, and the trace says why.
func TestTraceAcrossAddressScopes(t *testing.T) {
	for scope, want := range map[model.ID]trace.Verdict{"": trace.Delivered, "red": trace.Dropped} {
		tr := cloud(t)
		behindRouter(t, tr, func(tx *store.Tx) error {
			return store.SubnetPools.Put(tx, &model.SubnetPool{Meta: model.Meta{ID: id("l", 1), ProjectID: "mine"}, IPVersion: 4, AddressScopeID: scope})
		})
		r, err := tr.Trace(t.Context(), tenant, trace.Request{Port: id("p", 5), To: id("p", 2), Protocol: "tcp", DstPort: 22, TTL: 64})
		if err != nil || r.Verdict != want || scope != "" && (!strings.Contains(r.Reason, "from one address scope to another") || !strings.Contains(r.Reason, "router "+id("r", 1))) {
			t.Errorf("scope %q: %s, %q, %v; want %s", scope, r.Verdict, r.Reason, err, want)
		}
	}
}
