package network_test

import (
	"slices"
	"testing"

	"yakumo/model"
	"yakumo/store"
	"yakumo/store/storetest"
)

// TestRelocate: the gateways of a project follow it to a zone that has a healthy host for them; others stay.
func TestRelocate(t *testing.T) {
	s := storetest.New(t)
	gatewayWorld(t, s, 4, 3)
	update := func(f func(tx *store.Tx) error) {
		t.Helper()
		if _, err := s.Update(t.Context(), f); err != nil {
			t.Fatal(err)
		}
	}
	update(func(tx *store.Tx) error {
		for id, zone := range map[model.ID]string{"h0000": "nova", "h0001": "nova", "h0002": "east", "h0003": "ill"} {
			old, _ := store.Hosts.Get(tx, id)
			h := *old
			h.Zone = zone
			if err := store.Hosts.Put(tx, &h); err != nil {
				return err
			}
		}
		for id, project := range map[model.ID]model.ID{"r00000": "p", "r00001": "p", "r00002": "q"} {
			old, _ := store.Routers.Get(tx, id)
			r := *old
			r.ProjectID = project
			if r.Status.GatewayHosts = []model.ID{"h0000", "h0001"}; id == "r00001" {
				r.Gateway, r.Status.GatewayHosts = nil, nil
			}
			if err := store.Routers.Put(tx, &r); err != nil {
				return err
			}
		}
		return store.Heartbeats.Put(tx, &model.Heartbeat{HostID: "h0003", Suspect: true})
	})
	relocate := func(zone string) (n int) {
		t.Helper()
		update(func(tx *store.Tx) (err error) { n, err = unlimited().Relocate(tx, "p", zone); return err })
		pass(t, s)
		return n
	}
	router := func(id model.ID) *model.Router { r, _ := store.Routers.Get(s.Snapshot(), id); return r }
	if n := relocate("east"); n != 2 {
		t.Errorf("%d routers were changed", n)
	}
	if n := relocate("east"); n != 0 {
		t.Errorf("said twice, %d routers were changed", n)
	}
	if r := router("r00000"); r.ActiveHost() != "h0002" || len(r.Status.GatewayHosts) != 2 || !slices.Equal(r.ZoneHints, []string{"east"}) {
		t.Errorf("%+v", r)
	}
	if r := router("r00001"); len(r.Status.GatewayHosts) != 0 {
		t.Errorf("%+v", r)
	}
	if r := router("r00002"); r.ActiveHost() != "h0000" || r.ZoneHints != nil {
		t.Errorf("another project's: %+v", r)
	}
	if relocate("ill"); router("r00000").ActiveHost() != "h0002" {
		t.Errorf("without a healthy host there: %+v", router("r00000"))
	}
	if relocate("nova"); router("r00000").ActiveHost() != "h0000" && router("r00000").ActiveHost() != "h0001" {
		t.Errorf("back: %+v", router("r00000"))
	}
}
