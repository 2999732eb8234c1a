package e2e_test

import (
	"context"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"

	"yakumo/lab"
)

// Deadlines are generous: guests are emulated, on few cores that other guests use too.
const (
	bootPatience    = 3 * time.Minute
	commandPatience = 2 * time.Minute
)

// guest is a server with a root shell on its serial console.
type guest struct {
	id, name, host, addr string
	began                time.Time // when its creation was asked for

	console *console // nil until first used, and after detach
	n       int      // commands run, for markers
}

// console collects what a serial console shows.
type console struct {
	stream io.ReadWriteCloser

	mu    sync.Mutex
	fresh *sync.Cond
	text  []byte
	seen  int   // text before it has been looked at
	err   error // why no more comes
}

func (c *console) read() {
	buf := make([]byte, 16<<10)
	for {
		n, err := c.stream.Read(buf)
		c.mu.Lock()
		c.text = append(c.text, buf[:n]...)
		c.err = err
		c.fresh.Broadcast()
		c.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// expect waits for a match in what was not looked at yet, and gives its groups; nil when the
// time is over.
func (c *console) expect(re *regexp.Regexp, patience time.Duration) ([]string, error) {
	end := time.Now().Add(patience)
	wake := time.AfterFunc(patience, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.fresh.Broadcast()
	})
	defer wake.Stop()
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		if loc := re.FindSubmatchIndex(c.text[c.seen:]); loc != nil {
			var groups []string
			for i := 0; i < len(loc); i += 2 {
				groups = append(groups, string(c.text[c.seen+loc[i]:c.seen+loc[i+1]]))
			}
			c.seen += loc[1]
			return groups, nil
		}
		if c.err != nil {
			return nil, fmt.Errorf("the console ended: %w", c.err)
		}
		if !time.Now().Before(end) {
			return nil, nil
		}
		c.fresh.Wait()
	}
}

// tail is the end of what the console showed, for messages.
func (c *console) tail() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return string(c.text[max(0, len(c.text)-1500):])
}

// ended tells whether the stream is over.
func (c *console) ended() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err != nil
}

// detach closes the console; the next command opens it again. The guest's shell stays as it is.
func (g *guest) detach() {
	if g.console != nil {
		g.console.stream.Close()
		g.console = nil
	}
}

// attach opens the console, and logs in unless somebody is.
func (g *guest) attach(t *testing.T) {
	t.Helper()
	if g.console != nil && g.console.ended() {
		g.detach()
	}
	if g.console != nil {
		return
	}
	await(t, "the console of "+g.name, bootPatience, func(ctx context.Context) string {
		stream, err := fix.drivers[g.host].Console(ctx, g.id)
		if err != nil {
			return err.Error()
		}
		g.console = &console{stream: stream}
		g.console.fresh = sync.NewCond(&g.console.mu)
		go g.console.read()
		if err := g.login(t); err != nil { // its stream may have been a dying daemon's
			g.detach()
			return err.Error()
		}
		return ""
	})
}

var (
	// A console shows one of these when it is ready for input. Other lines may have come behind
	// it, so it is asked again by an empty line.
	ready    = regexp.MustCompile(`(login: |Password: |\r\n\$ |\r\n# )$`)
	password = regexp.MustCompile(`Password: `)
	cirros   = regexp.MustCompile(`\r\n\$ $`)
	root     = regexp.MustCompile(`\r\n# $`)
)

// login makes the console a root shell: the user cirros with its password, then sudo. The error
// is that of the console's stream.
func (g *guest) login(t *testing.T) error {
	t.Helper()
	say := func(text string, then *regexp.Regexp, patience time.Duration) ([]string, error) {
		if _, err := io.WriteString(g.console.stream, text); err != nil {
			return nil, err
		}
		return g.console.expect(then, patience)
	}
	for end := time.Now().Add(bootPatience); time.Now().Before(end); {
		groups, err := say("\n", ready, time.Second)
		if err != nil {
			return err
		}
		if groups == nil {
			continue
		}
		switch strings.TrimSpace(groups[1]) {
		case "login:":
			if groups, err = say("cirros\n", password, 10*time.Second); err == nil && groups != nil {
				_, err = say("gocubsgo\n", cirros, 10*time.Second)
			}
		case "$":
			_, err = say("exec sudo sh\n", root, 10*time.Second)
		case "#":
			return nil
		}
		if err != nil {
			return err
		}
	}
	t.Fatalf("nobody can log in on the console of %s; it shows:\n%s", g.name, g.console.tail())
	return nil
}

