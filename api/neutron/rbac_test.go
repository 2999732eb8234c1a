package neutron_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func (c *cloud) share(status int, token, kind, id, action, target string) string {
	c.t.Helper()
	p, _ := c.must(status, token, "POST", "/v2.0/rbac-policies", object{"rbac_policy": object{
		"object_type": kind, "object_id": id, "action": action, "target_tenant": target}})["id"].(string)
	return p
}

func TestPoliciesOfNetworks(t *testing.T) {
	c := newCloud(t)
	w := c.network("red", "w")
	s := c.subnet("red", w, "10.0.0.0/24")
	policy := c.share(201, "red", "network", w, "access_as_shared", blue)
	shown := c.must(200, "red", "GET", "/v2.0/rbac-policies/"+policy, nil)
	for k, want := range map[string]any{"object_type": "network", "object_id": w, "action": "access_as_shared", "target_tenant": blue, "project_id": red} {
		if shown[k] != want {
			t.Errorf("%s = %v", k, shown[k])
		}
	}
	for token, want := range map[string]bool{"blue": true, "green": false, "red": true} {
		rows := c.list(token, "/v2.0/networks")
		if (len(rows) == 1) != want || len(c.list(token, "/v2.0/subnets")) != len(rows) {
			t.Errorf("%s sees %d networks", token, len(rows))
		}
	}
	// It is shared for whom it is shared with, and for no other.
	for token, want := range map[string]any{"blue": true, "red": false, "admin": false} {
		if got := c.must(200, token, "GET", "/v2.0/networks/"+w, nil)["shared"]; got != want {
			t.Errorf("%s is shown shared = %v", token, got)
		}
	}
	if got := c.list("blue", "/v2.0/networks?shared=True"); len(got) != 1 {
		t.Errorf("networks shared with blue: %v", got)
	}
	port := c.port("blue", w)
	if ip := port["fixed_ips"].([]any)[0].(object); ip["subnet_id"] != s {
		t.Errorf("%v", ip)
	}
	c.refused(403, "PolicyNotAuthorized", "blue", "PUT", "/v2.0/networks/"+w, object{"network": object{"name": "mine"}})
	c.refused(403, "PolicyNotAuthorized", "blue", "POST", "/v2.0/subnets", object{"subnet": object{"network_id": w, "ip_version": 4, "cidr": "10.1.0.0/24"}})

	// It stays while it is needed, whatever way it is to go.
	c.refused(409, "RbacPolicyInUse", "red", "DELETE", "/v2.0/rbac-policies/"+policy, nil)
	c.refused(409, "RbacPolicyInUse", "red", "PUT", "/v2.0/rbac-policies/"+policy, object{"rbac_policy": object{"target_tenant": green}})
	everybody := c.share(201, "admin", "network", w, "access_as_shared", "*")
	c.must(204, "red", "DELETE", "/v2.0/rbac-policies/"+policy, nil)
	if got := c.must(200, "red", "GET", "/v2.0/networks/"+w, nil)["shared"]; got != true {
		t.Errorf("shared with everybody: %v", got)
	}
	c.refused(409, "RbacPolicyInUse", "admin", "DELETE", "/v2.0/rbac-policies/"+everybody, nil)
	c.refused(409, "InvalidSharedSetting", "admin", "PUT", "/v2.0/networks/"+w, object{"network": object{"shared": false}})
	c.must(204, "blue", "DELETE", "/v2.0/ports/"+port["id"].(string), nil)
	c.must(200, "admin", "PUT", "/v2.0/networks/"+w, object{"network": object{"shared": false}})
	c.refused(404, "RbacPolicyNotFound", "admin", "GET", "/v2.0/rbac-policies/"+everybody, nil)
	c.refused(404, "NetworkNotFound", "blue", "GET", "/v2.0/networks/"+w, nil)

	// "shared" is a policy, and goes with the network.
	c.must(200, "admin", "PUT", "/v2.0/networks/"+w, object{"network": object{"shared": true}})
	if rows := c.list("admin", "/v2.0/rbac-policies?object_id="+w); len(rows) != 1 || rows[0]["target_tenant"] != "*" || rows[0]["project_id"] != red {
		t.Errorf("%v", rows)
	}
	c.must(204, "red", "DELETE", "/v2.0/networks/"+w, nil)
	if rows := c.list("admin", "/v2.0/rbac-policies"); len(rows) != 0 {
		t.Errorf("policies of nothing: %v", rows)
	}
}

