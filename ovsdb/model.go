package ovsdb

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
)

// A Model is a struct that stands for the rows of a table. Its fields say with a tag
// `ovsdb:"column"` which column they hold; a field without the tag is left alone. The
// field types and what they fit:
//
//	int64 (or any intN), float64, bool, string (or a named type of these), UUID  exactly one
//	*T                                                                        none or one
//	[]T                                                                       a set
//	map[K]T                                                                   a map
//
// A field of type UUID with the tag `ovsdb:"_uuid"` names the row. The tag option "optional",
// as in `ovsdb:"column,optional"`, allows a schema without the column.
//
// A Model has a value receiver: the zero value's TableName must give the name.
type Model interface {
	TableName() string
}

// A plan is how a Model's fields map to columns.
type plan struct {
	typ    reflect.Type
	table  string
	uuid   int // field, or -1
	fields []field
}

type field struct {
	index    int
	column   string
	optional bool // the schema may lack the column
	shape    shape
	key      Kind
	val      Kind // of a map
}

type shape uint8

const (
	shapeOne shape = iota
	shapeOptional
	shapeSet
	shapeMap
)

var shapeNames = [...]string{"exactly one", "an optional", "a set of", "a map from"}

var uuidType = reflect.TypeFor[UUID]()

// kindOfType gives the kind of atom that a Go type holds, 0 for none.
func kindOfType(t reflect.Type) Kind {
	switch {
	case t == uuidType:
		return KindUUID
	case t.Kind() == reflect.String:
		return KindString
	case t.Kind() == reflect.Bool:
		return KindBoolean
	case t.Kind() == reflect.Float64:
		return KindReal
	case t.Kind() >= reflect.Int && t.Kind() <= reflect.Int64:
		return KindInteger
	}
	return 0
}

// shapeOfType takes a Go type apart; false where it fits no column.
func shapeOfType(t reflect.Type) (s shape, key, val Kind, ok bool) {
	if k := kindOfType(t); k != 0 {
		return shapeOne, k, 0, true
	}
	switch t.Kind() {
	case reflect.Pointer:
		s, key = shapeOptional, kindOfType(t.Elem())
	case reflect.Slice:
		s, key = shapeSet, kindOfType(t.Elem())
	case reflect.Map:
		s, key, val = shapeMap, kindOfType(t.Key()), kindOfType(t.Elem())
		return s, key, val, key != 0 && val != 0
	}
	return s, key, 0, key != 0
}

// newPlan reads the tags of m's type.
func newPlan(m Model) (*plan, error) {
	t := reflect.TypeOf(m)
	if t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t == nil || t.Kind() != reflect.Struct {
		return nil, fmt.Errorf("model %T is not a struct", m)
	}
	zero, ok := reflect.Zero(t).Interface().(Model)
	if !ok {
		return nil, fmt.Errorf("model %v: TableName needs a value receiver", t)
	}
	p := &plan{typ: t, table: zero.TableName(), uuid: -1}
	if !isID(p.table) {
		return nil, fmt.Errorf("model %v: %q is not a table's name", t, p.table)
	}
	seen := map[string]bool{}
	for i := range t.NumField() {
		tag, ok := t.Field(i).Tag.Lookup("ovsdb")
		if !ok {
			continue
		}
		column, option, _ := strings.Cut(tag, ",")
		where := fmt.Sprintf("model %v: field %s", t, t.Field(i).Name)
		switch {
		case !t.Field(i).IsExported():
			return nil, fmt.Errorf("%s is not exported", where)
		case seen[column]:
			return nil, fmt.Errorf("%s: column %s has a field already", where, column)
		case option != "" && option != "optional":
			return nil, fmt.Errorf("%s: unknown tag option %q", where, option)
		}
		seen[column] = true
		if column == "_uuid" {
			if t.Field(i).Type != uuidType {
				return nil, fmt.Errorf("%s: _uuid needs type UUID", where)
			}
			p.uuid = i
			continue
		}
		f := field{index: i, column: column, optional: option == "optional"}
		if f.shape, f.key, f.val, ok = shapeOfType(t.Field(i).Type); !ok {
			return nil, fmt.Errorf("%s: type %v fits no column", where, t.Field(i).Type)
		}
		p.fields = append(p.fields, f)
	}
	if len(p.fields) == 0 {
		return nil, fmt.Errorf("model %v names no column", t)
	}
	return p, nil
}

// check compares the plan with the schema; the error lists every difference.
func (p *plan) check(s *Schema) error {
	t, err := s.Table(p.table)
	if err != nil {
		return fmt.Errorf("model %v: %w", p.typ, err)
	}
	var errs []error
	for _, f := range p.fields {
		c, err := t.Column(f.column)
		switch {
		case err != nil && f.optional:
		case err != nil:
			errs = append(errs, fmt.Errorf("model %v: %w", p.typ, err))
		case !f.fits(&c.Type):
			errs = append(errs, fmt.Errorf("model %v: field %s of type %v does not fit column %s, %s",
				p.typ, p.typ.Field(f.index).Name, p.typ.Field(f.index).Type, f.column, describeType(&c.Type)))
		}
	}
	return errors.Join(errs...)
}

func shapeOf(t *Type) shape {
	switch {
	case t.Value != nil:
		return shapeMap
	case t.Max > 1:
		return shapeSet
	case t.Min == 0:
		return shapeOptional
	}
	return shapeOne
}

func describeType(t *Type) string {
	s := shapeNames[shapeOf(t)] + " " + t.Key.Kind.String()
	if t.Value != nil {
		s += " to " + t.Value.Kind.String()
	}
	return s
}

