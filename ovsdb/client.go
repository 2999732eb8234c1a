package ovsdb

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Config says what a Client connects to and what it replicates.
type Config struct {
	// Addresses are tried in turn: "unix:/path", "tcp:host:port", "ssl:host:port" or
	// "tls:host:port". At least one.
	Addresses []string
	// TLS is needed for ssl: and tls: addresses.
	TLS *tls.Config
	// Database is the name of the database, such as "Open_vSwitch".
	Database string
	// Tables are what the replica holds; none: transactions only.
	Tables []Table
	// Log gets connects, disconnects and failed attempts; nil: none.
	Log *slog.Logger
	// Connected is called after each connect, when the replica is up to date, and
	// Disconnected after each loss of a connection that Connected told of. They are never called
	// at once; while one runs the client does not reconnect. They must not call Close.
	Connected    func(Connection)
	Disconnected func(error)
	// MaxMessage bounds one message, in bytes; 0: 256 MiB.
	MaxMessage int
	// MinBackoff and MaxBackoff bound the pause before a new attempt, which doubles with
	// each failure; 0: 100 ms and 8 s.
	MinBackoff, MaxBackoff time.Duration
	// Probe is the silence after which the server is asked for a sign of life; without one for
	// as long again, the connection is given up. 0: 10 s.
	Probe time.Duration
	// SetupTimeout bounds one attempt from dial to the filled replica; 0: 30 s.
	SetupTimeout time.Duration
}

// A Table says what of a table the replica holds.
type Table struct {
	// Model gives the table and, with Columns empty, the columns.
	Model Model
	// Columns narrows or widens what is replicated.
	Columns []string
	// Where restricts the rows to those that meet any of the conditions (ovsdb-server(7), "Monitor_cond"); none: all.
	Where []Condition
	// Indexes are the columns by which Find is fast. Columns that the schema has a unique
	// index of need no mention.
	Indexes []string
}

// A Connection describes a connect.
type Connection struct {
	Address string
	// Resumed tells that the server sent only what had changed since the last
	// connection; otherwise the replica was read anew.
	Resumed bool
	// Method is the request that started the replication, "" where there is none.
	Method string
	// Schema is the database's schema.
	Schema *Schema
}

// ErrSchema is why a client does not connect whose tables do not fit the database's schema. It
// tries on, should the schema change; but who waits for a connection gets this error at once.
var ErrSchema = errors.New("the schema does not fit")

// A Client is a connection to a database server that comes back by itself, and a replica
// of some tables. Its methods may be called from any goroutine.
type Client struct {
	cfg    Config
	plans  []*plan // one for each of cfg.Tables
	log    *slog.Logger
	cancel context.CancelFunc
	ended  chan struct{}
	snap   atomic.Pointer[Snapshot]

	mu      sync.Mutex
	conn    *conn // nil while not connected
	lastErr error // why not
	lastTxn string
	watches map[*Watch]struct{}
	changed chan struct{} // closed at the next change of anything above or of locks
	locks   map[string]bool
	closed  bool
}

// Open makes a Client and waits until it is connected and its replica filled. It fails where
// cfg is wrong or ctx ends first; then the error has the last attempt's.
func Open(ctx context.Context, cfg Config) (*Client, error) {
	c, err := newClient(cfg)
	if err != nil {
		return nil, fmt.Errorf("open database %s: %w", cfg.Database, err)
	}
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	c.cancel = cancel
	go c.run(run)
	if _, err := c.connected(ctx); err != nil {
		c.Close()
		return nil, fmt.Errorf("open database %s: %w", cfg.Database, err)
	}
	return c, nil
}

func orElse[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}

func newClient(cfg Config) (*Client, error) {
	cfg.MaxMessage = orElse(cfg.MaxMessage, 256<<20)
	cfg.MinBackoff = orElse(cfg.MinBackoff, 100*time.Millisecond)
	cfg.MaxBackoff = orElse(cfg.MaxBackoff, 8*time.Second)
	cfg.Probe = orElse(cfg.Probe, 10*time.Second)
	cfg.SetupTimeout = orElse(cfg.SetupTimeout, 30*time.Second)
	c := &Client{cfg: cfg, log: cfg.Log, ended: make(chan struct{}), changed: make(chan struct{}),
		lastTxn: noTxn, watches: map[*Watch]struct{}{}, locks: map[string]bool{}, lastErr: ErrNotConnected}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	if len(cfg.Addresses) == 0 {
		return nil, errors.New("no address")
	}
	for _, a := range cfg.Addresses {
		_, _, secure, err := address(a)
		if err != nil {
			return nil, err
		}
		if secure && cfg.TLS == nil {
			return nil, fmt.Errorf("address %q needs Config.TLS", a)
		}
	}
	if cfg.MaxMessage < 0 || cfg.MinBackoff < 0 || cfg.MaxBackoff < cfg.MinBackoff || cfg.Probe < 0 || cfg.SetupTimeout < 0 {
		return nil, errors.New("a bound is negative, or MaxBackoff is less than MinBackoff")
	}
	seen := map[string]bool{}
	for _, t := range cfg.Tables {
		p, err := newPlan(t.Model)
		if err != nil {
			return nil, err
		}
		if seen[p.table] {
			return nil, fmt.Errorf("table %s is listed twice", p.table)
		}
		seen[p.table] = true
		c.plans = append(c.plans, p)
	}
	c.snap.Store(&Snapshot{schema: &Schema{Name: cfg.Database, Tables: map[string]*TableSchema{}}, tables: map[string]*tableView{}})
	return c, nil
}

