package fake

import (
	"context"
	"fmt"
	"strings"

	"yakumo/hypervisor"
)

var _ hypervisor.Locator = (*Driver)(nil)

// Devices implements hypervisor.Locator: each device has a PCI slot of its own, cards first.
func (d *Driver) Devices(ctx context.Context, id string) ([]hypervisor.Place, error) {
	if err := d.h.enter(ctx, Devices, id); err != nil {
		return nil, err
	}
	d.h.mu.Lock()
	defer d.h.mu.Unlock()
	g, ok := d.h.guests[id]
	if !ok {
		return nil, hypervisor.NotFound(id)
	}
	var out []hypervisor.Place
	place := func(p hypervisor.Place) {
		p.Bus, p.Address = "pci", fmt.Sprintf("0000:00:%02x.0", len(out)+2)
		out = append(out, p)
	}
	for _, n := range g.spec.NICs {
		place(hypervisor.Place{MAC: strings.ToLower(n.MAC)})
	}
	for i, k := range g.spec.Disks {
		place(hypervisor.Place{Serial: k.Serial, Path: fmt.Sprintf("/dev/vd%c", 'a'+i%26)})
	}
	return out, nil
}

var _ hypervisor.Pinner = (*Driver)(nil)

// CPUs implements hypervisor.Pinner.
func (d *Driver) CPUs(ctx context.Context, id string) (hypervisor.HostCPUs, error) {
	if err := d.h.enter(ctx, Devices, id); err != nil {
		return hypervisor.HostCPUs{}, err
	}
	d.h.mu.Lock()
	defer d.h.mu.Unlock()
	g := d.h.guests[id]
	switch {
	case g == nil:
		return hypervisor.HostCPUs{}, hypervisor.NotFound(id)
	case g.on():
		return g.live.CPUs, nil
	}
	return g.spec.CPUs, nil
}
