package scale_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"yakumo/agent"
	"yakumo/datapath"
	"yakumo/hypervisor/fake"
	"yakumo/link"
	"yakumo/model"
)

// order is what the child is told at first, as one line of JSON; then "count" by line, until
// its input ends.
type order struct {
	Server string
	Dir    string
	Tokens []string // of host 0, 1, …
}

// counts is a line that answers "count": rows by kind of each host.
type counts []map[model.RowKind]int

// runHosts is the child: all hosts, until standard input ends. It writes lines: "up", a mark
// ("m <host> <kind> <number> <unix nanoseconds>"), or "c <counts>".
func runHosts() {
	in := bufio.NewReaderSize(os.Stdin, 1<<20)
	line, err := in.ReadBytes('\n')
	fail := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, "hosts:", err)
			os.Exit(1)
		}
	}
	fail(err)
	var o order
	fail(json.Unmarshal(line, &o))
	say := &speaker{}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	switches := make([]*countingSwitch, len(o.Tokens))
	limit := make(chan struct{}, 8)
	var start sync.WaitGroup
	for i, token := range o.Tokens {
		limit <- struct{}{}
		start.Go(func() {
			defer func() { <-limit }()
			a, sw, err := newHost(ctx, o, i, token, say)
			fail(err)
			switches[i] = sw
			wg.Go(func() { fail(a.Run(ctx)) })
		})
	}
	start.Wait()
	say.line("up")
	for {
		word, err := in.ReadString('\n')
		if err == io.EOF {
			break
		}
		fail(err)
		if strings.TrimSpace(word) == "count" {
			var all counts
			for _, s := range switches {
				all = append(all, s.count())
			}
			b, err := json.Marshal(all)
			fail(err)
			say.line("c " + string(b))
		}
	}
	cancel()
	wg.Wait()
}

func hostName(i int) string { return fmt.Sprintf("host-%04d", i) }

// tunnelIP is host i's address on the underlay; it is never used.
func tunnelIP(i int) netip.Addr { return netip.AddrFrom4([4]byte{100, 64, byte(i >> 8), byte(i)}) }

func newHost(ctx context.Context, o order, i int, token string, say *speaker) (*agent.Agent, *countingSwitch, error) {
	dir := filepath.Join(o.Dir, hostName(i))
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	sw := &countingSwitch{host: i, say: say, rows: map[model.RowID]struct{}{}, devices: map[model.ID]bool{}}
	var client *link.Client
	a, err := agent.New(agent.Config{Dir: dir, Hypervisor: fake.New(fake.Config{Host: fake.NewHost(fake.HostConfig{})}), Datapath: sw, Taps: noTaps{}, Disks: noDisks{},
		TunnelIP: tunnelIP(i), HostName: hostName(i), Zone: "nova", Version: "scale", BootID: "boot", Log: log,
		Link: func(h link.Handler) agent.Link {
			client = link.NewClient(link.ClientConfig{Servers: []string{o.Server}, Dir: dir, Version: "scale", Handler: h, Log: log, Silence: 30 * time.Second})
			return client
		}})
	if err != nil {
		return nil, nil, err
	}
	return a, sw, client.Join(ctx, token, hostName(i))
}

// speaker writes lines of several goroutines.
type speaker struct{ mu sync.Mutex }

func (s *speaker) line(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := os.Stdout.WriteString(text + "\n"); err != nil {
		os.Exit(1) // nobody listens any more
	}
}

// marked is the block of the address pairs that number changes.
var marked = netip.MustParsePrefix("198.18.0.0/15")

// markOf gives the number that a row carries, and false where it has none.
func markOf(row model.HostRow) (uint32, bool) {
	prefix := netip.Prefix{}
	switch r := row.(type) {
	case *model.HostPort:
		if len(r.Pairs) == 1 {
			prefix = r.Pairs[0].Prefix
		}
	case *model.HostPeer:
		if len(r.Pairs) == 1 {
			prefix = r.Pairs[0].Prefix
		}
	case *model.HostMember:
		prefix = r.Prefixes[len(r.Prefixes)-1]
	}
	if !prefix.IsValid() || !marked.Contains(prefix.Addr()) {
		return 0, false
	}
	b := prefix.Addr().As4()
	return binary.BigEndian.Uint32(b[:]) &^ (198<<24 | 18<<16), true
}

// pair numbers a change.
func pair(n uint32) []model.AddressPair {
	return []model.AddressPair{{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, 198<<24|18<<16|n))), 32)}}
}

// countingSwitch is a data path that knows which rows it has, and tells when it was given one that is numbered.
type countingSwitch struct {
	host int
	say  *speaker

	mu      sync.Mutex
	rows    map[model.RowID]struct{}
	devices map[model.ID]bool
}

var _ datapath.Driver = (*countingSwitch)(nil)

func (s *countingSwitch) Apply(_ context.Context, upserts []model.HostRow, removes []model.RowID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range removes {
		delete(s.rows, id)
	}
	s.take(upserts)
	return nil
}

func (s *countingSwitch) take(rows []model.HostRow) {
	for _, r := range rows {
		id := r.RowID()
		s.rows[id] = struct{}{}
		if n, ok := markOf(r); ok {
			s.say.line(fmt.Sprintf("m %d %s %d %d", s.host, id.Kind, n, time.Now().UnixNano()))
		}
	}
}

func (s *countingSwitch) Prune(_ context.Context, desired iter.Seq[model.HostRow]) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.rows)
	for r := range desired {
		s.rows[r.RowID()] = struct{}{}
	}
	return nil
}

func (s *countingSwitch) Attach(_ context.Context, port model.ID, _ string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.devices[port] = true
	return nil
}

func (s *countingSwitch) Detach(_ context.Context, port model.ID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.devices, port)
	return nil
}

func (s *countingSwitch) Installed(port model.ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, known := s.rows[model.RowID{Kind: model.RowPort, Key: port}]
	return known && s.devices[port]
}

func (s *countingSwitch) MetadataOwner(netip.Addr) (datapath.Owner, bool) {
	return datapath.Owner{}, false
}

func (s *countingSwitch) Counters() datapath.Counters {
	s.mu.Lock()
	defer s.mu.Unlock()
	return datapath.Counters{Rows: len(s.rows), Connected: true}
}

func (s *countingSwitch) Close() error { return nil }

func (s *countingSwitch) count() map[model.RowKind]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[model.RowKind]int{}
	for id := range s.rows {
		out[id.Kind]++
	}
	return out
}

type noTaps struct{}

func (noTaps) Ensure(context.Context, string, int) error      { return nil }
func (noTaps) Remove(context.Context, string) error           { return nil }
func (noTaps) List(context.Context, string) ([]string, error) { return nil, nil }
func (noTaps) MTU(context.Context, netip.Addr) (int, error)   { return 1500, nil }

type noDisks struct{ agent.QemuImg }

func (noDisks) Overlay(_ context.Context, path, _, _ string, _ int64) error {
	return os.WriteFile(path, nil, 0o600)
}

func (noDisks) Flatten(_ context.Context, path, _ string) error {
	return os.WriteFile(path, nil, 0o600)
}

func (noDisks) Blank(_ context.Context, path string, _ int64) error {
	return os.WriteFile(path, nil, 0o600)
}
