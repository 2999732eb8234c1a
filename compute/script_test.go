package compute_test

import (
	"log/slog"
	"testing"

	"yakumo/compute"
	"yakumo/network"
	"yakumo/reconcile"
	"yakumo/reconcile/scripttest"
	"yakumo/store"
)

func TestScripts(t *testing.T) {
	scripttest.Run(t, "testdata/*.txtar", func(st *store.Store) []reconcile.Controller {
		log := slog.New(slog.DiscardHandler)
		c := compute.New(compute.Config{Store: st, Ports: network.New(network.Config{Log: log}), Log: log})
		return []reconcile.Controller{c.Placer(), c.Sweeper()}
	})
}
