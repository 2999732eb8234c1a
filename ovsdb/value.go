package ovsdb

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// A UUID names a row (RFC 7047, 3.1, <uuid>).
type UUID [16]byte

// ParseUUID reads the usual form, 8-4-4-4-12 hexadecimal digits.
func ParseUUID(s string) (UUID, error) {
	var u UUID
	if len(s) == 36 && s[8] == '-' && s[13] == '-' && s[18] == '-' && s[23] == '-' {
		plain := s[:8] + s[9:13] + s[14:18] + s[19:23] + s[24:]
		if _, err := hex.Decode(u[:], []byte(plain)); err == nil {
			return u, nil
		}
	}
	return UUID{}, fmt.Errorf("%.60q is not a UUID", s)
}

// String gives the usual form in lower case.
func (u UUID) String() string {
	var b [36]byte
	hex.Encode(b[:8], u[:4])
	hex.Encode(b[9:13], u[4:6])
	hex.Encode(b[14:18], u[6:8])
	hex.Encode(b[19:23], u[8:10])
	hex.Encode(b[24:], u[10:])
	b[8], b[13], b[18], b[23] = '-', '-', '-', '-'
	return string(b[:])
}

// IsZero tells whether u names no row.
func (u UUID) IsZero() bool { return u == UUID{} }

// Compare orders UUIDs by their bytes.
func (u UUID) Compare(v UUID) int { return bytes.Compare(u[:], v[:]) }

// Kind is the type of an atom.
type Kind uint8

// The atomic types (RFC 7047, 3.2, <atomic-type>). KindNamed is a reference to a row that the
// same transaction inserts (RFC 7047, 3.1, <named-uuid>); no stored value has it.
const (
	KindInteger Kind = iota + 1
	KindReal
	KindBoolean
	KindString
	KindUUID
	KindNamed
)

var kindNames = [...]string{"none", "integer", "real", "boolean", "string", "uuid", "named-uuid"}

// String gives the schema's word for the type.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return "kind " + strconv.Itoa(int(k))
}

// An Atom is one value of an atomic type. Atoms of the same value are ==.
type Atom struct {
	kind Kind
	num  uint64 // integer, real (bits), boolean
	uuid UUID
	text string
}

// Int, Real, Bool, Str, Ref and Named make atoms.
func Int(n int64) Atom { return Atom{kind: KindInteger, num: uint64(n)} }

// Real makes an atom of a real number; negative zero becomes zero, so that equal numbers are ==.
func Real(f float64) Atom {
	if f == 0 {
		f = 0
	}
	return Atom{kind: KindReal, num: math.Float64bits(f)}
}

// Bool makes a boolean atom.
func Bool(b bool) Atom {
	a := Atom{kind: KindBoolean}
	if b {
		a.num = 1
	}
	return a
}

// Str makes a string atom.
func Str(s string) Atom { return Atom{kind: KindString, text: s} }

// Ref makes a reference to a row.
func Ref(u UUID) Atom { return Atom{kind: KindUUID, uuid: u} }

// Named makes a reference to a row that the same transaction inserts under name.
func Named(name string) Atom { return Atom{kind: KindNamed, text: name} }

// Kind gives the atom's type.
func (a Atom) Kind() Kind { return a.kind }

// Int gives an integer's value, 0 for other kinds.
func (a Atom) Int() int64 {
	if a.kind != KindInteger {
		return 0
	}
	return int64(a.num)
}

// Real gives a real's value, 0 for other kinds.
func (a Atom) Real() float64 {
	if a.kind != KindReal {
		return 0
	}
	return math.Float64frombits(a.num)
}

// Bool gives a boolean's value, false for other kinds.
func (a Atom) Bool() bool { return a.kind == KindBoolean && a.num == 1 }

// Str gives a string's or a named-uuid's text, "" for other kinds.
func (a Atom) Str() string { return a.text }

// UUID gives a reference's row, zero for other kinds.
func (a Atom) UUID() UUID { return a.uuid }

// Compare orders atoms: by kind, then by value.
func (a Atom) Compare(b Atom) int {
	if a.kind != b.kind {
		return cmp.Compare(a.kind, b.kind)
	}
	switch a.kind {
	case KindInteger:
		return cmp.Compare(int64(a.num), int64(b.num))
	case KindReal:
		return cmp.Compare(a.Real(), b.Real())
	case KindBoolean:
		return cmp.Compare(a.num, b.num)
	case KindUUID:
		return a.uuid.Compare(b.uuid)
	default:
		return strings.Compare(a.text, b.text)
	}
}

