package mini

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/server4"
	"github.com/vishvananda/netns"
	"golang.org/x/crypto/ssh"
	"golang.org/x/net/ipv6"
)

const (
	instanceID = "5c6f8e3a-0d5d-4a53-9a04-6f2b1c9f0001"
	firstMAC   = "fa:16:3e:00:00:01"
	plugMAC    = "fa:16:3e:00:00:02"
)

// TestBoots boots one disk three times. The first boot is a new instance that finds the metadata service, grows its disk
// and gets a second interface while it runs; the second finds a config drive that describes the same instance; the third
// is another instance, as when the disk's snapshot is an image, is started by UEFI, and finds a metadata service of EC2's kind.
func TestBoots(t *testing.T) {
	t.Parallel()
	disk := overlay(t, image(t), 1024)
	ns := newNamespace(t)
	addTap(t, ns, "tap0", "10.1.0.1/24", "169.254.169.254/32", "fd00:1::1/64")
	addTap(t, ns, "tap1", "10.2.0.1/24")
	serveDHCP(t, ns, "tap0", "10.1.0.1", "10.1.0.7")
	serveRouter(t, ns, "tap0", net.ParseIP("fd00:1::"), 0)
	serveDHCP(t, ns, "tap1", "10.2.0.1", "10.2.0.7")
	signer, key := newKey(t)
	service := serveMetadata(t, ns, map[string]string{
		"/openstack/latest/meta_data.json": metadataJSON(t, "first.example.org", key),
		"/openstack/latest/user_data":      "#!/bin/sh\necho \"user data as $(id -un)\" | tee -a /var/tmp/ran\n",
	})
	nic := []string{
		"-netdev", "tap,id=n0,ifname=tap0,script=no,downscript=no", "-device", "virtio-net-pci,netdev=n0,mac=" + firstMAC,
	}

	agent, channel := agentDevice(t)
	m := boot(t, ns, disk, append(channel, nic...)...)
	m.expect(`yakumo-mini: Linux \S+, \d+ MiB, starting`)
	m.shows(`eth0: 10\.1\.0\.7/24 by DHCP`)
	ready := m.expect(`ready in ([0-9.]+) s, first, 10\.1\.0\.7/24 on eth0`)
	t.Logf("first boot: ready after %.2f s by the host's clock, %s s by the guest's", time.Since(m.started).Seconds(), ready[1])
	m.expect(`first login: `)
	m.shows(`user data: script ended with status 0`)
	t.Logf("first boot: login prompt after %.2f s", time.Since(m.started).Seconds())
	m.login()
	if asked := service.hosts(); len(asked) != 1 || asked[0] != "169.254.169.254" {
		t.Errorf("the metadata service was asked with host names %q", asked)
	}
	for _, c := range []struct{ line, want string }{
		{`hostname`, "first"},
		{`id -un`, "cirros"},
		{`sudo id -u`, "0"},
		{`sudo -n -u cirros id -un`, "cirros"},
		{`echo 'echo $USER $HOME; id -u' | sudo -i`, "root /root\n0"},
		{`sudo -s echo '$HOME'`, "/home/cirros"},
		{`sudo -H A=b sh -c 'echo $A $HOME $SUDO_USER'`, "b /root cirros"},
		{`sudo cat /var/tmp/ran`, "user data as root"},
		{`cat .ssh/authorized_keys`, key},
		{`sudo cat /root/.ssh/authorized_keys`, key},
		{`cat /sys/class/net/eth0/mtu`, "1442"},
		{`ip -4 route show default`, "default via 10.1.0.1 dev eth0 proto dhcp metric 102"},
		{`ip -4 route show 10.99.0.0/16`, "10.99.0.0/16 via 10.1.0.3 dev eth0 proto dhcp metric 102"},
		{`cat /etc/resolv.conf`, "search example.org\nnameserver 10.1.0.2"},
		{`sudo kill -0 $(cat /var/run/udhcpc.eth0.pid) && echo alive`, "alive"},
		{`lsblk -ndo NAME,SIZE /dev/vda2`, "vda2 1003M"},
		{`test $(df -m / | awk 'NR == 2 {print $2}') -gt 900 && echo grown`, "grown"},
		{`. /etc/os-release && echo $NAME`, "Yakumo mini"},
		{`cat /sys/class/net/eth0/device/driver/module/initstate`, "live"},
		{`until ip -6 address show dev eth0 | grep -q 'fd00:1::.*dynamic'; do sleep 0.2; done; echo by router advertisement`, "by router advertisement"},
	} {
		if got := m.sh(c.line); got != c.want {
			t.Errorf("%s: got %q, want %q", c.line, got, c.want)
		}
	}

	testAgent(t, ns, m, agent)

	// A VLAN's interface.
	if got := m.sh(`sudo ip link add link eth0 name eth0.101 type vlan id 101 && sudo ip link set eth0.101 up && sudo awk '/VID/ {print $3}' /proc/net/vlan/eth0.101 && sudo ip link del eth0.101`); got != "101" {
		t.Errorf("the VLAN is %q", got)
	}

	// Every program runs, with its libraries.
	m.sh(`for p in ping ping6 nc nc.openbsd probe ncat curl ip iperf3 lsblk blkid mkfs.ext4 tcpdump arping ssh scp dropbear udhcpc httpd md5sum sha256sum tc ss; do command -v $p >/dev/null || { echo $p; false; } || break; done`)
	m.sh(`ncat --version && curl --version && iperf3 --version && sudo tcpdump --version && mkfs.ext4 -V && dropbear -V && sudo blkid /dev/vda2`)
	m.sh(`ping -c 1 -W 5 -M do -s 1414 10.1.0.1 && ping -6 -c 1 -W 5 fd00:1::1`)
	m.sh(`curl -sf http://169.254.169.254/openstack/latest/meta_data.json | grep -q ` + instanceID)

	// What a forging guest needs: other addresses, ARP and a MAC of its own choice.
	m.sh(`sudo ip address add 10.1.0.66/24 dev eth0 && ping -c 1 -W 5 -I 10.1.0.66 10.1.0.1`)
	m.sh(`sudo arping -q -U -c 1 -I eth0 10.1.0.66`)
	m.sh(`sudo ip address del 10.1.0.66/24 dev eth0`)

	// ssh by the metadata's key, for both users.
	var hostKey string
	for _, user := range []string{"cirros", "root"} {
		var out string
		out, hostKey = sshRun(t, ns, signer, user, "sudo id -u; id -un")
		if out != "0\n"+user+"\n" {
			t.Errorf("ssh as %s: %q", user, out)
		}
	}

	// An interface plugged in later gets its lease by itself.
	m.command("netdev_add", map[string]any{"type": "tap", "id": "n1", "ifname": "tap1", "script": "no", "downscript": "no"})
	m.command("device_add", map[string]any{"driver": "virtio-net-pci", "id": "nic1", "netdev": "n1", "mac": plugMAC, "bus": "plug"})
	m.shows(`eth1: 10\.2\.0\.7/24 by DHCP`)

	m.command("system_powerdown", nil)
	pressed := time.Now()
	m.shows(`power button`)
	m.waitOff()
	t.Logf("power button to off: %.2f s", time.Since(pressed).Seconds())

	drive := configDrive(t, map[string]string{
		"meta_data.json": metadataJSON(t, "second", key),
		"user_data":      "#!/bin/sh\necho again >>/var/tmp/ran\n",
		"network_data.json": `{"links":[{"id":"l","type":"phy","ethernet_mac_address":"` + strings.ToUpper(firstMAC) + `","mtu":1400}],
			"networks":[{"id":"n","type":"ipv4","link":"l","ip_address":"10.1.0.9","netmask":"255.255.255.0","gateway":"10.1.0.1"}],
			"services":[{"type":"dns","address":"10.1.0.5"}]}`,
	})
	m = boot(t, ns, disk, append(nic, "-drive", "if=none,id=config,format=raw,readonly=on,file="+drive, "-device", "virtio-blk-pci,drive=config")...)
	m.shows(`data source: config drive, instance ` + instanceID)
	m.shows(`user data: done before`)
	m.expect(`second login: `)
	t.Logf("second boot: login prompt after %.2f s", time.Since(m.started).Seconds())
	m.login()
	for _, c := range []struct{ line, want string }{
		{`sudo cat /var/tmp/ran`, "user data as root"},
		{`ip -4 -o address show dev eth0 | awk '{print $4}'`, "10.1.0.9/24"},
		{`cat /sys/class/net/eth0/mtu`, "1400"},
		{`cat /etc/resolv.conf`, "nameserver 10.1.0.5"},
		{`dmesg 2>/dev/null | grep -c 'recovery complete' || true`, "0"}, // the first stop left a clean file system
	} {
		if got := m.sh(c.line); got != c.want {
			t.Errorf("second boot: %s: got %q, want %q", c.line, got, c.want)
		}
	}
	m.send("sudo poweroff\n")
	m.waitOff()

	service.serve(map[string]string{
		"/latest/meta-data/instance-id":               "i-00000003",
		"/latest/meta-data/local-hostname":            "third",
		"/latest/meta-data/public-keys/":              "0=mine",
		"/latest/meta-data/public-keys/0/openssh-key": key,
		"/latest/user-data":                           "#cloud-config\nruncmd:\n- [echo, third, user, data]\nmounts: []\n",
	})
	m = boot(t, ns, disk, append(nic, uefi(t)...)...)
	m.shows(`yakumo-mini: Linux \S+, \d+ MiB, UEFI, starting`)
	m.shows(`data source: metadata service \(EC2 paths\), instance i-00000003`)
	m.shows(`this disk served instance ` + instanceID + ` before`)
	m.shows(`ready in .* s, third, 10\.1\.0\.7/24 on eth0`)
	m.shows(`cloud-config: ignored: mounts`)
	m.shows(`third user data`)
	m.shows(`third login: `)
	if out, k := sshRun(t, ns, signer, "cirros", "hostname"); out != "third\n" || k == hostKey {
		t.Errorf("third boot: ssh says %q; host key %s, before %s", out, k, hostKey)
	}
	m.command("quit", nil)
	m.waitOff()
}

