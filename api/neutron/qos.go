package neutron

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"iter"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"yakumo/api"
	"yakumo/fault"
	"yakumo/model"
	"yakumo/network"
	"yakumo/store"
)

func (d *dialect) qosCollection() *collection[model.QoSPolicy, network.QoSPolicySpec] {
	type (
		R = model.QoSPolicy
		S = network.QoSPolicySpec
	)
	meta := func(p *R) *model.Meta { return &p.Meta }
	attrs := metaAttrs(meta, func(s *S) **string { return &s.ProjectID })
	attrs = append(attrs,
		textAttr("name", everyone, everyone, func(p *R) string { return p.Name }, func(s *S) **string { return &s.Name }),
		textAttr("description", everyone, everyone, func(p *R) string { return p.Description }, func(s *S) **string { return &s.Description }),
		tagsAttr[R, S](meta),
		sharedAttr(adminOnly, func(p *R) model.Sharing { return p.Sharing }, func(s *S) **bool { return &s.Shared }),
		boolAttr("is_default", everyone, everyone, func(p *R) bool { return p.Default }, func(s *S) **bool { return &s.Default }),
		attribute[R, S]{name: "rules", emit: func(b []byte, _ *view, p *R) []byte {
			b = append(b, '[')
			for i, r := range p.Rules {
				if i > 0 {
					b = append(b, ',')
				}
				b = append(b, `{"id":"`...)
				b = append(b, r.ID...)
				b = append(b, `","qos_policy_id":"`...)
				b = append(b, p.ID...)
				b = append(b, `","type":"`...)
				b = append(b, r.Type...)
				b = append(b, '"')
				for _, v := range ruleValues(r.Type) {
					b = append(b, `,"`...)
					b = append(b, v.name...)
					b = append(b, `":`...)
					b = v.emit(b, r)
				}
				b = append(b, '}')
			}
			return append(b, ']')
		}},
	)
	return &collection[R, S]{
		path: "qos/policies", single: "policy", plural: "policies", attrs: attrs, tagged: true, meta: meta, writers: api.Admin,
		get:  d.net.GetQoSPolicy,
		sees: func(v *view, p *R) bool { return v.scope.SeesQoSPolicy(p) },
		candidates: func(v *view, q *query) iter.Seq[*R] {
			if ids := q.filters["id"]; len(ids) > 0 {
				return byID(store.QoSPolicies, v, ids)
			}
			if p, ok := q.project(); ok {
				return store.QoSPolicies.List(v.r, "project", p)
			}
			if v.scope.Admin {
				return store.QoSPolicies.All(v.r)
			}
			return visible(store.QoSPolicies, v)
		},
		create: d.net.CreateQoSPolicy, update: d.net.UpdateQoSPolicy, remove: d.net.DeleteQoSPolicy,
	}
}

// ruleValue is a member of a QoS rule.
type ruleValue struct {
	name     string
	required bool
	values   []string // of a text
	get      func(model.QoSRule) int
	text     func(model.QoSRule) string
	field    func(*network.QoSRuleSpec) **int
}

func (x *ruleValue) emit(b []byte, r model.QoSRule) []byte {
	if x.text != nil {
		return appendString(b, x.text(r))
	}
	return strconv.AppendInt(b, int64(x.get(r)), 10)
}

// ruleValues gives the members of rules of the type, by the API's names.
func ruleValues(kind string) []ruleValue {
	rate := func(name string) ruleValue {
		return ruleValue{name: name, required: true, get: func(r model.QoSRule) int { return r.Rate }, field: func(s *network.QoSRuleSpec) **int { return &s.Rate }}
	}
	burst := func(name string) ruleValue {
		return ruleValue{name: name, get: func(r model.QoSRule) int { return r.Burst }, field: func(s *network.QoSRuleSpec) **int { return &s.Burst }}
	}
	direction := ruleValue{name: "direction", values: network.QoSDirections(kind), text: func(r model.QoSRule) string { return r.Direction }}
	switch kind {
	case model.QoSBandwidth:
		return []ruleValue{rate("max_kbps"), burst("max_burst_kbps"), direction}
	case model.QoSPacketRate:
		return []ruleValue{rate("max_kpps"), burst("max_burst_kpps"), direction}
	case model.QoSMinBandwidth:
		return []ruleValue{rate("min_kbps"), direction}
	case model.QoSMinPacketRate:
		return []ruleValue{rate("min_kpps"), direction}
	}
	return []ruleValue{{name: "dscp_mark", required: true, get: func(r model.QoSRule) int { return r.DSCP }, field: func(s *network.QoSRuleSpec) **int { return &s.DSCP }}}
}

