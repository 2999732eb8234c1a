package main

import (
	"os/exec"
	"reflect"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for _, c := range []struct {
		args string
		want options
		fail bool
	}{
		{"id -u", options{user: "root", command: []string{"id", "-u"}}, false},
		{"-n -u cirros id", options{user: "cirros", command: []string{"id"}}, false},
		{"-nucirros id", options{user: "cirros", command: []string{"id"}}, false},
		{"--user=cirros -- -x", options{user: "cirros", command: []string{"-x"}}, false},
		{"-i", options{user: "root", login: true}, false},
		{"-Es", options{user: "root", shell: true, keepEnv: true}, false},
		{"-i -u cirros ls -l", options{user: "cirros", login: true, command: []string{"ls", "-l"}}, false},
		{"A=1 B= env", options{user: "root", assignments: []string{"A=1", "B="}, command: []string{"env"}}, false},
		{"./a=b", options{user: "root", command: []string{"./a=b"}}, false},
		{"-l", options{user: "root", only: "l"}, false},
		{"-k id", options{user: "root", command: []string{"id"}}, false},
		{"", options{}, true},
		{"-u", options{}, true},
		{"-x id", options{}, true},
		{"-g disk id", options{}, true},
		{"--nonsense id", options{}, true},
	} {
		got, err := parse(strings.Fields(c.args))
		if c.fail {
			if err == nil {
				t.Errorf("%q: no error", c.args)
			}
			continue
		}
		if len(got.command) == 0 {
			got.command = nil
		}
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%q: got %+v, %v; want %+v", c.args, got, err, c.want)
		}
	}
}

func FuzzQuote(f *testing.F) {
	f.Add("it's a \"word\" `id`; *")
	f.Add("ü\\")
	f.Fuzz(func(t *testing.T, word string) {
		if strings.ContainsAny(word, "\x00\n\r$") || strings.ToValidUTF8(word, "") != word {
			return // not the shell's to keep
		}
		out, err := exec.Command("/bin/sh", "-c", "printf '%s' "+quote(word)).Output()
		if err != nil || string(out) != word && word != "" {
			t.Errorf("%q became %q: %v", word, out, err)
		}
	})
}
