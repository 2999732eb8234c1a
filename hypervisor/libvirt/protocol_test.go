package libvirt

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"yakumo/fault"
	"yakumo/hypervisor"
)

func TestXDRRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.String().Draw(t, "s")
		o := rapid.StringN(1, -1, -1).Draw(t, "o")
		n := rapid.Int32().Draw(t, "n")
		ref := domainRef{name: rapid.String().Draw(t, "name")}
		copy(ref.uuid[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "uuid"))
		e := new(encoder).str(s).some(o).none().i32(n).dom(ref)
		if len(e.buf)%4 != 0 {
			t.Fatalf("%d bytes are not padded", len(e.buf))
		}
		d := decoder{buf: e.buf}
		if got := d.str(); got != s {
			t.Fatalf("string %q, want %q", got, s)
		}
		if got := d.opt(); got != o {
			t.Fatalf("optional string %q, want %q", got, o)
		}
		if got := d.opt(); got != "" {
			t.Fatalf("absent string %q", got)
		}
		if got := d.i32(); got != n {
			t.Fatalf("number %d, want %d", got, n)
		}
		if got := d.dom(); got != ref {
			t.Fatalf("domain %v, want %v", got, ref)
		}
		if d.err != nil || len(d.buf) != 0 {
			t.Fatalf("%d bytes are left, %v", len(d.buf), d.err)
		}
	})
}

// TestFrameOnTheWire pins the layout of virnetprotocol.x.
func TestFrameOnTheWire(t *testing.T) {
	got := appendFrame(nil, header{prog: progRemote, vers: 1, proc: procConnectOpen, kind: kindCall, serial: 7}, []byte{1, 2, 3, 4})
	want := []byte{0, 0, 0, 32, 0x20, 0, 0x80, 0x86, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 1, 2, 3, 4}
	if !bytes.Equal(got, want) {
		t.Errorf("frame % x, want % x", got, want)
	}
}

func FuzzReadFrame(f *testing.F) {
	f.Add(appendFrame(nil, header{prog: progRemote, vers: 1, proc: 1, kind: kindReply, serial: 1}, []byte("12345678")))
	f.Add(appendFrame(nil, header{prog: progKeepalive, vers: 1, proc: procPing, kind: kindEvent}, nil))
	f.Add([]byte{0, 0, 0, 27})
	f.Add([]byte{1, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		h, p, err := readFrame(bytes.NewReader(b))
		if err != nil {
			return
		}
		again := appendFrame(nil, h, p)
		if !bytes.HasPrefix(b, again) {
			t.Errorf("% x was read as % x", b, again)
		}
	})
}

// FuzzReplies feeds every decoder of what libvirtd sends.
func FuzzReplies(f *testing.F) {
	dom := new(encoder).str("x").fixed(make([]byte, 16)).i32(3).buf
	f.Add(new(encoder).i32(42).i32(10).some("Domain not found").i32(2).none().none().none().none().i32(0).i32(0).none().buf)
	f.Add(append(new(encoder).i32(1).buf, append(slices.Clone(dom), 0, 0, 0, 5, 0, 0, 0, 1)...))
	f.Add(append(new(encoder).u32(1).buf, append(slices.Clone(dom), new(encoder).u32(1).str("state.state").u32(1).i32(5).buf...)...))
	f.Add(bytes.Repeat([]byte{0, 0, 0, 65}, 40))
	f.Add(new(encoder).i32(1).i32(2).u64(0).u64(3).u64(5).buf)
	f.Add(append(new(encoder).u32(1).buf, append(slices.Clone(dom), new(encoder).u32(2).str("block.count").u32(2).u32(1<<31).str("block.0.name").u32(7).str("vda").buf...)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := decodeError(b); err == nil || err.Error() == "" {
			t.Error("an error that is none")
		}
		if l, err := decodeLifecycle(b); err == nil {
			eventPower(l.event, l.detail)
		}
		d := decoder{buf: b}
		for _, s := range decodeStats(&d) {
			powerOf(s.state, s.reason)
		}
		decodeNode(&decoder{buf: b})
		if j, err := decodeJob(&decoder{buf: b}); err == nil && len(b) < 32 {
			t.Errorf("%d bytes are the job %+v", len(b), j)
		}
		if c, err := decodeCounters(&decoder{buf: b}); err == nil {
			c.diagnostics(liveXML{})
		}
	})
}

