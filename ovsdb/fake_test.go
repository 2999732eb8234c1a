package ovsdb_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"yakumo/ovsdb"
	"yakumo/ovsdb/ovsdbtest"
)

// fakeSchema has one table with a column of each sort.
const fakeSchema = `{"name":"Open_vSwitch","version":"1.0.0","cksum":"1 1","tables":{"T":{"isRoot":true,"indexes":[["name"]],"columns":{
 "name":{"type":"string"},
 "n":{"type":{"key":"integer","min":0,"max":1}},
 "set":{"type":{"key":"string","min":0,"max":"unlimited"}},
 "map":{"type":{"key":"string","value":"string","min":0,"max":"unlimited"}}}}}}`

type fakeRow struct {
	UUID ovsdb.UUID        `ovsdb:"_uuid"`
	Name string            `ovsdb:"name"`
	N    *int64            `ovsdb:"n"`
	Set  []string          `ovsdb:"set"`
	Map  map[string]string `ovsdb:"map"`
}

func (fakeRow) TableName() string { return "T" }

const (
	id1 = "00000000-0000-0000-0000-000000000001"
	id2 = "00000000-0000-0000-0000-000000000002"
	tx1 = "11111111-0000-0000-0000-000000000000"
	tx2 = "22222222-0000-0000-0000-000000000000"
)

// script answers the requests of a connect; whatever it has no answer for goes to other.
func script(monitor func(*ovsdbtest.Peer, ovsdbtest.Request), other func(*ovsdbtest.Peer, ovsdbtest.Request)) func(*ovsdbtest.Peer, ovsdbtest.Request) {
	return func(p *ovsdbtest.Peer, r ovsdbtest.Request) {
		switch {
		case r.Method == "set_db_change_aware":
			p.Refuse(r, `"unknown method"`) // an old server
		case r.Method == "get_schema":
			p.Reply(r, fakeSchema)
		case strings.HasPrefix(r.Method, "monitor"):
			monitor(p, r)
		case other != nil:
			other(p, r)
		}
	}
}

func fakeConfig(f *ovsdbtest.Fake) ovsdb.Config {
	return ovsdb.Config{Addresses: []string{f.Address}, Tables: []ovsdb.Table{{Model: fakeRow{}}}}
}

func list(t *testing.T, s *ovsdb.Snapshot) string {
	t.Helper()
	rows, err := ovsdb.List[fakeRow](s)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]fakeRow{}
	for _, r := range rows {
		out[r.Name] = r
	}
	b, err := json.Marshal(out)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// The same history in each form that servers send: the replica must be the same.
