package house

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// maxLines is the length at which a file is cut in two. Generated files are as long as they are.
const maxLines = 800

func TestFilesAreShort(t *testing.T) {
	for _, f := range project(t).files {
		if n := bytes.Count(f.src, []byte("\n")); n > maxLines && !f.gen {
			t.Errorf("%s has %d lines; a file has at most %d", f.path, n, maxLines)
		}
	}
}

// TestNamesSayWhatIsInside refuses folders and packages that are named for nothing.
func TestNamesSayWhatIsInside(t *testing.T) {
	bad := []string{"util", "utils", "common", "helper", "helpers", "manager", "managers", "base", "misc", "shared", "pkg"}
	for _, p := range project(t).packs {
		for _, part := range strings.Split(p.path(), "/") {
			if slices.Contains(bad, part) {
				t.Errorf("%s: a folder called %s says nothing of what it owns", p.path(), part)
			}
		}
		if slices.Contains(bad, strings.TrimSuffix(p.Name, "_test")) {
			t.Errorf("%s: a package called %s says nothing of what it owns", p.path(), p.Name)
		}
	}
}

// TestPackagesAreDocumented wants one doc comment a package, in the form that godoc shows, and
// from every package that others build upon also what it may or must not import.
func TestPackagesAreDocumented(t *testing.T) {
	tr := project(t)
	docs := map[*pack][]*file{}
	for _, f := range tr.files {
		// A package that has tests only is documented in one of them.
		if f.ast.Doc != nil && f.ast.Doc.Text() != "" && (!f.test || len(f.pkg.GoFiles) == 0) {
			docs[f.pkg] = append(docs[f.pkg], f)
		}
	}
	for _, p := range tr.packs {
		ds := docs[p]
		if len(ds) != 1 {
			var where []string
			for _, f := range ds {
				where = append(where, f.path)
			}
			t.Errorf("%s has %d doc comments, not one: %s", p.path(), len(ds), strings.Join(where, ", "))
			continue
		}
		text := ds[0].ast.Doc.Text()
		start := "Package " + ds[0].ast.Name.Name + " "
		if p.Name == "main" {
			start = "Command "
		}
		if !strings.HasPrefix(text, start) {
			t.Errorf("%s: the doc comment does not begin with %q", ds[0].path, start)
		}
		if p.Name != "main" && !supports(p.path()) && !imports.MatchString(text) {
			t.Errorf("%s: the doc comment does not say what the package may or must not import", ds[0].path)
		}
	}
}

var imports = regexp.MustCompile(`(?i)\bimports?\b|reads? and writes? (only|nothing but) through`)

// TestNothingRunsByItself refuses init functions: what a program does is written in its main.
func TestNothingRunsByItself(t *testing.T) {
	for _, f := range project(t).files {
		for _, d := range f.ast.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" && !f.gen {
				t.Errorf("%s:%d: func init", f.path, f.line(fn.Pos()))
			}
		}
	}
}

// TestTestsDoNotSleepOrSkip: a test waits for a state with a deadline, and runs.
func TestTestsDoNotSleepOrSkip(t *testing.T) {
	for _, f := range project(t).files {
		if !f.test && !supports(f.pkg.path()) {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			x, _ := sel.X.(*ast.Ident)
			switch {
			case x == nil:
			case x.Name == "time" && sel.Sel.Name == "Sleep" && !bubbled(f):
				t.Errorf("%s:%d: time.Sleep in a test; wait for a state with a deadline", f.path, f.line(sel.Pos()))
			case slices.Contains([]string{"Skip", "Skipf", "SkipNow"}, sel.Sel.Name) && slices.Contains([]string{"t", "b", "tb", "f"}, x.Name):
				t.Errorf("%s:%d: a test that skips itself proves nothing", f.path, f.line(sel.Pos()))
			}
			return true
		})
	}
}

// bubbled tells whether the file's tests run in a testing/synctest bubble, whose clock jumps:
// there a sleep takes no time and depends on no machine.
func bubbled(f *file) bool {
	return slices.ContainsFunc(f.ast.Imports, func(i *ast.ImportSpec) bool { return i.Path.Value == `"testing/synctest"` })
}