// Close ends the connection and waits until nothing of the client runs. The last
// snapshot stays readable.
func (c *Client) Close() {
	c.mu.Lock()
	c.closed = true
	c.lastErr = ErrClosed
	c.mu.Unlock()
	c.cancel()
	<-c.ended
}

// Snapshot gives the replica as it is now. While there is no connection it is as the last one left it.
func (c *Client) Snapshot() *Snapshot { return c.snap.Load() }

// Err tells why the client is not connected; nil: it is.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != nil {
		return nil
	}
	return c.lastErr
}

// Watch starts to gather the changes of the named tables (none: of all), and gives the
// snapshot that they follow upon.
func (c *Client) Watch(tables ...string) (*Watch, *Snapshot) {
	w := &Watch{client: c, tables: map[string]bool{}, ready: make(chan struct{}, 1), pending: map[rowKey]int{}}
	for _, t := range tables {
		w.tables[t] = true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.watches[w] = struct{}{}
	return w, c.snap.Load()
}

// Wait looks at each new snapshot, and at the present one, until is says true or fails.
// is must not change anything and should be quick.
func (c *Client) Wait(ctx context.Context, is func(*Snapshot) (bool, error)) error {
	for {
		c.mu.Lock()
		changed, closed := c.changed, c.closed
		c.mu.Unlock()
		done, err := is(c.Snapshot())
		if done || err != nil {
			return err
		}
		if closed {
			return ErrClosed
		}
		select {
		case <-changed:
		case <-c.ended:
			return ErrClosed
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// bump wakes all that wait; mu is held.
func (c *Client) bump() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// connected waits for a connection.
func (c *Client) connected(ctx context.Context) (*conn, error) {
	for {
		c.mu.Lock()
		cn, changed, closed, last := c.conn, c.changed, c.closed, c.lastErr
		c.mu.Unlock()
		if closed {
			return nil, ErrClosed
		}
		if cn != nil && !cn.ended() {
			return cn, nil
		}
		if errors.Is(last, ErrSchema) {
			return nil, fmt.Errorf("%w: %w", ErrNotConnected, last)
		}
		select {
		case <-changed:
		case <-c.ended:
			return nil, ErrClosed
		case <-ctx.Done():
			if errors.Is(last, ErrNotConnected) {
				return nil, fmt.Errorf("%w: %w", last, ctx.Err())
			}
			return nil, fmt.Errorf("%w: %w: %w", ErrNotConnected, ctx.Err(), last)
		}
	}
}

// Transact sends a transaction, waiting for a connection if need be, and gives its
// result. The replica has taken in what the transaction changed when Transact returns. The error
// is an *OpError where the server refused it, wraps ErrNotConnected where it was not sent, and
// ErrOutcomeUnknown where nothing is known.
func (c *Client) Transact(ctx context.Context, t *Txn) (*Result, error) {
	cn, err := c.connected(ctx)
	if err != nil {
		return nil, err
	}
	schema := c.Snapshot().schema
	params, err := t.encode(schema)
	if err != nil {
		return nil, err
	}
	raw, err := cn.call(ctx, "transact", params, nil)
	if err != nil {
		return nil, err
	}
	return t.decode(raw, schema)
}

// run keeps the connection until ctx ends.
func (c *Client) run(ctx context.Context) {
	defer close(c.ended)
	backoff := c.cfg.MinBackoff
	for n := 0; ; n++ {
		addr := c.cfg.Addresses[n%len(c.cfg.Addresses)]
		up, err := c.session(ctx, addr)
		if ctx.Err() != nil {
			return
		}
		if up {
			backoff = c.cfg.MinBackoff
			n-- // the same address first
			c.log.Warn("database connection lost", "address", addr, "err", err)
			if c.cfg.Disconnected != nil {
				c.cfg.Disconnected(err)
			}
		} else {
			c.log.Warn("database connection failed", "address", addr, "err", err, "retry_in", backoff)
		}
		pause := time.NewTimer(backoff/2 + rand.N(backoff/2+1))
		select {
		case <-ctx.Done():
			pause.Stop()
			return
		case <-pause.C:
		}
		backoff = min(2*backoff, c.cfg.MaxBackoff)
	}
}

// session makes one connection and keeps it until it ends; up tells whether it was ever in use.
func (c *Client) session(ctx context.Context, addr string) (up bool, err error) {
	setup, cancel := context.WithTimeout(ctx, c.cfg.SetupTimeout)
	defer cancel()
	nc, err := dial(setup, addr, c.cfg.TLS)
	if err != nil {
		c.setErr(err)
		return false, err
	}
	s := &session{client: c}
	s.conn = newConn(nc, connConfig{maxMessage: c.cfg.MaxMessage, probe: c.cfg.Probe, notify: s.notify})
	info, err := s.setUp(setup)
	if err != nil {
		if s.conn.close(err); s.conn.err != err { // the connection's own reason says more
			err = fmt.Errorf("%w: %w", err, s.conn.err)
		}
		c.setErr(err)
		return false, err
	}
	info.Address = addr
	c.log.Info("database connected", "address", addr, "resumed", info.Resumed, "method", info.Method)
	c.mu.Lock()
	c.conn = s.conn
	c.bump()
	c.mu.Unlock()
	if c.cfg.Connected != nil {
		c.cfg.Connected(info)
	}
	select {
	case <-s.conn.done:
	case <-ctx.Done():
	}
	s.conn.close(ErrClosed)
	c.mu.Lock()
	c.conn = nil
	if !c.closed {
		c.lastErr = s.conn.err
	}
	clear(c.locks) // the server forgets them with the connection
	c.bump()
	c.mu.Unlock()
	return true, s.conn.err
}

func (c *Client) setErr(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.lastErr = err
	}
	c.bump()
}

// A session is one connection's part in the replica.
type session struct {
	client *Client
	conn   *conn

	// These belong to the connection's reading goroutine.
	started bool // the monitor request was answered
	dialect dialect
}

// monitorID names the replication to the server; it lives as long as the connection.
const monitorID = `"replica"`

// setUp reads the schema and starts the replication.
func (s *session) setUp(ctx context.Context) (Connection, error) {
	c := s.client
	info := Connection{}
	if _, err := s.conn.call(ctx, "set_db_change_aware", []byte("[true]"), nil); err != nil && !errors.Is(err, UnknownMethod) {
		return info, err
	}
	raw, err := s.conn.call(ctx, "get_schema", append(appendText([]byte{'['}, c.cfg.Database), ']'), nil)
	if err != nil {
		return info, err
	}
	schema, err := ParseSchema(raw)
	if err != nil {
		return info, err
	}
	info.Schema = schema
	fresh, err := c.emptySnapshot(schema)
	if err != nil {
		return info, fmt.Errorf("%w: %w", ErrSchema, err)
	}
	if len(c.plans) == 0 {
		c.install(newBatch(fresh), noTxn)
		return info, nil
	}
	requests, err := c.monitorRequests(schema)
	if err != nil {
		return info, err
	}
	prefix := append(appendText([]byte{'['}, c.cfg.Database), ',')
	prefix = append(append(prefix, monitorID+","...), requests...)
	for d := dialectSince; ; d++ {
		params := slices.Clip(prefix)
		if d == dialectSince {
			params = appendText(append(params, ','), c.resumable(fresh))
		}
		params = append(params, ']')
		if d == dialectPlain && slices.ContainsFunc(c.cfg.Tables, func(t Table) bool { return len(t.Where) > 0 }) {
			return info, fmt.Errorf("the server cannot restrict rows: %w", NotSupported)
		}
		info.Method = monitorMethods[d]
		_, err := s.conn.call(ctx, info.Method, params, func(result []byte) error {
			var err error
			s.started, s.dialect = true, d
			info.Resumed, err = s.initial(result, fresh)
			return err
		})
		if errors.Is(err, UnknownMethod) && d < dialectPlain {
			continue
		}
		return info, err
	}
}

// emptySnapshot makes the tables that the configuration asks for, after a check against the schema.
func (c *Client) emptySnapshot(schema *Schema) (*Snapshot, error) {
	snap := &Snapshot{schema: schema, tables: map[string]*tableView{}, serial: c.Snapshot().serial}
	var errs []error
	for i, p := range c.plans {
		if err := p.check(schema); err != nil {
			errs = append(errs, err)
			continue
		}
		t := schema.Tables[p.table]
		names := c.cfg.Tables[i].Columns
		if len(names) == 0 {
			names = p.columns(t)
		}
		l, err := newLayout(t, names)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if was := c.Snapshot().tables[p.table]; was != nil && was.layout.equal(l) {
			l = was.layout // rows may stay what they are
		}
		indexes := slices.Clone(c.cfg.Tables[i].Indexes)
		for _, index := range t.Indexes {
			if _, ok := l.index[index[0]]; ok && len(index) == 1 {
				indexes = append(indexes, index[0])
			}
		}
		view, err := newTableView(l, p, indexes)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		snap.tables[p.table] = view
	}
	return snap, errors.Join(errs...)
}

// resumable gives the transaction from which the replica can go on, noTxn where it must
// be read anew because the schema is not the same.
func (c *Client) resumable(fresh *Snapshot) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.snap.Load()
	if now.schema.Version != fresh.schema.Version || now.schema.Checksum != fresh.schema.Checksum || len(now.tables) != len(fresh.tables) {
		return noTxn
	}
	for name, t := range fresh.tables {
		if was := now.tables[name]; was == nil || !was.layout.equal(t.layout) {
			return noTxn
		}
	}
	return c.lastTxn
}

func (c *Client) monitorRequests(schema *Schema) ([]byte, error) {
	b := []byte{'{'}
	for i, p := range c.plans {
		t := schema.Tables[p.table]
		names := c.cfg.Tables[i].Columns
		if len(names) == 0 {
			names = p.columns(t)
		}
		if i > 0 {
			b = append(b, ',')
		}
		b = appendText(b, p.table)
		var err error
		if b, err = appendNames(append(b, `:[{"columns":`...), t, names); err != nil {
			return nil, err
		}
		if where := c.cfg.Tables[i].Where; len(where) > 0 {
			if b, err = appendWhere(append(b, `,"where":`...), t, where, nil); err != nil {
				return nil, fmt.Errorf("table %s: %w", p.table, err)
			}
		}
		b = append(b, "}]"...)
	}
	return append(b, '}'), nil
}

// initial takes in the reply to the monitor request.
func (s *session) initial(result []byte, fresh *Snapshot) (resumed bool, err error) {
	c := s.client
	last := noTxn
	updates := result
	if s.dialect == dialectSince {
		cur := &cursor{b: result}
		err := cur.array(func(n int) (err error) {
			switch n {
			case 0:
				resumed, err = cur.boolean()
			case 1:
				last, err = cur.str()
			case 2:
				updates, err = cur.raw()
			default:
				err = cur.fail("more than three members")
			}
			return err
		})
		if err != nil {
			return false, err
		}
	}
	before := c.Snapshot()
	if resumed {
		if c.resumable(fresh) == noTxn {
			return false, errors.New("the server goes on from a transaction that was not named")
		}
		b := newBatch(before)
		b.next.schema = fresh.schema
		if err := b.read(updates, s.dialect); err != nil {
			c.forget()
			return false, err
		}
		c.install(b, last)
		return true, nil
	}
	b := newBatch(fresh)
	if err := b.read(updates, s.dialect); err != nil {
		return false, err
	}
	b.settle(before)
	c.install(b, last)
	return false, nil
}

// forget makes the next connection read everything anew.
func (c *Client) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lastTxn = noTxn
}

// install makes a batch's snapshot the present one and tells all who wait.
func (c *Client) install(b *batch, lastTxn string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.snap.Store(b.next)
	c.lastTxn = lastTxn
	if len(b.changes) > 0 {
		for w := range c.watches {
			w.add(b.changes)
		}
	}
	c.bump()
}

// notify takes in what the server sends unasked.
func (s *session) notify(method string, params []byte) error {
	switch {
	case s.started && method == updateMethods[s.dialect]:
		if err := s.update(params); err != nil {
			s.client.forget()
			return fmt.Errorf("%s: %w", method, err)
		}
		return nil
	case method == "monitor_canceled": // the database went, or has another schema now
		s.client.forget()
		return errors.New("the server ended the replication")
	case method == "locked", method == "stolen":
		return s.client.lockChanged(method, params)
	}
	return fmt.Errorf("unexpected notification %.40q", method)
}

func (s *session) update(params []byte) error {
	last := noTxn
	var updates []byte
	cur := &cursor{b: params}
	err := cur.array(func(n int) (err error) {
		switch {
		case n == 0:
			var id []byte
			if id, err = cur.raw(); err == nil && string(id) != monitorID {
				err = cur.fail("update of an unknown monitor %.40q", id)
			}
		case n == 1 && s.dialect == dialectSince:
			last, err = cur.str()
		case updates == nil:
			updates, err = cur.raw()
		default:
			err = cur.fail("too many members")
		}
		return err
	})
	if err != nil {
		return err
	}
	b := newBatch(s.client.Snapshot())
	if err := b.read(updates, s.dialect); err != nil {
		return err
	}
	s.client.install(b, last)
	return nil
}
