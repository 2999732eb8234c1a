package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"go.yaml.in/yaml/v2"
)

func TestShellScript(t *testing.T) {
	var c cloudConfig
	const text = `
runcmd:
  - echo "a $((1 + 1))"
  - [echo, "it's", 5, true]
  - |
    for i in x y; do
      echo $i
    done
`
	if err := yaml.Unmarshal([]byte(text), &c); err != nil {
		t.Fatal(err)
	}
	script, err := shellScript(c.RunCmd)
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("/bin/sh", "-c", string(script)).CombinedOutput()
	if want := "a 2\nit's 5 true\nx\ny\n"; err != nil || string(out) != want {
		t.Errorf("got %q, %v; want %q", out, err, want)
	}
	if _, err := shellScript([]any{map[any]any{"a": 1}}); err == nil {
		t.Error("a map is taken for a command")
	}
}

func TestWriteFiles(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		yaml string
		want string
		mode os.FileMode
		fail bool
	}{
		{"{path: PATH, content: \"one\\n\"}", "one\n", 0o644, false},
		{"{path: PATH, content: \"two\\n\", append: true, permissions: '0600'}", "one\ntwo\n", 0o600, false},
		{"{path: PATH, content: aGk=, encoding: b64, permissions: 0755}", "hi", 0o755, false},
		{"{path: relative, content: x}", "hi", 0o755, true},
		{"{path: PATH, content: '!', encoding: b64}", "hi", 0o755, true},
		{"{path: PATH, content: x, encoding: gzip}", "hi", 0o755, true},
		{"{path: PATH, content: x, permissions: rwx}", "hi", 0o755, true},
	} {
		var f writtenFile
		if err := yaml.Unmarshal([]byte(c.yaml), &f); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, "sub", "file")
		if f.Path == "PATH" {
			f.Path = path
		}
		if err := f.write(); (err != nil) != c.fail {
			t.Errorf("%s: error %v", c.yaml, err)
		}
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		st, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != c.want || st.Mode() != c.mode {
			t.Errorf("%s: got %q with mode %v, want %q with %v", c.yaml, got, st.Mode(), c.want, c.mode)
		}
	}
}

func TestAuthorize(t *testing.T) {
	dir := filepath.Join(t.TempDir(), ".ssh")
	for _, c := range []struct {
		keys []string
		want string
	}{
		{[]string{"ssh-rsa A", "ssh-rsa A"}, "ssh-rsa A\n"},
		{[]string{"ssh-rsa A", "ssh-rsa B"}, "ssh-rsa A\nssh-rsa B\n"},
	} {
		if err := authorizeFor(dir, os.Getuid(), c.keys); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(dir, "authorized_keys"))
		if err != nil || string(got) != c.want {
			t.Errorf("got %q, %v; want %q", got, err, c.want)
		}
	}
}
