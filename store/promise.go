package store

import "yakumo/model"

// Promises gives what the ports of each host are promised by policies, by the host's id. It
// looks only at policies that promise something, and at their ports.
func Promises(r Reader) map[model.ID]map[model.Traffic]int {
	out := map[model.ID]map[model.Traffic]int{}
	add := func(p *model.Port, w *model.Network, policy *model.QoSPolicy) {
		if p.Host == "" {
			return
		}
		for t, n := range policy.Minimum(w) {
			if out[p.Host] == nil {
				out[p.Host] = map[model.Traffic]int{}
			}
			out[p.Host][t] += n
		}
	}
	for policy := range QoSPolicies.List(r, "minimum", "yes") {
		for p := range Ports.List(r, "qos", policy.ID) {
			for w := range Networks.List(r, "id", p.NetworkID) { // not compared at commit: there may be thousands
				add(p, w, policy)
			}
		}
		for w := range Networks.List(r, "qos", policy.ID) {
			for p := range Ports.List(r, "network", w.ID) {
				if p.QoSPolicyID == "" && model.PolicyOf(p, w) == policy.ID {
					add(p, w, policy)
				}
			}
		}
	}
	return out
}