// FuzzForeignXML feeds what other programs can put into a domain's metadata or a host's capabilities.
func FuzzForeignXML(f *testing.F) {
	f.Add(`<guest digest="x"><consoleLog>/a</consoleLog><consoleLogBytes>5</consoleLogBytes><port id="a" mac="b" tap="c"/></guest>`)
	f.Add(`<guest><consoleLogBytes>99999999999999999999</consoleLogBytes></guest>`)
	f.Add(`<capabilities><host><cpu><arch>x86_64</arch><topology sockets="1"/></cpu></host><guest><os_type>hvm</os_type></guest></capabilities>`)
	f.Add(`<domain><devices><disk type="file" device="disk"><source file="/a"/><target dev="vdb"/><serial>s</serial></disk><interface type="ethernet"><mac address="x"/></interface></devices></domain>`)
	f.Fuzz(func(t *testing.T, text string) {
		if r, err := parseRecord(text); err == nil {
			if r.logBound <= 0 {
				t.Errorf("a log is bound to %d bytes", r.logBound)
			}
			if r.log != "" && !strings.HasPrefix(r.log, "/") {
				t.Errorf("the log is at %q", r.log)
			}
		}
		if h, err := parseHost(text); err == nil {
			h.emulator()
		}
		if l, err := parseLive(text); err == nil {
			if _, _, err := l.changes(devices(sample(), platform{})); err != nil {
				t.Error(err)
			}
		}
	})
}

// server is a libvirtd of which a test says every answer.
type server struct {
	t    *testing.T
	path string
	nc   chan net.Conn
}

func newServer(t *testing.T) *server {
	s := &server{t: t, path: filepath.Join(t.TempDir(), "s"), nc: make(chan net.Conn, 4)}
	l, err := net.Listen("unix", s.path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			s.nc <- nc
		}
	}()
	return s
}

// connect dials and answers what opens a connection.
func (s *server) connect(cfg connConfig) (*conn, net.Conn) {
	s.t.Helper()
	cfg.socket = s.path
	type result struct {
		c   *conn
		err error
	}
	dialled := make(chan result, 1)
	go func() {
		c, err := dial(s.t.Context(), cfg)
		dialled <- result{c, err}
	}()
	nc := <-s.nc
	s.t.Cleanup(func() { nc.Close() })
	s.reply(nc, s.expect(nc, procAuthList), new(encoder).u32(1).u32(0).buf)
	s.reply(nc, s.expect(nc, procConnectOpen), nil)
	r := <-dialled
	if r.err != nil {
		s.t.Fatal(r.err)
	}
	s.t.Cleanup(func() { r.c.end(errClosed) })
	return r.c, nc
}

func (s *server) expect(nc net.Conn, proc int32) header {
	s.t.Helper()
	h, _, err := readFrame(nc)
	if err != nil || h.proc != proc {
		s.t.Fatalf("got %+v, %v, want procedure %d", h, err, proc)
	}
	return h
}

func (s *server) reply(nc net.Conn, h header, payload []byte) {
	s.t.Helper()
	h.kind = kindReply
	s.write(nc, h, payload)
}

func (s *server) write(nc net.Conn, h header, payload []byte) {
	s.t.Helper()
	if _, err := nc.Write(appendFrame(nil, h, payload)); err != nil {
		s.t.Fatal(err)
	}
}

func TestLateReplyIsDropped(t *testing.T) {
	s := newServer(t)
	c, nc := s.connect(connConfig{})
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan error, 1)
	go func() {
		_, err := c.call(ctx, procGetHostname, &encoder{})
		gone <- err
	}()
	first := s.expect(nc, procGetHostname)
	cancel()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Errorf("the cancelled call: %v", err)
	}
	s.reply(nc, first, new(encoder).str("late").buf)
	go func() { s.reply(nc, s.expect(nc, procGetHostname), new(encoder).str("right").buf) }()
	d, err := c.call(t.Context(), procGetHostname, &encoder{})
	if err != nil || d.str() != "right" {
		t.Errorf("the next call: %v", err)
	}
}

func TestPingIsAnswered(t *testing.T) {
	s := newServer(t)
	_, nc := s.connect(connConfig{})
	s.write(nc, header{prog: progKeepalive, vers: 1, proc: procPing, kind: kindEvent}, nil)
	h, _, err := readFrame(nc)
	if err != nil || h.prog != progKeepalive || h.proc != procPong || h.kind != kindEvent {
		t.Errorf("the answer to a ping: %+v, %v", h, err)
	}
}

func TestSilenceEndsTheConnection(t *testing.T) {
	s := newServer(t)
	c, nc := s.connect(connConfig{ping: 100 * time.Millisecond, stall: time.Second})
	go io.Copy(io.Discard, nc)
	if _, err := c.call(t.Context(), procGetHostname, &encoder{}); err == nil || !strings.Contains(err.Error(), "said nothing") {
		t.Errorf("a call that is never answered: %v", err)
	}
}

