package agent

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"yakumo/model"
)

// linger is how long frames for a server that has left are sent on after the servers' rows have said that it
// has: other hosts may hear of it later than this one.
const linger = time.Minute

// shift says where the ports of a server are while the servers' rows are behind: only the two hosts of a move know
// at once that its guest has gone from one to the other.
type shift struct {
	Move model.ID `json:"move"` // HostMove.ID
	// Here: the guest has come. Else it has left, and Peers say where to; Networks are theirs, for
	// when nothing else here needs them any more.
	Here     bool                 `json:"here"`
	Ports    []model.ID           `json:"ports"` // with the subports of trunks
	Peers    []*model.HostPeer    `json:"peers,omitempty"`
	Networks []*model.HostNetwork `json:"networks,omitempty"`
	// Until, where not zero: the rows have it now too, and this is the end of sending on.
	Until time.Time `json:"until"`
}

var bucketShifts = []byte("shifts")

func (l *ledger) loadShifts(tx *bbolt.Tx) error {
	b, err := tx.CreateBucketIfNotExists(bucketShifts)
	if err != nil {
		return err
	}
	return b.ForEach(func(k, v []byte) error {
		s := new(shift)
		if err := json.Unmarshal(v, s); err != nil {
			return fmt.Errorf("ports of %s: %w", k, err)
		}
		l.shift(string(k), s)
		return nil
	})
}

// shift sets, in memory alone, where a server's ports are; nil: where the rows say. saveShift keeps it.
func (l *ledger) shift(server model.ID, s *shift) {
	if old := l.shifts[server]; old != nil {
		for _, id := range old.Ports {
			delete(l.shifted, id)
		}
	}
	if s == nil {
		delete(l.shifts, server)
		return
	}
	l.shifts[server] = s
	for _, id := range s.Ports {
		l.shifted[id] = s
	}
}

// setShift is shift for who has not the lock.
func (l *ledger) setShift(server model.ID, s *shift) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.shift(server, s)
}

// saveShift writes what shift has set.
func (l *ledger) saveShift(server model.ID) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.shifts[server]
	err := l.update(func(tx *bbolt.Tx) error {
		if s == nil {
			return tx.Bucket(bucketShifts).Delete([]byte(server))
		}
		body, err := json.Marshal(s)
		if err != nil {
			return err
		}
		return tx.Bucket(bucketShifts).Put([]byte(server), body)
	})
	if err != nil {
		return fmt.Errorf("write ledger: %w", err)
	}
	return nil
}

// shiftOf gives a server's shift, nil for none. It is never changed.
func (l *ledger) shiftOf(server model.ID) *shift {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.shifts[server]
}

// shiftOfPort gives the shift of the server that has a port, nil for none.
func (l *ledger) shiftOfPort(port model.ID) *shift {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.shifted[port]
}

// shiftedServers gives the servers whose ports are not where the rows say.
func (l *ledger) shiftedServers() []model.ID {
	l.mu.RLock()
	defer l.mu.RUnlock()
	var out []model.ID
	for id := range l.shifts {
		out = append(out, id)
	}
	return out
}

// floatingOf gives the floating addresses, told here, of a port.
func (l *ledger) floatingOf(port model.ID) []model.ID {
	l.mu.RLock()
	defer l.mu.RUnlock()
	var out []model.ID
	for id := range l.byFloat[port] {
		out = append(out, id)
	}
	return out
}

// rows are those that look otherwise by the shift.
func (s *shift) rows(l *ledger) []model.RowID {
	var out []model.RowID
	for _, id := range s.Ports {
		out = append(out, model.RowID{Kind: model.RowPort, Key: id}, model.RowID{Kind: model.RowPeer, Key: id})
		for _, f := range l.floatingOf(id) {
			out = append(out, model.RowID{Kind: model.RowFloating, Key: f})
		}
	}
	for _, n := range s.Networks {
		out = append(out, n.RowID())
	}
	return out
}

// as gives a row as it is by the shift of what it is of; row is nil where the servers' rows have none.
func (s *shift) as(id model.RowID, row model.HostRow) model.HostRow {
	switch id.Kind {
	case model.RowPort:
		if p, ok := row.(*model.HostPort); ok && p.Standby == s.Here {
			q := *p
			q.Standby = !s.Here
			return &q
		}
	case model.RowFloating:
		if f, ok := row.(*model.HostFloating); ok && f.Standby == s.Here {
			g := *f
			g.Standby = !s.Here
			return &g
		}
	case model.RowPeer:
		if s.Here {
			return nil
		}
		if p, ok := row.(*model.HostPeer); ok { // the servers know by now, and maybe more
			q := *p
			q.Moved = true
			return &q
		}
		if i := slices.IndexFunc(s.Peers, func(p *model.HostPeer) bool { return p.ID == id.Key }); i >= 0 {
			return s.Peers[i]
		}
	}
	return row
}

// over tells whether a shift has had its time, or, with a time, when it will have had.
func (s *shift) over(l *ledger, server model.ID, now time.Time) (bool, time.Time) {
	row := l.server(server)
	moving := row != nil && row.Move != nil && row.Move.ID == s.Move
	standby, served := false, false
	for _, id := range s.Ports {
		if p := l.port(id); p != nil {
			standby, served = standby || p.Standby, served || !p.Standby
		}
	}
	switch {
	case s.Here:
		return !standby || !moving, time.Time{}
	case standby: // it is on its way back
		return true, time.Time{}
	case served:
		return !moving, time.Time{}
	case s.Until.IsZero():
		return false, now.Add(linger)
	}
	return now.After(s.Until), s.Until
}

// peerAt is a port here as it is once it is elsewhere.
func peerAt(p *model.HostPort, n *model.HostNetwork, at netip.Addr) *model.HostPeer {
	r := &model.HostPeer{ID: p.ID, NetworkID: p.NetworkID, VNI: p.VNI, MAC: p.MAC, Pairs: p.Pairs, HostName: p.HostName, Moved: true}
	for _, f := range p.FixedIPs {
		r.Addresses = append(r.Addresses, f.Address)
	}
	if n != nil && n.Type != model.NetworkVXLAN {
		r.Type = n.Type
	}
	if n == nil || !n.Provider() {
		r.TunnelIP = at
	}
	return r
}
