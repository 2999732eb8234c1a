package ovsdb

import (
	"maps"
	"math"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

const testSchema = `{"name":"D","version":"1.0.0","tables":{"T":{"indexes":[["name"],["n","real"]],"maxRows":9,"columns":{
 "name":{"type":"string","mutable":false},
 "n":{"type":{"key":{"type":"integer","minInteger":-5,"maxInteger":5},"min":0,"max":1}},
 "real":{"type":{"key":{"type":"real","minReal":-1.5,"maxReal":2}}},
 "flag":{"type":"boolean","ephemeral":true},
 "ref":{"type":{"key":{"type":"uuid","refTable":"T","refType":"weak"},"min":0}},
 "set":{"type":{"key":"string","min":0,"max":"unlimited"}},
 "pick":{"type":{"key":{"type":"string","enum":["set",["b","a"]]}}},
 "short":{"type":{"key":{"type":"string","minLength":1,"maxLength":3}}},
 "refs":{"type":{"key":"uuid","min":0,"max":3}},
 "map":{"type":{"key":"string","value":"string","min":0,"max":"unlimited"}},
 "byint":{"type":{"key":"integer","value":{"type":"uuid","refTable":"T"},"min":0,"max":"unlimited"}}}}}}`

func testColumn(t testing.TB, name string) *Column {
	t.Helper()
	s, err := ParseSchema([]byte(testSchema))
	if err != nil {
		t.Fatal(err)
	}
	c, err := s.Column("T", name)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestDecodeValue(t *testing.T) {
	const u = `["uuid","00010203-0405-0607-0809-0a0b0c0d0e0f"]`
	for _, tc := range []struct{ column, in, want string }{ // want in the form of people, or "" for an error
		{"name", `"x"`, `"x"`}, {"name", `["set",["x"]]`, `"x"`}, {"name", `["set",[]]`, ""}, {"name", `["set",["x","y"]]`, ""},
		{"name", `7`, ""}, {"name", `null`, ""}, {"name", `"x" 1`, ""}, {"name", ``, ""}, {"name", `["map",[]]`, ""}, {"name", `"\u0000"`, ""},
		{"n", `["set",[]]`, "[]"}, {"n", `5`, "5"}, {"n", `5.0`, "5"}, {"n", `5e0`, "5"}, {"n", `5.5`, ""}, {"n", `9223372036854775808`, ""}, {"n", `1e30`, ""}, {"n", `"5"`, ""},
		{"real", `1`, "1"}, {"real", `1.25`, "1.25"}, {"real", `-0`, "0"}, {"real", `1e999`, ""},
		{"flag", `true`, "true"}, {"flag", `1`, ""}, {"flag", `truer`, ""},
		{"ref", u, "00010203-0405-0607-0809-0a0b0c0d0e0f"}, {"ref", `["uuid","x"]`, ""}, {"ref", `["uuid"]`, ""}, {"ref", u[:len(u)-1] + `,1]`, ""},
		{"ref", `["named-uuid","row1"]`, `"row1"`}, {"ref", `["named-uuid","1row"]`, ""}, {"ref", `"00010203-0405-0607-0809-0a0b0c0d0e0f"`, ""},
		{"refs", `["set",[` + u + `]]`, "00010203-0405-0607-0809-0a0b0c0d0e0f"}, {"refs", `["set",[` + u + `,` + u + `]]`, ""}, {"refs", `["uuids",[]]`, ""},
		{"set", `["set",["b","a"]]`, `["a", "b"]`}, {"set", `["set",["a","a"]]`, ""}, {"set", `["set",["a",1]]`, ""}, {"set", `["set"]`, ""}, {"set", `["set",["a"],1]`, ""}, {"set", `[]`, ""}, {"set", `["set",["a"]`, ""},
		{"map", `["map",[["b","2"],["a","1"]]]`, `{"a"="1", "b"="2"}`}, {"map", `["map",[]]`, "{}"}, {"map", `["map",[["a","1"],["a","2"]]]`, ""},
		{"map", `["map",[["a"]]]`, ""}, {"map", `["map",[["a","1","2"]]]`, ""}, {"map", `["map",[[]]]`, ""}, {"map", `["set",[]]`, ""}, {"map", `"a"`, ""},
		{"byint", `["map",[[3,` + u + `]]]`, "{3=00010203-0405-0607-0809-0a0b0c0d0e0f}"},
	} {
		v, err := DecodeValue([]byte(tc.in), &testColumn(t, tc.column).Type)
		if err == nil && tc.want == "" || err != nil && tc.want != "" || err == nil && v.String() != tc.want {
			t.Errorf("%s: %s is %v (%v), want %s", tc.column, tc.in, v, err, tc.want)
		}
	}
}

func TestTypeCheck(t *testing.T) {
	for _, tc := range []struct {
		column string
		value  any
		want   string // of the error; "": none
	}{
		{"n", 5, ""}, {"n", 6, "6 is not in -5…5"}, {"n", int64(-6), "-6 is not in"}, {"n", (*int64)(nil), ""},
		{"real", 2.0, ""}, {"real", 2.5, "2.5 is not in -1.5…2"}, {"real", math.NaN(), "NaN is not in"},
		{"pick", "a", ""}, {"pick", "c", "is not one of"}, {"short", "éé€", ""}, {"short", "", "has 0 characters"}, {"short", "abcd", "has 4 characters"},
		{"refs", []UUID{{1}, {2}, {3}, {3}}, ""}, {"refs", []UUID{{1}, {2}, {3}, {4}}, "at most 3"},
		{"map", map[string]string{"a": "b"}, ""}, {"map", []string{"a"}, "does not fit"}, {"set", map[string]string{}, "does not fit"},
		{"map", map[string]int64{"a": 1}, "of type integer, not string"}, {"flag", "true", "of type string, not boolean"},
	} {
		v, err := ValueOf(tc.value)
		if err == nil {
			err = testColumn(t, tc.column).Type.Check(v)
		}
		if err == nil && tc.want != "" || err != nil && (tc.want == "" || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s = %v: %v, want %q", tc.column, tc.value, err, tc.want)
		}
	}
}

func TestParseSchemaRefuses(t *testing.T) {
	for _, s := range []string{
		``, `[]`, `{"name":"a b"}`, `{"name":"D","tables":{"1":{}}}`, `{"name":"D","tables":{"T":{"columns":{"_x":{"type":"string"}}}}}`,
		`{"name":"D","tables":{"T":{"columns":{"x":{}}}}}`, `{"name":"D","tables":{"T":{"columns":{"x":{"type":"text"}}}}}`,
		`{"name":"D","tables":{"T":{"columns":{"x":{"type":{"key":"string","min":2}}}}}}`, `{"name":"D","tables":{"T":{"columns":{"x":{"type":{"key":"string","max":0}}}}}}`,
		`{"name":"D","tables":{"T":{"columns":{"x":{"type":{"key":"string","max":"many"}}}}}}`, `{"name":"D","tables":{"T":{"columns":{},"indexes":[["x"]]}}}`,
		`{"name":"D","tables":{"T":{"columns":{"x":{"type":{"key":{"type":"string","enum":["set",[1]]}}}}}}}`, `{"name":"D","tables":{"T":{"columns":{"x":{"type":{"value":"string"}}}}}}`,
	} {
		if _, err := ParseSchema([]byte(s)); err == nil {
			t.Errorf("%s is a schema", s)
		}
	}
}

// FuzzValue: whatever is read without an error is written so that it reads the same.
func FuzzValue(f *testing.F) {
	columns := []string{"name", "n", "real", "flag", "ref", "set", "refs", "map", "byint"}
	for i, s := range []string{`"x"`, `5`, `1.5`, `true`, `["uuid","00000000-0000-0000-0000-000000000001"]`, `["set",["a","b"]]`,
		`["set",[["named-uuid","r"]]]`, `["map",[["a","b"],["c","d"]]]`, `["map",[[1,["uuid","00000000-0000-0000-0000-000000000001"]]]]`} {
		f.Add([]byte(s), uint8(i))
	}
	types := make([]*Type, len(columns))
	for i, name := range columns {
		types[i] = &testColumn(f, name).Type
	}
	f.Fuzz(func(t *testing.T, b []byte, which uint8) {
		typ := types[int(which)%len(types)]
		v, err := DecodeValue(b, typ)
		if err != nil {
			return
		}
		out, err := v.MarshalJSON()
		if err != nil {
			t.Fatalf("%v cannot be written: %v", v, err)
		}
		back, err := DecodeValue(out, typ)
		if err != nil || !back.Equal(v) {
			t.Fatalf("%q is %v, written %s, read again %v (%v)", b, v, out, back, err)
		}
	})
}

func drawAtom(t *rapid.T) Atom {
	switch rapid.IntRange(0, 4).Draw(t, "kind") {
	case 0:
		return Int(rapid.Int64().Draw(t, "int"))
	case 1:
		return Real(rapid.Float64Range(-1e300, 1e300).Draw(t, "real"))
	case 2:
		return Bool(rapid.Bool().Draw(t, "bool"))
	case 3:
		return Str(strings.ReplaceAll(strings.ToValidUTF8(rapid.String().Draw(t, "string"), ""), "\x00", ""))
	default:
		return Ref(UUID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "uuid")))
	}
}