func TestDialects(t *testing.T) {
	for method, tc := range map[string]struct {
		initial string
		updates []string
	}{
		"monitor_cond_since": {
			`[false,"` + tx1 + `",{"T":{"` + id1 + `":{"initial":{"name":"a","set":["set",["x","y"]],"map":["map",[["k","1"],["l","2"]]]}}}}]`,
			[]string{
				`"update3","params":["replica","` + tx1 + `",{"T":{"` + id1 + `":{"modify":{"n":5,"set":["set",["y","z"]],"map":["map",[["k","1"],["l","3"],["m","4"]]]}}}}]`,
				`"update3","params":["replica","` + tx2 + `",{"T":{"` + id2 + `":{"insert":{"name":"b"}}}}]`,
				`"update3","params":["replica","` + tx2 + `",{"T":{"` + id1 + `":{"modify":{"n":["set",[]]}},"` + id2 + `":{"delete":null}}}]`,
			}},
		"monitor_cond": {
			`{"T":{"` + id1 + `":{"initial":{"name":"a","set":["set",["x","y"]],"map":["map",[["k","1"],["l","2"]]]}}}}`,
			[]string{
				`"update2","params":["replica",{"T":{"` + id1 + `":{"modify":{"n":5,"set":["set",["y","z"]],"map":["map",[["k","1"],["l","3"],["m","4"]]]}}}}]`,
				`"update2","params":["replica",{"T":{"` + id2 + `":{"insert":{"name":"b"}}}}]`,
				`"update2","params":["replica",{"T":{"` + id1 + `":{"modify":{"n":["set",[]]}},"` + id2 + `":{"delete":null}}}]`,
			}},
		"monitor": {
			`{"T":{"` + id1 + `":{"new":{"name":"a","n":["set",[]],"set":["set",["x","y"]],"map":["map",[["k","1"],["l","2"]]]}}}}`,
			[]string{
				`"update","params":["replica",{"T":{"` + id1 + `":{"old":{"n":["set",[]]},"new":{"name":"a","n":5,"set":["set",["x","z"]],"map":["map",[["l","3"],["m","4"]]]}}}}]`,
				`"update","params":["replica",{"T":{"` + id2 + `":{"new":{"name":"b","n":["set",[]],"set":["set",[]],"map":["map",[]]}}}}]`,
				`"update","params":["replica",{"T":{"` + id1 + `":{"old":{"n":5},"new":{"name":"a","n":["set",[]],"set":["set",["x","z"]],"map":["map",[["l","3"],["m","4"]]]}},"` + id2 + `":{"old":{"name":"b"}}}}]`,
			}},
	} {
		t.Run(method, func(t *testing.T) {
			f := ovsdbtest.NewFake(t, script(func(p *ovsdbtest.Peer, r ovsdbtest.Request) {
				if r.Method != method {
					p.Refuse(r, `"unknown method"`)
					return
				}
				p.Reply(r, tc.initial)
			}, func(p *ovsdbtest.Peer, r ovsdbtest.Request) {
				if r.Method == "transact" { // each one brings the next update
					var op struct{ Comment string }
					if err := json.Unmarshal(r.Params[1], &op); err != nil {
						t.Error(err)
					}
					p.Send(`{"id":null,"method":%s}`, op.Comment)
					p.Reply(r, `[{}]`)
				}
			}))
			c := open(t, fakeConfig(f))
			want := []string{
				`{"a":{"UUID":%s,"Name":"a","N":null,"Set":["x","y"],"Map":{"k":"1","l":"2"}}}`,
				`{"a":{"UUID":%s,"Name":"a","N":5,"Set":["x","z"],"Map":{"l":"3","m":"4"}}}`,
				`{"a":{"UUID":%s,"Name":"a","N":5,"Set":["x","z"],"Map":{"l":"3","m":"4"}},"b":{"UUID":%s,"Name":"b","N":null,"Set":null,"Map":null}}`,
				`{"a":{"UUID":%s,"Name":"a","N":null,"Set":["x","z"],"Map":{"l":"3","m":"4"}}}`,
			}
			uuid := func(last byte) string {
				b, _ := json.Marshal(ovsdb.UUID{15: last})
				return string(b)
			}
			for i, w := range want {
				if i > 0 {
					tx := ovsdb.NewTxn()
					tx.Comment(tc.updates[i-1])
					transact(t, c, tx)
				}
				args := []any{uuid(1), uuid(2)}[:strings.Count(w, "%s")]
				if got := list(t, c.Snapshot()); got != fmt.Sprintf(w, args...) {
					t.Errorf("after %d updates: %s\nwant %s", i, got, fmt.Sprintf(w, args...))
				}
			}
		})
	}
}