func TestNonsenseEndsTheConnection(t *testing.T) {
	for name, frame := range map[string][]byte{
		"short":   {0, 0, 0, 3},
		"long":    {0xff, 0, 0, 0},
		"program": appendFrame(nil, header{prog: 1, vers: 1, kind: kindReply}, nil),
		"version": appendFrame(nil, header{prog: progRemote, vers: 2, kind: kindReply}, nil),
		"kind":    appendFrame(nil, header{prog: progRemote, vers: 1, kind: 9}, nil),
	} {
		s := newServer(t)
		c, nc := s.connect(connConfig{})
		if _, err := nc.Write(append(frame, make([]byte, 64)...)); err != nil {
			t.Fatal(err)
		}
		<-c.done
		var lost *lostError
		if _, err := c.call(t.Context(), procGetHostname, &encoder{}); !errors.As(err, &lost) {
			t.Errorf("a call after a frame of a bad %s: %v", name, err)
		}
	}
}

func TestPasswordIsRefused(t *testing.T) {
	s := newServer(t)
	done := make(chan error, 1)
	go func() {
		_, err := dial(t.Context(), connConfig{socket: s.path})
		done <- err
	}()
	nc := <-s.nc
	defer nc.Close()
	s.reply(nc, s.expect(nc, procAuthList), new(encoder).u32(1).u32(2).buf) // polkit
	if err := <-done; err == nil || !strings.Contains(err.Error(), "auth_unix_rw") {
		t.Errorf("dial: %v", err)
	}
}

func TestErrorKinds(t *testing.T) {
	for code, want := range map[int]fault.Kind{
		codeNoDomain: fault.NotFound, codeOperationInvalid: fault.Conflict,
		codeOperationTimeout: fault.Unavailable, 1: fault.Internal,
	} {
		said := &Error{Code: code, Message: "words"}
		err := refused("x", "start", said)
		if fault.KindOf(err) != want || !errors.Is(err, said) || !strings.Contains(err.Error(), "words") {
			t.Errorf("code %d: %v of kind %v, want %v", code, err, fault.KindOf(err), want)
		}
	}
	if err := refused("x", "start", nil); err != nil {
		t.Error(err)
	}
}

func sample() hypervisor.Guest {
	return hypervisor.Guest{
		ID: "0b7e8a52-7f0e-4b5e-9d0c-0f0a5a3f9a01", Name: "yk-0b7e8a52-7f0e-4b5e-9d0c-0f0a5a3f9a01",
		Title: "web", Project: "p", User: "u", VCPUs: 2, MemoryMiB: 512,
		Disks:      []hypervisor.Disk{{Path: "/g/disk", Format: "qcow2", BootOrder: 1}, {Path: "/g/config", Format: "raw", Device: "cdrom"}},
		NICs:       []hypervisor.NIC{{ID: "p1", MAC: "FA:16:3E:00:00:01", Tap: "tap1", MTU: 1450}},
		ConsoleLog: "/g/console.log",
	}
}

func TestDigestTellsDefinitionsApart(t *testing.T) {
	p := platform{accelerator: "tcg"}
	text, first, err := definition(sample(), p)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(text, first) {
		t.Error("the digest is not in the definition")
	}
	seen := map[string]string{first: "the first"}
	for name, change := range map[string]func(*hypervisor.Guest, *platform){
		"title": func(g *hypervisor.Guest, _ *platform) { g.Title = "x" }, "memory": func(g *hypervisor.Guest, _ *platform) { g.MemoryMiB++ },
		"disk": func(g *hypervisor.Guest, _ *platform) { g.Disks[0].Path += "x" }, "read-only": func(g *hypervisor.Guest, _ *platform) { g.Disks[0].ReadOnly = true },
		"mtu": func(g *hypervisor.Guest, _ *platform) { g.NICs[0].MTU++ }, "port": func(g *hypervisor.Guest, _ *platform) { g.NICs[0].ID += "x" },
		"log bound": func(g *hypervisor.Guest, _ *platform) { g.ConsoleLogBytes = 1 }, "user": func(g *hypervisor.Guest, _ *platform) { g.User += "x" },
		"kvm": func(_ *hypervisor.Guest, p *platform) { p.accelerator = "kvm" }, "model": func(_ *hypervisor.Guest, p *platform) { p.cpuModel = "qemu64" },
		"display": func(g *hypervisor.Guest, _ *platform) { g.Display = true },
		"usb": func(g *hypervisor.Guest, _ *platform) {
			g.Display, g.Specs = true, map[string]string{"hw_pointer_model": "usbtablet"}
		},
		"ports":      func(_ *hypervisor.Guest, p *platform) { p.sparePorts = 2 },
		"nbd":        func(g *hypervisor.Guest, _ *platform) { g.Disks[0] = nbdDisk(0) },
		"reconnect":  func(g *hypervisor.Guest, _ *platform) { g.Disks[0] = nbdDisk(60) },
		"rbd":        func(g *hypervisor.Guest, _ *platform) { g.Disks[0] = rbdDisk("a") },
		"rbd user":   func(g *hypervisor.Guest, _ *platform) { g.Disks[0] = rbdDisk("b") },
		"shared":     func(g *hypervisor.Guest, _ *platform) { g.Disks[0].Shared = true },
		"everywhere": func(g *hypervisor.Guest, _ *platform) { g.Disks[0].Everywhere = true },
	} {
		g, p := sample(), p
		change(&g, &p)
		_, digest, err := definition(g, p)
		if err != nil {
			t.Fatal(err)
		}
		if other, ok := seen[digest]; ok {
			t.Errorf("the digests of %s and %s are equal", name, other)
		}
		seen[digest] = name
	}
	if _, again, _ := definition(sample(), p); again != first {
		t.Error("the digest of one guest differs from time to time")
	}
}

