package network

import (
	"context"

	"yakumo/reconcile"
	"yakumo/store"
)

// AddressFormer gives the ports of a large network the addresses that their guests form in a
// subnet which came later: more than the subnet's own transaction could change.
type AddressFormer struct{ n *Network }

// AddressFormer gives the controller.
func (n *Network) AddressFormer() *AddressFormer { return &AddressFormer{n} }

// Name serves reconcile.Controller.
func (*AddressFormer) Name() string { return "formed-addresses" }

// Reads serves reconcile.Controller.
func (*AddressFormer) Reads() []store.Kind { return []store.Kind{store.Subnets.Kind()} }

// Reconcile gives every such port its address, a batch a transaction. Ports that come
// meanwhile see the subnet and bring theirs.
func (f *AddressFormer) Reconcile(ctx context.Context, snap store.Snapshot, w reconcile.Writer) (reconcile.Result, error) {
	for s := range store.Subnets.List(snap, "forming", "yes") {
		for more := true; more; {
			if _, err := w.Update(ctx, func(tx *store.Tx) error {
				now, ok := store.Subnets.Get(tx, s.ID)
				if more = ok && now.Forming; !more {
					return nil
				}
				ports := unformed(tx, now)
				if more = len(ports) > formBatch; more {
					ports = ports[:formBatch]
				} else {
					next := *now
					next.Forming = false
					if err := store.Subnets.Put(tx, &next); err != nil {
						return err
					}
				}
				return f.n.form(tx, now, ports)
			}); err != nil {
				return reconcile.Result{}, err
			}
		}
		f.n.log.Info("a subnet's addresses are formed", "subnet", s.ID, "network", s.NetworkID)
	}
	return reconcile.Result{}, nil
}

var _ reconcile.Whole = (*AddressFormer)(nil)
