package ovsdb_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"yakumo/ovsdb"
	"yakumo/ovsdb/ovsdbtest"
)

func open(t testing.TB, cfg ovsdb.Config) *ovsdb.Client {
	t.Helper()
	cfg.Database = ovsdb.SwitchDatabase
	if cfg.MinBackoff == 0 {
		cfg.MinBackoff, cfg.MaxBackoff = time.Millisecond, 20*time.Millisecond
	}
	c, err := ovsdb.Open(testContext(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func openReal(t testing.TB, s *ovsdbtest.Server) *ovsdb.Client {
	t.Helper()
	return open(t, ovsdb.Config{Addresses: []string{s.Address()}, Tables: ovsdb.SwitchTables()})
}

func transact(t testing.TB, c *ovsdb.Client, tx *ovsdb.Txn) *ovsdb.Result {
	t.Helper()
	res, err := c.Transact(testContext(t), tx)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func TestSchema(t *testing.T) {
	c := openReal(t, ovsdbtest.Start(t, ovsdbtest.Options{}))
	s := c.Snapshot().Schema()
	if s.Name != "Open_vSwitch" || s.Version == "" || s.Checksum == "" {
		t.Errorf("schema is %s %s %s", s.Name, s.Version, s.Checksum)
	}
	for _, tc := range []struct{ table, column, want string }{
		{"Bridge", "ports", "set of uuid"}, {"Bridge", "fail_mode", "optional string"}, {"QoS", "queues", "map of integer to uuid"},
		{"Interface", "options", "map of string to string"}, {"Open_vSwitch", "next_cfg", "integer"}, {"Port", "_uuid", "uuid"},
	} {
		col, err := s.Column(tc.table, tc.column)
		if err != nil || col.Type.String() != tc.want {
			t.Errorf("%s.%s: %v, want %s (%v)", tc.table, tc.column, col, tc.want, err)
		}
	}
	if _, err := s.Column("Bridge", "nope"); err == nil || !strings.Contains(err.Error(), `table Bridge has no column "nope"`) {
		t.Errorf("unknown column: %v", err)
	}
	if _, err := s.Table("Nope"); err == nil || !strings.Contains(err.Error(), `no table "Nope"`) {
		t.Errorf("unknown table: %v", err)
	}
	if col, _ := s.Column("Bridge", "name"); !col.Immutable {
		t.Error("Bridge.name is mutable")
	}
}

type misfit struct {
	Name   []string `ovsdb:"name"`
	Absent string   `ovsdb:"absent"`
}

func (misfit) TableName() string { return "Bridge" }

func TestOpenTellsWhatDoesNotFit(t *testing.T) {
	server := ovsdbtest.Start(t, ovsdbtest.Options{})
	base := ovsdb.Config{Addresses: []string{server.Address()}, Database: ovsdb.SwitchDatabase}
	for name, tc := range map[string]struct {
		change func(*ovsdb.Config)
		want   []string
	}{
		"model":    {func(c *ovsdb.Config) { c.Tables = []ovsdb.Table{{Model: misfit{}}} }, []string{"field Name of type []string does not fit column name, exactly one string", `no column "absent"`}},
		"column":   {func(c *ovsdb.Config) { c.Tables = []ovsdb.Table{{Model: ovsdb.Bridge{}, Columns: []string{"nope"}}} }, []string{`no column "nope"`}},
		"index":    {func(c *ovsdb.Config) { c.Tables = []ovsdb.Table{{Model: ovsdb.Bridge{}, Indexes: []string{"nope"}}} }, []string{`index on column "nope"`}},
		"twice":    {func(c *ovsdb.Config) { c.Tables = []ovsdb.Table{{Model: ovsdb.Bridge{}}, {Model: ovsdb.Bridge{}}} }, []string{"listed twice"}},
		"address":  {func(c *ovsdb.Config) { c.Addresses = []string{"http://x"} }, []string{"starts with none of"}},
		"port":     {func(c *ovsdb.Config) { c.Addresses = []string{"tcp:127.0.0.1:0"} }, []string{"port in 1…65535"}},
		"tls":      {func(c *ovsdb.Config) { c.Addresses = []string{"ssl:127.0.0.1:6640"} }, []string{"needs Config.TLS"}},
		"nobody":   {func(c *ovsdb.Config) { c.Addresses = nil }, []string{"no address"}},
		"negative": {func(c *ovsdb.Config) { c.Probe = -1 }, []string{"negative"}},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := base
			tc.change(&cfg)
			c, err := ovsdb.Open(testContext(t), cfg)
			if err == nil {
				c.Close()
				t.Fatal("opened")
			}
			for _, want := range tc.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q lacks %q", err, want)
				}
			}
		})
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	cfg := base
	cfg.Database = "Nope"
	if _, err := ovsdb.Open(ctx, cfg); !errors.Is(err, ovsdb.UnknownDatabase) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("unknown database: %v", err)
	}
}

