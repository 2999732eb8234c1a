package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"pgregory.net/rapid"

	"yakumo/model"
)

// TestProgressModel interleaves what reads, saves, notes and forgets progress, and kills: each change is kept whole and in its order, and
// a save of what has been overtaken keeps nothing.
func TestProgressModel(t *testing.T) {
	dir := t.TempDir()
	n := 0
	rapid.Check(t, func(t *rapid.T) {
		file := func() string { n++; return filepath.Join(dir, fmt.Sprintf("ledger-%d", n)) }
		path := file()
		l, err := openLedger(path)
		if err != nil {
			t.Fatal(err)
		}
		type reader struct {
			id    model.ID
			p     progress
			fresh bool // nothing was kept since it was read
		}
		want := map[model.ID]string{}
		readers := map[int]*reader{}
		text := func(p *progress) string {
			b, err := json.Marshal(p)
			if err != nil {
				t.Fatal(err)
			}
			return string(b)
		}
		overtake := func(id model.ID, but *reader) {
			for _, r := range readers {
				r.fresh = r.fresh && (r.id != id || r == but)
			}
		}
		draw := func(t *rapid.T) (model.ID, int) {
			return rapid.SampledFrom([]string{"a", "b"}).Draw(t, "server"), rapid.IntRange(0, 3).Draw(t, "reader")
		}
		change := func(t *rapid.T, p *progress) {
			v := rapid.Int64Range(0, 3).Draw(t, "value")
			switch rapid.IntRange(0, 4).Draw(t, "field") {
			case 0:
				p.Sealed = fmt.Sprint(v)
			case 1:
				p.Reboots = v
			case 2:
				p.Cut = v > 1
			case 3:
				p.Saved = append(p.Saved[:len(p.Saved):len(p.Saved)], model.UploadReport{ID: fmt.Sprint(v)})
			case 4:
				p.Steps = append(p.Steps[:len(p.Steps):len(p.Steps)], model.StepAt{Step: model.StepUse})
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"read": func(t *rapid.T) {
				id, i := draw(t)
				p, _ := l.progressOf(id)
				readers[i] = &reader{id, p, true}
			},
			"save": func(t *rapid.T) {
				_, i := draw(t)
				r := readers[i]
				if r == nil {
					return
				}
				if l.newest(r.id, &r.p) != r.fresh {
					t.Fatalf("progress of %s is the newest: %v, want %v", r.id, !r.fresh, r.fresh)
				}
				change(t, &r.p)
				err := l.save(r.id, &r.p)
				if !r.fresh {
					if !errors.Is(err, errOvertaken) {
						t.Fatalf("what was overtaken is kept: %v", err)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				want[r.id] = text(&r.p)
				overtake(r.id, r)
			},
			"note": func(t *rapid.T) {
				id, _ := draw(t)
				if err := l.note(id, func(p *progress) {
					if change(t, p); want[id] == "" {
						t.Fatal("there is none to change")
					}
					want[id] = text(p)
					overtake(id, nil)
				}); err != nil {
					t.Fatal(err)
				}
			},
			"forget": func(t *rapid.T) {
				id, _ := draw(t)
				if err := l.forget(id); err != nil {
					t.Fatal(err)
				}
				for _, r := range readers {
					if r.id == id && want[id] != "" {
						r.fresh = r.p.version == 0 // who has read that there is none
					}
				}
				delete(want, id)
			},
			"kill": func(t *rapid.T) { // the disk as it is now, and nothing else
				b, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				if err := l.close(); err != nil {
					t.Fatal(err)
				}
				os.Remove(path)
				path = file()
				if err := os.WriteFile(path, b, 0o600); err != nil {
					t.Fatal(err)
				}
				if l, err = openLedger(path); err != nil {
					t.Fatal(err)
				}
				clear(readers)
			},
			"": func(t *rapid.T) {
				all := l.allProgress()
				for id, p := range all {
					if text(p) != want[id] {
						t.Fatalf("progress of %s is %s, want %s", id, text(p), want[id])
					}
				}
				if len(all) != len(want) {
					t.Fatalf("progress of %d servers, want %d", len(all), len(want))
				}
			},
		})
		if err := l.close(); err != nil {
			t.Fatal(err)
		}
	})
}