func (f *field) fits(t *Type) bool {
	val := Kind(0)
	if t.Value != nil {
		val = t.Value.Kind
	}
	return f.shape == shapeOf(t) && f.key == t.Key.Kind && f.val == val
}

// columns gives the names of the plan's columns that the schema has.
func (p *plan) columns(t *TableSchema) []string {
	names := make([]string, 0, len(p.fields))
	for _, f := range p.fields {
		if t.Columns[f.column] != nil {
			names = append(names, f.column)
		}
	}
	return names
}

// decode fills the struct v from a row; columns that the row lacks stay zero.
func (p *plan) decode(r *Row, v reflect.Value) error {
	if p.uuid >= 0 {
		v.Field(p.uuid).Set(reflect.ValueOf(r.uuid))
	}
	for i := range p.fields {
		f := &p.fields[i]
		val, ok := r.Value(f.column)
		if !ok {
			continue
		}
		if err := f.shape.decode(val, v.Field(f.index)); err != nil {
			return fmt.Errorf("row %v of %s: column %s: %w", r.uuid, p.table, f.column, err)
		}
	}
	return nil
}

func (s shape) decode(val Value, v reflect.Value) error {
	switch s {
	case shapeOne:
		a, ok := val.Atom()
		if !ok {
			return fmt.Errorf("%v is not one value", val)
		}
		return decodeAtom(a, v)
	case shapeOptional:
		if val.Len() == 0 {
			v.SetZero()
			return nil
		}
		a, ok := val.Atom()
		if !ok {
			return fmt.Errorf("%v is not one value", val)
		}
		p := reflect.New(v.Type().Elem())
		v.Set(p)
		return decodeAtom(a, p.Elem())
	case shapeSet:
		if val.Len() == 0 {
			v.SetZero()
			return nil
		}
		list := reflect.MakeSlice(v.Type(), val.Len(), val.Len())
		for i, a := range val.keys {
			if err := decodeAtom(a, list.Index(i)); err != nil {
				return err
			}
		}
		v.Set(list)
		return nil
	}
	if val.Len() == 0 || !val.mapped {
		v.SetZero()
		return nil
	}
	if m, ok := v.Addr().Interface().(*map[string]string); ok && val.keys[0].kind == KindString && val.vals[0].kind == KindString {
		*m = make(map[string]string, val.Len()) // by far the most frequent
		for i, k := range val.keys {
			(*m)[k.text] = val.vals[i].text
		}
		return nil
	}
	t := v.Type()
	m := reflect.MakeMapWithSize(t, val.Len())
	for i, k := range val.keys {
		key, elem := reflect.New(t.Key()).Elem(), reflect.New(t.Elem()).Elem()
		if err := decodeAtom(k, key); err != nil {
			return err
		}
		if err := decodeAtom(val.vals[i], elem); err != nil {
			return err
		}
		m.SetMapIndex(key, elem)
	}
	v.Set(m)
	return nil
}

func decodeAtom(a Atom, v reflect.Value) error {
	if a.kind != kindOfType(v.Type()) {
		return fmt.Errorf("%v does not fit type %v", a, v.Type())
	}
	switch a.kind {
	case KindInteger:
		if v.OverflowInt(a.Int()) {
			return fmt.Errorf("%v does not fit type %v", a, v.Type())
		}
		v.SetInt(a.Int())
	case KindReal:
		v.SetFloat(a.Real())
	case KindBoolean:
		v.SetBool(a.Bool())
	case KindString:
		v.SetString(a.text)
	case KindUUID:
		v.Set(reflect.ValueOf(a.uuid))
	}
	return nil
}

func encodeAtom(v reflect.Value) (Atom, error) {
	switch kindOfType(v.Type()) {
	case KindInteger:
		return Int(v.Int()), nil
	case KindReal:
		return Real(v.Float()), nil
	case KindBoolean:
		return Bool(v.Bool()), nil
	case KindString:
		return Str(v.String()), nil
	case KindUUID:
		return Ref(v.Interface().(UUID)), nil
	}
	return Atom{}, fmt.Errorf("type %v fits no column", v.Type())
}

// ValueOf makes a Value of a Go value of one of the types that a Model's field may have,
// or of an Atom or a Value itself.
func ValueOf(x any) (Value, error) {
	switch x := x.(type) {
	case nil:
		return Value{}, errors.New("nil fits no column")
	case Value:
		return x, nil
	case Atom:
		return Scalar(x), nil
	}
	return valueOf(reflect.ValueOf(x))
}

func valueOf(v reflect.Value) (Value, error) {
	s, _, _, ok := shapeOfType(v.Type())
	if !ok {
		return Value{}, fmt.Errorf("type %v fits no column", v.Type())
	}
	switch s {
	case shapeOne:
		a, err := encodeAtom(v)
		return Scalar(a), err
	case shapeOptional:
		if v.IsNil() {
			return Value{}, nil
		}
		a, err := encodeAtom(v.Elem())
		return Scalar(a), err
	case shapeSet:
		atoms := make([]Atom, v.Len())
		for i := range atoms {
			var err error
			if atoms[i], err = encodeAtom(v.Index(i)); err != nil {
				return Value{}, err
			}
		}
		return SetOf(atoms...), nil
	}
	pairs := make([]Pair, 0, v.Len())
	for it := v.MapRange(); it.Next(); {
		k, err := encodeAtom(it.Key())
		if err != nil {
			return Value{}, err
		}
		e, err := encodeAtom(it.Value())
		if err != nil {
			return Value{}, err
		}
		pairs = append(pairs, Pair{k, e})
	}
	return MapOf(pairs...), nil
}
