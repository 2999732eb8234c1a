package network

import (
	"slices"

	"yakumo/model"
	"yakumo/store"
)

// relocateBatch is how many routers one transaction of Relocate changes.
const relocateBatch = 200

// Relocate makes a zone the one that a project's routers are meant for, and moves gateways that are elsewhere to the host there that serves the
// fewest, if one is healthy and reaches the external network; else they stay where they are. A gateway's move ends the connections that it
// translates. It gives how many routers were changed: call it again, in another transaction, until that is none.
func (n *Network) Relocate(tx *store.Tx, project model.ID, zone string) (int, error) {
	var changed []*model.Router
	for old := range store.Routers.List(tx, "project", project) {
		if slices.Equal(old.ZoneHints, []string{zone}) {
			continue
		}
		r := *old
		r.ZoneHints = []string{zone}
		if h, ok := store.Hosts.Get(tx, old.ActiveHost()); old.Gateway != nil && (!ok || h.Zone != zone) {
			if next := within(tx, &r, zone); next != "" {
				r.Status.GatewayHosts = []model.ID{next}
			}
		}
		if changed = append(changed, &r); len(changed) == relocateBatch {
			break
		}
	}
	for _, r := range changed {
		if err := store.Routers.Put(tx, r); err != nil {
			return 0, err
		}
	}
	return len(changed), nil
}

// within gives the host of a zone that a router's gateway may be on, "" for none.
func within(tx *store.Tx, r *model.Router, zone string) model.ID {
	w, ok := store.Networks.Get(tx, r.Gateway.NetworkID)
	if !ok {
		return ""
	}
	next, load := "", -1
	for h := range store.Hosts.All(tx) {
		if h.Zone != zone || !GatewayHealthy(tx, h) || !Reaches(h, w) {
			continue
		}
		if c := store.Routers.Count(tx, "gateway_host", h.ID); load < 0 || c < load {
			next, load = h.ID, c
		}
	}
	return next
}
