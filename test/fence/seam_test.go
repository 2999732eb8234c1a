package fence_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"iter"
	"net/netip"
	"os"
	"sync"
	"time"

	"yakumo/datapath"
	"yakumo/hypervisor"
	"yakumo/link"
	"yakumo/model"
)

// hostLink is the link of an agent, whose images are in memory.
type hostLink struct {
	*link.Client
	h *host
	l *agentLife
}

func (k *hostLink) Certificates() (*tls.Certificate, *x509.CertPool, error) {
	return k.h.cred.Certificates()
}

func (k *hostLink) Blob(_ context.Context, id model.ID, offset int64) (io.ReadCloser, error) {
	if k.l.dead.Load() || id != k.h.c.image.BlobID {
		return nil, errDead
	}
	return io.NopCloser(bytes.NewReader(k.h.c.bytes[offset:])), nil
}

// disks are files that say what they would be.
type disks struct{}

func (disks) Format() string { return "qcow2" }

func (disks) Overlay(_ context.Context, path, _, _ string, _ int64) error {
	return os.WriteFile(path, []byte("disk"), 0o600)
}
func (disks) Flatten(_ context.Context, path, _ string) error {
	return os.WriteFile(path, []byte("flat"), 0o600)
}
func (disks) Blank(_ context.Context, path string, _ int64) error {
	return os.WriteFile(path, nil, 0o600)
}
func (disks) Empty(_ context.Context, path, _ string, _ int64) error {
	return os.WriteFile(path, nil, 0o600)
}
func (disks) Rebase(context.Context, string, string, string) error { return nil }
func (disks) Resize(context.Context, string, string, int64) error  { return nil }
func (disks) Size(context.Context, string, string) (int64, error)  { return 1 << 30, nil }

// mortalHypervisor does nothing any more for an agent that is dead.
type mortalHypervisor struct {
	hypervisor.Driver
	h *host
	l *agentLife
}

func (m *mortalHypervisor) Ensure(ctx context.Context, g hypervisor.Guest) error {
	if m.l.dead.Load() {
		return errDead
	}
	return m.Driver.Ensure(ctx, g)
}
func (m *mortalHypervisor) Remove(ctx context.Context, id string) error {
	if m.l.dead.Load() {
		return errDead
	}
	return m.Driver.Remove(ctx, id)
}
func (m *mortalHypervisor) Start(ctx context.Context, id string) error {
	if m.l.dead.Load() {
		return errDead
	}
	return m.Driver.Start(ctx, id)
}
func (m *mortalHypervisor) Stop(ctx context.Context, id string, grace time.Duration) error {
	if m.l.dead.Load() {
		return errDead
	}
	return m.Driver.Stop(ctx, id, grace)
}
func (m *mortalHypervisor) Receive(ctx context.Context, g hypervisor.Guest) (hypervisor.Reception, error) {
	if m.l.dead.Load() {
		return nil, errDead
	}
	return m.Driver.(hypervisor.Migrator).Receive(ctx, g)
}
func (m *mortalHypervisor) Send(ctx context.Context, id string, to hypervisor.Passage) error {
	if m.l.dead.Load() {
		return errDead
	}
	return m.Driver.(hypervisor.Migrator).Send(ctx, id, to)
}
func (m *mortalHypervisor) Abort(ctx context.Context, id string) error {
	if m.l.dead.Load() {
		return errDead
	}
	return m.Driver.(hypervisor.Migrator).Abort(ctx, id)
}
func (m *mortalHypervisor) Hurry(ctx context.Context, id string) error {
	if m.l.dead.Load() {
		return errDead
	}
	return m.Driver.(hypervisor.Migrator).Hurry(ctx, id)
}
func (m *mortalHypervisor) Progress(ctx context.Context, id string) (hypervisor.MoveProgress, error) {
	return m.Driver.(hypervisor.Migrator).Progress(ctx, id)
}

// plainSwitch is a data path that knows which rows and devices it has; it outlives agents.
type plainSwitch struct {
	mu      sync.Mutex
	rows    map[model.RowID]bool
	devices map[model.ID]bool
}

type mortalSwitch struct {
	*plainSwitch
	l *agentLife
}

var _ datapath.Driver = (*mortalSwitch)(nil)

func (s *mortalSwitch) Apply(_ context.Context, upserts []model.HostRow, removes []model.RowID) error {
	if s.l.dead.Load() {
		return errDead
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range removes {
		delete(s.rows, id)
	}
	for _, r := range upserts {
		s.rows[r.RowID()] = true
	}
	return nil
}

func (s *mortalSwitch) Prune(_ context.Context, desired iter.Seq[model.HostRow]) error {
	if s.l.dead.Load() {
		return errDead
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.rows)
	for r := range desired {
		s.rows[r.RowID()] = true
	}
	return nil
}

func (s *mortalSwitch) Attach(_ context.Context, port model.ID, _ string) error {
	if s.l.dead.Load() {
		return errDead
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.devices[port] = true
	return nil
}

func (s *mortalSwitch) Detach(_ context.Context, port model.ID) error {
	if s.l.dead.Load() {
		return errDead
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.devices, port)
	return nil
}

func (s *plainSwitch) Installed(port model.ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rows[model.RowID{Kind: model.RowPort, Key: port}] && s.devices[port]
}

func (s *plainSwitch) MetadataOwner(netip.Addr) (datapath.Owner, bool) {
	return datapath.Owner{}, false
}
func (s *plainSwitch) Counters() datapath.Counters { return datapath.Counters{Connected: true} }
func (s *plainSwitch) Close() error                { return nil }
