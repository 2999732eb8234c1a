package pipeline

import (
	"net/netip"

	"yakumo/model"
)

// Way is how a router reaches an address.
type Way struct {
	Port    *model.HostRouterPort // nil: by the gateway
	NextHop netip.Addr            // the destination itself where it is next to the router
}

// WayTo gives the way that the entries of a router take, false where there is none. A source with a floating
// address takes the same.
func WayTo(r *model.HostRouter, dst netip.Addr) (Way, bool) {
	best, bits := Way{}, -1
	try := func(p netip.Prefix, w Way) {
		if p.Contains(dst) && p.Bits() > bits {
			best, bits = w, p.Bits()
		}
	}
	for i := range r.Interfaces {
		for _, p := range r.Interfaces[i].Addresses {
			try(p.Masked(), Way{&r.Interfaces[i], dst})
		}
	}
	for _, o := range outwards(r) {
		hop := o.nextHop
		if !hop.IsValid() {
			hop = dst
		}
		try(o.dst, Way{nil, hop})
	}
	for _, x := range r.Routes {
		if i := nextTo(r, x.NextHop); i >= 0 && x.Destination.Addr().Is4() == x.NextHop.Is4() {
			try(x.Destination, Way{&r.Interfaces[i], x.NextHop})
		}
	}
	return best, bits >= 0
}
