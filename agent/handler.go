package agent

import (
	"context"
	"encoding/json"
	"maps"
	"reflect"
	"time"

	"yakumo/fault"
	"yakumo/hypervisor"
	"yakumo/link"
	"yakumo/model"
)

var _ link.Handler = (*Agent)(nil)

// Apply implements link.Handler.
func (a *Agent) Apply(_ context.Context, b model.HostBatch) error {
	before := map[model.ID]*model.HostServer{}
	for _, r := range b.Upserts {
		if s, ok := r.(*model.HostServer); ok {
			before[s.ID] = a.ledger.server(s.ID)
		}
	}
	first := a.ledger.Generation() == 0 || b.Full && !a.ledger.toldSince(a.cfg.BootID)
	touched, err := a.ledger.apply(b, a.cfg.BootID)
	if err != nil {
		return err
	}
	for _, id := range touched {
		a.names.look(id, a.ledger.row(id))
	}
	a.ports.look(touched)
	devices := a.keeper.look(touched)
	for _, id := range touched {
		switch id.Kind {
		case model.RowServer:
			now, old := a.ledger.server(id.Key), before[id.Key]
			if now == nil || old != nil && (now.Deleted && !old.Deleted || now.HardReboots > old.HardReboots) {
				a.queue.interrupt(id.Key) // it need not wait for a guest to shut down, or for an image
			}
			devices[id.Key] = true
		case model.RowPort:
			if p := a.ledger.port(id.Key); p != nil && p.DeviceID != "" && a.ledger.server(p.DeviceID) != nil {
				devices[p.DeviceID] = true
			}
		}
	}
	if first {
		a.keeper.lookAll()
		maps.Copy(devices, a.known())
	}
	for id := range devices {
		a.queue.add(id)
	}
	return nil
}

// Generation implements link.Handler.
func (a *Agent) Generation() int64 { return a.ledger.Generation() }

// Reports implements link.Handler.
func (a *Agent) Reports() ([]model.ServerReport, []model.PortReport) {
	// What changes between this answer and its sending may be sent first; so all goes out once more.
	a.repeat.Store(true)
	a.retry()
	return a.allReports()
}

func (a *Agent) allReports() ([]model.ServerReport, []model.PortReport) {
	var servers []model.ServerReport
	for id, p := range a.ledger.allProgress() {
		r := a.reportOf(id, *p)
		a.mu.Lock()
		old := a.sent[id]
		r.At = old.At
		if !reflect.DeepEqual(old, r) {
			r.At = a.now()
			a.sent[id] = r
		}
		a.mu.Unlock()
		servers = append(servers, r)
	}
	return servers, a.ports.reports()
}

// Answer implements link.Handler. The questions are "console", a model.ConsoleQuery; "diagnostics", a
// model.DiagnosticsQuery; "password", a model.PasswordQuery; "interrupt", a model.InterruptQuery; "uptime", nothing, for a model.HostUptime; "cache", a model.CacheQuery; "capture", a model.CaptureQuery; "inject", a model.InjectQuery; and "inventory", nothing, for a
// model.Inventory.
func (a *Agent) Answer(ctx context.Context, name string, body []byte) ([]byte, error) {
	switch name {
	case "console":
		return a.console(ctx, body)
	case "diagnostics":
		return question(body, func(q model.DiagnosticsQuery) (model.Diagnostics, error) { return a.diagnostics(ctx, q) })
	case "password":
		return question(body, func(q model.PasswordQuery) (struct{}, error) { return a.setPassword(ctx, q) })
	case "cache":
		return question(body, func(q model.CacheQuery) (struct{}, error) { return struct{}{}, a.images.prefetch(q) })
	case "uptime":
		return question(body, func(struct{}) (model.HostUptime, error) { return uptime() })
	case "interrupt":
		return question(body, func(q model.InterruptQuery) (struct{}, error) { return struct{}{}, a.interrupt(ctx, q) })
	case "capture":
		return question(body, func(q model.CaptureQuery) (model.CaptureAnswer, error) { return a.captures.ask(ctx, q) })
	case "inventory":
		return question(body, func(q struct{}) (model.Inventory, error) { return a.inventory(ctx, q) })
	case "inject":
		return question(body, func(q model.InjectQuery) (struct{}, error) { return struct{}{}, a.inject(ctx, q) })
	}
	return nil, fault.New(fault.NotImplemented, "This host does not know the question %q.", name)
}

// console gives the end of a guest's console log.
func (a *Agent) console(ctx context.Context, body []byte) ([]byte, error) {
	var q model.ConsoleQuery
	if err := json.Unmarshal(body, &q); err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "The question is malformed.")
	}
	if a.ledger.server(q.ServerID) == nil {
		return nil, fault.New(fault.NotFound, "Instance %s could not be found.", q.ServerID)
	}
	c, ok := a.cfg.Hypervisor.(hypervisor.Consoler)
	if !ok {
		return nil, fault.New(fault.NotImplemented, "The hypervisor keeps no console log.")
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	b, err := c.ConsoleLog(ctx, q.ServerID, q.MaxBytes)
	if fault.Is(err, fault.NotFound) {
		return nil, nil // a guest that is still being made has written nothing
	}
	return b, err
}
