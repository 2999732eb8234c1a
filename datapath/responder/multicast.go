package responder

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"time"

	"yakumo/datapath/pipeline"
	"yakumo/model"
)

// ListenerAge is how long a port listens to a group that it does not report any more: two of our
// queries and the time to answer (RFC 3376, 8.4).
const ListenerAge = 2*AdvertInterval + 10*time.Second

// maxGroups bounds the groups that one port may listen to.
const maxGroups = 256

// IGMP's message types (RFC 2236, RFC 3376).
const (
	igmpReport1 = 0x12
	igmpReport2 = 0x16
	igmpLeave   = 0x17
	igmpReport3 = 0x22
)

// membership is one thing that a report says.
type membership struct {
	group netip.Addr
	join  bool
}

// reports reads an IGMP or MLD message of a guest (RFC 2236, RFC 3376, RFC 2710, RFC 3810); nil for one
// that says nothing of membership. Which sources are wanted does not count.
func reports(frame []byte) []membership {
	if p, ok := parse6(frame, pipeline.ProtoICMPv6); ok {
		return mldReports(p.payload)
	}
	if len(frame) < etherLen+ipLen || binary.BigEndian.Uint16(frame[12:]) != pipeline.TypeIPv4 {
		return nil
	}
	ip := frame[etherLen:]
	head, total := int(ip[0]&15)*4, int(binary.BigEndian.Uint16(ip[2:]))
	if ip[0]>>4 != 4 || head < ipLen || total < head+8 || total > len(ip) || ip[9] != pipeline.ProtoIGMP || binary.BigEndian.Uint16(ip[6:])&0x3fff != 0 {
		return nil
	}
	b := ip[head:total]
	group := netip.AddrFrom4([4]byte(b[4:8]))
	switch b[0] {
	case igmpReport1, igmpReport2:
		return []membership{{group, true}}
	case igmpLeave:
		return []membership{{group, false}}
	case igmpReport3:
		return records(b, 4)
	}
	return nil
}

func mldReports(b []byte) []membership {
	if len(b) < 8 {
		return nil
	}
	switch b[0] {
	case pipeline.TypeMLDReport, pipeline.TypeMLDDone:
		if len(b) < 24 {
			return nil
		}
		return []membership{{netip.AddrFrom16([16]byte(b[8:24])), b[0] == pipeline.TypeMLDReport}}
	case pipeline.TypeMLDReport2:
		return records(b, 16)
	}
	return nil
}

// records reads the group records of an IGMPv3 or MLDv2 report, which differ in the size of addresses.
func records(b []byte, size int) []membership {
	var out []membership
	n := int(binary.BigEndian.Uint16(b[6:]))
	for b = b[8:]; n > 0 && len(b) >= 4+size; n-- {
		sources := int(binary.BigEndian.Uint16(b[2:]))
		whole := 4 + size + size*sources + 4*int(b[1])
		group, _ := netip.AddrFromSlice(b[4 : 4+size])
		switch b[0] {
		case 1, 3: // these sources alone; none: leave
			out = append(out, membership{group, sources > 0})
		case 2, 4, 5: // all sources but these; these too
			out = append(out, membership{group, true})
		}
		if whole > len(b) {
			break
		}
		b = b[whole:]
	}
	return out
}

// Listeners are the multicast groups that ports here listen to, as they have said lately. It is not safe
// for use by several goroutines.
type Listeners struct {
	ports map[model.ID]map[netip.Addr]listening
}

type listening struct {
	row   *model.HostListener
	until time.Time
}

// NewListeners makes an empty set.
func NewListeners() *Listeners { return &Listeners{ports: map[model.ID]map[netip.Addr]listening{}} }

// Lesson is what a driver learns by itself: rows of kinds that Learned names.
type Lesson struct {
	Upserts []model.HostRow
	Removes []model.RowID
}

// Empty tells whether nothing is new.
func (l *Lesson) Empty() bool { return len(l.Upserts)+len(l.Removes) == 0 }

// Learned tells whether rows of a kind are made by the driver and not told by anybody.
func Learned(k model.RowKind) bool { return k == model.RowListener || k == model.RowNeighbor }