func TestAtomsSurviveTheWire(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := drawAtom(t)
		b, err := a.appendJSON(nil)
		if err != nil {
			t.Fatal(err)
		}
		back, err := (&cursor{b: b}).atom(a.Kind())
		if err != nil || back != a || back.Compare(a) != 0 {
			t.Fatalf("%v is written %s and read %v (%v)", a, b, back, err)
		}
	})
}

// patched is the inverse of the difference that a server makes.
func TestPatchedUndoesTheDifference(t *testing.T) {
	set := &Type{Key: anyOf(KindInteger), Min: 0, Max: Unlimited}
	mapping := &Type{Key: anyOf(KindInteger), Value: new(anyOf(KindInteger)), Min: 0, Max: Unlimited}
	rapid.Check(t, func(t *rapid.T) {
		gen := rapid.MapOf(rapid.Int64Range(0, 9), rapid.Int64Range(0, 2))
		old, now := gen.Draw(t, "old"), gen.Draw(t, "new")
		diff := map[int64]int64{}
		for k, v := range old {
			if w, ok := now[k]; !ok {
				diff[k] = v // removed: the pair as it was
			} else if w != v {
				diff[k] = w // changed: the new pair
			}
		}
		for k, v := range now {
			if _, ok := old[k]; !ok {
				diff[k] = v
			}
		}
		value := func(x any) Value {
			v, err := ValueOf(x)
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
		if got := value(old).patched(value(diff), mapping); !got.Equal(value(now)) {
			t.Fatalf("map: %v and %v give %v, want %v", old, diff, got, now)
		}
		keys := func(m map[int64]int64) []int64 { return slices.Collect(maps.Keys(m)) }
		both := map[int64]int64{}
		for k := range old {
			if _, ok := now[k]; !ok {
				both[k] = 0
			}
		}
		for k := range now {
			if _, ok := old[k]; !ok {
				both[k] = 0
			}
		}
		if got := value(keys(old)).patched(value(keys(both)), set); !got.Equal(value(keys(now))) {
			t.Fatalf("set: %v and %v give %v, want %v", keys(old), keys(both), got, keys(now))
		}
	})
}

type everything struct {
	UUID  UUID              `ovsdb:"_uuid"`
	Name  string            `ovsdb:"name"`
	N     *int32            `ovsdb:"n"`
	Real  float64           `ovsdb:"real"`
	Flag  bool              `ovsdb:"flag"`
	Ref   *UUID             `ovsdb:"ref"`
	Set   []string          `ovsdb:"set"`
	Refs  []UUID            `ovsdb:"refs"`
	Map   map[string]string `ovsdb:"map"`
	ByInt map[int64]UUID    `ovsdb:"byint"`
	Later string            `ovsdb:"later,optional"`
	other int
}

func (everything) TableName() string { return "T" }

type badTag struct {
	A chan int `ovsdb:"a"`
}

func (badTag) TableName() string { return "T" }

type badOption struct {
	A string `ovsdb:"a,often"`
}

func (badOption) TableName() string { return "T" }

type twice struct {
	A string `ovsdb:"a"`
	B string `ovsdb:"a"`
}

func (twice) TableName() string { return "T" }

type hidden struct {
	a string `ovsdb:"a"`
}

func (hidden) TableName() string { return "T" }

type badUUID struct {
	A string `ovsdb:"_uuid"`
}

func (badUUID) TableName() string { return "T" }

type nothing struct{ A string }

func (nothing) TableName() string { return "T" }

func TestModels(t *testing.T) {
	for _, m := range []Model{nil, badTag{}, badOption{}, twice{}, hidden{}, badUUID{}, nothing{}} {
		if _, err := newPlan(m); err == nil {
			t.Errorf("%T is a model", m)
		}
	}
	_ = hidden{}.a
	schema, err := ParseSchema([]byte(testSchema))
	if err != nil {
		t.Fatal(err)
	}
	p, err := newPlan(&everything{})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.check(schema); err != nil {
		t.Fatal(err)
	}
	l, err := newLayout(schema.Tables["T"], p.columns(schema.Tables["T"]))
	if err != nil {
		t.Fatal(err)
	}
	in := everything{UUID: UUID{9}, Name: "x", N: new(int32(-3)), Real: 1.5, Flag: true, Ref: &UUID{1}, Set: []string{"b", "a"}, Refs: []UUID{{2}},
		Map: map[string]string{"k": "v"}, ByInt: map[int64]UUID{7: {3}}, other: 1}
	cols, table, id, err := columnsOf(in, nil)
	if err != nil || table != "T" || id != in.UUID || len(cols) != 9 {
		t.Fatalf("%v %v %v %v", cols, table, id, err)
	}
	b, err := NewTxn().appendRow(nil, schema.Tables["T"], cols, "insert")
	if err != nil {
		t.Fatal(err)
	}
	r, err := (&cursor{b: b}).row(l, in.UUID, nil, values)
	if err != nil {
		t.Fatal(err)
	}
	out, err := As[everything](r)
	if err != nil {
		t.Fatal(err)
	}
	if out.Name != "x" || *out.N != -3 || out.Real != 1.5 || !out.Flag || *out.Ref != *in.Ref || !slices.Equal(out.Set, []string{"a", "b"}) ||
		out.Refs[0] != in.Refs[0] || !maps.Equal(out.Map, in.Map) || !maps.Equal(out.ByInt, in.ByInt) || out.UUID != in.UUID {
		t.Errorf("%+v came back as %+v", in, out)
	}
	if cols, _, _, _ := columnsOf(everything{}, nil); len(cols) != 0 {
		t.Errorf("an empty model has columns %v", cols)
	}
	if _, err := As[*everything](r); err == nil {
		t.Error("a pointer is a model")
	}
	// A value that is too large for its field.
	r.vals[l.index["n"]] = Scalar(Int(1 << 40))
	if _, err := As[everything](r); err == nil || !strings.Contains(err.Error(), "column n") {
		t.Errorf("2^40 in an int32: %v", err)
	}
}

func TestUUID(t *testing.T) {
	u, err := ParseUUID("00010203-0405-0607-0809-0A0B0C0D0E0F")
	if err != nil || u.String() != "00010203-0405-0607-0809-0a0b0c0d0e0f" || u.IsZero() {
		t.Errorf("%v, %v", u, err)
	}
	for _, s := range []string{"", "x", "00010203-0405-0607-0809-0A0B0C0D0E0", "00010203x0405-0607-0809-0A0B0C0D0E0F", "0001020g-0405-0607-0809-0A0B0C0D0E0F"} {
		if _, err := ParseUUID(s); err == nil {
			t.Errorf("%q is a UUID", s)
		}
	}
}
