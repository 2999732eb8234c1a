package neutron_test

import (
	"strings"

	"yakumo/network"
)

// kindOf gives the kind of resource that a route is about, as the keys of seed name it.
func kindOf(path string) string {
	parts := strings.Split(strings.Trim(strings.TrimPrefix(path, "/v2.0"), "/"), "/")
	switch {
	case parts[0] == "qos" && len(parts) > 3:
		return parts[3] // rules of a policy
	case (parts[0] == "qos" || parts[0] == "taas") && len(parts) > 1:
		return strings.TrimPrefix(parts[1], "alias_")
	}
	return parts[0]
}

// ruleBodies are bodies of a QoS rule of each type, by the rule's name in them.
var ruleBodies = map[string]object{
	"bandwidth_limit_rule": {"max_kbps": 1000, "max_burst_kbps": 100, "direction": "ingress"}, "dscp_marking_rule": {"dscp_mark": 26},
	"minimum_bandwidth_rule": {"min_kbps": 500}, "packet_rate_limit_rule": {"max_kpps": 10}, "minimum_packet_rate_rule": {"min_kpps": 5, "direction": "any"},
}

// seed makes a QoS policy with a rule of each type for the project of "red", and for its
// network w a trunk and a tap; it gives their ids by kind.
func (c *cloud) seed(w string) map[string]string {
	c.t.Helper()
	out := map[string]string{}
	policy := c.must(201, "admin", "POST", "/v2.0/qos/policies", object{"policy": object{"name": "q", "project_id": red, "tenant_id": red}})["id"].(string)
	out["policies"] = policy
	for _, kind := range network.QoSRuleTypes() {
		single := kind + "_rule"
		out[single+"s"] = c.must(201, "admin", "POST", "/v2.0/qos/policies/"+policy+"/"+single+"s", object{single: ruleBodies[single]})["id"].(string)
	}
	parent, sub := c.port("red", w)["id"].(string), c.port("red", w)["id"].(string)
	out["trunks"] = c.must(201, "red", "POST", "/v2.0/trunks", object{"trunk": object{"port_id": parent,
		"sub_ports": []object{{"port_id": sub, "segmentation_type": "vlan", "segmentation_id": 7}}}})["id"].(string)
	out["tap_services"] = c.must(201, "red", "POST", "/v2.0/taas/tap_services", object{"tap_service": object{"name": "t", "port_id": sub}})["id"].(string)
	out["tap_flows"] = c.must(201, "red", "POST", "/v2.0/taas/tap_flows", object{"tap_flow": object{"name": "f", "tap_service_id": out["tap_services"],
		"source_port": parent, "direction": "BOTH"}})["id"].(string)
	return out
}
