package network

import (
	"errors"
	"slices"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// TapServiceSpec is what a request says of a tap service; nil: it does not say.
type TapServiceSpec struct {
	ProjectID   *string
	Name        *string
	Description *string
	PortID      string // that receives the copies, of a new service
}

// TapFlowSpec is what a request says of a tap flow; nil: it does not say.
type TapFlowSpec struct {
	ProjectID   *string
	Name        *string
	Description *string
	ServiceID   string // of a new flow
	SourcePort  string // whose frames are copied, of a new flow
	Direction   string // of a new flow: IN, OUT, BOTH
}

// GetTapService gives a tap service that the scope sees.
func (n *Network) GetTapService(r store.Reader, sc Scope, id model.ID) (*model.TapService, error) {
	t, ok := store.TapServices.Get(r, id)
	if !ok || !sc.Owns(t.ProjectID) {
		return nil, fault.Coded(fault.NotFound, "TapServiceNotFound", "Tap Service %s does not exist", clip(id))
	}
	return t, nil
}

// GetTapFlow gives a tap flow that the scope sees.
func (n *Network) GetTapFlow(r store.Reader, sc Scope, id model.ID) (*model.TapFlow, error) {
	f, ok := store.TapFlows.Get(r, id)
	if !ok || !sc.Owns(f.ProjectID) {
		return nil, fault.Coded(fault.NotFound, "TapFlowNotFound", "Tap Flow %s does not exist", clip(id))
	}
	return f, nil
}

// tapPort gives a port that the scope owns: who taps a port sees all of its frames, and who
// receives copies is flooded by them.
func (n *Network) tapPort(tx *store.Tx, sc Scope, id model.ID, code, what string) (*model.Port, error) {
	p, err := n.GetPort(tx, sc, id)
	switch {
	case err != nil:
		return nil, fault.Coded(fault.NotFound, code, "%s Port %s does not exist", what, clip(id))
	case !sc.Owns(p.ProjectID):
		return nil, fault.Coded(fault.Forbidden, "PortDoesNotBelongToTenant", "The specified port does not belong to the tenant")
	case routerOwned(p.DeviceOwner): // it has no device whose frames could be copied
		return nil, invalid("the port %s is one of the cloud's own.", id)
	}
	tx.Mark(tapMark(id))
	return p, nil
}

func tapMark(port model.ID) string { return "tap," + port }

// CreateTapService makes a port a receiver of copies.
//
// Errors: fault.NotFound code InvalidDestinationPort, fault.Forbidden code
// PortDoesNotBelongToTenant, fault.Invalid, fault.OverQuota, fault.Unavailable.
func (n *Network) CreateTapService(tx *store.Tx, sc Scope, spec TapServiceSpec) (*model.TapService, error) {
	project, err := sc.project(spec.ProjectID)
	if err != nil {
		return nil, err
	}
	if err := n.spend(tx, project, QuotaTapService, 1); err != nil {
		return nil, err
	}
	p, err := n.tapPort(tx, sc, spec.PortID, "InvalidDestinationPort", "Destination")
	if err != nil {
		return nil, err
	}
	t := &model.TapService{Meta: model.NewMeta(project, "", n.now()), PortID: p.ID}
	if err := retext(&t.Meta, spec.Name, spec.Description); err != nil {
		return nil, err
	}
	if t.VNI, err = n.pickVNI(tx); err != nil {
		return nil, err
	}
	return t, store.TapServices.Put(tx, t)
}

// UpdateTapService changes name and description.
func (n *Network) UpdateTapService(tx *store.Tx, sc Scope, id model.ID, spec TapServiceSpec) (*model.TapService, error) {
	old, err := n.GetTapService(tx, sc, id)
	if err != nil {
		return nil, err
	}
	t := *old
	if err := retext(&t.Meta, spec.Name, spec.Description); err != nil {
		return nil, err
	}
	t.Touch(n.now())
	return &t, store.TapServices.Put(tx, &t)
}

// DeleteTapService removes a tap service and its flows.
func (n *Network) DeleteTapService(tx *store.Tx, sc Scope, id model.ID) error {
	if _, err := n.GetTapService(tx, sc, id); err != nil {
		return err
	}
	return dropTapService(tx, id)
}

func dropTapService(tx *store.Tx, id model.ID) error {
	tx.Guard(tapServiceMark(id))
	for _, f := range slices.Collect(store.TapFlows.List(tx, "service", id)) {
		if err := store.TapFlows.Delete(tx, f.ID); err != nil {
			return err
		}
	}
	tx.Unmark(tapServiceMark(id))
	return store.TapServices.Delete(tx, id)
}

func tapServiceMark(id model.ID) string { return "tap_service," + id }

// CreateTapFlow copies a port's frames to a tap service.
//
// Errors: fault.NotFound (codes TapServiceNotFound, InvalidSourcePort), fault.Forbidden code
// PortDoesNotBelongToTenant, fault.Invalid, fault.Conflict code TapFlowExists, fault.OverQuota.
func (n *Network) CreateTapFlow(tx *store.Tx, sc Scope, spec TapFlowSpec) (*model.TapFlow, error) {
	project, err := sc.project(spec.ProjectID)
	if err != nil {
		return nil, err
	}
	t, err := n.GetTapService(tx, sc, spec.ServiceID)
	if err != nil {
		return nil, err
	}
	if err := n.spend(tx, project, QuotaTapFlow, 1); err != nil {
		return nil, err
	}
	p, err := n.tapPort(tx, sc, spec.SourcePort, "InvalidSourcePort", "Source")
	switch {
	case err != nil:
		return nil, err
	case p.ID == t.PortID:
		return nil, invalid("the port %s cannot be the source of copies to itself.", p.ID)
	case spec.Direction != model.TapIn && spec.Direction != model.TapOut && spec.Direction != model.TapBoth:
		return nil, fault.Coded(fault.Invalid, "HTTPBadRequest", "Invalid input for direction. Reason: '%s' is not in ['IN', 'OUT', 'BOTH'].", clip(spec.Direction))
	}
	f := &model.TapFlow{Meta: model.NewMeta(project, "", n.now()), ServiceID: t.ID, SourcePort: p.ID, Direction: spec.Direction}
	if err := retext(&f.Meta, spec.Name, spec.Description); err != nil {
		return nil, err
	}
	tx.Mark(tapServiceMark(t.ID))
	err = store.TapFlows.Put(tx, f)
	var taken *store.TakenError
	if errors.As(err, &taken) {
		return nil, fault.Coded(fault.Conflict, "TapFlowExists", "Tap Flow %s copies the same frames of port %s already.", taken.Holder, p.ID)
	}
	return f, err
}

// UpdateTapFlow changes name and description.
func (n *Network) UpdateTapFlow(tx *store.Tx, sc Scope, id model.ID, spec TapFlowSpec) (*model.TapFlow, error) {
	old, err := n.GetTapFlow(tx, sc, id)
	if err != nil {
		return nil, err
	}
	f := *old
	if err := retext(&f.Meta, spec.Name, spec.Description); err != nil {
		return nil, err
	}
	f.Touch(n.now())
	return &f, store.TapFlows.Put(tx, &f)
}

// DeleteTapFlow removes a tap flow.
func (n *Network) DeleteTapFlow(tx *store.Tx, sc Scope, id model.ID) error {
	if _, err := n.GetTapFlow(tx, sc, id); err != nil {
		return err
	}
	return store.TapFlows.Delete(tx, id)
}

// dropTaps removes the tap services and flows of a port that goes.
func dropTaps(tx *store.Tx, port model.ID) error {
	tx.Guard(tapMark(port))
	for _, f := range slices.Collect(store.TapFlows.List(tx, "source", port)) {
		if err := store.TapFlows.Delete(tx, f.ID); err != nil {
			return err
		}
	}
	for _, t := range slices.Collect(store.TapServices.List(tx, "port", port)) {
		if err := dropTapService(tx, t.ID); err != nil {
			return err
		}
	}
	tx.Unmark(tapMark(port))
	return nil
}

// TapState tells whether copies can arrive: ACTIVE where the ports, whose ids these are, have hosts.
func TapState(r store.Reader, ports ...model.ID) string {
	for _, id := range ports {
		if p, ok := store.Ports.Get(r, id); !ok || !p.Bound() {
			return model.PortDown
		}
	}
	return model.PortActive
}

// retext changes a row's name and description.
func retext(m *model.Meta, name, description *string) error {
	if err := checkText("name", name); err != nil {
		return err
	}
	if err := checkText("description", description); err != nil {
		return err
	}
	set(&m.Name, name)
	set(&m.Description, description)
	return nil
}
