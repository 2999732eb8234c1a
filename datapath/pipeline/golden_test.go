package pipeline_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"yakumo/datapath/pipeline"
	"yakumo/model"
)

var update = flag.Bool("update", false, "write the golden files anew")

// decodeRow reads {"kind": …, "row": {…}}.
func decodeRow(b []byte) (model.HostRow, error) {
	var head struct {
		Kind model.RowKind
		Row  json.RawMessage
	}
	if err := json.Unmarshal(b, &head); err != nil {
		return nil, err
	}
	var row model.HostRow
	switch head.Kind {
	case model.RowPort:
		row = &model.HostPort{}
	case model.RowPeer:
		row = &model.HostPeer{}
	case model.RowNetwork:
		row = &model.HostNetwork{}
	case model.RowGroup:
		row = &model.HostGroup{}
	case model.RowMember:
		row = &model.HostMember{}
	case model.RowMirror:
		row = &model.HostMirror{}
	case model.RowRouter:
		row = &model.HostRouter{}
	case model.RowFloating:
		row = &model.HostFloating{}
	case model.RowNeighbor:
		row = &model.HostNeighbor{}
	default:
		return nil, fmt.Errorf("kind %q", head.Kind)
	}
	d := json.NewDecoder(bytes.NewReader(head.Row))
	d.DisallowUnknownFields()
	return row, d.Decode(row)
}

// archive is a file in the txtar format: a comment, then files headed by "-- name --".
type archive struct {
	comment string
	files   []archived
}

type archived struct{ name, data string }

func parseArchive(s string) (a archive) {
	for _, line := range strings.SplitAfter(s, "\n") {
		name, head := strings.CutPrefix(line, "-- ")
		name, tail := strings.CutSuffix(strings.TrimSuffix(name, "\n"), " --")
		switch n := len(a.files); {
		case head && tail:
			a.files = append(a.files, archived{name: name})
		case n == 0:
			a.comment += line
		default:
			a.files[n-1].data += line
		}
	}
	return a
}

func (a *archive) String() string {
	s := a.comment
	for _, f := range a.files {
		s += "-- " + f.name + " --\n" + f.data
	}
	return s
}

// A golden file is a txtar archive of pairs: "change N" has one row a line in JSON, or
// "- kind/key" for a removal; "delta N" is what the change does to the switch.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			a := parseArchive(string(want))
			p := newProgram()
			apply(t, p) // the base is in docs/pipeline.md
			out := archive{comment: a.comment}
			for _, f := range a.files {
				n, is := strings.CutPrefix(f.name, "change ")
				if !is {
					continue
				}
				var up []model.HostRow
				var down []model.RowID
				for _, line := range strings.Split(strings.TrimSpace(f.data), "\n") {
					if id, removal := strings.CutPrefix(line, "- "); removal {
						kind, key, _ := strings.Cut(id, "/")
						down = append(down, model.RowID{Kind: model.RowKind(kind), Key: key})
						continue
					}
					row, err := decodeRow([]byte(line))
					if err != nil {
						t.Fatalf("%s: %v: %s", f.name, err, line)
					}
					up = append(up, row)
				}
				d, err := p.Apply(up, down)
				var b strings.Builder
				for _, in := range sorted(d.Delete) {
					fmt.Fprintf(&b, "- %v\n", in.Entry)
				}
				for _, in := range sorted(d.Put) {
					fmt.Fprintf(&b, "+ %v\n", in.Entry)
				}
				if err != nil {
					fmt.Fprintf(&b, "error: %v\n", err)
				}
				out.files = append(out.files, f, archived{"delta " + n, b.String()})
			}
			got := out.String()
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != string(want) {
				t.Errorf("%s differs (-update writes it anew); got:\n%s", file, got)
			}
		})
	}
}

func sorted(list []*pipeline.Installed) []*pipeline.Installed {
	out := append([]*pipeline.Installed(nil), list...)
	for i := range out {
		for j := i; j > 0 && pipeline.CompareInstalled(out[j-1], out[j]) > 0; j-- {
			out[j-1], out[j] = out[j], out[j-1]
		}
	}
	return out
}
