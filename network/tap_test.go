package network_test

import (
	"testing"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/network"
	"yakumo/store"
	"yakumo/store/storetest"
)

func TestTaps(t *testing.T) {
	s, n := storetest.New(t), unlimited()
	w := makeNetwork(t, s, n)
	sink, source, foreign := makePort(t, s, n, w), makePort(t, s, n, w), makePort(t, s, n, w)
	service := func(sc network.Scope, port string) (*model.TapService, error) {
		return act(t.Context(), s, func(tx *store.Tx) (*model.TapService, error) {
			return n.CreateTapService(tx, sc, network.TapServiceSpec{PortID: port})
		})
	}
	flow := func(sc network.Scope, service, port, direction string) (*model.TapFlow, error) {
		return act(t.Context(), s, func(tx *store.Tx) (*model.TapFlow, error) {
			return n.CreateTapFlow(tx, sc, network.TapFlowSpec{ServiceID: service, SourcePort: port, Direction: direction})
		})
	}
	_, err := service(other, sink.ID)
	wantCode(t, err, fault.NotFound, "InvalidDestinationPort")
	// The owner of a network sees another project's port there, and still may not tap it.
	guest := must(t, s, func(tx *store.Tx) (*model.Port, error) {
		return n.CreatePort(tx, admin, network.PortSpec{NetworkID: w.ID, ProjectID: ptr(other.ProjectID)})
	})
	_, err = service(owner, guest.ID)
	wantCode(t, err, fault.Forbidden, "PortDoesNotBelongToTenant")
	a, err := service(owner, sink.ID)
	if err != nil {
		t.Fatal(err)
	}
	if a.VNI == 0 || a.VNI == w.VNI {
		t.Errorf("the service's number is %d", a.VNI)
	}
	_, err = flow(other, a.ID, source.ID, model.TapBoth)
	wantCode(t, err, fault.NotFound, "TapServiceNotFound")
	_, err = flow(owner, a.ID, "no", model.TapBoth)
	wantCode(t, err, fault.NotFound, "InvalidSourcePort")
	_, err = flow(owner, a.ID, guest.ID, model.TapBoth)
	wantCode(t, err, fault.Forbidden, "PortDoesNotBelongToTenant")
	_, err = flow(owner, a.ID, sink.ID, model.TapBoth)
	wantCode(t, err, fault.Invalid, "InvalidInput")
	_, err = flow(owner, a.ID, source.ID, "UP")
	wantCode(t, err, fault.Invalid, "HTTPBadRequest")
	for _, d := range []string{model.TapIn, model.TapOut} {
		if _, err := flow(owner, a.ID, source.ID, d); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := flow(owner, a.ID, foreign.ID, model.TapBoth); err != nil {
		t.Fatal(err)
	}
	_, err = flow(owner, a.ID, source.ID, model.TapIn)
	wantCode(t, err, fault.Conflict, "TapFlowExists")

	// A network cannot take the number of the service.
	_, err = act(t.Context(), s, func(tx *store.Tx) (*model.Network, error) {
		return n.CreateNetwork(tx, admin, network.NetworkSpec{Type: ptr("vxlan"), Segmentation: ptr(int(a.VNI))})
	})
	wantCode(t, err, fault.Conflict, "TunnelIdInUse")

	drop := func(id string) {
		if _, err := s.Update(t.Context(), func(tx *store.Tx) error { return n.DeletePort(tx, owner, id) }); err != nil {
			t.Fatal(err)
		}
	}
	count := func() [2]int {
		snap := s.Snapshot()
		return [2]int{store.TapServices.Count(snap, "project", project), store.TapFlows.Count(snap, "project", project)}
	}
	if got := count(); got != [2]int{1, 3} {
		t.Errorf("services and flows: %v", got)
	}
	drop(source.ID)
	if got := count(); got != [2]int{1, 1} {
		t.Errorf("without the source: %v", got)
	}
	drop(sink.ID)
	if got := count(); got != [2]int{} {
		t.Errorf("without the receiver: %v", got)
	}
}
