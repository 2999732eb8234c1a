package openflow

import (
	"fmt"
	"strings"
)

// GroupCommand is what a GroupMod does.
type GroupCommand uint16

// The commands.
const (
	GroupAdd          GroupCommand = 0
	GroupModify       GroupCommand = 1 // replaces type and buckets
	GroupDelete       GroupCommand = 2 // also deletes the flows that use it
	GroupInsertBucket GroupCommand = 3
	GroupRemoveBucket GroupCommand = 5
	GroupAddOrModify  GroupCommand = 0x8000 // Open vSwitch only
)

// GroupType says which buckets of a group run.
type GroupType uint8

// The types.
const (
	GroupAll      GroupType = 0 // every bucket, each on a copy
	GroupSelect   GroupType = 1 // one, by hash and weight
	GroupIndirect GroupType = 2 // the only one
	GroupFailover GroupType = 3 // the first that is live
)

// String gives the type's name as Open vSwitch's tools accept it.
func (t GroupType) String() string {
	if t <= GroupFailover {
		return [...]string{"all", "select", "indirect", "ff"}[t]
	}
	return fmt.Sprintf("type %d", uint8(t))
}

// Group numbers that have a meaning of their own.
const (
	GroupMax    uint32 = 0xffffff00 // largest number of a real group
	GroupEvery  uint32 = 0xfffffffc // all groups, for GroupDelete and statistics
	GroupAnyOne uint32 = 0xffffffff // no group
)

// Bucket numbers that have a meaning of their own, for CommandBucket.
const (
	BucketMax   uint32 = 0xffffff00
	BucketFirst uint32 = 0xfffffffd
	BucketLast  uint32 = 0xfffffffe
	BucketEvery uint32 = 0xffffffff
)

// Bucket is one way through a group.
type Bucket struct {
	ID      uint32 // unique in its group
	Weight  uint16 // share, for GroupSelect; a bucket of weight 0 is never picked
	Actions []Action
	// WatchPort and WatchGroup make the bucket live with a port or a group; zero is none.
	WatchPort, WatchGroup uint32
}

// GroupMod changes a group.
type GroupMod struct {
	Command GroupCommand
	Kind    GroupType
	ID      uint32
	Buckets []Bucket
	// CommandBucket says where GroupInsertBucket inserts (after this one, or BucketFirst or
	// BucketLast) and what GroupRemoveBucket removes.
	CommandBucket uint32
	Select        *Selection // for GroupSelect; nil leaves the choice to the switch
}

// Selection says how a select group picks, Netronome's extension.
type Selection struct {
	Method string // "hash" or "dp_hash"
	Param  uint64 // basis of the hash
	// Fields are hashed, with "hash" only; a mask leaves bits out.
	Fields []FieldValue
}

// Type is TypeGroupMod.
func (*GroupMod) Type() Type { return TypeGroupMod }

// Property types of buckets and groups.
const (
	bucketWeight     = 0
	bucketWatchPort  = 1
	bucketWatchGroup = 2

	propExperimenter = 0xffff
	ntrSelection     = 1
)

func (b *Bucket) encode(e *encoder, kind GroupType) {
	start := len(e.b)
	e.u16(0)
	e.u16(0)
	e.u32(b.ID)
	as := len(e.b)
	encodeActions(e, b.Actions)
	e.patch16(start+2, as)
	if kind == GroupSelect || b.Weight != 0 {
		e.propU16(bucketWeight, b.Weight)
	}
	if b.WatchPort != 0 {
		e.propU32(bucketWatchPort, b.WatchPort)
	}
	if b.WatchGroup != 0 {
		e.propU32(bucketWatchGroup, b.WatchGroup)
	}
	e.patch16(start, start)
}

func encodeBuckets(e *encoder, bs []Bucket, kind GroupType, lenAt int) {
	start := len(e.b)
	for i := range bs {
		bs[i].encode(e, kind)
	}
	e.patch16(lenAt, start)
}

func (s *Selection) encode(e *encoder) {
	p := e.prop(propExperimenter)
	e.u32(vendorNetronome)
	e.u32(ntrSelection)
	e.u32(0)
	e.str(s.Method, 16)
	e.u64(s.Param)
	for _, f := range s.Fields {
		// The content here is the mask: which bits are hashed.
		Exact(f.Field, f.Mask).encode(e)
	}
	e.endProp(p)
}

