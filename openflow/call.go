package openflow

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// call is what waits for the answers to messages with n transaction ids in a row. The last
// id's answer ends it.
type call struct {
	first, n uint32

	once sync.Once
	done chan struct{}
	err  error // why it ended early; read after done

	// milestone, where it is not nil, is closed by the answer to the id first+milestoneAt.
	milestone   chan struct{}
	milestoneAt uint32

	mu      sync.Mutex
	replies []Message
	errs    []*Error
}

// results gives what has been answered so far.
func (k *call) results() ([]Message, []*Error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.replies, k.errs
}

func (k *call) finish(err error) {
	k.once.Do(func() {
		k.err = err
		close(k.done)
	})
}

func (k *call) holds(xid uint32) bool { return xid-k.first < k.n }

// nextXIDs gives out n transaction ids in a row and returns the first.
func (c *Conn) nextXIDs(n uint32) uint32 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.takeXIDs(n)
}

// takeXIDs is nextXIDs under c.mu. Ids start again at 1 after 2^32; by then no request that
// had one of them is still waiting, because requests time out.
func (c *Conn) takeXIDs(n uint32) uint32 {
	if ^uint32(0)-c.xid < n {
		c.xid = 0
	}
	first := c.xid + 1
	c.xid += n
	return first
}

// newCall registers a call for n messages.
func (c *Conn) newCall(n uint32) (*call, error) {
	k := &call{n: n, done: make(chan struct{})}
	return k, c.register(k)
}

// register gives a call its ids and makes the reader know it.
func (c *Conn) register(k *call) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return c.err
	}
	k.first = c.takeXIDs(k.n)
	c.calls = append(c.calls, k)
	return nil
}

func (c *Conn) callFor(xid uint32) *call {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, k := range c.calls {
		if k.holds(xid) {
			return k
		}
	}
	return nil
}

func (c *Conn) remove(k *call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, o := range c.calls {
		if o == k {
			c.calls = append(c.calls[:i], c.calls[i+1:]...)
			return
		}
	}
}

// answer gives a reply or an error to the call that waits for it. Only the reader calls it.
func (c *Conn) answer(h Header, m Message) bool {
	k := c.callFor(h.XID)
	if k == nil {
		return false
	}
	at := h.XID - k.first
	last := at == k.n-1
	k.mu.Lock()
	switch m := m.(type) {
	case *Error:
		k.errs = append(k.errs, m)
	case *MultipartReply:
		k.replies = append(k.replies, m)
		last = last && !m.More
	default:
		k.replies = append(k.replies, m)
	}
	if k.milestone != nil && at == k.milestoneAt {
		close(k.milestone)
		k.milestone = nil
	}
	k.mu.Unlock()
	if last {
		c.remove(k)
		k.finish(nil)
	}
	return true
}

// wait waits for the end of a call.
func (c *Conn) wait(ctx context.Context, k *call) error { return c.waitFor(ctx, k, nil) }

// waitFor waits for the end of a call or for its milestone.
func (c *Conn) waitFor(ctx context.Context, k *call, milestone <-chan struct{}) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.cfg.RequestTimeout)
		defer cancel()
	}
	select {
	case <-milestone:
		return nil
	case <-k.done:
		return k.err
	case <-ctx.Done():
		c.remove(k)
		return fmt.Errorf("wait for the switch: %w", context.Cause(ctx))
	}
}

// Send queues a message and returns its transaction id without waiting for the switch. An
// error that the switch sends about it comes as an event. Send waits only for room in the
// write queue.
func (c *Conn) Send(ctx context.Context, m Message) (uint32, error) {
	xid := c.nextXIDs(1)
	b, err := Append(nil, xid, m)
	if err != nil {
		return 0, err
	}
	return xid, c.enqueue(ctx, b, false)
}

// answered tells whether the switch has a reply of its own to a message.
func answered(m Message) bool {
	switch m.Type() {
	case TypeEchoRequest, TypeFeaturesRequest, TypeGetConfigRequest, TypeBarrierRequest, TypeRoleRequest,
		TypeGetAsyncRequest, TypeMultipartRequest, TypeBundleControl:
		return true
	}
	return false
}