func metadataJSON(t *testing.T, hostname, key string) string {
	t.Helper()
	text, err := json.Marshal(map[string]any{
		"uuid": instanceID, "hostname": hostname, "name": hostname, "public_keys": map[string]string{"mine": key},
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// serveDHCP answers every client on the tap with one address and the options that a tenant network gives.
func serveDHCP(t *testing.T, ns netns.NsHandle, tap, server, address string) {
	t.Helper()
	serverIP := net.ParseIP(server).To4()
	at := func(last byte) net.IP { return net.IPv4(serverIP[0], serverIP[1], serverIP[2], last).To4() }
	handler := func(conn net.PacketConn, peer net.Addr, q *dhcpv4.DHCPv4) {
		kind := dhcpv4.MessageTypeOffer
		if q.MessageType() == dhcpv4.MessageTypeRequest {
			kind = dhcpv4.MessageTypeAck
		}
		_, far, err := net.ParseCIDR("10.99.0.0/16")
		if err != nil {
			t.Error(err)
			return
		}
		_, all, err := net.ParseCIDR("0.0.0.0/0")
		if err != nil {
			t.Error(err)
			return
		}
		a, err := dhcpv4.NewReplyFromRequest(q,
			dhcpv4.WithMessageType(kind),
			dhcpv4.WithYourIP(net.ParseIP(address)),
			dhcpv4.WithServerIP(serverIP),
			dhcpv4.WithOption(dhcpv4.OptServerIdentifier(serverIP)),
			dhcpv4.WithNetmask(net.CIDRMask(24, 32)),
			dhcpv4.WithRouter(at(250)), // to be ignored, as option 121 is there
			dhcpv4.WithDNS(at(2)),
			dhcpv4.WithOption(dhcpv4.OptDomainName("example.org")),
			dhcpv4.WithLeaseTime(3600),
			dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionInterfaceMTU, []byte{1442 >> 8, 1442 & 0xff})),
			dhcpv4.WithOption(dhcpv4.OptClasslessStaticRoute(
				&dhcpv4.Route{Dest: all, Router: serverIP}, &dhcpv4.Route{Dest: far, Router: at(3)})),
		)
		if err != nil {
			t.Error(err)
			return
		}
		if _, err := conn.WriteTo(a.ToBytes(), &net.UDPAddr{IP: net.IPv4bcast, Port: dhcpv4.ClientPort}); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Errorf("DHCP answer: %v", err)
		}
	}
	var s *server4.Server
	err := within(ns, func() (err error) {
		s, err = server4.NewServer(tap, nil, handler)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Serve() // returns an error when closed
	}()
	t.Cleanup(func() {
		s.Close()
		<-done
	})
}

// serveRouter answers router solicitations (RFC 4861) on the tap with flags, a prefix of 64 bits from which guests make
// addresses unless they are managed, and further options.
func serveRouter(t *testing.T, ns netns.NsHandle, tap string, prefix net.IP, flags byte, options ...byte) {
	t.Helper()
	var conn net.PacketConn
	err := within(ns, func() (err error) {
		if conn, err = net.ListenPacket("ip6:ipv6-icmp", "::"); err != nil {
			return err
		}
		p := ipv6.NewPacketConn(conn)
		link, err := net.InterfaceByName(tap)
		if err != nil {
			return err
		}
		return errors.Join(p.SetMulticastHopLimit(255), p.SetMulticastInterface(link), p.JoinGroup(link, &net.IPAddr{IP: net.IPv6linklocalallrouters}))
	})
	if err != nil {
		t.Fatal(err)
	}
	advert := []byte{134, 0, 0, 0, 64, flags, 1800 >> 8, 1800 & 0xff, 0, 0, 0, 0, 0, 0, 0, 0}
	use := byte(0xc0) // on the link, and for addresses
	if flags&managed != 0 {
		use = 0x80
	}
	advert = append(advert, 3, 4, 64, use, 0, 0, 14, 16, 0, 0, 14, 16, 0, 0, 0, 0) // prefix information, valid for an hour
	advert = append(append(advert, prefix.To16()...), options...)
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 1500)
		for {
			n, _, err := conn.ReadFrom(buf)
			if err != nil {
				return // closed
			}
			if n > 0 && buf[0] == 133 {
				if _, err := conn.WriteTo(advert, &net.IPAddr{IP: net.IPv6linklocalallnodes, Zone: tap}); err != nil {
					t.Errorf("router advertisement: %v", err)
				}
			}
		}
	}()
	t.Cleanup(func() {
		conn.Close()
		<-done
	})
}

