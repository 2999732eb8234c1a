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
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"yakumo/agent"
	"yakumo/agent/agenttest"
	"yakumo/datapath"
	"yakumo/hypervisor/fake"
	"yakumo/link"
	"yakumo/model"
)

// order is what the child is told at first, as one line of JSON; then "count" or "restart <host>" by line, until
// its input ends.
type order struct {
	Server string
	Dir    string
	Tokens []string // of host 0, 1, …
	Whole  bool     // hosts reach each other, so that guests move, and their disks are real
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
	hosts := make([]*host, len(o.Tokens))
	limit := make(chan struct{}, 8)
	var start sync.WaitGroup
	for i, token := range o.Tokens {
		limit <- struct{}{}
		start.Go(func() {
			defer func() { <-limit }()
			h, err := newHost(o, i, say)
			fail(err)
			hosts[i] = h
			fail(h.client.Join(ctx, token, hostName(i)))
			h.run(ctx, &wg, fail)
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
			for _, h := range hosts {
				all = append(all, h.sw.count())
			}
			b, err := json.Marshal(all)
			fail(err)
			say.line("c " + string(b))
		}
		if n, ok := strings.CutPrefix(strings.TrimSpace(word), "restart "); ok {
			i, err := strconv.Atoi(n)
			fail(err)
			hosts[i].stop()
			fail(hosts[i].renew(o, i))
			hosts[i].run(ctx, &wg, fail)
		}
	}
	cancel()
	wg.Wait()
}

func hostName(i int) string { return fmt.Sprintf("host-%04d", i) }

// tunnelIP is host i's address on the underlay; it is never used.
func tunnelIP(i int) netip.Addr { return netip.AddrFrom4([4]byte{100, 64, byte(i >> 8), byte(i)}) }

// host is one host: what outlives its agent, and its agent.
type host struct {
	sw      *countingSwitch
	guests  *fake.Host
	taps    *agenttest.Taps
	channel string // where other hosts reach it; "": nowhere

	client *link.Client
	a      *agent.Agent
	cancel context.CancelFunc
	ended  chan struct{}
}

func newHost(o order, i int, say *speaker) (*host, error) {
	h := &host{guests: fake.NewHost(fake.HostConfig{}), taps: &agenttest.Taps{},
		sw: &countingSwitch{host: i, say: say, rows: map[model.RowID]uint32{}, devices: map[model.ID]bool{}}}
	if o.Whole {
		ln, err := net.Listen("tcp", fmt.Sprintf("127.1.%d.%d:0", i>>8, i&255)) // its number, for all lives of the agent; no connection gets it meanwhile
		if err != nil {
			return nil, err
		}
		h.channel = ln.Addr().String()
		if err := ln.Close(); err != nil {
			return nil, err
		}
	}
	return h, h.renew(o, i)
}

// renew makes the host's agent.
func (h *host) renew(o order, i int) (err error) {
	dir := filepath.Join(o.Dir, hostName(i))
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	cfg := agent.Config{Dir: dir, Hypervisor: fake.New(fake.Config{Host: h.guests}), Datapath: h.sw, Taps: h.taps, Disks: noDisks{},
		TunnelIP: tunnelIP(i), HostName: hostName(i), Zone: "nova", Version: "scale", BootID: "boot", Log: log,
		Link: func(x link.Handler) agent.Link {
			h.client = link.NewClient(link.ClientConfig{Servers: []string{o.Server}, Dir: dir, Version: "scale", Handler: x, Log: log, Silence: 30 * time.Second})
			return h.client
		}}
	if o.Whole {
		cfg.Disks = agent.QemuImg{}
		cfg.Channel = netip.MustParseAddrPort(h.channel)
		cfg.Peers = func() (net.Listener, error) {
			for end := time.Now().Add(10 * time.Second); ; {
				ln, err := net.Listen("tcp", h.channel)
				if err == nil || time.Now().After(end) {
					return ln, err
				}
			}
		}
	}
	h.a, err = agent.New(cfg)
	return err
}

// run runs the agent until ctx ends, or stop.
func (h *host) run(ctx context.Context, wg *sync.WaitGroup, fail func(error)) {
	ctx, h.cancel = context.WithCancel(ctx)
	a, ended := h.a, make(chan struct{})
	h.ended = ended
	wg.Go(func() { fail(a.Run(ctx)); close(ended) })
}

// stop ends the agent; its guests run on.
func (h *host) stop() {
	h.cancel()
	<-h.ended
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
	rows    map[model.RowID]uint32 // and the number that each has; 0: none
	devices map[model.ID]bool
}

var _ datapath.Driver = (*countingSwitch)(nil)

func (s *countingSwitch) Apply(_ context.Context, upserts []model.HostRow, removes []model.RowID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range removes {
		delete(s.rows, id)
	}
	for _, r := range upserts {
		id := r.RowID()
		s.rows[id] = s.look(r, s.rows[id])
	}
	return nil
}

// look tells of a row whose number is new, and gives the number. Numbers are not 0.
func (s *countingSwitch) look(r model.HostRow, was uint32) uint32 {
	n, ok := markOf(r)
	if ok && n != was {
		s.say.line(fmt.Sprintf("m %d %s %d %d", s.host, r.RowID().Kind, n, time.Now().UnixNano()))
	}
	return n
}

// Prune may bring what is new as Apply does: the agent gives everything now and then, and what has just changed with it.
func (s *countingSwitch) Prune(_ context.Context, desired iter.Seq[model.HostRow]) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	rows := make(map[model.RowID]uint32, len(s.rows))
	for r := range desired {
		id := r.RowID()
		rows[id] = s.look(r, s.rows[id])
	}
	s.rows = rows
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

type noDisks struct{ agent.QemuImg }

func (noDisks) Format() string { return "qcow2" }

func (noDisks) Overlay(_ context.Context, path, _, _ string, _ int64) error {
	return os.WriteFile(path, nil, 0o600)
}

func (noDisks) Flatten(_ context.Context, path, _ string) error {
	return os.WriteFile(path, nil, 0o600)
}

func (noDisks) Blank(_ context.Context, path string, _ int64) error {
	return os.WriteFile(path, nil, 0o600)
}