func TestTransactionOperations(t *testing.T) {
	c := openReal(t, ovsdbtest.Start(t, ovsdbtest.Options{}))
	tx := ovsdb.NewTxn()
	q := tx.Insert(ovsdb.Queue{DSCP: new(int64(7)), OtherConfig: map[string]string{"max-rate": "1000"}})
	qos := tx.Insert(ovsdb.QoS{Type: "linux-htb", Queues: map[int64]ovsdb.UUID{0: q}})
	iface := tx.Insert(ovsdb.Interface{Name: "if \"0\"\n\u2028é", Options: map[string]string{"a": "1", "b": "2", "c": "3"}})
	port := tx.Insert(ovsdb.Port{Name: "p0", Interfaces: []ovsdb.UUID{iface}, QoS: &qos, Trunks: []int64{3, 1, 2}})
	bridge := tx.Insert(ovsdb.Bridge{Name: "br0", Ports: []ovsdb.UUID{port}})
	mirror := tx.Insert(ovsdb.Mirror{Name: "m", SelectAll: true, OutputPort: &port})
	tx.InsertRow("Open_vSwitch", ovsdb.Columns{"bridges": bridge, "next_cfg": 41})
	tx.Mutate("Bridge", []ovsdb.Condition{ovsdb.Equal("name", "br0")}, ovsdb.Mutation{"mirrors", "insert", mirror})
	tx.Mutate("Open_vSwitch", nil, ovsdb.Mutation{"next_cfg", "+=", 1})
	tx.Mutate("Interface", nil, ovsdb.Mutation{"options", "delete", []string{"a"}}, ovsdb.Mutation{"options", "delete", map[string]string{"b": "no", "c": "3"}},
		ovsdb.Mutation{"options", "insert", map[string]string{"d": "4", "b": "not replaced"}})
	sel := tx.Select("Open_vSwitch", nil, "next_cfg", "bridges", "_uuid")
	all := tx.Select("Port", []ovsdb.Condition{{"trunks", "includes", []int64{1, 3}}, {"name", "!=", "x"}})
	tx.Wait("Bridge", []ovsdb.Condition{ovsdb.Equal("name", "br0")}, []string{"name"}, "==", []ovsdb.Columns{{"name": "br0"}}, 0)
	tx.Comment("a comment with \"quotes\"")
	tx.Durable()
	res := transact(t, c, tx)
	if len(res.Ops) != tx.Len() {
		t.Fatalf("%d results", len(res.Ops))
	}
	rows := res.Ops[sel].Rows
	if len(rows) != 1 {
		t.Fatalf("select gave %d rows", len(rows))
	}
	if v, _ := rows[0].Value("next_cfg"); v.String() != "42" || rows[0].UUID().IsZero() {
		t.Errorf("next_cfg is %v in row %v", v, rows[0].UUID())
	}
	if p, err := ovsdb.As[ovsdb.Port](res.Ops[all].Rows[0]); err != nil || p.Name != "p0" || !slices.Equal(p.Trunks, []int64{1, 2, 3}) || *p.QoS != res.UUID(qos) {
		t.Errorf("port is %+v, %v", p, err)
	}
	// The replica has it all by now.
	snap := c.Snapshot()
	i, ok, err := ovsdb.Get[ovsdb.Interface](snap, res.UUID(iface))
	want := map[string]string{"b": "2", "d": "4"}
	if err != nil || !ok || !maps.Equal(i.Options, want) || i.Name != "if \"0\"\n\u2028é" {
		t.Errorf("interface is %+v (%v, %v), want options %v", i, ok, err, want)
	}
	b, err := ovsdb.Find[ovsdb.Bridge](snap, "ports", res.UUID(port))
	if err != nil || len(b) != 1 || b[0].UUID != res.UUID(bridge) || len(b[0].Mirrors) != 1 {
		t.Errorf("bridge by port is %+v, %v", b, err)
	}
	if m, err := ovsdb.List[ovsdb.Mirror](snap); err != nil || len(m) != 1 || *m[0].OutputPort != res.UUID(port) {
		t.Errorf("mirrors are %+v, %v", m, err)
	}

	// Update to zero values; then delete.
	tx = ovsdb.NewTxn()
	tx.Update(ovsdb.Port{UUID: res.UUID(port)}, "trunks", "qos")
	tx.Delete("QoS", ovsdb.ByUUID(res.UUID(qos)))
	tx.Delete("Queue")
	r2 := transact(t, c, tx)
	if r2.Ops[0].Count != 1 || r2.Ops[1].Count != 1 || r2.Ops[2].Count != 1 {
		t.Errorf("counts are %+v", r2.Ops)
	}
	snap = c.Snapshot()
	if p, _, _ := ovsdb.Get[ovsdb.Port](snap, res.UUID(port)); p.QoS != nil || p.Trunks != nil || snap.Len("QoS")+snap.Len("Queue") != 0 {
		t.Errorf("port is %+v", p)
	}
}

