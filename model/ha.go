package model

import "strconv"

// What an operator, or a server's owner, says of a server whose host dies.
const (
	// HAKey is the key, of a flavor's extra specs and of a server's metadata, which wins: "restart" has the server
	// restarted on another host by itself, anything else leaves it to an administrator.
	HAKey = "yakumo:ha"
	// HARestart is its value.
	HARestart = "restart"
	// HALeaseKey is an extra spec of flavors: after how many seconds without a word of any server the host turns the guest
	// off, MinLease to MaxLease; DefaultLease where it is absent or makes no sense.
	HALeaseKey = "yakumo:ha_lease"

	MinLease, DefaultLease, MaxLease = 15, 30, 3600
)

// Lease gives for how many seconds the host of a server may run its guest without having heard of the cloud; 0: for ever, as
// the server is not restarted elsewhere by itself.
func (s *Server) Lease() int {
	policy, ok := s.Metadata[HAKey]
	if !ok {
		policy = s.Flavor.ExtraSpecs[HAKey]
	}
	if policy != HARestart {
		return 0
	}
	n, err := strconv.Atoi(s.Flavor.ExtraSpecs[HALeaseKey])
	if err != nil || n < MinLease || n > MaxLease {
		return DefaultLease
	}
	return n
}
