package mini

import (
	"bufio"
	"encoding/json"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/crypto/ssh"
)

// agentDevice gives QEMU's arguments for a channel to the guest's agent, and the socket that listens for it.
func agentDevice(t *testing.T) (net.Listener, []string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "agent")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, []string{"-device", "virtio-serial-pci", "-chardev", "socket,id=agent,path=" + path,
		"-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0"}
}

// testAgent asks the agent of a guest, on whose console cirros is logged in, for all that it can do but to end it.
func testAgent(t *testing.T, ns netns.NsHandle, m *machine, l net.Listener) {
	t.Helper()
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	in := bufio.NewReader(conn)
	do := func(request, want string) {
		t.Helper()
		conn.SetDeadline(time.Now().Add(bootDeadline))
		if _, err := conn.Write([]byte(request + "\n")); err != nil {
			t.Fatal(err)
		}
		got, err := in.ReadString('\n')
		var said struct {
			Return json.RawMessage `json:"return"`
		}
		if err == nil {
			err = json.Unmarshal([]byte(got), &said)
		}
		if err != nil || string(said.Return) != want {
			t.Errorf("%s: got %q, %v, want %s", request, got, err, want)
		}
	}
	do(`{"execute":"guest-sync","arguments":{"id":4711}}`, "4711")
	do(`{"execute":"guest-ping"}`, "{}")
	do(`{"execute":"guest-fsfreeze-freeze"}`, "1")
	do(`{"execute":"guest-fsfreeze-status"}`, `"frozen"`)
	m.sh(`sh -c "echo now >/home/cirros/when &"; sleep 0.2`)
	m.sh(`test ! -e /home/cirros/when`) // it waits
	do(`{"execute":"guest-fsfreeze-thaw"}`, "1")
	m.sh(`until test -s /home/cirros/when; do sleep 0.1; done`)
	do(`{"execute":"guest-set-user-password","arguments":{"username":"cirros","password":"bmV3OiBvbmU=","crypted":false}}`, "{}")
	if out, _ := sshBy(t, ns, ssh.Password("new: one"), "cirros", "id -un"); out != "cirros\n" {
		t.Errorf("by the new password: %q", out)
	}
	do(`{"execute":"guest-set-user-password","arguments":{"username":"cirros","password":"Z29jdWJzZ28=","crypted":false}}`, "{}")
}