// Request sends a message and waits for its answer: one message, or all parts of a
// multipart answer. A message without an answer of its own is followed by a barrier, and
// the list is empty. An error message from the switch is returned as *Error.
func (c *Conn) Request(ctx context.Context, m Message) ([]Message, error) {
	if !answered(m) {
		return nil, c.Apply(ctx, m)
	}
	k, err := c.newCall(1)
	if err != nil {
		return nil, err
	}
	b, err := Append(nil, k.first, m)
	if err == nil {
		err = c.enqueue(ctx, b, false)
	}
	if err != nil {
		c.remove(k)
		return nil, err
	}
	if err := c.wait(ctx, k); err != nil {
		return nil, fmt.Errorf("%v: %w", m.Type(), err)
	}
	replies, errs := k.results()
	if len(errs) > 0 {
		return nil, errs[0]
	}
	return replies, nil
}

// Apply sends messages, then a barrier, and waits for it. It returns nil where the switch
// accepted all; otherwise a *MessageError for each message that it refused, joined. The
// others took effect. A message that cannot be encoded ends the call at once; those before
// it may have been sent. For all or nothing use Bundle.
func (c *Conn) Apply(ctx context.Context, ms ...Message) error {
	k, err := c.newCall(uint32(len(ms)) + 1)
	if err != nil {
		return err
	}
	w := chunkWriter{c: c, ctx: ctx}
	for i, m := range ms {
		if err := w.add(k.first+uint32(i), m); err != nil {
			c.remove(k)
			return &MessageError{i, m, err}
		}
	}
	err = w.add(k.first+uint32(len(ms)), &BarrierRequest{})
	if err == nil {
		err = w.flush()
	}
	if err != nil {
		c.remove(k)
		return err
	}
	if err := c.wait(ctx, k); err != nil {
		return err
	}
	var errs []error
	_, refusals := k.results()
	for _, e := range refusals {
		if i := int(e.XID - k.first); i < len(ms) {
			errs = append(errs, &MessageError{i, ms[i], e})
		} else {
			errs = append(errs, fmt.Errorf("barrier: %w", e))
		}
	}
	return errors.Join(errs...)
}

// Barrier waits until the switch has finished everything sent before.
func (c *Conn) Barrier(ctx context.Context) error { return c.Apply(ctx) }

// chunkSize is how many bytes of a long list of messages are encoded before they are queued.
const chunkSize = 64 << 10

// chunkWriter encodes messages and queues them in chunks, with back-pressure.
type chunkWriter struct {
	c    *Conn
	ctx  context.Context
	e    encoder
	sent bool // some of it is queued
}

func (w *chunkWriter) add(xid uint32, m Message) error {
	encodeMessage(&w.e, xid, m)
	return w.full()
}

func (w *chunkWriter) full() error {
	if w.e.err != nil {
		return w.e.err
	}
	if len(w.e.b) < chunkSize {
		return nil
	}
	return w.flush()
}

func (w *chunkWriter) flush() error {
	err := w.c.enqueue(w.ctx, w.e.b, false)
	w.e.b = w.e.b[:0]
	w.sent = true
	return err
}

// BundleError says that a bundle did not take effect, and why.
type BundleError struct {
	// Messages names each message that the switch refused, in the order of the errors.
	Messages []*MessageError
	// Bundle are errors about the bundle itself, such as a refused commit.
	Bundle []error
}

// Error names the first refused message, or the first error about the bundle.
func (e *BundleError) Error() string {
	switch n := len(e.Messages); {
	case n > 1:
		return fmt.Sprintf("bundle: %v (and %d more)", e.Messages[0], n-1)
	case n == 1:
		return "bundle: " + e.Messages[0].Error()
	case len(e.Bundle) > 0:
		return "bundle: " + e.Bundle[0].Error()
	}
	return "bundle failed"
}

// Unwrap gives all errors.
func (e *BundleError) Unwrap() []error {
	var out []error
	for _, m := range e.Messages {
		out = append(out, m)
	}
	return append(out, e.Bundle...)
}

