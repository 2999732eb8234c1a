package network

import (
	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// BindPort puts a port on a host (a host's id); "" takes it off. The port's state is DOWN
// until the host says that it is wired; on the host that was prepared for it, it is what it was. Whatever
// was prepared ends. The subports of its trunk go with it.
//
// Errors: fault.NotFound.
func (n *Network) BindPort(tx *store.Tx, port, host model.ID) (*model.Port, error) {
	old, ok := store.Ports.Get(tx, port)
	if !ok {
		return nil, fault.Coded(fault.NotFound, "PortNotFound", "Port %s could not be found.", port)
	}
	if old.Host == host && old.NextHost == "" {
		return old, nil
	}
	p := *old
	n.bind(&p, host)
	p.Touch(n.now())
	if err := store.Ports.Put(tx, &p); err != nil {
		return nil, err
	}
	return &p, n.follow(tx, &p)
}

// PreparePort makes another host ready for a port whose server is on its way there: next has it wired in
// stand-by, while its host serves it. "" undoes it, and so does the port's own host. The subports of its trunk go with it.
//
// Errors: fault.NotFound, fault.Conflict (the port has no host).
func (n *Network) PreparePort(tx *store.Tx, port, next model.ID) error {
	old, ok := store.Ports.Get(tx, port)
	if !ok {
		return fault.Coded(fault.NotFound, "PortNotFound", "Port %s could not be found.", port)
	}
	if next == old.Host {
		next = ""
	}
	switch {
	case next == old.NextHost:
		return nil
	case !old.Bound():
		return fault.New(fault.Conflict, "Port %s is bound to no host.", port)
	}
	p := *old
	p.NextHost = next
	p.Touch(n.now())
	if err := store.Ports.Put(tx, &p); err != nil {
		return err
	}
	return n.follow(tx, &p)
}

// bind puts a port on a host, and on that alone.
func (n *Network) bind(p *model.Port, host model.ID) {
	if host == "" || host != p.Host && host != p.NextHost {
		p.Status = model.PortStatus{State: model.PortDown}
	}
	p.Host, p.NextHost = host, ""
	dropHeld(p)
}

// ReportPort records what a host made of a port. What an earlier host, or this host of an
// earlier generation, says late is left out, and false given.
func (n *Network) ReportPort(tx *store.Tx, port, host model.ID, st model.PortStatus) (bool, error) {
	old, ok := store.Ports.Get(tx, port)
	if !ok || old.Host != host || st.Generation < old.Status.Generation || old.Status == st {
		return false, nil
	}
	p := *old
	p.Status = st
	p.UpdatedAt = n.now().UTC()
	return true, store.Ports.Put(tx, &p)
}

// AttachPort gives a port of the scope to a device, such as a server (owner
// "compute:<zone>"). The device's earlier claim is success.
//
// Errors: fault.NotFound, fault.Forbidden, fault.Conflict code PortInUse.
func (n *Network) AttachPort(tx *store.Tx, sc Scope, port, device model.ID, owner string) (*model.Port, error) {
	old, err := n.GetPort(tx, sc, port)
	if err != nil {
		return nil, err
	}
	if !sc.Owns(old.ProjectID) {
		return nil, forbidden("another project's port")
	}
	if old.DeviceID != "" && old.DeviceID != device {
		return nil, fault.Coded(fault.Conflict, "PortInUse", "Port %s is still in use.", port)
	}
	p := *old
	p.DeviceID, p.DeviceOwner = device, owner
	p.Touch(n.now())
	return &p, n.putPort(tx, &p)
}

// Keep says whether a port stays when its server goes or lets go of it.
//
// Errors: fault.NotFound, fault.Forbidden.
func (n *Network) Keep(tx *store.Tx, sc Scope, port model.ID, keep bool) error {
	old, err := n.GetPort(tx, sc, port)
	if err != nil {
		return err
	}
	if !sc.Owns(old.ProjectID) {
		return forbidden("another project's port")
	}
	p := *old
	p.Owned = !keep
	p.Touch(n.now())
	return store.Ports.Put(tx, &p)
}

// ReleasePort takes a port from a server that is gone: one that was made for its server
// goes with it, another one, or the parent of a trunk, is unbound and free for the next.
// Absent is success.
func (n *Network) ReleasePort(tx *store.Tx, port model.ID) error {
	old, ok := store.Ports.Get(tx, port)
	if !ok {
		return nil
	}
	if old.Owned && old.TrunkID == "" {
		return n.dropPort(tx, old)
	}
	p := *old
	p.DeviceID, p.DeviceOwner, p.Owned = "", "", false
	n.bind(&p, "")
	p.Touch(n.now())
	if err := store.Ports.Put(tx, &p); err != nil {
		return err
	}
	return n.follow(tx, &p)
}