// TestNothingIsLeftToDo: what is missing is an issue, not a remark in the code.
func TestNothingIsLeftToDo(t *testing.T) {
	words := regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|XX` + `X|HA` + `CK)\b`)
	for _, f := range project(t).files {
		if at := words.FindIndex(f.src); at != nil && !f.gen {
			t.Errorf("%s:%d: %s", f.path, 1+bytes.Count(f.src[:at[0]], []byte("\n")), f.src[at[0]:at[1]])
		}
	}
}

// TestNoToolsInsteadOfProtocols: what speaks to a daemon speaks its protocol; running its command
// line tool costs a process and loses its errors. The lab sets machines up as an operator would.
func TestNoToolsInsteadOfProtocols(t *testing.T) {
	tools := []string{`"virsh"`, `"ovs-vsctl"`, `"ovs-ofctl"`, `"ovs-appctl"`, `"ovs-dpctl"`, `"ovsdb-client"`, `"ip"`, `"tc"`, `"nft"`, `"iptables"`, `"etcdctl"`}
	for _, f := range project(t).files {
		if f.test || supports(f.pkg.path()) || below(f.pkg.path(), "lab") || below(f.pkg.path(), "images/mini") {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			sel, ok := call.Fun.(*ast.SelectorExpr)
			if !ok || sel.Sel.Name != "Command" && sel.Sel.Name != "CommandContext" {
				return true
			}
			for _, a := range call.Args {
				if lit, ok := a.(*ast.BasicLit); ok && slices.Contains(tools, lit.Value) {
					t.Errorf("%s:%d: runs %s", f.path, f.line(call.Pos()), lit.Value)
				}
			}
			return true
		})
	}
}

// TestNoPathsOfOneMachine looks at every file that git tracks.
func TestNoPathsOfOneMachine(t *testing.T) {
	root := project(t).root
	// The words are put together here so that this file does not hold them.
	words := []string{"/wo" + "rk/", "../sh" + "ared", "/tm" + "p/yk"}
	cmd := exec.Command("git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("git ls-files: %v", err)
	}
	names := strings.Split(strings.TrimRight(string(out), "\x00"), "\x00")
	if len(names) < 200 {
		t.Fatalf("git knows only %d files", len(names))
	}
	for _, name := range names {
		b, err := os.ReadFile(filepath.Join(root, name))
		if os.IsNotExist(err) {
			continue // removed and not committed yet
		} else if err != nil {
			t.Error(err)
			continue
		}
		for _, w := range words {
			if i := bytes.Index(b, []byte(w)); i >= 0 {
				t.Errorf("%s:%d names a path of one machine: %s", name, 1+bytes.Count(b[:i], []byte("\n")), w)
			}
		}
	}
}

// TestInterfacesAreSmall: an interface has at most 8 methods; what more a driver can do is an
// optional interface of its own.
func TestInterfacesAreSmall(t *testing.T) {
	for _, f := range project(t).files {
		if f.gen {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			ts, ok := n.(*ast.TypeSpec)
			if !ok {
				return true
			}
			if it, ok := ts.Type.(*ast.InterfaceType); ok {
				n := 0
				for _, m := range it.Methods.List {
					n += len(m.Names)
				}
				if n > 8 {
					t.Errorf("%s:%d: interface %s has %d methods", f.path, f.line(ts.Pos()), ts.Name.Name, n)
				}
			}
			return true
		})
	}
}

// settled lists package variables that the next test takes for mutable and that are not, or that
// may be: "folder.name" and why.
var settled = map[string]string{
	"datapath/pipeline.dropAll": "no actions is the meaning: an entry without any drops",
	"datapath/pipeline.fields":  "a table, pointed into to be read",
	"datapath/pipeline.stages":  "a table, pointed into to be read",
	"openflow.fieldTable":       "a table, pointed into to be read",
	"store/storetest.shared":    "one etcd serves all tests of a process, started by the first",
}

// TestNoMutablePackageVariables: what a package keeps between calls is in values that its caller
// made. A package variable may only be set where it is declared: a table, an error, a regular
// expression, an embedded file.
func TestNoMutablePackageVariables(t *testing.T) {
	tr := project(t)
	type variable struct {
		f    *file
		spec *ast.ValueSpec
		pos  token.Pos
	}
	for _, p := range tr.packs {
		vars := map[string]variable{}
		var files []*file
		for _, f := range tr.files {
			if f.pkg != p || f.gen || f.test {
				continue
			}
			files = append(files, f)
			for _, d := range f.ast.Decls {
				gd, ok := d.(*ast.GenDecl)
				if !ok || gd.Tok != token.VAR {
					continue
				}
				for _, s := range gd.Specs {
					vs := s.(*ast.ValueSpec)
					for _, name := range vs.Names {
						if name.Name == "_" {
							continue
						}
						vars[name.Name] = variable{f, vs, name.Pos()}
						if why := holdsState(gd, vs); why != "" {
							complain(t, p, f, name, why)
						}
					}
				}
			}
		}
		// refers gives the package variable that an expression ends at: v, v.x, v[i], *v.
		var refers func(e ast.Expr) *ast.Ident
		refers = func(e ast.Expr) *ast.Ident {
			switch e := e.(type) {
			case *ast.Ident:
				v, ok := vars[e.Name]
				// The parser knows what a file declares; what it does not know is of another file.
				if ok && (e.Obj == nil || e.Obj.Decl == any(v.spec)) {
					return e
				}
			case *ast.SelectorExpr:
				return refers(e.X)
			case *ast.IndexExpr:
				return refers(e.X)
			case *ast.StarExpr:
				return refers(e.X)
			case *ast.ParenExpr:
				return refers(e.X)
			}
			return nil
		}
		for _, f := range files {
			hit := func(e ast.Expr, how string) {
				if id := refers(e); id != nil {
					complain(t, p, f, id, how)
				}
			}
			ast.Inspect(f.ast, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.AssignStmt:
					if n.Tok != token.DEFINE {
						for _, l := range n.Lhs {
							hit(l, "is assigned")
						}
					}
				case *ast.IncDecStmt:
					hit(n.X, "is counted")
				case *ast.RangeStmt:
					if n.Tok == token.ASSIGN {
						hit(n.Key, "is assigned")
						hit(n.Value, "is assigned")
					}
				case *ast.UnaryExpr:
					if n.Op == token.AND {
						hit(n.X, "has its address taken")
					}
				case *ast.CallExpr:
					if fn, ok := n.Fun.(*ast.Ident); ok && (fn.Name == "delete" || fn.Name == "clear") && len(n.Args) > 0 {
						hit(n.Args[0], "is emptied")
					}
				}
				return true
			})
		}
	}
}

func complain(t *testing.T, p *pack, f *file, id *ast.Ident, how string) {
	t.Helper()
	if _, ok := settled[p.path()+"."+id.Name]; !ok {
		t.Errorf("%s:%d: package variable %s %s", f.path, f.line(id.Pos()), id.Name, how)
	}
}

// holdsState tells why a declaration can only be of something that changes, or "".
func holdsState(gd *ast.GenDecl, vs *ast.ValueSpec) string {
	if len(vs.Values) == 0 {
		for _, c := range []*ast.CommentGroup{gd.Doc, vs.Doc} {
			if c == nil {
				continue
			}
			for _, l := range c.List {
				if strings.HasPrefix(l.Text, "//go:embed ") {
					return ""
				}
			}
		}
		return "has no value where it is declared"
	}
	why := ""
	for _, v := range vs.Values {
		ast.Inspect(v, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncLit:
				return false // what happens inside a function is not the variable's
			case *ast.ChanType:
				why = "is a channel"
			case *ast.SelectorExpr:
				if x, ok := n.X.(*ast.Ident); ok && (x.Name == "sync" && !strings.HasPrefix(n.Sel.Name, "Once") || x.Name == "atomic") {
					why = "is of package " + x.Name
				}
			}
			return true
		})
	}
	return why
}

// TestVariablesThatHoldState runs the rule on source that breaks it, and on source that does not.
func TestVariablesThatHoldState(t *testing.T) {
	for src, bad := range map[string]bool{
		`var x int`:                                true,
		`var x = sync.Mutex{}`:                     true,
		`var x = make(chan int)`:                   true,
		`var x = atomic.Int64{}`:                   true,
		`var x = errors.New("x")`:                  false,
		`var x = map[string]int{"a": 1}`:           false,
		`var x = sync.OnceValue(f)`:                false,
		"//go:embed x.txt\nvar x string":           false,
		`var x = func() { var c chan int; _ = c }`: false,
	} {
		d := parseDecl(t, src)
		if got := holdsState(d, d.Specs[0].(*ast.ValueSpec)); (got != "") != bad {
			t.Errorf("%s: %q", src, got)
		}
	}
}

func parseDecl(t *testing.T, src string) *ast.GenDecl {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), "x.go", "package x\n"+src, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	return f.Decls[0].(*ast.GenDecl)
}

// TestExportedNamesAreDocumented wants a doc comment on every exported type and function outside
// tests; in a group, one on the group will do.
func TestExportedNamesAreDocumented(t *testing.T) {
	for _, f := range project(t).files {
		if f.test || f.gen || f.pkg.Name == "main" {
			continue
		}
		for _, d := range f.ast.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Recv != nil && (d.Name.Name == "String" || d.Name.Name == "Error") {
					continue // fmt.Stringer and error say it
				}
				if d.Name.IsExported() && d.Doc == nil && exportedReceiver(d) {
					t.Errorf("%s:%d: %s has no doc comment", f.path, f.line(d.Pos()), d.Name.Name)
				}
			case *ast.GenDecl:
				for _, s := range d.Specs {
					if ts, ok := s.(*ast.TypeSpec); ok && ts.Name.IsExported() && ts.Doc == nil && d.Doc == nil {
						t.Errorf("%s:%d: %s has no doc comment", f.path, f.line(ts.Pos()), ts.Name.Name)
					}
				}
			}
		}
	}
}

// exportedReceiver tells whether a function is one that other packages can name.
func exportedReceiver(d *ast.FuncDecl) bool {
	if d.Recv == nil {
		return true
	}
	e := d.Recv.List[0].Type
	for {
		switch x := e.(type) {
		case *ast.StarExpr:
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		case *ast.IndexListExpr:
			e = x.X
		case *ast.Ident:
			return x.IsExported()
		default:
			return false
		}
	}
}
