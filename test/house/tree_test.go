// Package house holds the rules of the house: which package may import which, and how the
// project's files are made. It reads the source of the whole module and nothing else, writes
// nothing, and must not import any package of the project.
package house

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

const module = "yakumo"

// pack is a package of the project as `go list` tells it.
type pack struct {
	ImportPath, Name, Dir              string
	GoFiles, TestGoFiles, XTestGoFiles []string
	Imports, TestImports, XTestImports []string
}

// path is the import path without the module: "api/nova".
func (p *pack) path() string { return inside(p.ImportPath) }

// unit is the folder at the root that a path belongs to: "api".
func unit(path string) string {
	u, _, _ := strings.Cut(path, "/")
	return u
}

// inside gives the path below the module, and "" for what is not of the project.
func inside(importPath string) string {
	p, ok := strings.CutPrefix(importPath, module+"/")
	if !ok {
		return ""
	}
	return p
}

// file is a Go file of the project, parsed.
type file struct {
	pkg  *pack
	path string // from the root: "api/front.go"
	test bool
	gen  bool // made by a program
	src  []byte
	ast  *ast.File
	fset *token.FileSet
}

func (f *file) line(p token.Pos) int { return f.fset.Position(p).Line }

// tree is the whole project, read once for all tests.
type tree struct {
	root  string
	packs []*pack
	files []*file
}

var load = sync.OnceValues(read)

func project(t *testing.T) *tree {
	t.Helper()
	tr, err := load()
	if err != nil {
		t.Fatal(err)
	}
	if len(tr.packs) < 20 || len(tr.files) < 200 {
		t.Fatalf("only %d packages and %d files were found: the rules would hold of nothing", len(tr.packs), len(tr.files))
	}
	return tr
}

func read() (*tree, error) {
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return nil, err
	}
	tr := &tree{root: filepath.Dir(strings.TrimSpace(string(out)))}
	// -e: a package that does not compile at the moment is another test's business.
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Name,Dir,GoFiles,TestGoFiles,XTestGoFiles,Imports,TestImports,XTestImports", "./...")
	cmd.Dir = tr.root
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if out, err = cmd.Output(); err != nil {
		return nil, errors.New("go list: " + stderr.String())
	}
	dec := json.NewDecoder(bytes.NewReader(out))
	for {
		p := &pack{}
		if err := dec.Decode(p); err == io.EOF {
			break
		} else if err != nil {
			return nil, err
		}
		tr.packs = append(tr.packs, p)
		for _, set := range []struct {
			names []string
			test  bool
		}{{p.GoFiles, false}, {p.TestGoFiles, true}, {p.XTestGoFiles, true}} {
			for _, n := range set.names {
				f, err := readFile(tr.root, p, n, set.test)
				if err != nil {
					return nil, err
				}
				tr.files = append(tr.files, f)
			}
		}
	}
	return tr, nil
}

func readFile(root string, p *pack, name string, test bool) (*file, error) {
	full := filepath.Join(p.Dir, name)
	src, err := os.ReadFile(full)
	if err != nil {
		return nil, err
	}
	rel, err := filepath.Rel(root, full)
	if err != nil {
		return nil, err
	}
	f := &file{pkg: p, path: filepath.ToSlash(rel), test: test, src: src, fset: token.NewFileSet()}
	if f.ast, err = parser.ParseFile(f.fset, full, src, parser.ParseComments); err != nil {
		return nil, err
	}
	f.gen = ast.IsGenerated(f.ast)
	return f, nil
}
