// Package scripttest runs a controller on rows that a script gives, and compares the rows
// that come of it with those that the script wants. A script is in the txtar form: a
// comment, then sections. A section in/<kind>/<name> holds one row in JSON; out/<kind>/<key>
// holds the members that the row of that key must have afterwards, other members may be
// anything; gone/<kind>/<key> says that there is no such row. Every row that no section
// speaks of must be as it was, and no other may be there.
//
// For tests only. May import: store. Must not import: model, a part.
package scripttest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"yakumo/store"
)

// Rows gives scripts access to a table.
type Rows interface {
	Kind() store.Kind
	put(tx *store.Tx, data []byte) error
	dump(snap store.Snapshot) (map[string]any, error)
}

type rows[T any] struct {
	table *store.Table[T]
	key   func(*T) string
}

// Of makes a table's rows known; key gives a row's key.
func Of[T any](t *store.Table[T], key func(*T) string) Rows { return rows[T]{t, key} }

func (r rows[T]) Kind() store.Kind { return r.table.Kind() }

func (r rows[T]) put(tx *store.Tx, data []byte) error {
	row := new(T)
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(row); err != nil {
		return err
	}
	return r.table.Put(tx, row)
}

func (r rows[T]) dump(snap store.Snapshot) (map[string]any, error) {
	out := map[string]any{}
	for row := range r.table.All(snap) {
		v, err := generic(row)
		if err != nil {
			return nil, err
		}
		out[r.key(row)] = v
	}
	return out, nil
}

func generic(v any) (any, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	var out any
	return out, json.Unmarshal(b, &out)
}

type section struct {
	name string
	data []byte
}

// parse reads the txtar form.
func parse(data []byte) []section {
	var out []section
	for line := range bytes.Lines(data) {
		if name, ok := bytes.CutPrefix(line, []byte("-- ")); ok {
			if name, ok = bytes.CutSuffix(bytes.TrimRight(name, "\r\n"), []byte(" --")); ok {
				out = append(out, section{name: strings.TrimSpace(string(name))})
				continue
			}
		}
		if len(out) > 0 {
			last := &out[len(out)-1]
			last.data = append(last.data, line...)
		}
	}
	return out
}

// Run runs every script of a folder, each on a store that open makes: it puts the rows in,
// calls pass once, and compares.
func Run(t *testing.T, dir string, open func(testing.TB) *store.Store, tables []Rows, pass func(t *testing.T, st *store.Store)) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.txtar"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts in %s: %v", dir, err)
	}
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".txtar"), func(t *testing.T) {
			data, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			st := open(t)
			for _, problem := range script(t, parse(data), st, tables, pass) {
				t.Error(problem)
			}
		})
	}
}

func script(t *testing.T, sections []section, st *store.Store, tables []Rows, pass func(*testing.T, *store.Store)) (problems []string) {
	t.Helper()
	byKind := map[string]Rows{}
	for _, r := range tables {
		byKind[string(r.Kind())] = r
	}
	type want struct {
		gone bool
		row  any
	}
	wants := map[string]want{} // by kind/key
	if _, err := st.Update(t.Context(), func(tx *store.Tx) error {
		clear(wants)
		for _, s := range sections {
			part := strings.SplitN(s.name, "/", 3)
			r := byKind[at(part, 1)]
			if len(part) != 3 || r == nil {
				return fmt.Errorf("section %q: no table of that name", s.name)
			}
			switch part[0] {
			case "in":
				if err := r.put(tx, s.data); err != nil {
					return fmt.Errorf("section %q: %w", s.name, err)
				}
			case "out":
				var v any
				if err := json.Unmarshal(s.data, &v); err != nil {
					return fmt.Errorf("section %q: %w", s.name, err)
				}
				wants[part[1]+"/"+part[2]] = want{row: v}
			case "gone":
				wants[part[1]+"/"+part[2]] = want{gone: true}
			default:
				return fmt.Errorf("section %q is neither in, out nor gone", s.name)
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	dump := func() map[string]any {
		out := map[string]any{}
		for kind, r := range byKind {
			rows, err := r.dump(st.Snapshot())
			if err != nil {
				t.Fatal(err)
			}
			for k, v := range rows {
				out[kind+"/"+k] = v
			}
		}
		return out
	}
	before := dump()
	pass(t, st)
	after := dump()
	for name, w := range wants {
		have, there := after[name]
		switch {
		case w.gone && there:
			problems = append(problems, fmt.Sprintf("%s is still there: %v", name, have))
		case w.gone:
		case !there:
			problems = append(problems, name+" is not there")
		default:
			if where := differs(w.row, have); where != "" {
				problems = append(problems, name+where)
			}
		}
	}
	for name, have := range after {
		if _, spoken := wants[name]; spoken {
			continue
		}
		if old, there := before[name]; !there {
			problems = append(problems, fmt.Sprintf("%s is new: %v", name, have))
		} else if !reflect.DeepEqual(old, have) {
			problems = append(problems, fmt.Sprintf("%s has changed from %v to %v", name, old, have))
		}
	}
	for name := range before {
		if _, there := after[name]; !there && !wants[name].gone {
			problems = append(problems, name+" has gone")
		}
	}
	return problems
}

func at(part []string, i int) string {
	if i < len(part) {
		return part[i]
	}
	return ""
}

// differs tells where have is not as wanted, "" where it is: a wanted object's members
// must be so, all else must be equal. A wanted null is also what is absent.
func differs(want, have any) string {
	w, ok := want.(map[string]any)
	if !ok {
		if reflect.DeepEqual(want, have) {
			return ""
		}
		return fmt.Sprintf(" is %v, want %v", have, want)
	}
	h, ok := have.(map[string]any)
	if !ok {
		return fmt.Sprintf(" is %v, want %v", have, want)
	}
	for k, v := range w {
		if where := differs(v, h[k]); where != "" {
			return "." + k + where
		}
	}
	return ""
}
