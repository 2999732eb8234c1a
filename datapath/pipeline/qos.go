package pipeline

import "yakumo/model"

// limits gives the actions that hold one direction of a port's traffic to its rates.
func (c *compiler) limits(r *model.HostPort, direction string) []Action {
	kbps, burst, pps := r.QoS.EgressKbps, r.QoS.EgressBurst, r.QoS.EgressPps
	if direction == model.Ingress {
		kbps, burst, pps = r.QoS.IngressKbps, r.QoS.IngressBurst, r.QoS.IngressPps
	}
	var as []Action
	if kbps > 0 {
		if burst <= 0 {
			burst = defaultBurst(kbps)
		}
		as = append(as, Limit{ID: c.own(OrdinalLimit, r.ID+"/"+direction+"/kbps"), Rate: uint32(kbps), Burst: uint32(burst)})
	}
	if pps > 0 {
		as = append(as, Limit{ID: c.own(OrdinalLimit, r.ID+"/"+direction+"/pps"), Rate: uint32(pps), Burst: uint32(max(pps/10, 1)), Packets: true})
	}
	return as
}

// defaultBurst is 80 % of what the rate carries in a second, as Neutron's guide recommends for TCP: with less, a sender
// that is told of the limit by lost packets alone stays below it. 16 full-size packets at least.
func defaultBurst(kbps int) int { return max(kbps*4/5, 16*1500*8/1000) }
