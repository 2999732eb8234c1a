package ovsdb

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf8"

	"pgregory.net/rapid"
)

var jsonSeeds = []string{
	`{}`, `[]`, `""`, `0`, `-0`, `1.5e+10`, `1e999`, `01`, `-`, `1.`, `.5`, `true`, `false`, `null`, `nul`, `{"a":[1,{"b":null}]}`,
	`"\u00e9\ud83d\ude00\n\\\/"`, `"\ud800"`, `"\u0000"`, "\"\x01\"", "\"\xff\"", `[1,]`, `{"a":1,}`, `{"a"}`, `[1 2]`, `"\x"`, `"abc`, ` [ 1 , 2 ] `,
	strings.Repeat("[", 70) + strings.Repeat("]", 70), `9223372036854775807`, `9223372036854775808`, `1e3`, `"\ud83d\u0041"`, `"\ud83d`,
}

// FuzzJSON: what the cursor takes is JSON, and means what encoding/json makes of it; what it
// refuses is not JSON or is forbidden by the protocol.
func FuzzJSON(f *testing.F) {
	for _, s := range jsonSeeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c := &cursor{b: b}
		raw, err := c.raw()
		if err == nil {
			err = c.end()
		}
		valid := json.Valid(b)
		if err == nil {
			if !valid {
				t.Fatalf("%q is taken", b)
			}
			if c.depth != 0 {
				t.Fatalf("depth is %d at the end", c.depth)
			}
			if !bytes.Equal(bytes.TrimSpace(b), raw) {
				t.Fatalf("raw is %q of %q", raw, b)
			}
			if s, err := (&cursor{b: b}).str(); err == nil {
				var want string
				if json.Unmarshal(b, &want) != nil || s != want {
					t.Fatalf("%q is %q, not %q", b, s, want)
				}
				if back := appendText(nil, s); !json.Valid(back) {
					t.Fatalf("%q is written as %q", s, back)
				}
			}
			if x, err := (&cursor{b: b}).real(); err == nil {
				var want float64
				if json.Unmarshal(b, &want) != nil || x != want {
					t.Fatalf("%q is %v, not %v", b, x, want)
				}
			}
			if n, err := (&cursor{b: b}).integer(); err == nil {
				var want int64
				if err := json.Unmarshal(b, &want); err == nil && n != want {
					t.Fatalf("%q is %v, not %v", b, n, want)
				}
			}
			return
		}
		if !valid || !utf8.Valid(b) {
			return
		}
		deep, depth := false, 0
		for _, ch := range b {
			if ch == '[' || ch == '{' {
				depth++
				deep = deep || depth > maxDepth
			} else if ch == ']' || ch == '}' {
				depth--
			}
		}
		if !deep && !bytes.Contains(bytes.ToLower(b), []byte(`\ud`)) && !bytes.Contains(b, []byte(`\u0000`)) {
			t.Fatalf("%q is refused: %v", b, err)
		}
	})
}