// Specs that need what not every kernel has: traffic control, control groups, huge pages.
func TestSpecsInDefinition(t *testing.T) {
	g := sample()
	g.Specs = map[string]string{
		"quota:vif_inbound_average": "5000", "quota:vif_outbound_burst": "700", "quota:cpu_shares": "512", "quota:cpu_period": "2000", "quota:cpu_quota": "1000",
		"hw:mem_page_size": "2MB",
	}
	text, _, err := definition(g, platform{accelerator: "tcg"})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`<bandwidth><inbound average="5000"></inbound><outbound average="1" burst="700"></outbound></bandwidth>`,
		`<cputune><shares>512</shares><period>2000</period><quota>1000</quota></cputune>`, `<memoryBacking><hugepages><page size="2048" unit="KiB"></page></hugepages></memoryBacking>`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the definition lacks %s: %s", want, text)
		}
	}
}

func TestRecordIsReadBack(t *testing.T) {
	g := sample()
	r, err := parseRecord(`<guest digest="d"><project>p</project><consoleLog>/g/console.log</consoleLog>` +
		`<consoleLogBytes>77</consoleLogBytes><port id="p1" mac="m" tap="tap1"/></guest>`)
	if err != nil || r.digest != "d" || r.log != g.ConsoleLog || r.logBound != 77 || !slices.Equal(r.taps, []string{"tap1"}) {
		t.Errorf("%+v, %v", r, err)
	}
	if r, err = parseRecord(`<guest><consoleLog>../x</consoleLog></guest>`); err != nil || r.log != "" || r.logBound != hypervisor.DefaultConsoleLogBytes {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestUUID(t *testing.T) {
	id := sample().ID
	u, ok := parseUUID(id)
	if !ok || formatUUID(u) != id {
		t.Errorf("%s became %s, %v", id, formatUUID(u), ok)
	}
	for _, bad := range []string{"", strings.ToUpper(id), id[1:], strings.Replace(id, "0", "g", 1), strings.ReplaceAll(id, "-", "0")} {
		if _, ok := parseUUID(bad); ok {
			t.Errorf("%q is taken for a UUID", bad)
		}
	}
}

// A running guest keeps what it has, whatever its devices are called in the next definition.
func TestPlugChanges(t *testing.T) {
	g := sample()
	live, err := parseLive(`<domain><devices>
		<disk type="file" device="disk"><source file="/g/disk"/><target dev="vda"/></disk>
		<disk type="file" device="disk"><source file="/old"/><target dev="vdb"/><serial>gone</serial></disk>
		<disk type="file" device="cdrom"><source file="/g/config"/><target dev="sda"/></disk>
		<interface type="ethernet"><mac address="fa:16:3e:00:00:01"/><target dev="tap1"/></interface>
		<interface type="ethernet"><mac address="fa:16:3e:00:00:09"/><target dev="tap9"/></interface></devices></domain>`)
	if err != nil {
		t.Fatal(err)
	}
	g.Disks = append(g.Disks, hypervisor.Disk{Path: "/new", Format: "raw", Serial: "new", BootOrder: 2})
	g.NICs = append(g.NICs, hypervisor.NIC{MAC: "FA:16:3E:00:00:02", Tap: "tap2"})
	attach, detach, err := live.changes(devices(g, platform{}))
	if err != nil {
		t.Fatal(err)
	}
	all := strings.Join(attach, "\n")
	if len(attach) != 2 || !strings.HasPrefix(attach[0], "<disk ") || !strings.Contains(all, `dev="vdc"`) || !strings.Contains(all, "fa:16:3e:00:00:02") || strings.Contains(all, "<boot") {
		t.Errorf("attach %s", all)
	}
	if len(detach) != 2 || !strings.Contains(detach["gone"], "/old") || !strings.Contains(detach["fa:16:3e:00:00:09"], "tap9") {
		t.Errorf("detach %v", detach)
	}
}

func TestLetters(t *testing.T) {
	for n, want := range map[int]string{0: "a", 25: "z", 26: "aa", 27: "ab", 701: "zz", 702: "aaa"} {
		if got := letter(n); got != want {
			t.Errorf("disk %d is %s, want %s", n, got, want)
		}
	}
}

// TestLogIsBounded writes on as QEMU does while the log is cut.
func TestLogIsBounded(t *testing.T) {
	const bound = 32 << 10
	path := filepath.Join(t.TempDir(), "log")
	if err := boundLog(path, bound); err != nil {
		t.Errorf("a log that is not there: %v", err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	chunk := bytes.Repeat([]byte("0123456789abcde\n"), 256)
	for range 200 {
		if _, err := f.Write(chunk); err != nil {
			t.Fatal(err)
		}
		if err := boundLog(path, bound); err != nil {
			t.Fatal(err)
		}
		var st unixStat
		if err := st.of(path); err != nil {
			t.Fatal(err)
		}
		if limit := int64(bound + logSlack + len(chunk) + 8192); st.Blocks*512 > limit {
			t.Fatalf("the log takes %d bytes, the limit is %d", st.Blocks*512, limit)
		}
	}
	got, err := readLog(path, bound)
	if err != nil || len(got) != bound || !bytes.Equal(got[:4096], chunk) || bytes.IndexByte(got, 0) >= 0 {
		t.Errorf("%d bytes, %v, are not the last %d that were written", len(got), err, bound)
	}
}

func TestProbe(t *testing.T) {
	enough, stop := context.WithTimeout(t.Context(), 3*time.Minute)
	defer stop()
	if err := probe(enough, "qemu-system-x86_64", "tcg"); err != nil {
		t.Errorf("the probe's guest does not run under TCG: %v", err)
	}
	if err := probe(enough, "qemu-system-x86_64", "nonsense"); err == nil || !strings.Contains(err.Error(), "nonsense") {
		t.Errorf("an accelerator that does not exist: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	begin := time.Now()
	if err := probe(ctx, "qemu-system-x86_64", "tcg"); !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) > time.Minute {
		t.Errorf("a probe without time: %v after %v", err, time.Since(begin))
	}
}

func TestDaemonConfig(t *testing.T) {
	d := Daemon{Dir: t.TempDir(), HostUUID: "0b7e8a52-7f0e-4b5e-9d0c-0f0a5a3f9a01"}
	for range 2 {
		if err := d.WriteConfig(); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(filepath.Join(d.Dir, "etc", "passwd"))
	if err != nil || strings.Count("\n"+string(text), "\nlibvirt-qemu:") != 1 {
		t.Errorf("passwd has not one libvirt-qemu: %v\n%s", err, text)
	}
	if got := withAccount("a:1\nlibvirt-qemu:x\n", accounts["group"]); got != "a:1\nlibvirt-qemu:x\n" {
		t.Errorf("an account that is there became %q", got)
	}
}

func BenchmarkDefinition(b *testing.B) {
	g := sample()
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := definition(g, platform{accelerator: "tcg", sparePorts: 4}); err != nil {
			b.Fatal(err)
		}
	}
}

func TestFilesBehindAReply(t *testing.T) {
	for _, tc := range []struct {
		payload, behind string
		want            string
		ok              bool
	}{
		{"\x00\x00\x00\x01rest", "\x00next", "rest", true},
		{"\x00\x00\x00\x00", "next", "", true},
		{"\x00\x00\x00\x02", "\x00", "", false},
		{"\x00\x00\x00\x21", strings.Repeat("\x00", 64), "", false},
		{"\x00\x00", "", "", false},
	} {
		r := strings.NewReader(tc.behind)
		got, err := takeFiles(r, []byte(tc.payload))
		if (err == nil) != tc.ok || string(got) != tc.want {
			t.Errorf("%q: %q, %v", tc.payload, got, err)
		}
		if rest, _ := io.ReadAll(r); tc.ok && len(tc.behind) > 3 && string(rest) != "next" {
			t.Errorf("%q: %q is left", tc.payload, rest)
		}
	}
}