// upsert and remove add to a lesson; of several that are about one row the last one counts.
func (l *Lesson) upsert(row model.HostRow) {
	id := row.RowID()
	l.Removes = slices.DeleteFunc(l.Removes, func(o model.RowID) bool { return o == id })
	l.Upserts = append(l.Upserts, row)
}

func (l *Lesson) remove(id model.RowID) {
	l.Upserts = slices.DeleteFunc(l.Upserts, func(o model.HostRow) bool { return o.RowID() == id })
	l.Removes = append(l.Removes, id)
}

// Hear takes in a report of a port and adds what is new in it to out.
func (l *Listeners) Hear(port *model.HostPort, frame []byte, now time.Time, out *Lesson) {
	for _, m := range reports(frame) {
		if !pipeline.Snooped(m.group) {
			continue
		}
		groups := l.ports[port.ID]
		old, known := groups[m.group]
		switch {
		case !m.join && known:
			delete(groups, m.group)
			out.remove(old.row.RowID())
		case m.join && known:
			old.until = now.Add(ListenerAge)
			groups[m.group] = old
		case m.join && len(groups) < maxGroups:
			if groups == nil {
				groups = map[netip.Addr]listening{}
				l.ports[port.ID] = groups
			}
			row := &model.HostListener{NetworkID: port.NetworkID, VNI: port.VNI, PortID: port.ID, Group: m.group}
			groups[m.group] = listening{row, now.Add(ListenerAge)}
			out.upsert(row)
		}
	}
}

// Expire forgets what has not been said again in time.
func (l *Listeners) Expire(now time.Time) Lesson {
	var out Lesson
	for port, groups := range l.ports {
		for g, x := range groups {
			if now.After(x.until) {
				delete(groups, g)
				out.Removes = append(out.Removes, x.row.RowID())
			}
		}
		if len(groups) == 0 {
			delete(l.ports, port)
		}
	}
	return out
}

// Forget forgets all of a port.
func (l *Listeners) Forget(port model.ID) []model.RowID {
	var out []model.RowID
	for _, x := range l.ports[port] {
		out = append(out, x.row.RowID())
	}
	delete(l.ports, port)
	return out
}

// queries asks a guest which groups it listens to (RFC 3376, 4.1; RFC 3810, 5.1). IPv6 only where six.
func queries(six bool) [][]byte {
	all := netip.AddrFrom4([4]byte{224, 0, 0, 1})
	b := make([]byte, etherLen+24, etherLen+24+12)
	group := pipeline.GroupMAC(all)
	copy(b, group[:])
	copy(b[6:], pipeline.ServiceMAC[:])
	binary.BigEndian.PutUint16(b[12:], pipeline.TypeIPv4)
	ip := b[etherLen:]
	src, dst := pipeline.ServiceAddr.As4(), all.As4()
	ip[0], ip[1], ip[8], ip[9] = 0x46, 0xc0, 1, pipeline.ProtoIGMP
	binary.BigEndian.PutUint16(ip[2:], 24+12)
	copy(ip[12:], src[:])
	copy(ip[16:], dst[:])
	ip[20], ip[21] = 0x94, 4 // router alert
	binary.BigEndian.PutUint16(ip[10:], fold(sum(0, ip[:24])))
	const code = byte(AdvertInterval / time.Second)
	// To be answered within a second: each guest is asked by itself.
	q := []byte{0x11, 10, 0, 0, 0, 0, 0, 0, 2, code, 0, 0}
	binary.BigEndian.PutUint16(q[2:], fold(sum(0, q)))
	out := [][]byte{append(b, q...)}
	if six {
		m := make([]byte, 28)
		m[0], m[24], m[25] = pipeline.TypeMLDQuery, 2, code
		binary.BigEndian.PutUint16(m[4:], 1000)
		p := packet6{srcMAC: pipeline.ServiceMAC, dstMAC: pipeline.GroupMAC(pipeline.AllNodes), src: serverLinkLocal, dst: pipeline.AllNodes, proto: pipeline.ProtoICMPv6, hops: 1,
			payload: m, check: 2, alert: true}
		out = append(out, p.frame())
	}
	return out
}
