package ovs

import (
	"context"
	"fmt"

	"yakumo/datapath"
	"yakumo/fault"
	"yakumo/model"
	"yakumo/openflow"
)

var _ datapath.Injector = (*Driver)(nil)

// Inject implements datapath.Injector: a packet-out that enters the first table with the port
// as the place where it came in.
func (d *Driver) Inject(ctx context.Context, port model.ID, frame []byte) error {
	d.mu.Lock()
	conn, dev, synced := d.conn, d.devices[port], d.synced
	d.mu.Unlock()
	switch {
	case !synced || conn == nil:
		return fault.New(fault.Unavailable, "The switch %s is away.", d.cfg.Bridge)
	case dev.ofport == 0:
		return fault.New(fault.NotFound, "Port %s is not plugged into the switch.", port)
	}
	out := &openflow.PacketOut{Match: openflow.MatchOf(openflow.InPort(dev.ofport)), Actions: []openflow.Action{openflow.ToPort(openflow.PortTable)}, Data: frame}
	if err := conn.Apply(ctx, out); err != nil {
		return fmt.Errorf("inject a frame at port %s: %w", port, err)
	}
	return nil
}