func (m *GroupMod) encodeBody(e *encoder) {
	e.u16(uint16(m.Command))
	e.u8(uint8(m.Kind))
	e.u8(0)
	e.u32(m.ID)
	at := len(e.b)
	e.u16(0)
	e.u16(0)
	if m.Command == GroupInsertBucket || m.Command == GroupRemoveBucket {
		e.u32(m.CommandBucket)
	} else {
		e.u32(BucketEvery)
	}
	encodeBuckets(e, m.Buckets, m.Kind, at)
	if m.Select != nil {
		m.Select.encode(e)
	}
}

func decodeBuckets(r *reader) []Bucket {
	var bs []Bucket
	for len(r.b) > 0 && r.err == nil {
		n := int(r.u16())
		as := int(r.u16())
		if r.err == nil && n < 8 {
			r.fail(malformed("bucket of %d bytes", n))
		}
		body := r.sub(n - 4)
		b := Bucket{ID: body.u32()}
		list := body.sub(as)
		b.Actions = decodeActions(&list, 0)
		if list.err != nil && body.err == nil {
			body.fail(list.err)
		}
		for len(body.b) >= 4 && body.err == nil {
			typ, p := body.nextProp()
			switch typ {
			case bucketWeight:
				b.Weight = p.u16()
			case bucketWatchPort:
				b.WatchPort = fromAny(p.u32())
			case bucketWatchGroup:
				b.WatchGroup = fromAny(p.u32())
			}
			if p.err != nil && body.err == nil {
				body.fail(p.err)
			}
		}
		if body.err != nil && r.err == nil {
			r.fail(body.err)
		}
		if r.err == nil {
			bs = append(bs, b)
		}
	}
	return bs
}

// decodeGroupProps takes all of r.
func decodeGroupProps(r *reader) *Selection {
	var s *Selection
	for len(r.b) >= 4 && r.err == nil {
		typ, p := r.nextProp()
		if typ != propExperimenter || p.u32() != vendorNetronome || p.u32() != ntrSelection || p.err != nil {
			continue
		}
		p.skip(4)
		s = &Selection{Method: p.str(16), Param: p.u64()}
		for len(p.b) > 0 && p.err == nil {
			if v, _, ok := decodeField(&p); ok {
				s.Fields = append(s.Fields, FieldValue{v.Field, v.Value, v.Value})
			}
		}
		if p.err != nil && r.err == nil {
			r.fail(p.err)
		}
	}
	return s
}

func decodeGroupMod(r *reader) Message {
	m := &GroupMod{Command: GroupCommand(r.u16()), Kind: GroupType(r.u8())}
	r.skip(1)
	m.ID = r.u32()
	n := int(r.u16())
	r.skip(2)
	m.CommandBucket = r.u32()
	if m.Command != GroupInsertBucket && m.Command != GroupRemoveBucket {
		m.CommandBucket = 0
	}
	bs := r.sub(n)
	m.Buckets = decodeBuckets(&bs)
	if bs.err != nil {
		r.fail(bs.err)
	}
	m.Select = decodeGroupProps(r)
	return m
}

func groupString(id uint32, kind GroupType, bs []Bucket, sel *Selection) string {
	p := []string{fmt.Sprintf("group_id=%d,type=%v", id, kind)}
	if sel != nil {
		p = append(p, "selection_method="+sel.Method)
		if sel.Param != 0 {
			p = append(p, fmt.Sprintf("selection_method_param=%d", sel.Param))
		}
		if len(sel.Fields) > 0 {
			fs := make([]string, len(sel.Fields))
			for i, f := range sel.Fields {
				fs[i] = f.Field.String()
				if !f.exact() {
					fs[i] += "=" + f.Field.content(f.Mask)
				}
			}
			p = append(p, "fields("+strings.Join(fs, ",")+")")
		}
	}
	for _, b := range bs {
		s := fmt.Sprintf("bucket=bucket_id:%d", b.ID)
		if kind == GroupSelect || b.Weight != 0 {
			s += fmt.Sprintf(",weight:%d", b.Weight)
		}
		if b.WatchPort != 0 {
			s += ",watch_port:" + portName(b.WatchPort)
		}
		if b.WatchGroup != 0 {
			s += fmt.Sprintf(",watch_group:%d", b.WatchGroup)
		}
		p = append(p, s+",actions="+ActionsString(b.Actions))
	}
	return strings.Join(p, ",")
}

// String writes the group as Open vSwitch's tools do.
func (m *GroupMod) String() string { return groupString(m.ID, m.Kind, m.Buckets, m.Select) }
