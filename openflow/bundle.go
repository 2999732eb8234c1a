package openflow

import "fmt"

// BundleKind says what a BundleControl asks or answers.
type BundleKind uint16

// The kinds; each answer is the request plus one.
const (
	BundleOpen      BundleKind = 0
	BundleClose     BundleKind = 2
	BundleCommit    BundleKind = 4
	BundleDiscard   BundleKind = 6
	BundleOpened    BundleKind = 1
	BundleClosed    BundleKind = 3
	BundleCommitted BundleKind = 5
	BundleDiscarded BundleKind = 7
)

// BundleFlags is a set of properties of a bundle.
type BundleFlags uint16

// The flags.
const (
	BundleAtomic  BundleFlags = 1 << 0 // all messages take effect, or none
	BundleOrdered BundleFlags = 1 << 1 // in the order in which they were added
)

// BundleControl opens, closes, commits or discards a bundle, or answers that.
type BundleControl struct {
	ID    uint32
	Kind  BundleKind
	Flags BundleFlags
}

// Type is TypeBundleControl.
func (*BundleControl) Type() Type { return TypeBundleControl }

func (m *BundleControl) encodeBody(e *encoder) {
	e.u32(m.ID)
	e.u16(uint16(m.Kind))
	e.u16(uint16(m.Flags))
}

// BundleAdd puts a message into a bundle. The inner message is encoded under the outer
// one's transaction id, as the specification asks, so XID is set by decoding only.
type BundleAdd struct {
	ID      uint32
	Flags   BundleFlags
	XID     uint32 // of the inner message, once decoded
	Message Message
}

// Type is TypeBundleAdd.
func (*BundleAdd) Type() Type { return TypeBundleAdd }

func (m *BundleAdd) encodeBody(e *encoder) {
	// The outer header ends where this body starts; its last four bytes are the id.
	at := len(e.b) - 4
	xid := uint32(e.b[at])<<24 | uint32(e.b[at+1])<<16 | uint32(e.b[at+2])<<8 | uint32(e.b[at+3])
	e.u32(m.ID)
	e.u16(0)
	e.u16(uint16(m.Flags))
	if m.Message == nil {
		e.fail(malformed("bundle add without a message"))
		return
	}
	encodeMessage(e, xid, m.Message)
}

func decodeBundleAdd(r *reader, depth int) Message {
	m := &BundleAdd{ID: r.u32()}
	r.skip(2)
	m.Flags = BundleFlags(r.u16())
	if r.err != nil {
		return nil
	}
	if depth > 0 {
		r.fail(malformed("bundle add inside a bundle add"))
		return nil
	}
	h, err := DecodeHeader(r.b)
	if err != nil {
		r.fail(err)
		return nil
	}
	if int(h.Length) > len(r.b) {
		r.fail(ErrTruncated)
		return nil
	}
	h, m.Message, err = decode(r.b[:h.Length], depth+1)
	if err != nil {
		r.fail(fmt.Errorf("inside the bundle: %w", err))
		return nil
	}
	m.XID = h.XID
	return m
}
