package network

import (
	"errors"
	"slices"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// GetInternetGateway gives an internet gateway that the scope sees.
func (n *Network) GetInternetGateway(r store.Reader, sc Scope, id model.ID) (*model.InternetGateway, error) {
	g, ok := store.InternetGateways.Get(r, id)
	if !ok || !sc.Owns(g.ProjectID) {
		return nil, fault.New(fault.NotFound, "Internet gateway %s could not be found.", clip(id))
	}
	return g, nil
}

// CreateInternetGateway makes an internet gateway that is for no router yet. A project has as many as it may have routers.
//
// Errors: fault.OverQuota, fault.Invalid (tags).
func (n *Network) CreateInternetGateway(tx *store.Tx, sc Scope, tags []string) (*model.InternetGateway, error) {
	mark := "quota," + sc.ProjectID + ",internet_gateway"
	tx.Mark(mark)
	tx.Guard(mark)
	if limit := n.Quota(tx, sc.ProjectID)[QuotaRouter]; limit >= 0 && store.InternetGateways.Count(tx, "project", sc.ProjectID) >= limit {
		return nil, fault.New(fault.OverQuota, "The project has %d internet gateways, as many as it may have routers.", limit)
	}
	g := &model.InternetGateway{Meta: model.NewMeta(sc.ProjectID, "", n.now())}
	g.Tags = slices.Clone(tags)
	return g, store.InternetGateways.Put(tx, g)
}

// JoinInternetGateway says which router a gateway is for; "": none. It changes nothing of the router.
//
// Errors: fault.NotFound, fault.Conflict where the router has another.
func (n *Network) JoinInternetGateway(tx *store.Tx, sc Scope, id, router model.ID) error {
	old, err := n.GetInternetGateway(tx, sc, id)
	if err != nil {
		return err
	}
	if router != "" {
		if _, err := n.GetRouter(tx, sc, router); err != nil {
			return err
		}
	}
	g := *old
	g.RouterID = router
	g.Touch(n.now())
	err = store.InternetGateways.Put(tx, &g)
	var taken *store.TakenError
	if errors.As(err, &taken) {
		return fault.New(fault.Conflict, "The router %s has an internet gateway already.", router)
	}
	return err
}

// TagInternetGateway replaces a gateway's tags.
func (n *Network) TagInternetGateway(tx *store.Tx, sc Scope, id model.ID, tags []string) error {
	old, err := n.GetInternetGateway(tx, sc, id)
	if err != nil {
		return err
	}
	if len(tags) > MaxTags {
		return invalid("a resource has at most %d tags.", MaxTags)
	}
	g := *old
	g.Tags = slices.Clone(tags)
	g.Touch(n.now())
	return store.InternetGateways.Put(tx, &g)
}

// DeleteInternetGateway removes a gateway that is for no router.
//
// Errors: fault.NotFound, fault.Conflict.
func (n *Network) DeleteInternetGateway(tx *store.Tx, sc Scope, id model.ID) error {
	g, err := n.GetInternetGateway(tx, sc, id)
	if err != nil {
		return err
	}
	if _, there := store.Routers.Get(tx, g.RouterID); g.RouterID != "" && there {
		return fault.New(fault.Conflict, "The internet gateway %s is for the router %s.", id, g.RouterID)
	}
	return store.InternetGateways.Delete(tx, id)
}