// Bundle makes messages (flow, group and port modifications; Open vSwitch also takes packet
// outs) take effect together, atomically and in order, or not at all. A refusal comes as
// *BundleError. Where the connection or ctx ends before the answer, the bundle may have been
// committed: read the state back. The messages may be used again afterwards.
//
// All messages go out in one stream. The commit waits for the barrier behind them: Open
// vSwitch 3.1 leaves out of the bundle a message that it refuses to add and would commit
// the others.
func (c *Conn) Bundle(ctx context.Context, ms []Message) error {
	if len(ms) == 0 {
		return nil
	}
	n := uint32(len(ms))
	// The ids: open, each message, barrier, commit, barrier.
	added := make(chan struct{})
	k := &call{n: n + 4, done: make(chan struct{}), milestone: added, milestoneAt: n + 1}
	if err := c.register(k); err != nil {
		return err
	}
	c.mu.Lock()
	c.bundle++
	id := c.bundle
	c.mu.Unlock()
	const flags = BundleAtomic | BundleOrdered
	w := chunkWriter{c: c, ctx: ctx}
	abandon := func(err error) error {
		c.remove(k)
		if !w.sent {
			return err
		}
		b, derr := Append(nil, c.nextXIDs(1), &BundleControl{id, BundleDiscard, flags})
		if derr == nil {
			derr = c.enqueue(context.Background(), b, true)
		}
		return errors.Join(err, derr)
	}
	if err := w.add(k.first, &BundleControl{id, BundleOpen, flags}); err != nil {
		return abandon(err)
	}
	add := BundleAdd{ID: id, Flags: flags}
	for i, m := range ms {
		add.Message = m
		if err := w.add(k.first+1+uint32(i), &add); err != nil {
			return abandon(&BundleError{Messages: []*MessageError{{i, m, err}}})
		}
	}
	err := w.add(k.first+n+1, &BarrierRequest{})
	if err == nil {
		err = w.flush()
	}
	if err != nil {
		return abandon(err)
	}
	if err := c.waitFor(ctx, k, added); err != nil {
		return abandon(fmt.Errorf("add to bundle of %d messages: %w", n, err))
	}
	if err := refusals(k, ms); err != nil {
		return abandon(err)
	}
	err = w.add(k.first+n+2, &BundleControl{id, BundleCommit, flags})
	if err == nil {
		err = w.add(k.first+n+3, &BarrierRequest{})
	}
	if err == nil {
		err = w.flush()
	}
	if err != nil {
		return abandon(err)
	}
	if err := c.wait(ctx, k); err != nil {
		return fmt.Errorf("commit bundle of %d messages: %w", n, err)
	}
	if err := refusals(k, ms); err != nil {
		return err
	}
	replies, _ := k.results()
	for _, r := range replies {
		if b, ok := r.(*BundleControl); ok && b.Kind == BundleCommitted {
			return nil
		}
	}
	return &BundleError{Bundle: []error{malformed("the switch did not confirm the commit")}}
}

// refusals makes a *BundleError of what the switch refused so far, nil where that is nothing.
func refusals(k *call, ms []Message) error {
	_, errs := k.results()
	if len(errs) == 0 {
		return nil
	}
	out := &BundleError{}
	for _, e := range errs {
		switch i := int(e.XID - k.first - 1); {
		case e.XID == k.first:
			out.Bundle = append(out.Bundle, fmt.Errorf("open: %w", e))
		case i < len(ms):
			out.Messages = append(out.Messages, &MessageError{i, ms[i], e})
		default:
			out.Bundle = append(out.Bundle, fmt.Errorf("commit: %w", e))
		}
	}
	return out
}

// multipart asks and gives the parts of the answer.
func (c *Conn) multipart(ctx context.Context, m *MultipartRequest) ([]*MultipartReply, error) {
	replies, err := c.Request(ctx, m)
	if err != nil {
		return nil, err
	}
	out := make([]*MultipartReply, len(replies))
	for i, r := range replies {
		p, ok := r.(*MultipartReply)
		if !ok || p.Kind != m.Kind {
			return nil, malformed("multipart request of kind %d answered by %v", m.Kind, r.Type())
		}
		out[i] = p
	}
	return out, nil
}

