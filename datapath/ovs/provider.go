package ovs

import (
	"context"
	"fmt"

	"yakumo/datapath/pipeline"
	"yakumo/model"
	"yakumo/ovsdb"
)

// providerKey, in a patch port's external ids, names the physical network that it leads to.
const providerKey = "yakumo-physical-network"

// bridgeKey, beside providerKey, names the provider bridge.
const bridgeKey = "yakumo-provider-bridge"

// providerPlace gives the place of a physical network.
func (d *Driver) providerPlace(physical string) (uint64, bool) {
	n, err := d.cfg.Ordinals.Get(pipeline.OrdinalProvider, physical, pipeline.MaxProvider)
	if err != nil {
		d.cfg.Log.Error("ordinal of physical network", "physical_network", physical, "error", err)
		return 0, false
	}
	return pipeline.PortProvider + uint64(n), true
}

// patch gives the names of the two ends that join the bridge to a provider bridge.
func patch(physical string) (near, far string) { return "yk-pn-" + physical, "yk-pf-" + physical }

// joinProviders joins the bridge to the provider bridges that are there, and parts it from those that
// the configuration does not name any more. The operator may make a bridge at any time: a
// missing one is only told of, and joined when it appears.
func (d *Driver) joinProviders(ctx context.Context, db *ovsdb.Switch) {
	if err := d.partProviders(ctx, db); err != nil {
		d.cfg.Log.Warn("part from provider bridges", "error", err)
	}
	for physical, bridge := range d.cfg.Providers {
		text := ""
		if err := d.joinProvider(ctx, db, physical, bridge); err != nil {
			text = err.Error()
		}
		d.mu.Lock()
		told := d.bridged[physical] == text
		d.bridged[physical] = text
		d.mu.Unlock()
		if text != "" && !told {
			d.cfg.Log.Warn("provider bridge is not joined", "physical_network", physical, "bridge", bridge, "error", text)
		}
	}
}

func (d *Driver) joinProvider(ctx context.Context, db *ovsdb.Switch, physical, bridge string) error {
	place, ok := d.providerPlace(physical)
	if !ok {
		return fmt.Errorf("physical network %s has no number", physical)
	}
	b, there, err := db.Bridge(bridge)
	if err != nil {
		return err
	}
	if !there {
		return fmt.Errorf("bridge %s does not exist", bridge)
	}
	if own, is, err := db.Bridge(d.cfg.Bridge); err != nil || !is {
		return err // not made yet: the session comes to it
	} else if b.DatapathType != own.DatapathType { // "" is system
		return fmt.Errorf("bridge %s has the datapath type %q and %s has %q; patch ports do not join them", bridge, b.DatapathType, d.cfg.Bridge, own.DatapathType)
	}
	near, far := patch(physical)
	join := func() error {
		_, err := db.EnsurePort(ctx, bridge, ovsdb.PortConfig{Name: far, Type: "patch", Options: map[string]string{"peer": near}, ExternalIDs: map[string]string{providerKey: physical}})
		return err
	}
	alone := join() // the first end of a pair has nowhere to lead to, and is in error
	_, err = db.EnsurePort(ctx, d.cfg.Bridge, ovsdb.PortConfig{Name: near, Type: "patch", Options: map[string]string{"peer": far},
		OFPortRequest: int64(providerOFPort + place - pipeline.PortProvider), ExternalIDs: map[string]string{providerKey: physical, bridgeKey: bridge}})
	if err == nil && alone != nil {
		err = join()
	}
	return err
}

// partProviders removes the patches of physical networks that are mapped no more, or to another bridge.
func (d *Driver) partProviders(ctx context.Context, db *ovsdb.Switch) error {
	list, err := db.Ports(d.cfg.Bridge)
	if err != nil {
		return err
	}
	for _, p := range list {
		physical := p.Interface.ExternalIDs[providerKey]
		bridge := p.Interface.ExternalIDs[bridgeKey]
		if physical == "" || d.cfg.Providers[physical] == bridge {
			continue
		}
		_, far := patch(physical)
		if err := db.RemovePort(ctx, bridge, far); err != nil {
			return err
		}
		if err := db.RemovePort(ctx, d.cfg.Bridge, p.Port.Name); err != nil {
			return err
		}
	}
	return nil
}

// joined tells whether what a port's network needs of the switch beside the port is there: the patch to
// a provider bridge. d.mu is held.
func (d *Driver) joined(port model.ID) bool {
	p, ok := d.prog.Row(model.RowID{Kind: model.RowPort, Key: port}).(*model.HostPort)
	if !ok {
		return false
	}
	n, ok := d.prog.Row(model.RowID{Kind: model.RowNetwork, Key: p.NetworkID}).(*model.HostNetwork)
	if !ok || !n.Provider() {
		return ok
	}
	place, ok := d.providerPlace(n.PhysicalNetwork)
	return ok && d.special[place] != 0
}
