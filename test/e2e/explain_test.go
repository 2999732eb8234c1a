package e2e_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/ports"

	"yakumo/cli"
)

// explained asks the API what becomes of a packet.
func explained(t *testing.T, who cli.Credentials, req map[string]any) cli.Traced {
	t.Helper()
	cl, err := cli.Login(t.Context(), who)
	if err != nil {
		t.Fatal(err)
	}
	var out struct {
		Trace cli.Traced `json:"trace"`
	}
	if err := cl.Do(t.Context(), "POST", "/yakumo/v1/traces", map[string]any{"trace": req}, &out); err != nil {
		t.Fatalf("trace of %v: %v", req, err)
	}
	return out.Trace
}

var lastActions = regexp.MustCompile(`(?m)^Datapath actions: (.*)$`)

// switchSays asks a host's switch itself: what would be done with a packet from a port. It leaves the host
// (or reaches another port) unless its last actions drop it.
func switchSays(t *testing.T, host string, p *ports.Port, flow string) (leaves bool, text string) {
	t.Helper()
	tap := "yk" + strings.ReplaceAll(p.ID, "-", "")[:13]
	n, err := on(t.Context(), host, "ovs-vsctl", "--no-wait", "get", "Interface", tap, "ofport")
	if err != nil {
		t.Fatal(err)
	}
	text, err = on(t.Context(), host, "ovs-appctl", "-t", "/run/openvswitch/ovs-vswitchd.ctl", "ofproto/trace", "br-int", "in_port="+strings.TrimSpace(n)+","+flow)
	if err != nil {
		t.Fatal(err)
	}
	all := lastActions.FindAllStringSubmatch(text, -1)
	if len(all) == 0 {
		t.Fatalf("ofproto/trace said: %s", text)
	}
	last := all[len(all)-1][1]
	return last != "drop" && !strings.HasPrefix(last, "ct(commit,zone") || strings.Contains(last, "tnl_push") || regexp.MustCompile(`(^|,)\d+$`).MatchString(last), text
}

// TestExplain compares three answers to the same question: what the rows say (the trace), what a
// real packet does (injected), and what the switch of the sender's host says of it (ofproto/trace).
func TestExplain(t *testing.T) {
	w := shared(t)
	admin := fix.lab.Credentials()
	from, to := w.port1, w.port2
	const src, dst = "10.50.0.11", "10.50.0.12"
	eth := "dl_src=" + from.MACAddress + ",dl_dst=" + to.MACAddress
	for _, c := range []struct {
		name    string
		req     map[string]any
		flow    string // for ofproto/trace
		verdict string
		here    bool // the sender's host decides that it is dropped
	}{
		{"ping", map[string]any{"protocol": "icmp"}, "icmp,icmp_type=8,nw_src=" + src + ",nw_dst=" + dst, "delivered", false},
		{"ssh", map[string]any{"protocol": "tcp", "dst_port": 22}, "tcp,tp_dst=22,nw_src=" + src + ",nw_dst=" + dst, "delivered", false},
		{"udp", map[string]any{"protocol": "udp", "dst_port": 4000, "size": 1200}, "udp,udp_dst=4000,nw_src=" + src + ",nw_dst=" + dst, "delivered", false},
		{"forged address", map[string]any{"protocol": "icmp", "src": "10.50.0.77"}, "icmp,icmp_type=8,nw_src=10.50.0.77,nw_dst=" + dst, "dropped", true},
		{"forged MAC", map[string]any{"protocol": "icmp", "eth_src": "02:00:00:00:00:07"}, "", "dropped", true},
		{"nobody's MAC", map[string]any{"protocol": "icmp", "eth_dst": "02:00:00:00:00:09"}, "", "dropped", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.req["port"], c.req["to"], c.req["inject"] = from.ID, to.ID, true
			r := explained(t, admin, c.req)
			if r.Verdict != c.verdict || r.Real == nil || !r.Real.Agrees {
				t.Errorf("%s (%s), really %+v", r.Verdict, r.Reason, r.Real)
			}
			if c.flow == "" {
				return
			}
			leaves, text := switchSays(t, "host1", from, eth+","+c.flow)
			if leaves == c.here {
				t.Errorf("the trace says %s (%s); the switch says: %s", r.Verdict, r.Reason, text)
			}
		})
	}
	// The receiver's group closes: the sender's switch lets it go, the receiver's drops it.
	none := []string{}
	if _, err := ports.Update(t.Context(), w.blue.member.Network, to.ID, ports.UpdateOpts{SecurityGroups: &none}).Extract(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if _, err := ports.Update(context.Background(), w.blue.member.Network, to.ID, ports.UpdateOpts{SecurityGroups: &to.SecurityGroups}).Extract(); err != nil {
			t.Error(err)
		}
		w.blue1.opens(t, dst)
	}()
	w.blue1.closes(t, dst)
	r := explained(t, w.blue.login, map[string]any{"port": from.ID, "to": to.ID, "protocol": "tcp", "dst_port": 22, "inject": true})
	if r.Verdict != "dropped" || !strings.Contains(r.Reason, "No ingress rule") || r.Real == nil || !r.Real.Agrees || len(r.Hops) != 2 {
		t.Errorf("a closed group: %s (%s) over %d hosts, really %+v", r.Verdict, r.Reason, len(r.Hops), r.Real)
	}
	if text := fmt.Sprintf("%+v", r); strings.Contains(text, "host1") || strings.Contains(text, "100.64.") {
		t.Errorf("a tenant reads of hosts: %s", text)
	}
}

// TestCapture: a tenant captures at its own port with the program, and nobody else can.
func TestCapture(t *testing.T) {
	w := shared(t)
	file := filepath.Join(t.TempDir(), "capture.pcap")
	run := func(who cli.Credentials, args ...string) *exec.Cmd {
		cmd := exec.CommandContext(t.Context(), fix.binary, args...)
		cmd.Env = []string{"OS_AUTH_URL=" + who.AuthURL, "OS_USERNAME=" + who.Username, "OS_PASSWORD=" + who.Password, "OS_PROJECT_NAME=" + who.Project}
		return cmd
	}
	cmd := run(w.blue.login, "capture", w.port2.ID, "-w", file, "--for", "60s", "-c", "6")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	await(t, "six frames to be captured", commandPatience, func(ctx context.Context) string {
		select {
		case err := <-ended:
			if err != nil {
				t.Fatal(err)
			}
			return ""
		default:
		}
		w.blue1.run(t, "ping -c 2 -i 0.2 -W 1 "+w.blue2.addr)
		return "it runs still"
	})
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := pcapgo.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	echoes := 0
	for range 6 {
		data, _, err := r.ReadPacketData()
		if err != nil {
			t.Fatal(err)
		}
		if gopacket.NewPacket(data, layers.LayerTypeEthernet, gopacket.Default).Layer(layers.LayerTypeICMPv4) != nil {
			echoes++
		}
	}
	if echoes < 2 {
		t.Errorf("%d of 6 frames are ICMP", echoes)
	}
	out, err := run(w.red.login, "capture", w.port2.ID, "--for", "1s").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "There is no port") {
		t.Errorf("a stranger's capture: %v: %s", err, out)
	}
}