func TestRefusedTransactions(t *testing.T) {
	c := openReal(t, ovsdbtest.Start(t, ovsdbtest.Options{}))
	for name, tc := range map[string]struct {
		make  func(*ovsdb.Txn)
		index int
		code  ovsdb.Code
		text  string
	}{
		"wait": {func(x *ovsdb.Txn) {
			x.Comment("first")
			x.Wait("Bridge", nil, []string{"name"}, "!=", nil, 0)
		}, 1, ovsdb.TimedOut, "operation 1 (wait Bridge)"},
		"abort":  {func(x *ovsdb.Txn) { x.InsertRow("Open_vSwitch", nil); x.Abort() }, 1, ovsdb.Aborted, "aborted"},
		"assert": {func(x *ovsdb.Txn) { x.Assert("lock0") }, 0, ovsdb.NotOwner, "not owner"},
		"two rows": {func(x *ovsdb.Txn) { x.InsertRow("Open_vSwitch", nil); x.InsertRow("Open_vSwitch", nil) },
			ovsdb.Commit, ovsdb.ConstraintViolation, "commit: constraint violation"},
		"dangling": {func(x *ovsdb.Txn) {
			x.Insert(ovsdb.Root{Bridges: []ovsdb.UUID{{1}}})
		}, ovsdb.Commit, ovsdb.ReferentialError, "integrity"},
		"divide": {func(x *ovsdb.Txn) {
			x.InsertRow("Open_vSwitch", nil)
			x.Mutate("Open_vSwitch", nil, ovsdb.Mutation{"next_cfg", "/=", 0})
		}, 1, ovsdb.DomainError, "mutate"},
		"unit less":       {func(x *ovsdb.Txn) { x.InsertRow("Nope", nil) }, 0, "", `no table "Nope"`},
		"column":          {func(x *ovsdb.Txn) { x.InsertRow("Bridge", ovsdb.Columns{"nope": 1}) }, 0, "", `no column "nope"`},
		"type":            {func(x *ovsdb.Txn) { x.InsertRow("Bridge", ovsdb.Columns{"name": 1}) }, 0, "", "column name: 1 is of type integer, not string"},
		"enum":            {func(x *ovsdb.Txn) { x.Insert(ovsdb.Bridge{Name: "x", FailMode: new("odd")}) }, 0, "", `column fail_mode: "odd" is not one of`},
		"range":           {func(x *ovsdb.Txn) { x.Insert(ovsdb.Queue{DSCP: new(int64(64))}) }, 0, "", "column dscp: 64 is not in 0…63"},
		"many":            {func(x *ovsdb.Txn) { x.InsertRow("Port", ovsdb.Columns{"tag": []int64{1, 2}}) }, 0, "", "column tag: optional integer allows at most 1, has 2"},
		"too few":         {func(x *ovsdb.Txn) { x.InsertRow("Port", ovsdb.Columns{"interfaces": []ovsdb.UUID{}}) }, 0, "", "needs at least 1"},
		"immutable":       {func(x *ovsdb.Txn) { x.UpdateRows("Bridge", ovsdb.Columns{"name": "y"}) }, 0, "", "column name cannot be changed"},
		"condition":       {func(x *ovsdb.Txn) { x.Delete("Bridge", ovsdb.Condition{"name", "~", "y"}) }, 0, "", `unknown condition "~"`},
		"mutation":        {func(x *ovsdb.Txn) { x.Mutate("Bridge", nil, ovsdb.Mutation{"ports", "grow", "y"}) }, 0, "", `unknown mutation "grow"`},
		"mutation type":   {func(x *ovsdb.Txn) { x.Mutate("Open_vSwitch", nil, ovsdb.Mutation{"next_cfg", "+=", "1"}) }, 0, "", "cannot be used with +="},
		"NUL":             {func(x *ovsdb.Txn) { x.Insert(ovsdb.Bridge{Name: "a\x00b"}) }, 0, "", "holds a NUL"},
		"not UTF-8":       {func(x *ovsdb.Txn) { x.Comment("\xff") }, 0, "", "not valid UTF-8"},
		"no row":          {func(x *ovsdb.Txn) { x.Update(ovsdb.Bridge{}, "protocols") }, 0, "", "names no row"},
		"no such field":   {func(x *ovsdb.Txn) { x.Update(ovsdb.Bridge{UUID: ovsdb.UUID{1}}, "nope") }, 0, "", `has no column "nope"`},
		"until":           {func(x *ovsdb.Txn) { x.Wait("Bridge", nil, nil, "<", nil, 0) }, 0, "", "neither == nor !="},
		"unsuitable type": {func(x *ovsdb.Txn) { x.InsertRow("Bridge", ovsdb.Columns{"name": struct{}{}}) }, 0, "", "fits no column"},
		"nil":             {func(x *ovsdb.Txn) { x.InsertRow("Bridge", ovsdb.Columns{"name": nil}) }, 0, "", "fits no column"},
	} {
		t.Run(name, func(t *testing.T) {
			tx := ovsdb.NewTxn()
			tc.make(tx)
			_, err := c.Transact(testContext(t), tx)
			if err == nil || !strings.Contains(err.Error(), tc.text) {
				t.Fatalf("%v, want %q", err, tc.text)
			}
			var oe *ovsdb.OpError
			if tc.code == "" {
				if errors.As(err, &oe) {
					t.Errorf("the server had to refuse it: %v", err)
				}
				return
			}
			if !errors.As(err, &oe) || oe.Index != tc.index || !errors.Is(err, tc.code) {
				t.Errorf("%v is not operation %d, %s", err, tc.index, tc.code)
			}
		})
	}
	if n := c.Snapshot().Len("Open_vSwitch"); n != 0 {
		t.Errorf("refused transactions left %d rows", n)
	}
}