// A connection that misbehaves is given up, and the replica is right with the next one.
func TestBadPeers(t *testing.T) {
	good := `[false,"` + tx2 + `",{"T":{"` + id1 + `":{"initial":{"name":"good"}}}}]`
	bad := map[string]string{
		"not JSON":         `{"id":null,"method":"update3","params":[}]}`,
		"garbage":          "HTTP/1.1 400 Bad Request\r\n\r\n",
		"unknown table":    `{"id":null,"method":"update3","params":["replica","` + tx1 + `",{"X":{}}]}`,
		"unknown column":   `{"id":null,"method":"update3","params":["replica","` + tx1 + `",{"T":{"` + id1 + `":{"insert":{"nope":1}}}}]}`,
		"unknown row":      `{"id":null,"method":"update3","params":["replica","` + tx1 + `",{"T":{"` + id2 + `":{"modify":{"name":"x"}}}}]}`,
		"wrong type":       `{"id":null,"method":"update3","params":["replica","` + tx1 + `",{"T":{"` + id1 + `":{"modify":{"name":7}}}}]}`,
		"duplicate":        `{"id":null,"method":"update3","params":["replica","` + tx1 + `",{"T":{"` + id1 + `":{"modify":{"set":["set",["a","a"]]}}}}]}`,
		"too many":         `{"id":null,"method":"update3","params":["replica","` + tx1 + `",{"T":{"` + id1 + `":{"modify":{"n":["set",[1,2]]}}}}]}`,
		"bad uuid":         `{"id":null,"method":"update3","params":["replica","` + tx1 + `",{"T":{"1":{"delete":null}}}]}`,
		"other monitor":    `{"id":null,"method":"update3","params":["other","` + tx1 + `",{}]}`,
		"other form":       `{"id":null,"method":"update2","params":["replica",{}]}`,
		"cancelled":        `{"id":null,"method":"monitor_canceled","params":["replica"]}`,
		"unasked reply":    `{"id":4711,"result":{},"error":null}`,
		"strange id":       `{"id":"x","result":{},"error":null}`,
		"nothing":          `{}`,
		"too deep":         `{"id":null,"method":"x","params":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`,
		"too large":        `{"id":null,"method":"` + strings.Repeat("x", 1<<20) + `"`,
		"unknown message":  `{"id":null,"method":"what","params":[]}`,
		"end in a message": `{"id":null,`,
	}
	for name, text := range bad {
		t.Run(name, func(t *testing.T) {
			since := make(chan string, 10)
			f := ovsdbtest.NewFake(t, script(func(p *ovsdbtest.Peer, r ovsdbtest.Request) {
				since <- string(r.Params[3])
				if p.N == 1 {
					p.Reply(r, `[false,"`+tx1+`",{"T":{"`+id1+`":{"initial":{"name":"first"}}}}]`)
					p.Send("%s", text)
					if name == "end in a message" {
						p.Close()
					}
					return
				}
				p.Reply(r, good)
			}, nil))
			cfg := fakeConfig(f)
			cfg.MaxMessage = 1 << 19
			lost := make(chan error, 10)
			cfg.Disconnected = func(err error) { lost <- err }
			c := open(t, cfg)
			select {
			case err := <-lost:
				if err == nil || errors.Is(err, ovsdb.ErrClosed) {
					t.Errorf("connection lost: %v", err)
				}
				if name == "too large" && !errors.Is(err, ovsdb.ErrTooLarge) {
					t.Errorf("connection lost: %v", err)
				}
			case <-testContext(t).Done():
				t.Fatal("the connection is kept")
			}
			if err := c.Wait(testContext(t), func(s *ovsdb.Snapshot) (bool, error) {
				rows, err := ovsdb.Find[fakeRow](s, "name", "good")
				return len(rows) == 1 && s.Len("T") == 1, err
			}); err != nil {
				t.Fatal(err)
			}
			<-since
			second := strings.Trim(<-since, `"`)
			// What cannot be trusted is read anew; a mere break is not.
			wantResume := map[string]bool{"not JSON": true, "garbage": true, "unasked reply": true, "strange id": true, "nothing": true,
				"too deep": true, "too large": true, "unknown message": true, "end in a message": true, "other form": true}[name]
			if (second == tx1) != wantResume {
				t.Errorf("goes on from %s", second)
			}
		})
	}
}

