package pipeline

import "yakumo/model"

// limits gives the actions that hold one direction of a port's traffic to its rates.
func (c *compiler) limits(r *model.HostPort, direction string) []Action {
	return c.rates(r.ID, r.QoS, direction)
}

// rates gives the actions that hold one direction of what key names to its rates.
func (c *compiler) rates(key string, q model.HostQoS, direction string) []Action {
	kbps, burst, pps := q.EgressKbps, q.EgressBurst, q.EgressPps
	if direction == model.Ingress {
		kbps, burst, pps = q.IngressKbps, q.IngressBurst, q.IngressPps
	}
	var as []Action
	if kbps > 0 {
		if burst <= 0 {
			burst = defaultBurst(kbps)
		}
		as = append(as, Limit{ID: c.own(OrdinalLimit, key+"/"+direction+"/kbps"), Rate: uint32(kbps), Burst: uint32(burst)})
	}
	if pps > 0 {
		as = append(as, Limit{ID: c.own(OrdinalLimit, key+"/"+direction+"/pps"), Rate: uint32(pps), Burst: uint32(max(pps/10, 1)), Packets: true})
	}
	return as
}

// defaultBurst is 80 % of what the rate carries in a second, as Neutron's guide recommends for TCP: with less, a sender
// that is told of the limit by lost packets alone stays below it. 16 full-size packets at least.
func defaultBurst(kbps int) int { return max(kbps*4/5, 16*1500*8/1000) }
