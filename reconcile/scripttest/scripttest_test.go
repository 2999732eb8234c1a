package scripttest

import (
	"strings"
	"testing"

	"yakumo/store"
	"yakumo/store/storetest"
)

type thing struct {
	ID string         `json:"id"`
	N  int            `json:"n"`
	M  map[string]int `json:"m,omitempty"`
}

var things = store.Define("thing", func(x *thing) string { return x.ID })

// double is a pass that doubles N, deletes what is 0, and makes what is 5 into two.
func double(t *testing.T, st *store.Store) {
	if _, err := st.Update(t.Context(), func(tx *store.Tx) error {
		for x := range things.All(st.Snapshot()) {
			switch {
			case x.N == 0:
				if err := things.Delete(tx, x.ID); err != nil {
					return err
				}
			case x.N == 5:
				if err := things.Put(tx, &thing{ID: x.ID + "2", N: 5}); err != nil {
					return err
				}
			case x.N < 0:
			default:
				if err := things.Put(tx, &thing{ID: x.ID, N: 2 * x.N, M: x.M}); err != nil {
					return err
				}
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

func TestScriptsTellWhatIsWrong(t *testing.T) {
	for _, x := range []struct{ script, problem string }{
		{"a comment\n-- in/thing/a --\n{\"id\": \"a\", \"n\": 2, \"m\": {\"x\": 1}}\n-- out/thing/a --\n{\"n\": 4, \"m\": {\"x\": 1}}\n", ""},
		{"-- in/thing/a --\n{\"id\": \"a\", \"n\": 2}\n-- out/thing/a --\n{\"n\": 5}\n", "thing/a.n is 4, want 5"},
		{"-- in/thing/a --\n{\"id\": \"a\", \"n\": 2}\n", "thing/a has changed"},
		{"-- in/thing/a --\n{\"id\": \"a\", \"n\": -1}\n", ""},
		{"-- in/thing/a --\n{\"id\": \"a\", \"n\": 0}\n-- gone/thing/a --\n", ""},
		{"-- in/thing/a --\n{\"id\": \"a\", \"n\": 0}\n", "thing/a has gone"},
		{"-- in/thing/a --\n{\"id\": \"a\", \"n\": 2}\n-- gone/thing/a --\n", "thing/a is still there"},
		{"-- in/thing/a --\n{\"id\": \"a\", \"n\": 5}\n", "thing/a2 is new"},
		{"-- out/thing/b --\n{\"n\": 1}\n", "thing/b is not there"},
	} {
		problems := script(t, parse([]byte(x.script)), storetest.New(t, things), []Rows{Of(things, func(x *thing) string { return x.ID })}, double)
		got := strings.Join(problems, "; ")
		if x.problem == "" && got != "" || !strings.Contains(got, x.problem) {
			t.Errorf("%q: %q, want %q", x.script, got, x.problem)
		}
	}
}