// String gives the value for people.
func (a Atom) String() string {
	switch a.kind {
	case KindInteger:
		return strconv.FormatInt(int64(a.num), 10)
	case KindReal:
		return strconv.FormatFloat(a.Real(), 'g', -1, 64)
	case KindBoolean:
		return strconv.FormatBool(a.num == 1)
	case KindUUID:
		return a.uuid.String()
	case KindString, KindNamed:
		return strconv.Quote(a.text)
	}
	return "none"
}

// appendJSON appends the atom as the protocol writes it (RFC 7047, 5.1, <atom>).
func (a Atom) appendJSON(b []byte) ([]byte, error) {
	switch a.kind {
	case KindInteger:
		return strconv.AppendInt(b, int64(a.num), 10), nil
	case KindReal:
		f := a.Real()
		if math.IsNaN(f) || math.IsInf(f, 0) {
			return b, fmt.Errorf("%v is not a number that can be stored", f)
		}
		return strconv.AppendFloat(b, f, 'g', -1, 64), nil
	case KindBoolean:
		return strconv.AppendBool(b, a.num == 1), nil
	case KindString:
		if err := checkText(a.text); err != nil {
			return b, fmt.Errorf("%.60q: %w", a.text, err)
		}
		return appendText(b, a.text), nil
	case KindUUID:
		b = append(b, `["uuid","`...)
		b = append(b, a.uuid.String()...)
		return append(b, `"]`...), nil
	case KindNamed:
		if !isID(a.text) {
			return b, fmt.Errorf("%.60q is not an identifier", a.text)
		}
		b = append(b, `["named-uuid","`...)
		b = append(b, a.text...)
		return append(b, `"]`...), nil
	}
	return b, errors.New("an atom without a value")
}

// isID tells whether s is an <id> (RFC 7047, 3.1): [a-zA-Z_][a-zA-Z0-9_]*.
func isID(s string) bool {
	for i := 0; i < len(s); i++ {
		ch := s[i]
		if ch != '_' && (ch < 'a' || ch > 'z') && (ch < 'A' || ch > 'Z') && (i == 0 || ch < '0' || ch > '9') {
			return false
		}
	}
	return s != ""
}

// atom reads one atom of kind k.
func (c *cursor) atom(k Kind) (Atom, error) {
	switch k {
	case KindInteger:
		n, err := c.integer()
		return Int(n), err
	case KindReal:
		f, err := c.real()
		return Real(f), err
	case KindBoolean:
		v, err := c.boolean()
		return Bool(v), err
	case KindString:
		s, err := c.str()
		return Str(s), err
	case KindUUID:
		return c.reference()
	}
	return Atom{}, c.fail("no atom is of kind %v", k)
}

// reference reads ["uuid", …] or ["named-uuid", …].
func (c *cursor) reference() (Atom, error) {
	if err := c.open('['); err != nil {
		return Atom{}, err
	}
	tag, err := c.text()
	if err != nil {
		return Atom{}, err
	}
	return c.referenceTail(string(tag))
}

// referenceTail goes on with a reference behind its tag.
func (c *cursor) referenceTail(tag string) (Atom, error) {
	if tag != "uuid" && tag != "named-uuid" {
		return Atom{}, c.fail("want a uuid, not a %.20q", tag)
	}
	if c.peek() != ',' {
		return Atom{}, c.fail("want ',', not %s", c.describe())
	}
	c.i++
	s, err := c.text()
	if err != nil {
		return Atom{}, err
	}
	if more, err := c.more(1, ']'); err != nil {
		return Atom{}, err
	} else if more {
		return Atom{}, c.fail("a uuid has more than two members")
	}
	if tag == "named-uuid" {
		if !isID(string(s)) {
			return Atom{}, c.fail("%.40q is not an identifier", s)
		}
		return Named(string(s)), nil
	}
	u, err := ParseUUID(string(s))
	if err != nil {
		return Atom{}, c.fail("%v", err)
	}
	return Ref(u), nil
}

// A Pair is one entry of a map.
type Pair struct{ Key, Value Atom }

// A Value is what a column holds: a set of atoms, or a map from atoms to atoms. A scalar
// is a set of one; an optional value is a set of one or none. Values never change.
type Value struct {
	keys   []Atom // in order, none twice
	vals   []Atom // one for each key where the value is a map
	mapped bool
}

