package datapath

import (
	"cmp"
	"slices"
	"time"

	"yakumo/model"
)

// What bounds the claims of one port: a guest that says all the time that it holds something costs a server a write a second.
const (
	MaxClaims  = 64          // addresses
	ClaimBurst = 16          // changes that are told at once
	ClaimEach  = time.Second // and one more after each of these
	ClaimLife  = 5 * time.Minute
)

// Claims are the addresses that guests have said to hold, until the rows say so. They are told again with every report of the
// port; the server takes the newest, and leaves those that were overtaken. It is not safe for use by several goroutines.
type Claims map[model.ID]*claimer

type claimer struct {
	list   []heard
	tokens int // changes that may be told now
	since  time.Time
}

type heard struct {
	model.Claim
	at   time.Time
	told bool
}

// Hear takes in what a guest has said. A newer claim of an address takes the place of an older one.
func (c Claims) Hear(port model.ID, claim model.Claim, now time.Time) {
	p := c[port]
	if p == nil {
		p = &claimer{tokens: ClaimBurst, since: now}
		c[port] = p
	}
	i := slices.IndexFunc(p.list, func(h heard) bool { return h.Address == claim.Address })
	switch {
	case i >= 0 && p.list[i].Claim == claim:
		p.list[i].at = now
	case i >= 0:
		p.list[i] = heard{Claim: claim, at: now}
	case len(p.list) < MaxClaims:
		p.list = append(p.list, heard{Claim: claim, at: now})
		slices.SortFunc(p.list, func(a, b heard) int { return a.Address.Compare(b.Address) })
	}
}

// Told gives what is to be told of a port now, by address, and whether more is held back for a while. held is what the rows say that it holds: of that nothing is
// claimed any more.
func (c Claims) Told(port model.ID, held []model.Held, now time.Time) (out []model.Claim, more bool) {
	p := c[port]
	if p == nil {
		return nil, false
	}
	if n := int(now.Sub(p.since) / ClaimEach); n > 0 {
		p.tokens = min(ClaimBurst, p.tokens+n)
		p.since = p.since.Add(time.Duration(n) * ClaimEach)
	}
	p.list = slices.DeleteFunc(p.list, func(h heard) bool {
		return now.Sub(h.at) > ClaimLife || slices.ContainsFunc(held, func(x model.Held) bool { return x.Address == h.Address && x.Turn > h.Seen })
	})
	if len(p.list) == 0 && p.tokens == ClaimBurst {
		delete(c, port)
		return nil, false
	}
	for i := range p.list {
		h := &p.list[i]
		switch {
		case h.told:
		case p.tokens > 0:
			p.tokens--
			h.told = true
		default:
			more = true
			continue
		}
		out = append(out, h.Claim)
	}
	slices.SortFunc(out, func(a, b model.Claim) int { return cmp.Or(a.Address.Compare(b.Address), cmp.Compare(a.Seen, b.Seen)) })
	return out, more
}

// Forget drops what a port's guest has said.
func (c Claims) Forget(port model.ID) { delete(c, port) }