func TestResume(t *testing.T) {
	f := ovsdbtest.NewFake(t, script(func(p *ovsdbtest.Peer, r ovsdbtest.Request) {
		if p.N == 1 {
			p.Reply(r, `[false,"`+tx1+`",{"T":{"`+id1+`":{"initial":{"name":"a","n":1}},"`+id2+`":{"initial":{"name":"b"}}}}]`)
			p.Close()
			return
		}
		if string(r.Params[3]) != `"`+tx1+`"` {
			t.Errorf("goes on from %s", r.Params[3])
		}
		p.Reply(r, `[true,"`+tx2+`",{"T":{"`+id1+`":{"modify":{"n":2}},"`+id2+`":{"delete":null}}}]`)
	}, nil))
	cfg := fakeConfig(f)
	infos := make(chan ovsdb.Connection, 10)
	cfg.Connected = func(i ovsdb.Connection) { infos <- i }
	c := open(t, cfg)
	if err := c.Wait(testContext(t), func(s *ovsdb.Snapshot) (bool, error) {
		rows, err := ovsdb.Find[fakeRow](s, "name", "a")
		return s.Len("T") == 1 && len(rows) == 1 && *rows[0].N == 2, err
	}); err != nil {
		t.Fatal(err)
	}
	if a, b := <-infos, <-infos; a.Resumed || !b.Resumed || b.Address != f.Address {
		t.Errorf("connects are %+v, %+v", a, b)
	}
}

func TestEchoBothWays(t *testing.T) {
	asked, answered := make(chan bool, 100), make(chan string, 1)
	f := ovsdbtest.NewFake(t, script(func(p *ovsdbtest.Peer, r ovsdbtest.Request) {
		p.Reply(r, `[false,"`+tx1+`",{}]`)
		p.Send(`{"id":"echo","method":"echo","params":["a",{"b":[1.5]}]}`)
		p.Send(`{"id":9,"method":"unheard_of","params":[]}`)
	}, func(p *ovsdbtest.Peer, r ovsdbtest.Request) {
		switch {
		case r.Method == "echo":
			asked <- true
			p.Reply(r, "[]")
		case string(r.ID) == `"echo"`:
			answered <- string(r.Result)
		case string(r.ID) == "9":
			if string(r.Error) != `"unknown method"` {
				t.Errorf("the client answers an unknown request with %s", r.Error)
			}
		}
	}))
	cfg := fakeConfig(f)
	cfg.Probe = 5 * time.Millisecond
	c := open(t, cfg)
	if got := <-answered; got != `["a",{"b":[1.5]}]` {
		t.Errorf("the client echoes %s", got)
	}
	for range 3 {
		<-asked
	}
	if err := c.Err(); err != nil {
		t.Errorf("a live server is given up: %v", err)
	}
}

func TestSilentServerIsGivenUp(t *testing.T) {
	f := ovsdbtest.NewFake(t, script(func(p *ovsdbtest.Peer, r ovsdbtest.Request) {
		p.Reply(r, `[false,"`+tx1+`",{}]`)
	}, nil)) // never answers an echo
	cfg := fakeConfig(f)
	cfg.Probe = 5 * time.Millisecond
	lost := make(chan error, 100)
	cfg.Disconnected = func(err error) {
		select {
		case lost <- err:
		default:
		}
	}
	open(t, cfg)
	if err := <-lost; !strings.Contains(err.Error(), "no sign of life") {
		t.Errorf("connection lost: %v", err)
	}
}

func TestSetupTimeout(t *testing.T) {
	f := ovsdbtest.NewFake(t, func(p *ovsdbtest.Peer, r ovsdbtest.Request) {
		if p.N > 1 { // the first connection never gets an answer
			script(func(p *ovsdbtest.Peer, r ovsdbtest.Request) { p.Reply(r, `[false,"`+tx1+`",{}]`) }, nil)(p, r)
		}
	})
	cfg := fakeConfig(f)
	cfg.SetupTimeout = 500 * time.Millisecond
	open(t, cfg)
}