// Scalar makes the value of a column that holds exactly one atom.
func Scalar(a Atom) Value { return Value{keys: []Atom{a}} }

// SetOf makes a set; an atom given twice is in it once.
func SetOf(atoms ...Atom) Value {
	keys := slices.Clone(atoms)
	slices.SortFunc(keys, Atom.Compare)
	return Value{keys: slices.Compact(keys)}
}

// MapOf makes a map; of pairs with the same key the last holds.
func MapOf(pairs ...Pair) Value {
	sorted := slices.Clone(pairs)
	slices.SortStableFunc(sorted, func(a, b Pair) int { return a.Key.Compare(b.Key) })
	v := Value{mapped: true}
	for i, p := range sorted {
		if i+1 < len(sorted) && sorted[i+1].Key == p.Key {
			continue
		}
		v.keys = append(v.keys, p.Key)
		v.vals = append(v.vals, p.Value)
	}
	return v
}

// Len gives the number of atoms or pairs.
func (v Value) Len() int { return len(v.keys) }

// IsMap tells whether the value is a map.
func (v Value) IsMap() bool { return v.mapped }

// Atoms gives the set's atoms or the map's keys in order. The slice is the caller's.
func (v Value) Atoms() []Atom { return slices.Clone(v.keys) }

// Pairs gives the map's pairs in the order of their keys; none for a set.
func (v Value) Pairs() []Pair {
	pairs := make([]Pair, len(v.vals))
	for i := range v.vals {
		pairs[i] = Pair{v.keys[i], v.vals[i]}
	}
	return pairs
}

// Atom gives the only atom of a scalar or of an optional value that is there.
func (v Value) Atom() (Atom, bool) {
	if v.mapped || len(v.keys) != 1 {
		return Atom{}, false
	}
	return v.keys[0], true
}

// Contains tells whether a is in the set or a key of the map.
func (v Value) Contains(a Atom) bool {
	_, ok := slices.BinarySearchFunc(v.keys, a, Atom.Compare)
	return ok
}

// Lookup gives what the map has for key.
func (v Value) Lookup(key Atom) (Atom, bool) {
	i, ok := slices.BinarySearchFunc(v.keys, key, Atom.Compare)
	if !ok || !v.mapped {
		return Atom{}, false
	}
	return v.vals[i], true
}

// Equal tells whether both hold the same.
func (v Value) Equal(w Value) bool {
	return v.mapped == w.mapped && slices.Equal(v.keys, w.keys) && slices.Equal(v.vals, w.vals)
}

// String gives the value for people, much as ovs-vsctl does.
func (v Value) String() string {
	if a, ok := v.Atom(); ok {
		return a.String()
	}
	var b strings.Builder
	open, closing := "[", "]"
	if v.mapped {
		open, closing = "{", "}"
	}
	b.WriteString(open)
	for i, k := range v.keys {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(k.String())
		if v.mapped {
			b.WriteByte('=')
			b.WriteString(v.vals[i].String())
		}
	}
	b.WriteString(closing)
	return b.String()
}

// appendJSON appends the value as the protocol writes it (RFC 7047, 5.1, <value>).
func (v Value) appendJSON(b []byte) ([]byte, error) {
	if a, ok := v.Atom(); ok {
		return a.appendJSON(b)
	}
	var err error
	if v.mapped {
		b = append(b, `["map",[`...)
	} else {
		b = append(b, `["set",[`...)
	}
	for i, k := range v.keys {
		if i > 0 {
			b = append(b, ',')
		}
		if v.mapped {
			b = append(b, '[')
		}
		if b, err = k.appendJSON(b); err != nil {
			return b, err
		}
		if v.mapped {
			b = append(b, ',')
			if b, err = v.vals[i].appendJSON(b); err != nil {
				return b, err
			}
			b = append(b, ']')
		}
	}
	return append(b, "]]"...), nil
}

// MarshalJSON gives the protocol's form of the value.
func (v Value) MarshalJSON() ([]byte, error) { return v.appendJSON(nil) }

// DecodeValue reads a value of type t from the protocol's form. A duplicate in a set, or
// a key twice in a map, is an error, as is a number of atoms that t does not allow.
func DecodeValue(raw []byte, t *Type) (Value, error) {
	c := &cursor{b: raw}
	v, err := c.value(t)
	if err != nil {
		return Value{}, err
	}
	if err := c.end(); err != nil {
		return Value{}, err
	}
	return v, t.checkCount(v)
}