// all asks and joins one slice of the parts of the answer.
func all[T any](ctx context.Context, c *Conn, m *MultipartRequest, pick func(*MultipartReply) []T) ([]T, error) {
	parts, err := c.multipart(ctx, m)
	if err != nil {
		return nil, err
	}
	if len(parts) == 1 {
		return pick(parts[0]), nil
	}
	var out []T
	for _, p := range parts {
		out = append(out, pick(p)...)
	}
	return out, nil
}

// Describe asks for maker and version.
func (c *Conn) Describe(ctx context.Context) (Desc, error) {
	parts, err := c.multipart(ctx, &MultipartRequest{Kind: MultipartDesc})
	if err != nil {
		return Desc{}, err
	}
	return *parts[0].Desc, nil
}

// Flows asks for the flows that a filter picks, with their counters.
func (c *Conn) Flows(ctx context.Context, f FlowFilter) ([]FlowDesc, error) {
	return all(ctx, c, &MultipartRequest{Kind: MultipartFlowDesc, Flow: f}, func(p *MultipartReply) []FlowDesc { return p.Flows })
}

// Aggregate asks for the sum of the counters of the flows that a filter picks.
func (c *Conn) Aggregate(ctx context.Context, f FlowFilter) (Stats, error) {
	parts, err := c.multipart(ctx, &MultipartRequest{Kind: MultipartAggregate, Flow: f})
	if err != nil {
		return Stats{}, err
	}
	return *parts[0].Aggregate, nil
}

// Tables asks for the counters of the tables.
func (c *Conn) Tables(ctx context.Context) ([]TableStats, error) {
	return all(ctx, c, &MultipartRequest{Kind: MultipartTable}, func(p *MultipartReply) []TableStats { return p.Tables })
}

// Ports asks for the ports.
func (c *Conn) Ports(ctx context.Context) ([]Port, error) {
	return all(ctx, c, &MultipartRequest{Kind: MultipartPortDesc}, func(p *MultipartReply) []Port { return p.PortDescs })
}

// PortStats asks for the counters of a port, or of all with PortAny or 0.
func (c *Conn) PortStats(ctx context.Context, port uint32) ([]PortStats, error) {
	return all(ctx, c, &MultipartRequest{Kind: MultipartPortStats, Port: port}, func(p *MultipartReply) []PortStats { return p.Ports })
}

// Groups asks for the groups.
func (c *Conn) Groups(ctx context.Context) ([]GroupDesc, error) {
	return all(ctx, c, &MultipartRequest{Kind: MultipartGroupDesc}, func(p *MultipartReply) []GroupDesc { return p.GroupDescs })
}

// GroupStats asks for the counters of the groups.
func (c *Conn) GroupStats(ctx context.Context) ([]GroupStats, error) {
	return all(ctx, c, &MultipartRequest{Kind: MultipartGroupStats}, func(p *MultipartReply) []GroupStats { return p.Groups })
}

// Meters asks for the meters.
func (c *Conn) Meters(ctx context.Context) ([]MeterDesc, error) {
	return all(ctx, c, &MultipartRequest{Kind: MultipartMeterDesc}, func(p *MultipartReply) []MeterDesc { return p.MeterDescs })
}

// MeterStats asks for the counters of the meters.
func (c *Conn) MeterStats(ctx context.Context) ([]MeterStatistics, error) {
	return all(ctx, c, &MultipartRequest{Kind: MultipartMeterStats}, func(p *MultipartReply) []MeterStatistics { return p.Meters })
}

// SetRole asks for a role and gives the one that the switch confirms.
func (c *Conn) SetRole(ctx context.Context, role Role, generation uint64) (RoleReply, error) {
	replies, err := c.Request(ctx, &RoleRequest{role, generation})
	if err != nil {
		return RoleReply{}, err
	}
	r, ok := replies[0].(*RoleReply)
	if !ok {
		return RoleReply{}, malformed("role request answered by %v", replies[0].Type())
	}
	return *r, nil
}
