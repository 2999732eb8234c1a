package model

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
	Shared  bool      `json:"shared"`     // every project may use it
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