func TestAnswersThatMakeNoSense(t *testing.T) {
	answers := map[string]string{
		"not a list":   `{}`,
		"too few":      `[]`,
		"too many":     `[{},{}]`,
		"rows":         `[{"rows":[]}]`,
		"wrong count":  `[{"count":"x"}]`,
		"wrong uuid":   `[{"uuid":"x"}]`,
		"null":         `null`,
		"null element": `[null]`,
	}
	var answer atomic.Value
	f := ovsdbtest.NewFake(t, script(func(p *ovsdbtest.Peer, r ovsdbtest.Request) { p.Reply(r, `[false,"`+tx1+`",{}]`) },
		func(p *ovsdbtest.Peer, r ovsdbtest.Request) {
			if r.Method == "transact" {
				p.Reply(r, answer.Load().(string))
			}
		}))
	c := open(t, fakeConfig(f))
	for name, text := range answers {
		answer.Store(text)
		tx := ovsdb.NewTxn()
		tx.Comment("x")
		if res, err := c.Transact(testContext(t), tx); err == nil {
			t.Errorf("%s: result is %+v", name, res)
		}
	}
}

func TestLostTransactionIsUnknown(t *testing.T) {
	f := ovsdbtest.NewFake(t, script(func(p *ovsdbtest.Peer, r ovsdbtest.Request) { p.Reply(r, `[false,"`+tx1+`",{}]`) },
		func(p *ovsdbtest.Peer, r ovsdbtest.Request) {
			if r.Method != "transact" {
				return
			}
			if p.N == 1 {
				p.Close()
				return
			}
			p.Reply(r, `[{}]`)
		}))
	c := open(t, fakeConfig(f))
	tx := ovsdb.NewTxn()
	tx.Comment("x")
	if _, err := c.Transact(testContext(t), tx); !errors.Is(err, ovsdb.ErrOutcomeUnknown) {
		t.Errorf("the connection breaks before the answer: %v", err)
	}
	transact(t, c, tx) // waits for the next connection
}

func TestNoServer(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	_, err := ovsdb.Open(ctx, ovsdb.Config{Addresses: []string{"unix:/nonexistent/db.sock"}, Database: "X", MinBackoff: time.Millisecond})
	if !errors.Is(err, ovsdb.ErrNotConnected) || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("Open without a server: %v", err)
	}
}

// Many updates in one stream arrive in whatever pieces; big ones among them.
func TestLargeUpdates(t *testing.T) {
	var rows bytes.Buffer
	for i := range 20000 {
		if i > 0 {
			rows.WriteByte(',')
		}
		fmt.Fprintf(&rows, `"%08d-0000-0000-0000-000000000009":{"insert":{"name":"row %d","map":["map",[["a","%0200d"]]]}}`, i, i, i)
	}
	f := ovsdbtest.NewFake(t, script(func(p *ovsdbtest.Peer, r ovsdbtest.Request) {
		p.Reply(r, `[false,"`+tx1+`",{}]`)
		p.Send(`{"id":null,"method":"update3","params":["replica","%s",{"T":{%s}}]}`, tx1, rows.Bytes())
		for i := range 20000 {
			p.Send(` {"id":null,"method":"update3","params":["replica","%s",{"T":{"%08d-0000-0000-0000-000000000009":{"modify":{"n":%d}}}}]}`+"\n", tx1, i, i)
		}
	}, nil))
	c := open(t, fakeConfig(f))
	if err := c.Wait(testContext(t), func(s *ovsdb.Snapshot) (bool, error) {
		rows, err := ovsdb.Find[fakeRow](s, "name", "row 19999")
		return len(rows) == 1 && rows[0].N != nil, err
	}); err != nil {
		t.Fatal(err)
	}
	all, err := ovsdb.List[fakeRow](c.Snapshot())
	if err != nil || len(all) != 20000 {
		t.Fatalf("%d rows, %v", len(all), err)
	}
	for _, r := range all {
		if r.N == nil || r.Name != fmt.Sprintf("row %d", *r.N) {
			t.Fatalf("row is %+v", r)
		}
	}
}