func TestWatchTellsEachChange(t *testing.T) {
	server := ovsdbtest.Start(t, ovsdbtest.Options{})
	c := openReal(t, server)
	w, snap := c.Watch("Bridge")
	defer w.Close()
	if snap.Len("Bridge") != 0 {
		t.Fatal("the database is not empty")
	}
	server.VSCtl("init")
	server.VSCtl("add-br", "br0")
	<-w.Ready()
	got := w.Take()
	if len(got) != 1 || got[0].Table != "Bridge" || got[0].Old != nil || got[0].New == nil {
		t.Fatalf("changes are %+v", got)
	}
	first := got[0].New
	server.VSCtl("set", "bridge", "br0", "external_ids:a=1")
	server.VSCtl("set", "bridge", "br0", "external_ids:b=2")
	server.VSCtl("add-br", "br1")
	server.VSCtl("del-br", "br1")
	if err := c.Wait(testContext(t), func(s *ovsdb.Snapshot) (bool, error) {
		rows, err := ovsdb.Find[ovsdb.Bridge](s, "name", "br0")
		return err == nil && s.Len("Bridge") == 1 && rows[0].ExternalIDs["b"] == "2", err
	}); err != nil {
		t.Fatal(err)
	}
	// br1 came and went unseen unless the test was fast enough to see half of it.
	for _, ch := range w.Take() {
		if ch.UUID == first.UUID() && (ch.Old != first || ch.New == nil) {
			t.Errorf("change of br0 is %+v", ch)
		}
	}
	b, err := ovsdb.As[ovsdb.Bridge](first)
	if err != nil || len(b.ExternalIDs) != 0 {
		t.Errorf("a row of an old snapshot changed: %+v, %v", b, err)
	}
	if snap.Len("Bridge") != 0 {
		t.Error("an old snapshot changed")
	}
}