// value reads a value of type t, in any number: the differences in an update may hold
// more or fewer atoms than the column.
func (c *cursor) value(t *Type) (Value, error) {
	if c.peek() != '[' {
		if t.Value != nil {
			return Value{}, c.fail("want a map, not %s", c.describe())
		}
		a, err := c.atom(t.Key.Kind)
		if err != nil {
			return Value{}, err
		}
		return Scalar(a), nil
	}
	if err := c.open('['); err != nil {
		return Value{}, err
	}
	tag, err := c.text()
	if err != nil {
		return Value{}, err
	}
	var v Value
	switch {
	case string(tag) == "map" && t.Value != nil:
		v.mapped = true
	case string(tag) == "set" && t.Value == nil:
	case t.Value == nil && t.Key.Kind == KindUUID:
		a, err := c.referenceTail(string(tag))
		if err != nil {
			return Value{}, err
		}
		return Scalar(a), nil
	default:
		return Value{}, c.fail("a %.20q does not fit %v", tag, t)
	}
	if c.peek() != ',' {
		return Value{}, c.fail("want ',', not %s", c.describe())
	}
	c.i++
	if v.mapped {
		err = c.array(func(int) error {
			n := 0
			err := c.array(func(i int) error {
				n++
				k, dst := t.Value.Kind, &v.vals
				switch i {
				case 0:
					k, dst = t.Key.Kind, &v.keys
				case 1:
				default:
					return c.fail("a pair has more than two members")
				}
				a, err := c.atom(k)
				*dst = append(*dst, a)
				return err
			})
			if err == nil && n != 2 {
				err = c.fail("a pair has %d members", n)
			}
			return err
		})
	} else {
		err = c.array(func(int) error {
			a, err := c.atom(t.Key.Kind)
			v.keys = append(v.keys, a)
			return err
		})
	}
	if err != nil {
		return Value{}, err
	}
	if more, err := c.more(1, ']'); err != nil {
		return Value{}, err
	} else if more {
		return Value{}, c.fail("a set or map has more than two members")
	}
	if !v.sort() {
		return Value{}, c.fail("a set or map holds %v twice", v)
	}
	return v, nil
}

// sort puts the keys in order and tells whether none is there twice.
func (v *Value) sort() bool {
	strictly := func(keys []Atom) bool {
		for i := 1; i < len(keys); i++ {
			if keys[i-1].Compare(keys[i]) >= 0 {
				return false
			}
		}
		return true
	}
	if strictly(v.keys) { // ovsdb-server sends them in order
		return true
	}
	if !v.mapped {
		slices.SortFunc(v.keys, Atom.Compare)
		return strictly(v.keys)
	}
	pairs := v.Pairs()
	slices.SortFunc(pairs, func(a, b Pair) int { return a.Key.Compare(b.Key) })
	for i, p := range pairs {
		v.keys[i], v.vals[i] = p.Key, p.Value
	}
	return strictly(v.keys)
}

// patched applies the difference d of an update2 or update3 (ovsdb-server(7), "Update2
// Notification") to v: a set keeps what is in one of the two only; a map loses a pair
// that d repeats, and takes the rest of d; any other column is replaced.
func (v Value) patched(d Value, t *Type) Value {
	if t.Max <= 1 {
		return d
	}
	out := Value{mapped: v.mapped || d.mapped, keys: make([]Atom, 0, len(v.keys)+len(d.keys))}
	if out.mapped {
		out.vals = make([]Atom, 0, len(v.keys)+len(d.keys))
	}
	take := func(from *Value, i int) {
		out.keys = append(out.keys, from.keys[i])
		if out.mapped {
			out.vals = append(out.vals, from.vals[i])
		}
	}
	i, j := 0, 0
	for i < len(v.keys) || j < len(d.keys) {
		order := 0
		switch {
		case i == len(v.keys):
			order = 1
		case j == len(d.keys):
			order = -1
		default:
			order = v.keys[i].Compare(d.keys[j])
		}
		switch {
		case order < 0:
			take(&v, i)
			i++
		case order > 0:
			take(&d, j)
			j++
		default:
			if out.mapped && v.vals[i] != d.vals[j] {
				take(&d, j)
			}
			i++
			j++
		}
	}
	return out
}
