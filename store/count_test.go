package store_test

import (
	"errors"
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"yakumo/store"
	"yakumo/store/storetest"
)

type crate struct {
	ID     string
	Owner  string
	Labels []string // may hold one twice
	Weight int
}

var crates = store.Define("crate", func(r *crate) string { return r.ID },
	store.Counted("owner", func(r *crate) []string { return []string{r.Owner} }),
	store.Counted("label", func(r *crate) []string { return r.Labels }),
	store.Summed("load", func(r *crate) []string { return r.Labels }, func(r *crate, label string) store.Amounts {
		if label == "x" {
			return store.Amounts{r.Weight, 0, 1} // what is told apart by the value
		}
		return store.Amounts{r.Weight, 1}
	}),
	store.By("plain", func(r *crate) []string { return []string{r.Owner} }))

var (
	owners = []string{"", "a", "b", "a/b"}
	labels = []string{"x", "y", "z"}
)

// naive walks over all rows.
func naive(r store.Reader) map[string]int {
	out := map[string]int{}
	for c := range crates.All(r) {
		out["owner/"+c.Owner]++
		seen := map[string]bool{}
		for _, l := range c.Labels {
			if !seen[l] {
				out["label/"+l]++
				out["load/"+l] += c.Weight
			}
			seen[l] = true
		}
	}
	return out
}

func wrongCount(r store.Reader) error {
	want := naive(r)
	for _, o := range owners {
		if got, plain := crates.Count(r, "owner", o), crates.Count(r, "plain", o); got != want["owner/"+o] || plain != got {
			return fmt.Errorf("owner %q: counted %d, found by the index %d, there are %d", o, got, plain, want["owner/"+o])
		}
	}
	for _, l := range labels {
		if got := crates.Count(r, "label", l); got != want["label/"+l] {
			return fmt.Errorf("label %q: counted %d, there are %d", l, got, want["label/"+l])
		}
		sum := store.Sum{Rows: want["label/"+l], Amounts: store.Amounts{want["load/"+l], want["label/"+l]}}
		if l == "x" {
			sum.Amounts = store.Amounts{want["load/"+l], 0, want["label/"+l]}
		}
		if got := crates.Sum(r, "load", l); got != sum {
			return fmt.Errorf("label %q: added up to %v, it is %v", l, got, sum)
		}
	}
	return nil
}

// TestCountsAreThoseOfTheRows: in a transaction at each step, in every snapshot however old,
// after a transaction that was given up, and in a mirror that starts from a listing.
func TestCountsAreThoseOfTheRows(t *testing.T) {
	cl, prefix := storetest.Client(t)
	round := 0
	rapid.Check(t, func(rt *rapid.T) {
		round++
		cfg := store.Config{Client: cl, Prefix: fmt.Sprintf("%s%d/", prefix, round), Tables: []store.AnyTable{crates}}
		s, err := store.Open(t.Context(), cfg)
		if err != nil {
			rt.Fatal(err)
		}
		defer s.Close()
		var old []store.Snapshot
		giveUp := errors.New("given up")
		for range rapid.IntRange(1, 6).Draw(rt, "transactions") {
			fails := rapid.IntRange(0, 4).Draw(rt, "fails") == 0
			type op struct {
				row crate
				del bool
			}
			ops := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) op {
				return op{crate{fmt.Sprint("c", rapid.IntRange(0, 5).Draw(rt, "id")), rapid.SampledFrom(owners).Draw(rt, "owner"),
					rapid.SliceOfN(rapid.SampledFrom(labels), 0, 3).Draw(rt, "labels"), rapid.IntRange(0, 9).Draw(rt, "weight")}, rapid.IntRange(0, 2).Draw(rt, "delete") == 0}
			}), 1, 8).Draw(rt, "ops")
			before := naive(s.Snapshot())
			_, err := s.Update(t.Context(), func(tx *store.Tx) error {
				for i := range ops {
					row := ops[i].row
					var err error
					if ops[i].del {
						err = crates.Delete(tx, row.ID)
					} else {
						err = crates.Put(tx, &row)
					}
					if err := errors.Join(err, wrongCount(tx)); err != nil {
						return fmt.Errorf("step %d: %w", i, err)
					}
				}
				if fails {
					return giveUp
				}
				return nil
			})
			if err != nil && !errors.Is(err, giveUp) {
				rt.Fatal(err)
			}
			snap := s.Snapshot()
			if after := naive(snap); fails && fmt.Sprint(after) != fmt.Sprint(before) {
				rt.Fatalf("given up, and yet %v became %v", before, after)
			}
			old = append(old, snap)
		}
		again, err := store.Open(t.Context(), cfg)
		if err != nil {
			rt.Fatal(err)
		}
		defer again.Close()
		for i, snap := range append(old, again.Snapshot()) {
			if err := wrongCount(snap); err != nil {
				rt.Fatalf("snapshot %d: %v", i, err)
			}
		}
	})
}

// BenchmarkCount counts 100,000 rows of one owner: by an index whose counts are kept, and by
// one that is walked.
func BenchmarkCount(b *testing.B) {
	s := storetest.New(b, crates)
	for made := 0; made < 100_000; made += store.MaxOps - 24 {
		if _, err := s.Update(b.Context(), func(tx *store.Tx) error {
			for i := range store.MaxOps - 24 {
				if err := crates.Put(tx, &crate{ID: fmt.Sprint("c", made+i), Owner: "a"}); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			b.Fatal(err)
		}
	}
	snap := s.Snapshot()
	for name, index := range map[string]string{"kept": "owner", "walked": "plain"} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if n := crates.Count(snap, index, "a"); n < 100_000 {
					b.Fatal(n)
				}
			}
		})
	}
}
