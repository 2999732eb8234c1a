package main

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
)

// line is what comes in, and what has gone out.
type line struct {
	io.Reader
	out bytes.Buffer
}

func (l *line) Write(b []byte) (int, error) { return l.out.Write(b) }

func TestAgentAnswers(t *testing.T) {
	var did []string
	n := 2
	a := &agent{
		freeze: func() (int, error) { did = append(did, "freeze"); return n, nil },
		thaw:   func() (int, error) { did = append(did, "thaw"); return n, nil },
		setPassword: func(user, password string, crypted bool) error {
			if user == "nobody" {
				return errors.New("no such user")
			}
			did = append(did, user+" "+password+map[bool]string{true: " crypted"}[crypted])
			return nil
		},
		power: func(mode string) error { did = append(did, "power "+mode); return nil },
	}
	in := strings.Join([]string{
		"half a command\xff" + `{"execute":"guest-sync-delimited","arguments":{"id":7}}`,
		`{"execute":"guest-sync","arguments":{"id":-8}}`,
		`{"execute":"guest-sync"}`,
		``,
		`{"execute":"guest-ping"}`,
		`{"execute":"guest-exec"}`,
		`nonsense`,
		`{"execute":"guest-set-user-password","arguments":{"username":"root","password":"c2VjcmV0","crypted":false}}`,
		`{"execute":"guest-set-user-password","arguments":{"username":"root","password":"YQpyb290Ong=","crypted":false}}`,
		`{"execute":"guest-set-user-password","arguments":{"username":"nobody","password":"","crypted":true}}`,
		`{"execute":"guest-fsfreeze-status"}`,
		`{"execute":"guest-fsfreeze-thaw"}`,
		`{"execute":"guest-fsfreeze-freeze"}`,
		`{"execute":"guest-fsfreeze-status"}`,
		`{"execute":"guest-fsfreeze-freeze"}`,
		`{"execute":"guest-shutdown"}`,
		`{"execute":"guest-fsfreeze-thaw"}`,
		`{"execute":"guest-shutdown","arguments":{"mode":"reboot"}}`,
	}, "\n") + "\n"
	l := &line{Reader: strings.NewReader(in)}
	if err := a.serve(l); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	want := []string{
		"\xff" + `{"return":7}`, `{"return":-8}`, `'id' is missing`, `{"return":{}}`, `CommandNotFound`, `GenericError`, `{"return":{}}`,
		`none may have`, `no such user`, `{"return":"thawed"}`, `{"return":0}`, `{"return":2}`, `{"return":"frozen"}`, `disabled`, `disabled`, `{"return":2}`,
	}
	got := strings.Split(strings.TrimSuffix(l.out.String(), "\n"), "\n")
	if len(got) != len(want) {
		t.Fatalf("%d answers, want %d: %q", len(got), len(want), got)
	}
	for i := range want {
		if !strings.Contains(got[i], want[i]) {
			t.Errorf("answer %d is %s, want %s", i, got[i], want[i])
		}
	}
	if done := []string{"root secret", "freeze", "thaw", "power reboot"}; !reflect.DeepEqual(did, done) {
		t.Errorf("it did %q, want %q", did, done)
	}
}

func TestWritable(t *testing.T) {
	mounts := "proc /proc proc rw 0 0\n/dev/vda2 / ext4 rw,noatime 0 0\n/dev/vdb /mnt/my\\040data xfs rw 0 0\n/dev/vda2 /again ext4 rw 0 0\n/dev/vdc /ro ext4 ro 0 0\n/dev/sr0 /cd iso9660 rw 0 0\n"
	if got := writableOf(mounts); !reflect.DeepEqual(got, []string{"/", "/mnt/my data"}) {
		t.Errorf("%q", got)
	}
}

func TestWithPassword(t *testing.T) {
	const shadow = "root:*:19000:0:99999:7:::\ncirros:$6$a$b:19000:0:99999:7:::\n"
	if got, err := withPassword(shadow, "root", "$6$x$y"); err != nil || got != "root:$6$x$y:19000:0:99999:7:::\ncirros:$6$a$b:19000:0:99999:7:::\n" {
		t.Errorf("%q, %v", got, err)
	}
	for user, hash := range map[string]string{"nobody": "x", "root": "x:y", "cirros": ""} {
		if got, err := withPassword(shadow, user, hash); err == nil {
			t.Errorf("%s has %q: %q", user, hash, got)
		}
	}
}

// FuzzAgent: whatever comes, the agent answers lines, and goes on.
func FuzzAgent(f *testing.F) {
	f.Add([]byte(`{"execute":"guest-sync","arguments":{"id":1}}`))
	f.Add([]byte("\xff{\"execute\":\"guest-info\"}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		zero := func() (int, error) { return 0, nil }
		a := &agent{freeze: zero, thaw: zero, setPassword: func(string, string, bool) error { return nil }, power: func(string) error { return nil }}
		l := &line{Reader: io.MultiReader(bytes.NewReader(b), strings.NewReader("\n\xff"+`{"execute":"guest-sync","arguments":{"id":99}}`+"\n"))}
		if err := a.serve(l); len(b) < agentLine && (!errors.Is(err, io.EOF) || !strings.HasSuffix(l.out.String(), "{\"return\":99}\n")) {
			t.Fatalf("%v, %q", err, l.out.String())
		}
	})
}