func (g *guest) wait(t *testing.T, re *regexp.Regexp, patience time.Duration) []string {
	t.Helper()
	groups, err := g.console.expect(re, patience)
	if err != nil {
		t.Fatalf("%s: %v; its console shows:\n%s", g.name, err, g.console.tail())
	}
	return groups
}

func (g *guest) send(t *testing.T, text string) {
	t.Helper()
	if _, err := io.WriteString(g.console.stream, text); err != nil {
		t.Fatalf("type on the console of %s: %v", g.name, err)
	}
}

// run runs a line of shell as root and gives what it printed and its exit status.
func (g *guest) run(t *testing.T, line string) (string, int) {
	t.Helper()
	g.attach(t)
	g.n++
	// The markers are typed in two pieces, so that the echo of the line is no marker. What runs
	// in the background may write anywhere but into them.
	g.send(t, fmt.Sprintf("echo _B''%[1]d_; eval '%[2]s'; echo _E''%[1]d_$?_\n", g.n, strings.ReplaceAll(line, "'", `'\''`)))
	re := regexp.MustCompile(fmt.Sprintf(`(?s)_B%[1]d_\r\n(.*)_E%[1]d_(\d+)_\r\n`, g.n))
	groups := g.wait(t, re, commandPatience)
	if groups == nil {
		shows := g.console.tail()
		g.send(t, "\x03") // Ctrl-C, for who comes next
		t.Fatalf("%s: %s: no end after %s; the console shows:\n%s", g.name, line, commandPatience, shows)
	}
	status, err := strconv.Atoi(groups[2])
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(strings.ReplaceAll(groups[1], "\r\n", "\n")), status
}

// must runs a line whose status must be 0.
func (g *guest) must(t *testing.T, line string) string {
	t.Helper()
	out, status := g.run(t, line)
	if status != 0 {
		t.Fatalf("%s: %s: status %d: %s", g.name, line, status, out)
	}
	return out
}

// until waits for a condition in the guest; a file tells more where it does not come.
func (g *guest) until(t *testing.T, condition, file string) {
	t.Helper()
	out, status := g.run(t, "n=0; until "+condition+"; do n=$((n+1)); [ $n -lt 400 ] || break; sleep 0.1; done; [ $n -lt 400 ] || { cat "+file+"; false; }")
	if status != 0 {
		t.Fatalf("%s: %s does not come true: %s", g.name, condition, out)
	}
}

// reaches sends a few pings and tells how many came back.
func (g *guest) reaches(t *testing.T, addr string) int {
	t.Helper()
	out, _ := g.run(t, "ping -c 5 -i 0.2 -W 1 "+addr)
	return received(t, out)
}

var receivedRE = regexp.MustCompile(`(\d+) received`)

