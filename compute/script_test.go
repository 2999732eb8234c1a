package compute_test

import (
	"testing"

	"yakumo/compute"
	"yakumo/model"
	"yakumo/network"
	"yakumo/reconcile/scripttest"
	"yakumo/store"
	"yakumo/store/storetest"
)

// TestPlacementScripts: rows in, one pass of the placement controller, rows out.
func TestPlacementScripts(t *testing.T) {
	tables := []scripttest.Rows{
		scripttest.Of(store.Servers, func(r *model.Server) string { return r.ID }), scripttest.Of(store.Hosts, func(r *model.Host) string { return r.ID }),
		scripttest.Of(store.Heartbeats, func(r *model.Heartbeat) string { return r.HostID }), scripttest.Of(store.Ports, func(r *model.Port) string { return r.ID }),
		scripttest.Of(store.Actions, (*model.Action).Key),
	}
	open := func(t testing.TB) *store.Store { return storetest.New(t) }
	scripttest.Run(t, "testdata/place", open, tables, func(t *testing.T, st *store.Store) {
		c := compute.New(compute.Config{Store: st, Ports: network.New(network.Config{Log: quiet}), Log: quiet})
		if _, err := c.Placer().Reconcile(t.Context(), st.Snapshot(), plainWriter{st}); err != nil {
			t.Fatal(err)
		}
	})
}
