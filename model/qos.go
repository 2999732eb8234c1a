package model

import "strings"

// Types of QoS rules, by Neutron's names.
const (
	QoSBandwidth     = "bandwidth_limit"
	QoSDSCP          = "dscp_marking"
	QoSMinBandwidth  = "minimum_bandwidth"
	QoSPacketRate    = "packet_rate_limit"
	QoSMinPacketRate = "minimum_packet_rate"
)

// AnyDirection is the direction of a minimum packet rate that is the sum of both.
const AnyDirection = "any"

// QoSPolicy is a set of rules for the traffic of ports: of those that name it, and of the
// ports of networks that name it which name none themselves.
type QoSPolicy struct {
	Meta
	Sharing
	Default bool      `json:"is_default"` // new networks of its project take it
	Rules   []QoSRule `json:"rules,omitempty"`
}

// QoSRule is one rule of a policy. Ingress is what a guest receives, egress what it sends.
type QoSRule struct {
	ID        ID     `json:"id"`
	Type      string `json:"type"`
	Direction string `json:"direction,omitempty"` // not of dscp_marking
	// Rate is in kbit/s (1,000) of the bandwidth rules, in 1,000 packets/s of the packet rate
	// rules. 0 as a limit: none.
	Rate  int `json:"rate,omitempty"`
	Burst int `json:"burst,omitempty"` // of the limits: kbit or 1,000 packets; 0: the switch chooses
	DSCP  int `json:"dscp,omitempty"`  // the mark, 0 to 56 (RFC 2474)
}

// Rule gives the policy's rule with the id.
func (p *QoSPolicy) Rule(id ID) (QoSRule, bool) {
	for _, r := range p.Rules {
		if r.ID == id {
			return r, true
		}
	}
	return QoSRule{}, false
}

// PolicyOf gives the policy that holds for a port: its own, else its network's, which is not
// for the cloud's own ports. Empty: none.
func PolicyOf(p *Port, w *Network) ID {
	if p.QoSPolicyID != "" || strings.HasPrefix(p.DeviceOwner, OwnerNetwork) {
		return p.QoSPolicyID
	}
	return w.QoSPolicyID
}

// QoS gives what the policy makes of a port's traffic; a nil policy, nothing.
func (p *QoSPolicy) QoS() HostQoS {
	var q HostQoS
	if p == nil {
		return q
	}
	for _, r := range p.Rules {
		switch {
		case r.Type == QoSBandwidth && r.Direction == Egress:
			q.EgressKbps, q.EgressBurst = r.Rate, r.Burst
		case r.Type == QoSBandwidth:
			q.IngressKbps, q.IngressBurst = r.Rate, r.Burst
		case r.Type == QoSPacketRate && r.Direction == Egress:
			q.EgressPps = r.Rate * 1000
		case r.Type == QoSPacketRate:
			q.IngressPps = r.Rate * 1000
		case r.Type == QoSDSCP:
			q.DSCP = &r.DSCP
		}
	}
	return q
}

// Traffic is traffic of a host's ports in one direction that has to share what the host has.
type Traffic struct {
	// Network is a physical network, or BandwidthTunnel; for packet rates it is PacketRate.
	Network   string `json:"network"`
	Direction string `json:"direction"` // Ingress, Egress; AnyDirection: the sum
}

// PacketRate is the name in Host.Bandwidth of the packets that the host can switch, in 1,000
// a second, both directions together.
const PacketRate = "packets"

// Minimum gives what the policy promises to a port of the network: kbit/s, of PacketRate
// 1,000 packets/s. A nil policy promises nothing.
func (p *QoSPolicy) Minimum(w *Network) map[Traffic]int {
	if p == nil {
		return nil
	}
	var out map[Traffic]int
	add := func(t Traffic, n int) {
		if n > 0 {
			if out == nil {
				out = map[Traffic]int{}
			}
			out[t] += n
		}
	}
	on := w.PhysicalNetwork
	if on == "" {
		on = BandwidthTunnel
	}
	for _, r := range p.Rules {
		switch r.Type {
		case QoSMinBandwidth:
			add(Traffic{on, r.Direction}, r.Rate)
		case QoSMinPacketRate:
			add(Traffic{PacketRate, AnyDirection}, r.Rate)
		}
	}
	return out
}

// Promises tells whether the policy has a rule that placement must heed.
func (p *QoSPolicy) Promises() bool {
	for _, r := range p.Rules {
		if r.Type == QoSMinBandwidth || r.Type == QoSMinPacketRate {
			return true
		}
	}
	return false
}
