package network_test

import (
	"testing"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/network"
	"yakumo/store"
	"yakumo/store/storetest"
)

// TestInternetGateways: a router has one at most, a gateway that is for a router stays, and nobody else sees it.
func TestInternetGateways(t *testing.T) {
	s, n := storetest.New(t), unlimited()
	router := func() *model.Router {
		return must(t, s, func(tx *store.Tx) (*model.Router, error) { return n.CreateRouter(tx, owner, network.RouterSpec{}) })
	}
	gateway := func() *model.InternetGateway {
		return must(t, s, func(tx *store.Tx) (*model.InternetGateway, error) {
			return n.CreateInternetGateway(tx, owner, []string{"a"})
		})
	}
	do := func(f func(tx *store.Tx) error) error {
		_, err := s.Update(t.Context(), f)
		return err
	}
	join := func(sc network.Scope, g, r model.ID) error {
		return do(func(tx *store.Tx) error { return n.JoinInternetGateway(tx, sc, g, r) })
	}
	remove := func(sc network.Scope, g model.ID) error {
		return do(func(tx *store.Tx) error { return n.DeleteInternetGateway(tx, sc, g) })
	}
	r, a, b := router(), gateway(), gateway()
	stranger := network.Scope{ProjectID: "33333333333333333333333333333333"}
	if err := join(owner, a.ID, r.ID); err != nil {
		t.Fatal(err)
	}
	wantCode(t, join(owner, b.ID, r.ID), fault.Conflict, "")
	wantCode(t, join(owner, b.ID, model.NewID()), fault.NotFound, "RouterNotFound")
	wantCode(t, join(stranger, b.ID, ""), fault.NotFound, "")
	wantCode(t, remove(owner, a.ID), fault.Conflict, "")
	wantCode(t, remove(stranger, b.ID), fault.NotFound, "")
	wantCode(t, do(func(tx *store.Tx) error { return n.TagInternetGateway(tx, stranger, b.ID, nil) }), fault.NotFound, "")
	wantCode(t, do(func(tx *store.Tx) error {
		return n.TagInternetGateway(tx, owner, b.ID, make([]string, network.MaxTags+1))
	}), fault.Invalid, "InvalidInput")

	// A router that is gone holds nothing: its gateway is free for the next.
	if err := do(func(tx *store.Tx) error { return n.DeleteRouter(tx, owner, r.ID) }); err != nil {
		t.Fatal(err)
	}
	if err := join(owner, a.ID, router().ID); err != nil {
		t.Error(err)
	}
	if err := join(owner, a.ID, ""); err != nil {
		t.Error(err)
	}
	for _, g := range []*model.InternetGateway{a, b} {
		if err := remove(owner, g.ID); err != nil {
			t.Error(err)
		}
	}
}
