package network

import (
	"yakumo/model"
	"yakumo/store"
)

// ReleasePort takes a port from the server that used it, which is gone: a port that was
// made for its server goes with it, another is free to be used again. Absent is success.
func (n *Network) ReleasePort(tx *store.Tx, port model.ID) error {
	old, ok := store.Ports.Get(tx, port)
	if !ok {
		return nil
	}
	if old.Owned {
		return store.Ports.Delete(tx, port)
	}
	p := *old
	p.DeviceID, p.DeviceOwner = "", ""
	n.bind(&p, "")
	p.Touch(n.now())
	return store.Ports.Put(tx, &p)
}
