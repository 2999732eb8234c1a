package ovsdb

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode/utf8"
)

// Unlimited is the Max of a type without an upper bound.
const Unlimited = math.MaxInt

// A Schema describes a database (RFC 7047, 3.2, <database-schema>).
type Schema struct {
	Name     string
	Version  string
	Checksum string // "" where the server gives none
	Tables   map[string]*TableSchema
}

// A TableSchema describes a table. Columns has _uuid and _version beside those that the
// schema lists.
type TableSchema struct {
	Name    string
	Columns map[string]*Column
	MaxRows int        // Unlimited where the schema sets no bound
	Root    bool       // rows live without a reference to them
	Indexes [][]string // sets of columns whose values no two rows share
}

// A Column describes a column.
type Column struct {
	Name      string
	Type      Type
	Ephemeral bool // lost when the server stops
	Immutable bool // set by insert only
}

// A Type is what a column may hold (RFC 7047, 3.2, <type>).
type Type struct {
	Key   BaseType
	Value *BaseType // nil unless the column is a map
	Min   int       // 0 or 1
	Max   int       // 1 … Unlimited
}

// A BaseType is what an atom may be (RFC 7047, 3.2, <base-type>).
type BaseType struct {
	Kind     Kind
	Enum     []Atom // in order; empty: any
	MinInt   int64
	MaxInt   int64
	MinReal  float64
	MaxReal  float64
	MinLen   int // characters
	MaxLen   int
	RefTable string // of a UUID: the table of the row, or ""
	WeakRef  bool
}

// String gives the type in short, such as "set of string" or "map of integer to uuid".
func (t *Type) String() string {
	switch {
	case t.Value != nil:
		return fmt.Sprintf("map of %v to %v", t.Key.Kind, t.Value.Kind)
	case t.Max > 1:
		return fmt.Sprintf("set of %v", t.Key.Kind)
	case t.Min == 0:
		return fmt.Sprintf("optional %v", t.Key.Kind)
	}
	return t.Key.Kind.String()
}

// checkCount fails where v has more or fewer atoms than t allows, or is a map where t is
// none.
func (t *Type) checkCount(v Value) error {
	switch n := v.Len(); {
	case v.mapped != (t.Value != nil):
		return fmt.Errorf("%v does not fit %v", v, t)
	case n < t.Min:
		return fmt.Errorf("%v needs at least %d, has %d", t, t.Min, n)
	case n > t.Max:
		return fmt.Errorf("%v allows at most %d, has %d", t, t.Max, n)
	}
	return nil
}

// Check fails where v may not be stored in a column of type t.
func (t *Type) Check(v Value) error {
	if err := t.checkCount(v); err != nil {
		return err
	}
	return t.checkAtoms(v)
}

// checkAtoms checks each atom, but not how many there are.
func (t *Type) checkAtoms(v Value) error {
	for _, a := range v.keys {
		if err := t.Key.check(a); err != nil {
			return err
		}
	}
	for _, a := range v.vals {
		if t.Value == nil {
			return fmt.Errorf("%v does not fit %v", v, t)
		}
		if err := t.Value.check(a); err != nil {
			return err
		}
	}
	return nil
}

// zero gives the value that a column has where nothing was stored (RFC 7047, 5.2.1).
func (t *Type) zero() Value {
	if t.Value != nil {
		return Value{mapped: true}
	}
	if t.Min == 0 {
		return Value{}
	}
	return Scalar(Atom{kind: t.Key.Kind})
}

