// Package scripttest runs controllers on scripts: rows in, rows out. A script is a txtar
// archive. Its files are
//
//	given/<kind>/<name>   a row, JSON; there before the controllers start
//	then/<kind>/<name>    a row, JSON; put when everything in want-first holds
//	want-first/<kind>/<key>, want/<kind>/<key>
//	                      what a row must come to: every member that is named must be
//	                      equal; an empty file: the row must not be there
//
// and its comment says what it shows. The controllers run as in a server, elected and
// fenced, on a store of the test's own; a script passes when what it wants holds, and fails
// when it does not within the deadline.
//
// May import: store, storetest, reconcile. It knows no noun.
package scripttest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/tools/txtar"

	"yakumo/reconcile"
	"yakumo/store"
	"yakumo/store/storetest"
)

// deadline is how long a script may take to come to what it wants.
const deadline = 20 * time.Second

// Run runs every script that the pattern finds (testdata/*.txtar). controllers makes those
// that a script runs on its store.
func Run(t *testing.T, pattern string, controllers func(*store.Store) []reconcile.Controller) {
	t.Helper()
	scripts, err := filepath.Glob(pattern)
	if err != nil || len(scripts) == 0 {
		t.Fatalf("no script is at %s (%v)", pattern, err)
	}
	for _, path := range scripts {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			s := &script{t: t, st: storetest.New(t)}
			s.put(a, "given/")
			ctx, cancel := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			defer wg.Wait()
			defer cancel()
			for _, c := range controllers(s.st) {
				wg.Go(func() {
					reconcile.Run(ctx, reconcile.Config{Store: s.st, Identity: "script", Log: slog.New(slog.DiscardHandler)}, c)
				})
			}
			s.await(a, "want-first/")
			s.put(a, "then/")
			s.await(a, "want/")
		})
	}
}

type script struct {
	t  *testing.T
	st *store.Store
}

type file struct {
	kind store.Kind
	name string
	body []byte
}

// below gives the archive's files below a folder.
func below(a *txtar.Archive, folder string) []file {
	var out []file
	for _, f := range a.Files {
		rest, ok := strings.CutPrefix(f.Name, folder)
		if kind, name, two := strings.Cut(rest, "/"); ok && two {
			out = append(out, file{store.Kind(kind), name, bytes.TrimSpace(f.Data)})
		}
	}
	return out
}

func (s *script) put(a *txtar.Archive, folder string) {
	s.t.Helper()
	if _, err := s.st.Update(s.t.Context(), func(tx *store.Tx) error {
		for _, f := range below(a, folder) {
			if err := s.st.PutJSON(tx, f.kind, f.body); err != nil {
				return fmt.Errorf("%s%s/%s: %w", folder, f.kind, f.name, err)
			}
		}
		return nil
	}); err != nil {
		s.t.Fatal(err)
	}
}

// await waits until every row is as the folder wants it.
func (s *script) await(a *txtar.Archive, folder string) {
	s.t.Helper()
	sub := s.st.Subscribe()
	defer sub.Close()
	ctx, cancel := context.WithTimeout(s.t.Context(), deadline)
	defer cancel()
	var last error
	for {
		d, err := sub.Next(ctx)
		if err != nil {
			s.t.Fatalf("%v", last)
		}
		if last = s.check(a, folder, d.Snapshot); last == nil {
			return
		}
	}
}

func (s *script) check(a *txtar.Archive, folder string, snap store.Snapshot) error {
	for _, f := range below(a, folder) {
		row, there := s.st.GetAny(snap, f.kind, f.name)
		switch {
		case len(f.body) == 0 && there:
			return fmt.Errorf("%s %s is there, and should not be", f.kind, f.name)
		case len(f.body) == 0:
			continue
		case !there:
			return fmt.Errorf("%s %s is not there", f.kind, f.name)
		}
		var want, got any
		if err := json.Unmarshal(f.body, &want); err != nil {
			return fmt.Errorf("%s%s/%s: %w", folder, f.kind, f.name, err)
		}
		b, err := json.Marshal(row)
		if err != nil {
			return err
		}
		if err := json.Unmarshal(b, &got); err != nil {
			return err
		}
		if at := differs(want, got, ""); at != "" {
			return fmt.Errorf("%s %s: %s; the row is %s", f.kind, f.name, at, b)
		}
	}
	return nil
}

// differs tells where got does not hold what want names, "" where it does.
func differs(want, got any, at string) string {
	members, ok := want.(map[string]any)
	if !ok {
		if !reflect.DeepEqual(want, got) {
			return fmt.Sprintf("%s is %v, not %v", at, got, want)
		}
		return ""
	}
	have, ok := got.(map[string]any)
	if !ok {
		return fmt.Sprintf("%s is %v, not an object", at, got)
	}
	for k, w := range members {
		if d := differs(w, have[k], at+"."+k); d != "" {
			return d
		}
	}
	return ""
}