// metadataService serves fixed texts and remembers the Host headers it was asked with.
type metadataService struct {
	texts map[string]string
	mu    sync.Mutex
	asked []string
}

func (s *metadataService) serve(texts map[string]string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.texts = texts
}

func (s *metadataService) hosts() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.asked...)
}

func (s *metadataService) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	if len(s.asked) == 0 || s.asked[len(s.asked)-1] != r.Host {
		s.asked = append(s.asked, r.Host)
	}
	text, ok := s.texts[r.URL.Path]
	s.mu.Unlock()
	if !ok {
		http.NotFound(w, r)
		return
	}
	if _, err := w.Write([]byte(text)); err != nil {
		slog.Warn("metadata answer", "error", err)
	}
}

func serveMetadata(t *testing.T, ns netns.NsHandle, texts map[string]string) *metadataService {
	t.Helper()
	s := &metadataService{texts: texts}
	var l net.Listener
	err := within(ns, func() (err error) {
		l, err = net.Listen("tcp", "169.254.169.254:80")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: s}
	go server.Serve(l) // returns http.ErrServerClosed
	t.Cleanup(func() { server.Shutdown(context.Background()) })
	return s
}

func newKey(t *testing.T) (ssh.Signer, string) {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return signer, strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey()))) + " mine"
}