// check fails where a may not be stored.
func (b *BaseType) check(a Atom) error {
	if a.kind != b.Kind && !(a.kind == KindNamed && b.Kind == KindUUID) {
		return fmt.Errorf("%v is of type %v, not %v", a, a.kind, b.Kind)
	}
	if len(b.Enum) > 0 {
		if _, ok := slices.BinarySearchFunc(b.Enum, a, Atom.Compare); !ok {
			return fmt.Errorf("%v is not one of %v", a, b.Enum)
		}
	}
	switch a.kind {
	case KindInteger:
		if n := a.Int(); n < b.MinInt || n > b.MaxInt {
			return fmt.Errorf("%d is not in %d…%d", n, b.MinInt, b.MaxInt)
		}
	case KindReal:
		if f := a.Real(); !(f >= b.MinReal && f <= b.MaxReal) {
			return fmt.Errorf("%g is not in %g…%g", f, b.MinReal, b.MaxReal)
		}
	case KindString:
		if b.MinLen == 0 && len(a.text) <= b.MaxLen {
			break
		}
		if n := utf8.RuneCountInString(a.text); n < b.MinLen || n > b.MaxLen {
			return fmt.Errorf("%.40q has %d characters, not %d…%d", a.text, n, b.MinLen, b.MaxLen)
		}
	}
	return nil
}

// Column gives a table's column, or an error that names what is missing.
func (s *Schema) Column(table, column string) (*Column, error) {
	t, err := s.Table(table)
	if err != nil {
		return nil, err
	}
	return t.Column(column)
}

// Table gives a table, or an error that names it.
func (s *Schema) Table(name string) (*TableSchema, error) {
	if t := s.Tables[name]; t != nil {
		return t, nil
	}
	return nil, fmt.Errorf("database %s (version %s) has no table %q", s.Name, s.Version, name)
}

// Column gives a column, or an error that names it.
func (t *TableSchema) Column(name string) (*Column, error) {
	if c := t.Columns[name]; c != nil {
		return c, nil
	}
	return nil, fmt.Errorf("table %s has no column %q", t.Name, name)
}

// ParseSchema reads a database schema in the protocol's form.
func ParseSchema(raw []byte) (*Schema, error) {
	var wire struct {
		Name    string `json:"name"`
		Version string `json:"version"`
		Cksum   string `json:"cksum"`
		Tables  map[string]struct {
			Columns map[string]struct {
				Type      json.RawMessage `json:"type"`
				Ephemeral bool            `json:"ephemeral"`
				Mutable   *bool           `json:"mutable"`
			} `json:"columns"`
			MaxRows *int       `json:"maxRows"`
			IsRoot  bool       `json:"isRoot"`
			Indexes [][]string `json:"indexes"`
		} `json:"tables"`
	}
	if err := json.Unmarshal(raw, &wire); err != nil {
		return nil, fmt.Errorf("read schema: %w", err)
	}
	if !isID(wire.Name) {
		return nil, fmt.Errorf("read schema: %.40q is not a database's name", wire.Name)
	}
	s := &Schema{Name: wire.Name, Version: wire.Version, Checksum: wire.Cksum, Tables: map[string]*TableSchema{}}
	for name, wt := range wire.Tables {
		t := &TableSchema{Name: name, Columns: map[string]*Column{}, MaxRows: Unlimited, Root: wt.IsRoot, Indexes: wt.Indexes}
		if wt.MaxRows != nil {
			t.MaxRows = *wt.MaxRows
		}
		if !isID(name) {
			return nil, fmt.Errorf("read schema: %.40q is not a table's name", name)
		}
		for column, wc := range wt.Columns {
			if !isID(column) || strings.HasPrefix(column, "_") {
				return nil, fmt.Errorf("read schema: table %s: %.40q is not a column's name", name, column)
			}
			c := &Column{Name: column, Ephemeral: wc.Ephemeral, Immutable: wc.Mutable != nil && !*wc.Mutable}
			if err := c.Type.parse(wc.Type); err != nil {
				return nil, fmt.Errorf("read schema: table %s: column %s: %w", name, column, err)
			}
			t.Columns[column] = c
		}
		for _, index := range t.Indexes {
			for _, column := range index {
				if t.Columns[column] == nil {
					return nil, fmt.Errorf("read schema: table %s: index on unknown column %.40q", name, column)
				}
			}
		}
		for _, column := range []string{"_uuid", "_version"} {
			t.Columns[column] = &Column{Name: column, Immutable: true, Type: Type{Key: anyOf(KindUUID), Min: 1, Max: 1}}
		}
		s.Tables[name] = t
	}
	return s, nil
}