// FuzzFramer: messages come out as they went in, however the stream is cut.
func FuzzFramer(f *testing.F) {
	f.Add([]byte(`{"a":"}{\"[","b":[{}]} {"c":1}` + "\n" + `{}`))
	f.Add([]byte(`{"a":[}`))
	f.Add([]byte(`x{}`))
	f.Add([]byte(`{"a":"` + strings.Repeat("x", 300) + `"}{}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		type outcome struct {
			messages []string
			err      error
		}
		read := func(r io.Reader) (o outcome) {
			fr := &framer{r: r, max: 256}
			for {
				m, err := fr.next()
				if err != nil {
					o.err = err
					return o
				}
				if len(m) > 256 || m[0] != '{' {
					t.Fatalf("message %q", m)
				}
				o.messages = append(o.messages, string(m))
				parseMessage(m) // must not panic
			}
		}
		whole, single := read(bytes.NewReader(b)), read(iotest.OneByteReader(bytes.NewReader(b)))
		if len(whole.messages) != len(single.messages) {
			t.Fatalf("%q gives %q or %q", b, whole.messages, single.messages)
		}
		rest := string(b)
		for i, m := range whole.messages {
			if m != single.messages[i] {
				t.Fatalf("message %d is %q or %q", i, m, single.messages[i])
			}
			before, after, ok := strings.Cut(rest, m)
			if !ok || strings.TrimSpace(before) != "" {
				t.Fatalf("message %q is not what comes next in %q", m, rest)
			}
			rest = after
		}
		if errors.Is(whole.err, io.EOF) && strings.TrimSpace(rest) != "" {
			t.Fatalf("%q is lost", rest)
		}
	})
}

func TestFramerLimit(t *testing.T) {
	long := `{"a":"` + strings.Repeat("x", 100<<10) + `"}`
	for limit, ok := range map[int]bool{len(long): true, len(long) - 1: false, 10: false, 1 << 30: true} {
		fr := &framer{r: strings.NewReader(`{}` + long), max: limit}
		if m, err := fr.next(); err != nil || string(m) != "{}" {
			t.Fatalf("first message is %q, %v", m, err)
		}
		m, err := fr.next()
		if ok && (err != nil || string(m) != long) || !ok && !errors.Is(err, ErrTooLarge) {
			t.Errorf("limit %d: %d bytes, %v", limit, len(m), err)
		}
	}
	fr := &framer{r: strings.NewReader(`{"a"`), max: 100}
	if _, err := fr.next(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("end inside a message: %v", err)
	}
	fr = &framer{r: strings.NewReader(" \n"), max: 100}
	if _, err := fr.next(); err != io.EOF {
		t.Errorf("end between messages: %v", err)
	}
}

// FuzzMessage sends any bytes through all that reads what a server sends.
func FuzzMessage(f *testing.F) {
	schema, err := ParseSchema([]byte(testSchema))
	if err != nil {
		f.Fatal(err)
	}
	layout, err := newLayout(schema.Tables["T"], []string{"name", "n", "real", "flag", "ref", "set", "refs", "map", "byint"})
	if err != nil {
		f.Fatal(err)
	}
	const id = `"00000000-0000-0000-0000-000000000001"`
	for _, s := range []string{
		`{"T":{` + id + `:{"insert":{"name":"a","set":["set",["x"]],"map":["map",[["a","b"]]]}}}}`,
		`{"T":{` + id + `:{"modify":{"n":["set",[]],"refs":["uuid",` + id + `]}}}}`,
		`{"T":{` + id + `:{"delete":null}}}`,
		`{"T":{` + id + `:{"old":{},"new":{"name":"a","real":1.5,"flag":true}}}}`,
		`[{"uuid":["uuid",` + id + `]},{"count":1},{"rows":[{"_uuid":["uuid",` + id + `],"name":"x"}]},null,{"error":"x","details":null}]`,
		`{"error":"x","details":"y","syntax":"z"}`, `"unknown method"`, testSchema,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		view, err := newTableView(layout, nil, []string{"name", "set"})
		if err != nil {
			t.Fatal(err)
		}
		first := newBatch(&Snapshot{schema: schema, tables: map[string]*tableView{"T": view}})
		if err := first.read([]byte(`{"T":{`+id+`:{"insert":{"name":"old","set":["set",["x","y"]]}}}}`), dialectSince); err != nil {
			t.Fatal(err)
		}
		for d := dialectSince; d <= dialectPlain; d++ {
			next := newBatch(first.next)
			if err := next.read(b, d); err != nil {
				continue
			}
			checkIndexes(t, next.next.tables["T"])
			next.settle(first.next)
			for _, ch := range next.changes {
				if ch.Old != nil && ch.New != nil && ch.Old.equal(ch.New) {
					t.Fatalf("change without a change: %+v", ch)
				}
			}
		}
		tx := NewTxn()
		tx.InsertRow("T", nil)
		tx.Mutate("T", nil)
		tx.Select("T", nil)
		tx.Comment("")
		if res, err := tx.decode(b, schema); err == nil && len(res.Ops) != 4 {
			t.Fatalf("%d results", len(res.Ops))
		}
		if decodeRPCError("x", b) == nil {
			t.Fatal("an error that is none")
		}
		if s, err := ParseSchema(b); err == nil && s.Name == "" {
			t.Fatal("a schema without a name")
		}
	})
}

// checkIndexes compares a view's indexes with its rows.
func checkIndexes(t *testing.T, v *tableView) {
	t.Helper()
	for column, index := range v.indexes {
		entries := 0
		for a, ids := range index.all() {
			for _, id := range ids {
				entries++
				r, ok := v.rows.get(id)
				if !ok || !r.vals[v.layout.index[column]].Contains(a) {
					t.Fatalf("index of %s has %v for row %v", column, a, id)
				}
			}
		}
		for _, r := range v.rows.all() {
			entries -= r.vals[v.layout.index[column]].Len()
		}
		if entries != 0 {
			t.Fatalf("index of %s is %d entries off", column, entries)
		}
	}
}

// A pmap is a map, and old versions of it stay as they were.
func TestPmapIsAMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m, model := newPmap[int, int](), map[int]int{}
		type version struct {
			m     pmap[int, int]
			model map[int]int
		}
		var old []version
		same := func(v version) {
			if v.m.len() != len(v.model) {
				t.Fatalf("%d keys, want %d", v.m.len(), len(v.model))
			}
			n := 0
			for k, x := range v.m.all() {
				n++
				if y, ok := v.model[k]; !ok || x != y {
					t.Fatalf("%d is %d, want %d %v", k, x, y, ok)
				}
			}
			if n != len(v.model) {
				t.Fatalf("%d keys in the walk, want %d", n, len(v.model))
			}
			for k, x := range v.model {
				if y, ok := v.m.get(k); !ok || x != y {
					t.Fatalf("%d is %d %v, want %d", k, y, ok, x)
				}
			}
			if _, ok := v.m.get(-1); ok {
				t.Fatal("a key that was never there")
			}
		}
		e := new(edit)
		for i := range rapid.IntRange(0, 300).Draw(t, "steps") {
			k := rapid.IntRange(0, 99).Draw(t, "key")
			switch rapid.IntRange(0, 9).Draw(t, "step") {
			case 0:
				clone := map[int]int{}
				for k, v := range model {
					clone[k] = v
				}
				old = append(old, version{m, clone})
				e = new(edit)
			case 1, 2, 3, 4:
				m = m.del(e, k)
				delete(model, k)
			default:
				m = m.set(e, k, i)
				model[k] = i
			}
		}
		same(version{m, model})
		for _, v := range old {
			same(v)
		}
	})
}

// Keys of one hash form a chain; forced here, as no two ints meet in 64 bits.
func TestPmapCollisions(t *testing.T) {
	root := &pnode[int, int]{}
	e := new(edit)
	for _, hash := range []uint64{7, 7 | 1<<63, 7, 7} {
		key := root.count()
		root, _ = root.set(e, 0, &pleaf[int, int]{hash: hash, key: key, val: key})
	}
	frozen := root
	e = new(edit)
	for key, hash := range []uint64{7, 7 | 1<<63, 7} {
		root = root.del(e, 0, hash, key)
		if got, want := root.count(), 3-key; got != want {
			t.Fatalf("%d keys after %d removals, want %d", got, key+1, want)
		}
	}
	if root = root.del(e, 0, 7, 3); root != nil {
		t.Fatalf("%d keys are left", root.count())
	}
	if frozen.count() != 4 {
		t.Fatalf("an old version has %d keys", frozen.count())
	}
}

func (n *pnode[K, V]) count() int {
	keys := 0
	n.each(func(K, V) bool { keys++; return true })
	return keys
}