func received(t *testing.T, out string) int {
	t.Helper()
	m := receivedRE.FindStringSubmatch(out)
	if m == nil {
		t.Fatalf("ping said: %s", out)
	}
	n, err := strconv.Atoi(m[1])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// opens waits until a ping comes back; a change of rules takes a moment to reach the switch.
func (g *guest) opens(t *testing.T, addr string) {
	t.Helper()
	await(t, g.name+" to reach "+addr, commandPatience, func(context.Context) string {
		return unless(g.reaches(t, addr) == 5, "pings are lost")
	})
}

// closes waits until no ping comes back.
func (g *guest) closes(t *testing.T, addr string) {
	t.Helper()
	await(t, g.name+" to lose "+addr, commandPatience, func(context.Context) string {
		return unless(g.reaches(t, addr) == 0, "pings come back")
	})
}

// unless says what is wrong, or "" where ok.
func unless(ok bool, wrong string) string {
	if ok {
		return ""
	}
	return wrong
}

// pinger is a ping that goes on in a guest, ten times a second.
type pinger struct {
	g    *guest
	file string
	pid  string
	addr string
}

// interval is how often a pinger asks: a gap shorter than it is not seen.
const interval = 100 * time.Millisecond

// ping starts a pinger and waits for its first replies.
func (g *guest) ping(t *testing.T, addr string) *pinger {
	t.Helper()
	g.attach(t)
	p := &pinger{g: g, addr: addr, file: fmt.Sprintf("/tmp/ping.%d", g.n)}
	p.pid = g.must(t, fmt.Sprintf("ping -D -i %.1f %s >%s 2>&1 & echo $!", interval.Seconds(), addr, p.file))
	p.more(t, 5)
	return p
}

// more waits until n more replies have come.
func (p *pinger) more(t *testing.T, n int) {
	t.Helper()
	from := p.replies(t)
	await(t, fmt.Sprintf("%d more replies of %s to %s", n, p.addr, p.g.name), commandPatience, func(context.Context) string {
		now := p.replies(t)
		return unless(now >= from+n, fmt.Sprintf("%d came", now-from))
	})
}

func (p *pinger) replies(t *testing.T) int {
	t.Helper()
	out, _ := p.g.run(t, "grep -c icmp_seq= "+p.file)
	n, err := strconv.Atoi(out)
	if err != nil {
		t.Fatalf("%s counts %q replies", p.g.name, out)
	}
	return n
}

// losses is what a pinger saw: questions between the first and the last reply, those without
// an answer, and the longest time without one.
type losses struct {
	asked, lost int
	gap         time.Duration
}

func (l losses) String() string {
	return fmt.Sprintf("%d of %d lost at one every %s, longest gap %s", l.lost, l.asked, interval, l.gap)
}

// sum counts so far. The file holds "[SECONDS] 64 bytes from A: icmp_seq=N ttl=64 time=T ms".
func (p *pinger) sum(t *testing.T) losses {
	t.Helper()
	out := p.g.must(t, `awk '/icmp_seq=/ && /bytes from/ {at=substr($1,2)+0; split($0,a,"icmp_seq="); s=a[2]+0; if (!(s in k)) {k[s]; n++}; `+
		`if (n==1) lo=s; if (s>hi) hi=s; if (last && at-last>gap) gap=at-last; last=at} `+
		`END {printf "%d %d %d\n", hi-lo+1, hi-lo+1-n, gap*1000}' `+p.file)
	var l losses
	var ms int
	if _, err := fmt.Sscan(out, &l.asked, &l.lost, &ms); err != nil {
		t.Fatalf("%s: %q: %v", p.g.name, out, err)
	}
	l.gap = time.Duration(ms) * time.Millisecond
	return l
}

// stop ends the pinger and tells what it saw.
func (p *pinger) stop(t *testing.T) losses {
	t.Helper()
	p.more(t, 3)
	p.g.must(t, "kill -INT "+p.pid)
	l := p.sum(t)
	p.g.must(t, "rm "+p.file)
	return l
}

// active waits until the API shows the guest ACTIVE, and tells how long it took.
func (g *guest) active(t *testing.T) time.Duration {
	t.Helper()
	if _, err := lab.AwaitServer(t.Context(), fix.admin, g.id, "ACTIVE"); err != nil {
		t.Fatal(err)
	}
	return time.Since(g.began)
}

var readyLine = regexp.MustCompile(`yakumo-mini: ready in ([0-9.]+) s, ([^,]*), (\S+) on eth0`)

// up waits until the guest's console log says that it is ready, n times in all (each boot
// adds one), and tells how long after the creation that was.
func (g *guest) up(t *testing.T, n int) time.Duration {
	t.Helper()
	await(t, g.name+" to be ready", bootPatience, func(ctx context.Context) string {
		text, err := servers.ShowConsoleOutput(ctx, fix.admin.Compute, g.id, servers.ShowConsoleOutputOpts{}).Extract()
		if err != nil {
			return err.Error()
		}
		return unless(len(readyLine.FindAllString(text, -1)) >= n, "its console log ends: "+text[max(0, len(text)-300):])
	})
	return time.Since(g.began)
}