// anyOf gives the base type that allows every atom of kind k.
func anyOf(k Kind) BaseType {
	return BaseType{Kind: k, MinInt: math.MinInt64, MaxInt: math.MaxInt64, MinReal: -math.MaxFloat64,
		MaxReal: math.MaxFloat64, MaxLen: Unlimited}
}

func kindOf(word string) (Kind, error) {
	for k := KindInteger; k <= KindUUID; k++ {
		if kindNames[k] == word {
			return k, nil
		}
	}
	return 0, fmt.Errorf("%.40q is not an atomic type", word)
}

func (t *Type) parse(raw json.RawMessage) error {
	*t = Type{Min: 1, Max: 1}
	if len(raw) == 0 {
		return errors.New("no type")
	}
	if raw[0] == '"' {
		return t.Key.parse(raw)
	}
	var wire struct {
		Key   json.RawMessage `json:"key"`
		Value json.RawMessage `json:"value"`
		Min   *int            `json:"min"`
		Max   json.RawMessage `json:"max"`
	}
	if err := json.Unmarshal(raw, &wire); err != nil {
		return err
	}
	if err := t.Key.parse(wire.Key); err != nil {
		return fmt.Errorf("key: %w", err)
	}
	if wire.Value != nil {
		t.Value = new(BaseType)
		if err := t.Value.parse(wire.Value); err != nil {
			return fmt.Errorf("value: %w", err)
		}
	}
	if wire.Min != nil {
		t.Min = *wire.Min
	}
	switch {
	case wire.Max == nil:
	case string(wire.Max) == `"unlimited"`:
		t.Max = Unlimited
	default:
		if err := json.Unmarshal(wire.Max, &t.Max); err != nil {
			return fmt.Errorf("max: %w", err)
		}
	}
	if t.Min < 0 || t.Min > 1 || t.Max < 1 {
		return fmt.Errorf("min %d and max %d do not make a type", t.Min, t.Max)
	}
	return nil
}

func (b *BaseType) parse(raw json.RawMessage) error {
	if len(raw) == 0 {
		return errors.New("no type")
	}
	var word string
	if raw[0] == '"' {
		if err := json.Unmarshal(raw, &word); err != nil {
			return err
		}
		k, err := kindOf(word)
		*b = anyOf(k)
		return err
	}
	var wire struct {
		Type       string          `json:"type"`
		Enum       json.RawMessage `json:"enum"`
		MinInteger *int64          `json:"minInteger"`
		MaxInteger *int64          `json:"maxInteger"`
		MinReal    *float64        `json:"minReal"`
		MaxReal    *float64        `json:"maxReal"`
		MinLength  *int            `json:"minLength"`
		MaxLength  *int            `json:"maxLength"`
		RefTable   string          `json:"refTable"`
		RefType    string          `json:"refType"`
	}
	if err := json.Unmarshal(raw, &wire); err != nil {
		return err
	}
	k, err := kindOf(wire.Type)
	if err != nil {
		return err
	}
	*b = anyOf(k)
	b.RefTable, b.WeakRef = wire.RefTable, wire.RefType == "weak"
	setIf(&b.MinInt, wire.MinInteger)
	setIf(&b.MaxInt, wire.MaxInteger)
	setIf(&b.MinReal, wire.MinReal)
	setIf(&b.MaxReal, wire.MaxReal)
	setIf(&b.MinLen, wire.MinLength)
	setIf(&b.MaxLen, wire.MaxLength)
	if wire.Enum != nil {
		v, err := DecodeValue(wire.Enum, &Type{Key: anyOf(k), Min: 1, Max: Unlimited})
		if err != nil {
			return fmt.Errorf("enum: %w", err)
		}
		b.Enum = v.keys
	}
	return nil
}

func setIf[T any](dst, src *T) {
	if src != nil {
		*dst = *src
	}
}