func TestMonitorWhereAndColumns(t *testing.T) {
	server := ovsdbtest.Start(t, ovsdbtest.Options{})
	server.VSCtl("init")
	server.VSCtl("add-br", "br0", "--", "add-br", "br1", "--", "set", "bridge", "br0", "external_ids:x=1")
	c := open(t, ovsdb.Config{Addresses: []string{server.Address()}, Tables: []ovsdb.Table{
		{Model: ovsdb.Bridge{}, Columns: []string{"name"}, Where: []ovsdb.Condition{ovsdb.Equal("name", "br1")}}}})
	rows, err := ovsdb.List[ovsdb.Bridge](c.Snapshot())
	if err != nil || len(rows) != 1 || rows[0].Name != "br1" || rows[0].Ports != nil {
		t.Errorf("rows are %+v, %v", rows, err)
	}
	if _, err := c.Snapshot().Lookup("Bridge", "ports", ovsdb.Ref(ovsdb.UUID{})); err == nil {
		t.Error("a column that is not replicated was read")
	}
	if _, err := ovsdb.List[ovsdb.Port](c.Snapshot()); err == nil {
		t.Error("a table that is not replicated was read")
	}
}

// content is what the database itself says the bridges are.
func content(t *testing.T, server *ovsdbtest.Server) string {
	t.Helper()
	names := strings.Fields(server.VSCtl("list-br"))
	slices.Sort(names)
	return strings.Join(names, " ")
}