// qosRules serves the rules of a type: of a policy, or, with policy "", of whichever has
// them, under the name that the API has for that.
func (d *dialect) qosRules(kind, policy string) *collection[network.QoSRuleRow, network.QoSRuleSpec] {
	type (
		R = network.QoSRuleRow
		S = network.QoSRuleSpec
	)
	attrs := []attribute[R, S]{textAttr[R, S]("id", readOnly, readOnly, func(r *R) string { return r.ID }, nil)}
	for _, v := range ruleValues(kind) {
		if v.text != nil {
			a := textAttr(v.name, everyone, everyone, func(r *R) string { return v.text(r.QoSRule) }, func(s *S) **string { return &s.Direction })
			set := a.set
			a.set = func(s *S, raw json.RawMessage) error {
				if err := set(s, raw); err != nil {
					return err
				}
				if !slices.Contains(v.values, *s.Direction) {
					return badInput(v.name, "'%s' is not in %q.", shown(raw), v.values)
				}
				return nil
			}
			attrs = append(attrs, a)
			continue
		}
		a := intAttr(v.name, everyone, everyone, func(r *R) int { return v.get(r.QoSRule) }, v.field)
		a.required = v.required
		set := a.set
		a.set = func(s *S, raw json.RawMessage) error {
			if err := set(s, raw); err != nil {
				return err
			}
			if n := **v.field(s); n < 0 || n > network.MaxRate {
				return badInput(v.name, "'%s' is not from 0 to %d.", shown(raw), network.MaxRate)
			}
			return nil
		}
		attrs = append(attrs, a)
	}
	x := &collection[R, S]{
		path: "qos/policies/" + policy + "/" + kind + "_rules", single: kind + "_rule", plural: kind + "_rules", attrs: attrs,
		meta: func(r *R) *model.Meta { return &model.Meta{ID: r.ID, Generation: r.Policy.Generation} },
		get: func(r store.Reader, sc network.Scope, id string) (*R, error) {
			return d.net.GetQoSRule(r, sc, policy, kind, id)
		},
		sees: func(*view, *R) bool { return true }, // the policy is looked at before
		candidates: func(v *view, _ *query) iter.Seq[*R] {
			return func(yield func(*R) bool) {
				p, err := d.net.GetQoSPolicy(v.r, v.scope, policy)
				if err != nil {
					return
				}
				for _, r := range p.Rules {
					if r.Type == kind && !yield(&R{Policy: p, QoSRule: r}) {
						return
					}
				}
			}
		},
		create: func(tx *store.Tx, sc network.Scope, s S) (*R, error) {
			return d.net.CreateQoSRule(tx, sc, policy, kind, s)
		},
		update: func(tx *store.Tx, sc network.Scope, id string, s S) (*R, error) {
			return d.net.UpdateQoSRule(tx, sc, policy, kind, id, s)
		},
		remove: func(tx *store.Tx, sc network.Scope, id string) error {
			return d.net.DeleteQoSRule(tx, sc, policy, kind, id)
		},
		before: func(c *api.Context, _ *query) error {
			_, err := d.net.GetQoSPolicy(c.Snapshot(), scope(c), policy)
			return err
		},
	}
	if policy == "" {
		x.single, x.plural = "alias_"+x.single, "alias_"+x.plural
	}
	return x
}

// qosRoutes are those of rules, and of what types of rules there are.
func (d *dialect) qosRoutes() []api.Route {
	out := []api.Route{
		{Method: http.MethodGet, Pattern: "/v2.0/qos/rule-types", Access: api.Reader, Handle: d.listRuleTypes, NoSync: true},
		{Method: http.MethodGet, Pattern: "/v2.0/qos/rule-types/{type}", Access: api.Reader, Handle: d.showRuleType, NoSync: true},
	}
	type rules = collection[network.QoSRuleRow, network.QoSRuleSpec]
	for _, kind := range network.QoSRuleTypes() {
		of := func(serve func(*rules, *api.Context) error) api.Handler {
			return func(c *api.Context) error { return serve(d.qosRules(kind, c.Param("policy")), c) }
		}
		all := "/v2.0/qos/policies/{policy}/" + kind + "_rules"
		one, alias := all+"/{id}", "/v2.0/qos/alias_"+kind+"_rules/{id}"
		out = append(out,
			api.Route{Method: http.MethodGet, Pattern: all, Access: api.Reader, Handle: of((*rules).serveList)},
			api.Route{Method: http.MethodPost, Pattern: all, Access: api.Admin, Handle: of((*rules).serveCreate)})
		for _, path := range []string{one, alias} {
			out = append(out,
				api.Route{Method: http.MethodGet, Pattern: path, Access: api.Reader, Handle: of((*rules).serveShow)},
				api.Route{Method: http.MethodPut, Pattern: path, Access: api.Admin, Handle: of((*rules).serveUpdate)},
				api.Route{Method: http.MethodDelete, Pattern: path, Access: api.Admin, Handle: of((*rules).serveDelete)})
		}
	}
	return out
}

func (d *dialect) listRuleTypes(c *api.Context) error {
	q, err := parseQuery(c.Query())
	if err != nil {
		return err
	}
	if err := q.only("type", "all_rules", "all_supported"); err != nil {
		return err
	}
	out := []map[string]any{}
	for _, kind := range network.QoSRuleTypes() {
		if want := q.filters["type"]; len(want) == 0 || slices.Contains(want, kind) {
			out = append(out, map[string]any{"type": kind})
		}
	}
	return c.JSON(http.StatusOK, map[string]any{"rule_types": out})
}

