package main

import (
	"encoding/base64"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"yakumo/fault"
)

func TestMasterKey(t *testing.T) {
	dir := t.TempDir()
	c := &serverCmd{DataDir: dir}
	key, err := c.masterKey()
	if err != nil || len(key) != 32 {
		t.Fatalf("a new key: %x, %v", key, err)
	}
	fi, err := os.Stat(filepath.Join(dir, "master.key"))
	if err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("its file: %v, %v", fi, err)
	}
	if again, err := c.masterKey(); err != nil || string(again) != string(key) {
		t.Errorf("read again: %v", err)
	}
	if names, err := filepath.Glob(filepath.Join(dir, "*")); err != nil || len(names) != 1 {
		t.Errorf("left beside it: %v, %v", names, err)
	}

	// Servers that start at once in one directory agree.
	shared := t.TempDir()
	keys := make([]string, 8)
	var wg sync.WaitGroup
	for i := range keys {
		wg.Go(func() {
			k, err := (&serverCmd{DataDir: shared}).masterKey()
			if err != nil {
				t.Error(err)
			}
			keys[i] = string(k)
		})
	}
	wg.Wait()
	for _, k := range keys {
		if k != keys[0] {
			t.Error("two servers have two master keys")
		}
	}

	if _, err := (&serverCmd{DataDir: t.TempDir(), EtcdEndpoints: []string{"http://127.0.0.1:1"}}).masterKey(); !fault.Is(err, fault.Invalid) {
		t.Errorf("an external etcd without a shared key: %v", err)
	}
	if _, err := (&serverCmd{DataDir: dir, MasterKeyFile: filepath.Join(dir, "missing")}).masterKey(); !fault.Is(err, fault.NotFound) {
		t.Errorf("a file that is named and missing: %v", err)
	}
	for name, text := range map[string]string{"empty": "", "short": base64.StdEncoding.EncodeToString(make([]byte, 31)), "not base64": strings.Repeat("!", 44)} {
		path := filepath.Join(t.TempDir(), "key")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := (&serverCmd{MasterKeyFile: path}).masterKey(); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
		if b, err := os.ReadFile(path); err != nil || string(b) != text {
			t.Errorf("%s: the file was changed", name)
		}
	}
	if _, err := (&serverCmd{MasterKeyFile: t.TempDir()}).masterKey(); err == nil {
		t.Error("a directory was taken for a key")
	}
}

// TestOneServer: etcd inside, the API on a socket that is handed over; the state survives kill -9.
func TestOneServer(t *testing.T) {
	t.Parallel() // servers wait for their etcd, and tests for servers
	sh := newShared(t, nil)
	p := newProc(t, "one")
	l, err := net.Listen("tcp", p.api)
	if err != nil {
		t.Fatal(err)
	}
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	l.Close() // the server's copy goes on
	handed := func(cmd *exec.Cmd) {
		cmd.ExtraFiles = []*os.File{f}
		cmd.Env = append(cmd.Env, "LISTEN_FDS=1")
		for i, a := range cmd.Args {
			if a == p.api {
				cmd.Args[i] = "256.0.0.1:1" // would fail if it were used
			}
		}
	}
	p.start(sh, handed)
	p.ready()
	token := p.login("admin", password, "admin")
	net := id(t, p.at("POST", "/network/v2.0/networks", token, `{"network":{"name":"kept"}}`, 201), "network")
	p.kill()
	p.start(sh, handed)
	p.ready() // connections waited in the socket meanwhile
	p.at("GET", "/network/v2.0/networks/"+net, token, "", 200)

	// Another master key does not open the state.
	other := newProc(t, "two")
	p.interrupt()
	<-p.done
	if p.err != nil {
		t.Errorf("an orderly end: %v", p.err)
	}
	if err := os.Remove(filepath.Join(sh.dir, "one", "master.key")); err != nil {
		t.Fatal(err)
	}
	other.name = "one" // the same data directory
	other.start(sh, nil)
	<-other.done
	if other.err == nil || !strings.Contains(other.logged(), "master key") {
		t.Errorf("with another master key the server says: %v", other.err)
	}
}