func replicated(t *testing.T, s *ovsdb.Snapshot) string {
	t.Helper()
	rows, err := ovsdb.List[ovsdb.Bridge](s)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, b := range rows {
		names = append(names, b.Name)
		if found, err := ovsdb.Find[ovsdb.Bridge](s, "name", b.Name); err != nil || len(found) != 1 || found[0].UUID != b.UUID {
			t.Errorf("index has %v for %s: %v", found, b.Name, err)
		}
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

func TestServerDies(t *testing.T) {
	for name, tc := range map[string]struct {
		options ovsdbtest.Options
		resumed bool
	}{
		"standalone": {ovsdbtest.Options{}, false},               // keeps no history: the replica is read anew
		"cluster":    {ovsdbtest.Options{Clustered: true}, true}, // goes on from the last transaction
	} {
		t.Run(name, func(t *testing.T) {
			server := ovsdbtest.Start(t, tc.options)
			server.VSCtl("init")
			server.VSCtl("add-br", "keep", "--", "add-br", "gone")
			connects := make(chan ovsdb.Connection, 100)
			losses := make(chan error, 100)
			c := open(t, ovsdb.Config{Addresses: []string{server.Address()}, Tables: ovsdb.SwitchTables(),
				Connected: func(i ovsdb.Connection) { connects <- i }, Disconnected: func(err error) { losses <- err }})
			if i := <-connects; i.Resumed || i.Method != "monitor_cond_since" {
				t.Errorf("first connect is %+v", i)
			}
			w, before := c.Watch()
			defer w.Close()
			kept, err := ovsdb.Find[ovsdb.Bridge](before, "name", "keep")
			if err != nil || len(kept) != 1 {
				t.Fatal(kept, err)
			}
			row, _ := before.Row("Bridge", kept[0].UUID)

			// Transactions go on while the server dies: each is done or not, and says so or says that it does not know.
			var wg sync.WaitGroup
			started := make(chan struct{})
			sure := map[string]bool{}
			wg.Go(func() {
				for i := 0; ; i++ {
					tx := ovsdb.NewTxn()
					b := fmt.Sprintf("t%d", i)
					iface := tx.Insert(ovsdb.Interface{Name: b})
					p := tx.Insert(ovsdb.Port{Name: b, Interfaces: []ovsdb.UUID{iface}})
					id := tx.Insert(ovsdb.Bridge{Name: b, Ports: []ovsdb.UUID{p}})
					tx.Mutate("Open_vSwitch", nil, ovsdb.Mutation{"bridges", "insert", id})
					tx.Durable()
					_, err := c.Transact(testContext(t), tx)
					if err == nil {
						sure[b] = true
					} else {
						if !errors.Is(err, ovsdb.ErrOutcomeUnknown) && !errors.Is(err, ovsdb.ErrNotConnected) {
							t.Errorf("transaction in the server's death: %v", err)
						}
						return
					}
					if i == 5 {
						close(started)
					}
				}
			})
			<-started
			server.Kill()
			wg.Wait()
			<-losses
			if c.Err() == nil {
				t.Error("the client thinks that it is connected")
			}
			stale := c.Snapshot()
			if replicated(t, stale) == "" {
				t.Error("the replica is empty while there is no connection")
			}
			server.Restart()
			info := <-connects
			if info.Resumed != tc.resumed {
				t.Errorf("resumed is %v, want %v", info.Resumed, tc.resumed)
			}
			// Changes by others, after the restart.
			server.VSCtl("del-br", "gone", "--", "add-br", "new")
			if err := c.Wait(testContext(t), func(s *ovsdb.Snapshot) (bool, error) {
				rows, err := ovsdb.Find[ovsdb.Bridge](s, "name", "new")
				return len(rows) == 1, err
			}); err != nil {
				t.Fatal(err)
			}
			after := c.Snapshot()
			if got, want := replicated(t, after), content(t, server); got != want {
				t.Errorf("the replica has %q, the database %q", got, want)
			}
			for b := range sure {
				if rows, err := ovsdb.Find[ovsdb.Bridge](after, "name", b); err != nil || len(rows) != 1 {
					t.Errorf("committed bridge %s is lost (%v)", b, err)
				}
			}
			if now, _ := after.Row("Bridge", kept[0].UUID); now != row {
				t.Error("a row that did not change is another one")
			}
			for _, ch := range w.Take() {
				if ch.UUID == row.UUID() {
					t.Errorf("change of a row that did not change: %+v", ch)
				}
			}
		})
	}
}

func TestServerComesBackEmpty(t *testing.T) {
	server := ovsdbtest.Start(t, ovsdbtest.Options{})
	server.VSCtl("init")
	server.VSCtl("add-br", "br0")
	c := openReal(t, server)
	w, _ := c.Watch("Bridge")
	defer w.Close()
	server.Kill()
	server.Empty()
	server.Restart()
	<-w.Ready()
	if got := w.Take(); len(got) != 1 || got[0].Old == nil || got[0].New != nil {
		t.Errorf("changes are %+v", got)
	}
	if s := c.Snapshot(); s.Len("Bridge") != 0 || s.Len("Open_vSwitch") != 0 {
		t.Error("the replica is not empty")
	}
}

func TestConcurrentTransactions(t *testing.T) {
	server := ovsdbtest.Start(t, ovsdbtest.Options{})
	server.VSCtl("init")
	a, b := openReal(t, server), openReal(t, server)
	const workers, each = 8, 25
	var wg sync.WaitGroup
	for i := range workers {
		c := a
		if i%2 == 1 {
			c = b
		}
		wg.Go(func() {
			for range each {
				tx := ovsdb.NewTxn()
				tx.Mutate("Open_vSwitch", nil, ovsdb.Mutation{"next_cfg", "+=", 1})
				sel := tx.Select("Open_vSwitch", nil, "next_cfg")
				res, err := c.Transact(testContext(t), tx)
				if err != nil {
					t.Error(err)
					return
				}
				// The replica is never behind one's own transaction.
				v, _ := res.Ops[sel].Rows[0].Value("next_cfg")
				n, _ := v.Atom()
				roots, err := ovsdb.List[ovsdb.Root](c.Snapshot())
				if err != nil || roots[0].NextCfg < n.Int() {
					t.Errorf("replica has next_cfg %d after one's own %d (%v)", roots[0].NextCfg, n.Int(), err)
				}
			}
		})
	}
	wg.Wait()
	for _, c := range []*ovsdb.Client{a, b} {
		if err := c.Wait(testContext(t), func(s *ovsdb.Snapshot) (bool, error) {
			roots, err := ovsdb.List[ovsdb.Root](s)
			return roots[0].NextCfg == workers*each, err
		}); err != nil {
			t.Error(err)
		}
	}
}

func TestTwoClientsEnsureTheSame(t *testing.T) {
	server := ovsdbtest.Start(t, ovsdbtest.Options{})
	server.StartSwitch()
	var wg sync.WaitGroup
	for i := range 4 {
		sw := openSwitch(t, server)
		wg.Go(func() {
			ctx := testContext(t)
			if _, err := sw.EnsureBridge(ctx, testBridge); err != nil {
				t.Errorf("client %d: %v", i, err)
				return
			}
			for n := range 5 {
				cfg := ovsdb.PortConfig{Name: fmt.Sprintf("p%d", n), Type: "internal", ExternalIDs: map[string]string{fmt.Sprint(i): "here"}}
				if _, err := sw.EnsurePort(ctx, "br0", cfg); err != nil {
					t.Errorf("client %d: %v", i, err)
				}
			}
		})
	}
	wg.Wait()
	sw := openSwitch(t, server)
	ports, err := sw.Ports("br0")
	if err != nil || len(ports) != 6 {
		t.Fatalf("ports are %+v, %v", ports, err)
	}
	for _, p := range ports[1:] {
		if len(p.Interface.ExternalIDs) != 4 {
			t.Errorf("port %s has the keys of %v only", p.Port.Name, p.Interface.ExternalIDs)
		}
	}
}

func TestLocks(t *testing.T) {
	server := ovsdbtest.Start(t, ovsdbtest.Options{})
	a, b := openReal(t, server), openReal(t, server)
	ctx := testContext(t)
	if got, err := a.Lock(ctx, "l"); err != nil || !got || !a.Holds("l") {
		t.Fatalf("first Lock: %v, %v", got, err)
	}
	if got, err := b.Lock(ctx, "l"); err != nil || got || b.Holds("l") {
		t.Fatalf("second Lock: %v, %v", got, err)
	}
	tx := ovsdb.NewTxn()
	tx.Assert("l")
	transact(t, a, tx)
	if _, err := b.Transact(ctx, tx); !errors.Is(err, ovsdb.NotOwner) {
		t.Errorf("assert without the lock: %v", err)
	}
	if err := a.Unlock(ctx, "l"); err != nil || a.Holds("l") {
		t.Fatal(err)
	}
	if err := b.Wait(ctx, func(*ovsdb.Snapshot) (bool, error) { return b.Holds("l"), nil }); err != nil {
		t.Fatalf("the lock does not come: %v", err)
	}
	transact(t, b, tx)
	if err := a.Steal(ctx, "l"); err != nil || !a.Holds("l") {
		t.Fatal(err)
	}
	if err := b.Wait(ctx, func(*ovsdb.Snapshot) (bool, error) { return !b.Holds("l"), nil }); err != nil {
		t.Fatalf("the theft goes unnoticed: %v", err)
	}
	if _, err := a.Lock(ctx, "not a name"); err == nil {
		t.Error("a bad name was sent")
	}
}

func TestCancelledTransaction(t *testing.T) {
	c := openReal(t, ovsdbtest.Start(t, ovsdbtest.Options{}))
	tx := ovsdb.NewTxn() // waits for ever
	tx.Wait("Bridge", nil, []string{"name"}, "==", []ovsdb.Columns{{"name": "never"}}, -1)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Transact(ctx, tx); !errors.Is(err, ovsdb.ErrOutcomeUnknown) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("patience ends: %v", err)
	}
	tx = ovsdb.NewTxn()
	tx.InsertRow("Open_vSwitch", nil)
	transact(t, c, tx)
	c.Close()
	if _, err := c.Transact(testContext(t), tx); !errors.Is(err, ovsdb.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	if err := c.Wait(testContext(t), func(*ovsdb.Snapshot) (bool, error) { return false, nil }); !errors.Is(err, ovsdb.ErrClosed) {
		t.Errorf("Wait after Close: %v", err)
	}
	if c.Snapshot().Len("Open_vSwitch") != 1 || !errors.Is(c.Err(), ovsdb.ErrClosed) {
		t.Errorf("after Close: %d rows, %v", c.Snapshot().Len("Open_vSwitch"), c.Err())
	}
}

// authority makes a CA, and a certificate of it in files and in memory.
func authority(t *testing.T, dir string) (pool *x509.CertPool, cert tls.Certificate) {
	t.Helper()
	write := func(name, kind string, der []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	key := func() *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	caKey, leafKey := key(), key()
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		t.Fatal(err)
	}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "test"}, NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, ca, leafKey.Public(), caKey)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(leafKey)
	if err != nil {
		t.Fatal(err)
	}
	write("ca.pem", "CERTIFICATE", caDER)
	write("cert.pem", "CERTIFICATE", leafDER)
	write("key.pem", "PRIVATE KEY", keyDER)
	parsed, err := x509.ParseCertificate(caDER)
	if err != nil {
		t.Fatal(err)
	}
	pool = x509.NewCertPool()
	pool.AddCert(parsed)
	return pool, tls.Certificate{Certificate: [][]byte{leafDER}, PrivateKey: leafKey}
}