func TestPolicyRefusals(t *testing.T) {
	c := newCloud(t)
	w := c.network("red", "w")
	seen := c.network("blue", "seen")
	c.share(201, "blue", "network", seen, "access_as_shared", red)
	policy := c.share(201, "red", "network", w, "access_as_shared", blue)
	body := func(kind, id, action, target string) object {
		return object{"rbac_policy": object{"object_type": kind, "object_id": id, "action": action, "target_tenant": target}}
	}
	for _, tc := range []struct {
		status int
		kind   string
		body   object
	}{
		{400, "InvalidInput", body("router", w, "access_as_shared", blue)},
		{400, "InvalidInput", body("security_group", w, "access_as_external", blue)},
		{400, "InvalidInput", body("network", w, "access", blue)},
		{400, "HTTPBadRequest", body("network", w, "access_as_shared", "")},
		{400, "HTTPBadRequest", object{"rbac_policy": object{"object_type": "network"}}},
		{403, "PolicyNotAuthorized", body("network", w, "access_as_shared", "*")},
		{404, "NetworkNotFound", body("network", "no", "access_as_shared", blue)},
		{404, "SecurityGroupNotFound", body("security_group", w, "access_as_shared", blue)},
		{400, "InvalidInput", body("network", seen, "access_as_shared", green)},
		{409, "DuplicateRbacPolicy", body("network", w, "access_as_shared", blue)},
	} {
		c.refused(tc.status, tc.kind, "red", "POST", "/v2.0/rbac-policies", tc.body)
	}
	at := "/v2.0/rbac-policies/" + policy
	c.refused(400, "HTTPBadRequest", "red", "PUT", at, object{"rbac_policy": object{"action": "access_as_external"}})
	c.refused(403, "PolicyNotAuthorized", "red", "PUT", at, object{"rbac_policy": object{"target_tenant": "*"}})
	c.refused(412, "RevisionNumberConstraintFailed", "red", "PUT", at, object{"rbac_policy": object{"target_tenant": green}}, "If-Match", "revision_number=7")
	c.must(200, "red", "PUT", at, object{"rbac_policy": object{"target_tenant": green}}, "If-Match", "revision_number=1")
	for token, want := range map[string]int{"blue": 1, "green": 1} {
		if got := len(c.list(token, "/v2.0/networks")); got != want {
			t.Errorf("%s sees %d", token, got)
		}
	}
	c.must(200, "admin", "PUT", "/v2.0/quotas/"+red, object{"quota": object{"rbac_policy": 1}})
	c.refused(409, "OverQuota", "red", "POST", "/v2.0/rbac-policies", body("network", w, "access_as_shared", blue))
}

func TestSharedGroups(t *testing.T) {
	c := newCloud(t)
	g := c.must(201, "red", "POST", "/v2.0/security-groups", object{"security_group": object{"name": "g"}})["id"].(string)
	w := c.network("blue", "w")
	c.refused(404, "SecurityGroupNotFound", "blue", "POST", "/v2.0/ports", object{"port": object{"network_id": w, "security_groups": []string{g}}})
	policy := c.share(201, "red", "security_group", g, "access_as_shared", blue)
	if rows := c.list("blue", "/v2.0/security-groups?name=g"); len(rows) != 1 || rows[0]["shared"] != true {
		t.Fatalf("%v", rows)
	}
	if rows := c.list("blue", "/v2.0/security-group-rules?security_group_id="+g); len(rows) != 2 {
		t.Errorf("rules of a shared group: %v", rows)
	}
	p := c.port("blue", w, "security_groups", []string{g})["id"].(string)
	rule := object{"security_group_rule": object{"security_group_id": g, "direction": "ingress"}}
	c.refused(403, "PolicyNotAuthorized", "blue", "POST", "/v2.0/security-group-rules", rule)
	c.refused(403, "PolicyNotAuthorized", "blue", "PUT", "/v2.0/security-groups/"+g, object{"security_group": object{"name": "x"}})
	c.refused(403, "PolicyNotAuthorized", "blue", "DELETE", "/v2.0/security-groups/"+g, nil)
	c.refused(403, "PolicyNotAuthorized", "blue", "PUT", "/v2.0/security-groups/"+g+"/tags/t", nil)
	r := c.must(201, "red", "POST", "/v2.0/security-group-rules", rule)["id"].(string)
	c.refused(403, "PolicyNotAuthorized", "blue", "DELETE", "/v2.0/security-group-rules/"+r, nil)
	c.refused(409, "RbacPolicyInUse", "red", "DELETE", "/v2.0/rbac-policies/"+policy, nil)
	c.must(200, "blue", "PUT", "/v2.0/ports/"+p, object{"port": object{"security_groups": []string{}}})
	c.must(204, "red", "DELETE", "/v2.0/rbac-policies/"+policy, nil)
	c.refused(404, "SecurityGroupNotFound", "blue", "GET", "/v2.0/security-groups/"+g, nil)
	c.refused(404, "SecurityGroupRuleNotFound", "blue", "GET", "/v2.0/security-group-rules/"+r, nil)
}

