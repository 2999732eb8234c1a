package libvirt

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"yakumo/hypervisor"
)

// Diagnostics implements hypervisor.Diagnoser. The uptime is since this driver has known the guest to be on.
func (d *Driver) Diagnostics(ctx context.Context, id string) (hypervisor.Diagnostics, error) {
	const doing = "diagnose"
	ref, have, err := d.live(ctx, id, doing)
	if err != nil {
		return hypervisor.Diagnostics{}, err
	}
	// VIR_DOMAIN_STATS_BALLOON, _VCPU, _INTERFACE, _BLOCK of one domain.
	const which = 4 | 8 | 16 | 32
	out, err := d.ask(ctx, slow, procGetAllDomainStats, new(encoder).u32(1).dom(ref).u32(which).u32(0))
	if err != nil {
		return hypervisor.Diagnostics{}, refused(id, doing, err)
	}
	values, err := decodeCounters(out)
	if err != nil {
		return hypervisor.Diagnostics{}, fmt.Errorf("%s guest %s: %w", doing, id, err)
	}
	x := values.diagnostics(have)
	d.mu.Lock()
	if s, ok := d.states[id]; ok {
		x.Uptime = time.Since(s.Since)
	}
	d.mu.Unlock()
	return x, nil
}

// counters are typed parameters by name, with numbers and texts.
type counters struct {
	n map[string]int64
	s map[string]string
}

// decodeCounters reads remote_connect_get_all_domain_stats_ret of one domain.
func decodeCounters(d *decoder) (counters, error) {
	c := counters{n: map[string]int64{}, s: map[string]string{}}
	for range d.count(28) {
		d.dom()
		for range d.count(12) {
			field, value, text := d.anyParam()
			c.n[field], c.s[field] = value, text
		}
	}
	return c, d.err
}

// diagnostics reads the counters; have tells which device is whose.
func (c counters) diagnostics(have liveXML) hypervisor.Diagnostics {
	x := hypervisor.Diagnostics{MemoryMiB: int(c.n["balloon.maximum"] >> 10), UsedMiB: int(c.n["balloon.rss"] >> 10)}
	for i := range bounded(c.n["vcpu.maximum"]) {
		if t, ok := c.n["vcpu."+strconv.Itoa(i)+".time"]; ok {
			x.CPUTime = append(x.CPUTime, time.Duration(t))
		}
	}
	serials, macs := map[string]string{}, map[string]string{}
	for _, d := range have.Disks {
		serials[d.Target.Dev] = d.Serial
	}
	for _, n := range have.NICs {
		macs[n.Target.Dev] = strings.ToLower(n.MAC.Address)
	}
	for i := range bounded(c.n["block.count"]) {
		p := "block." + strconv.Itoa(i) + "."
		x.Disks = append(x.Disks, hypervisor.DiskCounters{
			Serial: serials[c.s[p+"name"]], ReadBytes: c.n[p+"rd.bytes"], ReadRequests: c.n[p+"rd.reqs"],
			WriteBytes: c.n[p+"wr.bytes"], WriteRequests: c.n[p+"wr.reqs"], Errors: c.n[p+"errors"],
		})
	}
	for i := range bounded(c.n["net.count"]) {
		p := "net." + strconv.Itoa(i) + "."
		x.NICs = append(x.NICs, hypervisor.NICCounters{
			MAC: macs[c.s[p+"name"]], InBytes: c.n[p+"rx.bytes"], InPackets: c.n[p+"rx.pkts"], InErrors: c.n[p+"rx.errs"], InDrops: c.n[p+"rx.drop"],
			OutBytes: c.n[p+"tx.bytes"], OutPackets: c.n[p+"tx.pkts"], OutErrors: c.n[p+"tx.errs"], OutDrops: c.n[p+"tx.drop"],
		})
	}
	return x
}

// bounded keeps a count that came over the wire to what a guest can have.
func bounded(n int64) int { return int(max(0, min(n, 1024))) }