// sshRun runs a command over ssh from the namespace and returns its output and the guest's host key.
func sshRun(t *testing.T, ns netns.NsHandle, signer ssh.Signer, user, command string) (out, hostKey string) {
	t.Helper()
	return sshBy(t, ns, ssh.PublicKeys(signer), user, command)
}

func sshBy(t *testing.T, ns netns.NsHandle, auth ssh.AuthMethod, user, command string) (out, hostKey string) {
	t.Helper()
	var conn net.Conn
	err := within(ns, func() (err error) {
		conn, err = net.DialTimeout("tcp", "10.1.0.7:22", bootDeadline)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(bootDeadline)); err != nil {
		t.Fatal(err)
	}
	c, chans, reqs, err := ssh.NewClientConn(conn, "guest", &ssh.ClientConfig{
		User: user, Auth: []ssh.AuthMethod{auth}, HostKeyCallback: func(_ string, _ net.Addr, k ssh.PublicKey) error {
			hostKey = ssh.FingerprintSHA256(k)
			return nil
		},
	})
	if err != nil {
		t.Fatalf("ssh as %s: %v", user, err)
	}
	client := ssh.NewClient(c, chans, reqs)
	defer client.Close()
	session, err := client.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	text, err := session.CombinedOutput(command)
	if err != nil {
		t.Fatalf("ssh as %s: %v: %s", user, err, text)
	}
	return string(text), hostKey
}