// sharing is what a property knows of the objects, kept as simply as can be.
type sharing struct {
	owner    map[string]string // of an object, by its id: the token
	kind     map[string]string
	policies map[string]object // by their ids
	users    map[string]string // by the paths of ports and rules: who uses the object "of"
	of       map[string]string
}

var projectOf = map[string]string{"red": red, "blue": blue, "green": green}

// sees tells whether a token sees an object, or, with action, may do that; without is a policy left out.
func (m *sharing) sees(token, id, action, without string) bool {
	if m.owner[id] == token {
		return true
	}
	for p, x := range m.policies {
		if p != without && x["object_id"] == id && (action == "" || x["action"] == action) && (x["target_tenant"] == "*" || x["target_tenant"] == projectOf[token]) {
			return true
		}
	}
	return false
}

// TestPoliciesNeverLeak: whatever policies come, change and go, each project sees exactly
// what is its own or what a policy lets it see, by its id and in lists; and a policy goes
// if and only if nobody needs it.
func TestPoliciesNeverLeak(t *testing.T) {
	c := newCloud(t)
	for _, p := range projectOf {
		c.must(200, "admin", "PUT", "/v2.0/quotas/"+p, object{"quota": object{"rbac_policy": -1, "network": -1, "port": -1, "subnet": -1, "security_group": -1, "security_group_rule": -1}})
	}
	paths := map[string]string{"network": "networks", "security_group": "security-groups", "address_group": "address-groups", "subnetpool": "subnetpools", "address_scope": "address-scopes"}
	names := []string{"red", "blue", "green"}
	rules := 0 // counts, so that no two are equal
	rapid.Check(t, func(rt *rapid.T) {
		m := &sharing{owner: map[string]string{}, kind: map[string]string{}, policies: map[string]object{}, users: map[string]string{}, of: map[string]string{}}
		token := func(what string) string { return rapid.SampledFrom(names).Draw(rt, what) }
		var objects []string
		for kind, path := range paths {
			for _, owner := range names {
				body := object{"name": "o"}
				switch kind {
				case "subnetpool":
					body["prefixes"] = []string{"10.0.0.0/8"}
				case "address_scope":
					body["ip_version"] = 4
				}
				id := c.must(201, owner, "POST", "/v2.0/"+path, object{kind: body})["id"].(string)
				m.owner[id], m.kind[id] = owner, kind
				objects = append(objects, id)
			}
		}
		own, groups := map[string]string{}, map[string]string{} // a network and a group of each project's own, for ports in shared groups and rules
		for _, owner := range names {
			own[owner] = c.network(owner, "own")
			groups[owner] = c.must(201, owner, "POST", "/v2.0/security-groups", object{"security_group": object{"name": "own"}})["id"].(string)
		}
		slices.Sort(objects)
		for range rapid.IntRange(1, 25).Draw(rt, "steps") {
			id := rapid.SampledFrom(objects).Draw(rt, "object")
			kind := m.kind[id]
			switch rapid.SampledFrom([]string{"share", "share", "unshare", "retarget", "use", "release"}).Draw(rt, "step") {
			case "share":
				by := rapid.SampledFrom([]string{"admin", m.owner[id], token("other")}).Draw(rt, "by")
				action := "access_as_shared"
				if kind == "network" && rapid.IntRange(0, 3).Draw(rt, "external") == 0 {
					action = "access_as_external"
				}
				target := rapid.SampledFrom([]string{red, blue, green, "*"}).Draw(rt, "target")
				x := object{"object_type": kind, "object_id": id, "action": action, "target_tenant": target}
				double := false
				for _, p := range m.policies {
					double = double || p["object_id"] == id && p["action"] == action && p["target_tenant"] == target
				}
				want := 201
				switch {
				case by != "admin" && target == "*":
					want = 403
				case by != "admin" && by != m.owner[id]:
					want = 404
					if m.sees(by, id, "", "") {
						want = 400
					}
				case double:
					want = 409
				}
				a := c.do(by, "POST", "/v2.0/rbac-policies", object{"rbac_policy": x})
				if a.status != want {
					rt.Fatalf("%s shares %v: %d %s, want %d", by, x, a.status, a.raw, want)
				}
				if want == 201 {
					m.policies[a.body["rbac_policy"].(object)["id"].(string)] = x
				}
			case "unshare", "retarget":
				if len(m.policies) == 0 {
					continue
				}
				var all []string
				for p := range m.policies {
					all = append(all, p)
				}
				slices.Sort(all)
				p := rapid.SampledFrom(all).Draw(rt, "policy")
				x, target := m.policies[p], token("target")
				retarget := rapid.Bool().Draw(rt, "retarget")
				double := false
				for q, o := range m.policies {
					double = double || q != p && o["object_id"] == x["object_id"] && o["action"] == x["action"] && o["target_tenant"] == projectOf[target]
				}
				used := false
				for user, by := range m.users {
					if m.of[user] == x["object_id"] && x["action"] == "access_as_shared" && !m.sees(by, m.of[user], "access_as_shared", p) && !(retarget && by == target) {
						used = true
					}
				}
				var a answer
				want := 204
				if retarget {
					a, want = c.do("admin", "PUT", "/v2.0/rbac-policies/"+p, object{"rbac_policy": object{"target_tenant": projectOf[target]}}), 200
				} else {
					a = c.do("admin", "DELETE", "/v2.0/rbac-policies/"+p, nil)
				}
				if used || retarget && double {
					want = 409
				}
				if a.status != want {
					rt.Fatalf("policy %v to %s: %d %s, want %d", x, target, a.status, a.raw, want)
				}
				switch want {
				case 200:
					x["target_tenant"] = projectOf[target]
				case 204:
					delete(m.policies, p)
				}
			case "use":
				by := token("user")
				body, may := object{"network_id": id, "security_groups": []string{}}, m.sees(by, id, "access_as_shared", "")
				single, path := "port", "/v2.0/ports"
				switch kind {
				case "security_group":
					body = object{"network_id": own[by], "security_groups": []string{id}}
				case "address_group":
					single, path, body = "security_group_rule", "/v2.0/security-group-rules", object{"security_group_id": groups[by], "direction": "ingress", "remote_address_group_id": id}
					rules++
					body["protocol"], body["port_range_min"], body["port_range_max"] = "tcp", rules%65535+1, rules%65535+1
				case "subnetpool":
					single, path = "subnet", "/v2.0/subnets"
					body = object{"network_id": c.network(by, "for a subnet"), "subnetpool_id": id, "prefixlen": 24}
				case "address_scope":
					rules++
					single, path = "subnetpool", "/v2.0/subnetpools"
					body = object{"name": "p", "address_scope_id": id, "prefixes": []string{fmt.Sprintf("10.%d.%d.0/24", rules/256%256, rules%256)}}
				}
				a := c.do(by, "POST", path, object{single: body})
				if (a.status == 201) != may || a.status >= 500 {
					rt.Fatalf("%s uses %s %s: %d %s, may: %v", by, kind, id, a.status, a.raw, may)
				}
				if may {
					user := path + "/" + a.body[single].(object)["id"].(string)
					m.users[user], m.of[user] = by, id
				}
			case "release":
				for user, by := range m.users {
					c.must(204, by, "DELETE", user, nil)
					delete(m.users, user)
					break
				}
			}
			for _, by := range names {
				listed := map[string]bool{}
				for kind, path := range paths {
					for _, filter := range []string{"?fields=id", "?fields=id&id=" + strings.Join(objects, "&id="), "?fields=id&name=o", "?fields=id&project_id=" + red} {
						for _, x := range c.list(by, "/v2.0/"+path+filter) {
							o := fmt.Sprint(x["id"])
							if m.kind[o] == kind && !m.sees(by, o, "", "") {
								rt.Fatalf("%s lists %s %s with %s", by, kind, o, filter)
							}
							if filter == "?fields=id" {
								listed[o] = true
							}
						}
					}
				}
				for _, o := range objects {
					see := m.sees(by, o, "", "")
					if listed[o] != see {
						rt.Fatalf("%s lists %s: %v, want %v", by, o, listed[o], see)
					}
					a := c.do(by, "GET", "/v2.0/"+paths[m.kind[o]]+"/"+o, nil)
					if (a.status == 200) != see || !see && a.status != 404 {
						rt.Fatalf("%s gets %s: %d, want it: %v", by, o, a.status, see)
					}
					if row, ok := a.body[m.kind[o]].(object); ok {
						with := false
						for _, x := range m.policies {
							with = with || x["object_id"] == o && x["action"] == "access_as_shared" && (x["target_tenant"] == "*" || x["target_tenant"] == projectOf[by])
						}
						if row["shared"] != with {
							rt.Fatalf("%s is shown shared = %v", by, row["shared"])
						}
					}
				}
			}
		}
		for user, by := range m.users {
			c.must(204, by, "DELETE", user, nil)
		}
		for _, id := range objects {
			c.must(204, m.owner[id], "DELETE", "/v2.0/"+paths[m.kind[id]]+"/"+id, nil)
		}
		for by, id := range own {
			c.must(204, by, "DELETE", "/v2.0/networks/"+id, nil)
			c.must(204, by, "DELETE", "/v2.0/security-groups/"+groups[by], nil)
		}
		if rows := c.list("admin", "/v2.0/rbac-policies"); len(rows) != 0 {
			rt.Fatalf("policies of nothing: %v", rows)
		}
	})
}