func TestTCPAndTLS(t *testing.T) {
	dir := t.TempDir()
	pool, cert := authority(t, dir)
	tcp := ovsdbtest.Start(t, ovsdbtest.Options{Remotes: []string{"ptcp:0:127.0.0.1"}})
	ssl := ovsdbtest.Start(t, ovsdbtest.Options{Remotes: []string{"pssl:0:127.0.0.1"}, Args: []string{
		"--private-key=" + filepath.Join(dir, "key.pem"), "--certificate=" + filepath.Join(dir, "cert.pem"), "--ca-cert=" + filepath.Join(dir, "ca.pem")}})
	conf := &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{cert}}
	for _, cfg := range []ovsdb.Config{
		{Addresses: []string{"tcp:127.0.0.1:" + tcp.Port()}},
		{Addresses: []string{"ssl:127.0.0.1:" + ssl.Port()}, TLS: conf},
		{Addresses: []string{"unix:/nonexistent", "tls:127.0.0.1:" + ssl.Port()}, TLS: conf}, // the second works
	} {
		cfg.Tables = ovsdb.SwitchTables()
		c := open(t, cfg)
		tx := ovsdb.NewTxn()
		tx.InsertRow("QoS", ovsdb.Columns{"type": "linux-htb"})
		res := transact(t, c, tx)
		if _, ok, err := ovsdb.Get[ovsdb.QoS](c.Snapshot(), res.Ops[0].UUID); !ok || err != nil {
			t.Errorf("%v: row is not there: %v", cfg.Addresses, err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	c, err := ovsdb.Open(ctx, ovsdb.Config{Addresses: []string{"ssl:127.0.0.1:" + ssl.Port()}, Database: ovsdb.SwitchDatabase, TLS: &tls.Config{}})
	var unknown x509.UnknownAuthorityError
	if err == nil {
		c.Close()
	}
	if !errors.As(err, &unknown) {
		t.Errorf("a server that nobody vouches for: %v", err)
	}
}