// showRuleType tells administrators who keeps rules of the type, and what they may say.
func (d *dialect) showRuleType(c *api.Context) error {
	kind := c.Param("type")
	if !slices.Contains(network.QoSRuleTypes(), kind) {
		return fault.Coded(fault.NotFound, "HTTPNotFound", "Rule type %s could not be found.", shown(json.RawMessage(kind)))
	}
	row := map[string]any{"type": kind}
	if c.Caller.CloudAdmin {
		params := []map[string]any{}
		for _, v := range ruleValues(kind) {
			p := map[string]any{"parameter_name": v.name, "parameter_type": "range", "parameter_values": map[string]any{"start": 0, "end": network.MaxRate}}
			switch {
			case v.text != nil:
				p["parameter_type"], p["parameter_values"] = "choices", v.values
			case kind == model.QoSDSCP:
				p["parameter_type"], p["parameter_values"] = "choices", network.DSCPMarks()
			}
			params = append(params, p)
		}
		row["drivers"] = []map[string]any{{"name": "openvswitch", "supported_parameters": params}}
	}
	return c.JSON(http.StatusOK, map[string]any{"rule_type": row})
}

// qosAttr is the policy that a resource names; null: none.
func qosAttr[R, S any](get func(*R) string, field func(*S) **string) attribute[R, S] {
	a := textAttr("qos_policy_id", everyone, everyone, get, field)
	set := a.set
	a.set = func(s *S, raw json.RawMessage) error {
		if isNull(raw) {
			none := ""
			*field(s) = &none
			return nil
		}
		return set(s, raw)
	}
	a.emit = func(b []byte, _ *view, r *R) []byte { return appendStringOrNull(b, get(r)) }
	a.match = func(_ *view, r *R) []string {
		if id := get(r); id != "" {
			return []string{id}
		}
		return nil
	}
	return a
}

// networkQoS gives the policy of the port's network, "" where it has none.
func networkQoS(v *view, p *model.Port) string {
	if w, ok := v.network(p.NetworkID); ok {
		return w.QoSPolicyID
	}
	return ""
}

// emitRequest shows what the port is promised, in the words of the placement service: a
// group of what must be found together on a host.
func emitRequest(b []byte, v *view, p *model.Port) []byte {
	w, ok := v.network(p.NetworkID)
	if !ok {
		return append(b, "null"...)
	}
	policy, _ := store.QoSPolicies.Get(v.r, model.PolicyOf(p, w))
	type group struct {
		ID        string         `json:"id"`
		Required  []string       `json:"required"`
		Resources map[string]int `json:"resources"`
	}
	vnic := "CUSTOM_VNIC_TYPE_NORMAL"
	bandwidth, packets := group{Required: []string{vnic}, Resources: map[string]int{}}, group{Required: []string{vnic}, Resources: map[string]int{}}
	for t, n := range policy.Minimum(w) {
		switch {
		case t.Network == model.PacketRate:
			packets.Resources["NET_PACKET_RATE_KILOPACKET_PER_SEC"] = n
		case t.Direction == model.Egress:
			bandwidth.Resources["NET_BW_EGR_KILOBIT_PER_SEC"] = n
		default:
			bandwidth.Resources["NET_BW_IGR_KILOBIT_PER_SEC"] = n
		}
	}
	if w.PhysicalNetwork != "" {
		bandwidth.Required = append([]string{"CUSTOM_PHYSNET_" + trait(w.PhysicalNetwork)}, vnic)
	}
	groups := []group{}
	for i, g := range []group{bandwidth, packets} {
		if len(g.Resources) > 0 {
			g.ID = groupID(p.ID, i)
			groups = append(groups, g)
		}
	}
	if len(groups) == 0 {
		return append(b, "null"...)
	}
	same := []string{}
	for _, g := range groups {
		same = append(same, g.ID)
	}
	enc, err := json.Marshal(map[string]any{"request_groups": groups, "same_subtree": same})
	if err != nil {
		panic(err) // strings and numbers always encode
	}
	return append(b, enc...)
}

// trait writes a name as placement's traits are: capitals, digits and underscores.
func trait(s string) string {
	out := []byte(strings.ToUpper(s))
	for i, c := range out {
		if (c < 'A' || c > 'Z') && (c < '0' || c > '9') {
			out[i] = '_'
		}
	}
	return string(out)
}

// groupID gives the same UUID (version 8, RFC 9562) for the same group of a port each time.
func groupID(port string, group int) string {
	sum := sha256.Sum256([]byte(port + "," + strconv.Itoa(group)))
	sum[6], sum[8] = sum[6]&0x0f|0x80, sum[8]&0x3f|0x80
	h := hex.EncodeToString(sum[:16])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}
