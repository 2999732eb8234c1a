package house

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestDependenciesAreNamed wants every module that the code imports in docs/design/dependencies.md.
func TestDependenciesAreNamed(t *testing.T) {
	tr := project(t)
	doc, err := os.ReadFile(filepath.Join(tr.root, "docs", "design", "dependencies.md"))
	if err != nil {
		t.Fatal(err)
	}
	var named []string
	for _, m := range regexp.MustCompile("`([a-z0-9.]+\\.[a-z]+/[^` ]+)`").FindAllSubmatch(doc, -1) {
		named = append(named, string(m[1]))
	}
	for _, p := range tr.packs {
		for _, imp := range slices.Concat(p.Imports, p.TestImports, p.XTestImports) {
			first, _, _ := strings.Cut(imp, "/")
			if strings.Contains(first, ".") && !slices.ContainsFunc(named, func(m string) bool { return below(imp, m) }) {
				t.Errorf("%s imports %s, which docs/design/dependencies.md does not name", p.path(), imp)
			}
		}
	}
}

// TestLinksInDocs wants every relative link of the documents to lead somewhere.
func TestLinksInDocs(t *testing.T) {
	tr := project(t)
	link := regexp.MustCompile(`\]\(([^)#: ]+)(?:#[^)]*)?\)`)
	err := filepath.WalkDir(filepath.Join(tr.root, "docs"), func(path string, d os.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".md") {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range link.FindAllSubmatch(b, -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(path), string(m[1]))); err != nil {
				t.Errorf("%s: the link to %s leads nowhere", strings.TrimPrefix(path, tr.root+"/"), m[1])
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
