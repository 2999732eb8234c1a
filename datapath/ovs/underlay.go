package ovs

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"yakumo/datapath/pipeline"
)

// refreshUnderlay is how often the MACs of other hosts are asked for: well within the 15
// minutes after which the switch forgets one.
const refreshUnderlay = time.Minute

// farHosts are the hosts that entries send to by tunnel. The user-space datapath resolves their MACs by
// itself, and drops the packet that made it ask: the first that a guest sends to another host. So
// the host's own IP stack is made to ask before any guest does; the switch overhears the answer.
type farHosts struct {
	known map[netip.Addr]bool
	fresh []netip.Addr
	wake  chan struct{}
}

// noteFar takes over the hosts that new entries send to. d.mu is held.
func (d *Driver) noteFar(put []*pipeline.Installed) {
	if d.cfg.Datapath != DatapathNetdev {
		return
	}
	f := &d.far
	for _, in := range put {
		for _, a := range in.Entry.Actions {
			if t, ok := a.(pipeline.Tunnel); ok && t.Host.IsValid() && !f.known[t.Host] {
				f.known[t.Host] = true
				f.fresh = append(f.fresh, t.Host)
			}
		}
	}
	if len(f.fresh) > 0 {
		select {
		case f.wake <- struct{}{}:
		default:
		}
	}
}

// stillFar counts anew which hosts entries send to, and gives them all. d.mu is held.
func (d *Driver) stillFar() []netip.Addr {
	clear(d.far.known)
	d.far.fresh = nil
	for _, in := range d.prog.All() {
		for _, a := range in.Entry.Actions {
			if t, ok := a.(pipeline.Tunnel); ok && t.Host.IsValid() {
				d.far.known[t.Host] = true
			}
		}
	}
	out := make([]netip.Addr, 0, len(d.far.known))
	for a := range d.far.known {
		out = append(out, a)
	}
	return out
}

// askFar makes the host ask for the MACs of far hosts until Close.
func (d *Driver) askFar() {
	defer d.wg.Done()
	tick := time.NewTicker(refreshUnderlay)
	defer tick.Stop()
	for {
		var list []netip.Addr
		select {
		case <-d.ctx.Done():
			return
		case <-d.far.wake:
			d.mu.Lock()
			list, d.far.fresh = d.far.fresh, nil
			d.mu.Unlock()
		case <-tick.C:
			d.mu.Lock()
			list = d.stillFar()
			d.mu.Unlock()
		}
		if err := d.solicit(list); err != nil {
			d.cfg.Log.Warn("other hosts' MACs are not asked for; the first packet to one may be lost", "error", err)
		}
	}
}

// solicit makes the kernel resolve the next hops to some hosts, as if it had a packet for them.
func (d *Driver) solicit(list []netip.Addr) error {
	if len(list) == 0 || d.cfg.Remote {
		return nil
	}
	h, err := d.handle()
	if err != nil {
		return err
	}
	defer h.Close()
	var errs []error
	for _, a := range list {
		routes, err := h.RouteGet(a.AsSlice())
		if err != nil || len(routes) == 0 {
			errs = append(errs, fmt.Errorf("route to %v: %w", a, err))
			continue
		}
		next := routes[0].Gw
		if next == nil {
			next = a.AsSlice()
		}
		if err := h.NeighSet(&netlink.Neigh{LinkIndex: routes[0].LinkIndex, Family: netlink.FAMILY_V4, IP: next, Flags: unix.NTF_USE}); err != nil {
			errs = append(errs, fmt.Errorf("resolve %v: %w", a, err))
		}
	}
	return errors.Join(errs...)
}
