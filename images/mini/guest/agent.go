package main

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A small agent of the kind that QEMU's guest agent is, for who sets passwords in guests and copies their disks:
// https://www.qemu.org/docs/master/interop/qemu-ga-ref.html.

const agentPort = "org.qemu.guest_agent.0"

// Requests of linux/fs.h: FIFREEZE, FITHAW.
const (
	fiFreeze = 0xc0045877
	fiThaw   = 0xc0045878
)

// agentLine bounds a command, in bytes.
const agentLine = 64 << 10

// attendAgent answers the host for as long as the guest runs, where it has the port.
func attendAgent() error {
	controllers, err := filepath.Glob("/sys/bus/virtio/drivers/virtio_console/virtio*")
	if err != nil || len(controllers) == 0 {
		return err
	}
	for range 30 { // a driver that was loaded just now learns of its ports from the host
		names, err := filepath.Glob("/sys/class/virtio-ports/*/name")
		if err != nil {
			return err
		}
		for _, name := range names {
			if text, err := os.ReadFile(name); err == nil && strings.TrimSpace(string(text)) == agentPort {
				return serveAgent(filepath.Join("/dev", filepath.Base(filepath.Dir(name))))
			}
		}
		time.Sleep(time.Second)
	}
	return nil
}

func serveAgent(device string) error {
	f, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	// By the system call: the runtime would poll the port, which is always ready while nobody is at the other end.
	fd := int(f.Fd()) // blocks from now on
	a := &agent{freeze: freeze, thaw: thaw, setPassword: setPassword, power: power}
	for {
		err := a.serve(port(fd))
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		time.Sleep(200 * time.Millisecond) // the host's end is closed, until it is opened anew
	}
}

// port is the guest's end of a virtio serial port.
type port int

func (p port) Read(b []byte) (int, error) {
	n, err := retry(func() (int, error) { return unix.Read(int(p), b) })
	if n == 0 && err == nil {
		return 0, io.EOF
	}
	return max(n, 0), err
}

func (p port) Write(b []byte) (int, error) {
	n, err := retry(func() (int, error) { return unix.Write(int(p), b) })
	return max(n, 0), err
}

func retry(f func() (int, error)) (int, error) {
	for {
		if n, err := f(); err != unix.EINTR {
			return n, err
		}
	}
}

// agent carries out commands by what it is given to do them with.
type agent struct {
	freeze, thaw func() (int, error) // how many file systems
	setPassword  func(user, password string, crypted bool) error
	power        func(mode string) error

	mu     sync.Mutex
	frozen bool
	since  time.Time
}

// errUnknown is the error of a command that this agent does not have.
var errUnknown = errors.New("The command has not been found")

// commands are those of QEMU's agent that this one has. What a frozen guest may be asked for is true.
var commands = map[string]bool{
	"guest-sync": true, "guest-sync-delimited": true, "guest-ping": true, "guest-info": true, "guest-set-user-password": false,
	"guest-fsfreeze-status": true, "guest-fsfreeze-freeze": false, "guest-fsfreeze-thaw": true, "guest-shutdown": false,
}

// serve answers commands, a line each, until the other end closes. A line that is no command has an error for an answer.
func (a *agent) serve(rw io.ReadWriter) error {
	in := bufio.NewScanner(rw)
	in.Buffer(nil, agentLine)
	for in.Scan() {
		line := in.Bytes()
		if at := bytes.LastIndexByte(line, 0xff); at >= 0 { // whoever sends one wants all before it forgotten
			line = line[at+1:]
		}
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		if out := a.answer(line); out != nil {
			if _, err := rw.Write(out); err != nil {
				return err
			}
		}
	}
	if err := in.Err(); err != nil {
		return err
	}
	return io.EOF
}

type command struct {
	Execute   string `json:"execute"`
	Arguments struct {
		ID       *int64 `json:"id"`
		Mode     string `json:"mode"`
		Username string `json:"username"`
		Password string `json:"password"` // base64
		Crypted  bool   `json:"crypted"`
	} `json:"arguments"`
}

// answer gives the answer's bytes, nil for none.
func (a *agent) answer(line []byte) []byte {
	var c command
	err := json.Unmarshal(line, &c)
	var out any
	if err == nil {
		out, err = a.do(&c)
	}
	if err == nil && c.Execute == "guest-shutdown" {
		return nil
	}
	reply := map[string]any{"return": out}
	if err != nil {
		class := "GenericError"
		if errors.Is(err, errUnknown) {
			class = "CommandNotFound"
		}
		reply = map[string]any{"error": map[string]string{"class": class, "desc": err.Error()}}
	}
	b, err := json.Marshal(reply)
	if err != nil {
		return nil // not possible: all that is in it can be written
	}
	b = append(b, '\n')
	if c.Execute == "guest-sync-delimited" {
		b = append([]byte{0xff}, b...)
	}
	return b
}

func (a *agent) do(c *command) (any, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	nothing := struct{}{}
	always, known := commands[c.Execute]
	switch {
	case !known:
		return nil, fmt.Errorf("%w: %.40q", errUnknown, c.Execute)
	case a.frozen && !always:
		return nil, fmt.Errorf("Command %s has been disabled: the file systems are frozen", c.Execute)
	}
	switch x := c.Arguments; c.Execute {
	case "guest-sync", "guest-sync-delimited":
		if x.ID == nil {
			return nil, errors.New("Parameter 'id' is missing")
		}
		return *x.ID, nil
	case "guest-info":
		var list []map[string]any
		for name := range commands {
			list = append(list, map[string]any{"name": name, "enabled": true, "success-response": name != "guest-shutdown"})
		}
		slices.SortFunc(list, func(a, b map[string]any) int { return strings.Compare(a["name"].(string), b["name"].(string)) })
		return map[string]any{"version": "yakumo-mini", "supported_commands": list}, nil
	case "guest-set-user-password":
		p, err := base64.StdEncoding.DecodeString(x.Password)
		if err != nil || bytes.ContainsAny(p, "\x00\n") || x.Username == "" || strings.ContainsAny(x.Username, ":\x00\n") {
			return nil, errors.New("The user or the password has a character that none may have")
		}
		return nothing, a.setPassword(x.Username, string(p), x.Crypted)
	case "guest-fsfreeze-status":
		if a.frozen {
			return "frozen", nil
		}
		return "thawed", nil
	case "guest-fsfreeze-freeze":
		n, err := a.freeze()
		a.frozen, a.since = err == nil, time.Now()
		return n, err
	case "guest-fsfreeze-thaw":
		if !a.frozen {
			return 0, nil
		}
		n, err := a.thaw()
		if a.frozen = err != nil; !a.frozen {
			say("guest agent: file systems stood still for %d ms", time.Since(a.since).Milliseconds())
		}
		return n, err
	case "guest-shutdown":
		return nil, a.power(x.Mode)
	}
	return nothing, nil // a ping
}

const shadowFile = "/etc/shadow"

// setPassword has the shadow file changed. What it says on failure names no password.
func setPassword(user, password string, crypted bool) error {
	hash := password
	if !crypted {
		cmd := exec.Command("busybox", "mkpasswd", "-m", "sha512", "-P", "0") // with a salt of its own
		cmd.Stdin = strings.NewReader(password + "\n")
		out, err := cmd.Output()
		if err != nil {
			return fmt.Errorf("The password of %q cannot be hashed: %w", user, err)
		}
		hash = strings.TrimSpace(string(out))
	}
	old, err := os.ReadFile(shadowFile)
	if err != nil {
		return err
	}
	text, err := withPassword(string(old), user, hash)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(shadowFile+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(shadowFile+".new", shadowFile)
}

// withPassword gives the shadow file with another hash for a user.
func withPassword(shadow, user, hash string) (string, error) {
	if hash == "" || strings.ContainsAny(hash, ":\n") {
		return "", errors.New("The password's hash has a character that none may have")
	}
	lines := strings.Split(shadow, "\n")
	for i, line := range lines {
		if f := strings.Split(line, ":"); f[0] == user && len(f) > 1 {
			f[1] = hash
			lines[i] = strings.Join(f, ":")
			return strings.Join(lines, "\n"), nil
		}
	}
	return "", fmt.Errorf("There is no user %q", user)
}

// power turns the guest off, or starts it anew.
func power(mode string) error {
	program := map[string]string{"": "poweroff", "powerdown": "poweroff", "halt": "halt", "reboot": "reboot"}[mode]
	if program == "" {
		return fmt.Errorf("Parameter 'mode' cannot be %.40q", mode)
	}
	return exec.Command("busybox", program).Run()
}

// writable gives a mount point of each file system on a disk that can be written.
func writable() ([]string, error) {
	mounts, err := os.ReadFile("/proc/mounts")
	if err != nil {
		return nil, err
	}
	return writableOf(string(mounts)), nil
}

func writableOf(mounts string) (points []string) {
	seen := map[string]bool{}
	for _, line := range strings.Split(mounts, "\n") {
		f := strings.Fields(line)
		if len(f) < 4 || !strings.HasPrefix(f[0], "/dev/") || seen[f[0]] || !slices.Contains([]string{"ext4", "ext3", "ext2", "xfs"}, f[2]) ||
			!slices.Contains(strings.Split(f[3], ","), "rw") {
			continue
		}
		seen[f[0]] = true
		points = append(points, strings.ReplaceAll(f[1], `\040`, " "))
	}
	return points
}

// freeze writes out what is not on the disks yet and holds writers from then on; all or none.
func freeze() (int, error) {
	points, err := writable()
	if err != nil {
		return 0, err
	}
	slices.Reverse(points) // what is mounted within another goes first
	for i, p := range points {
		if err := each(p, fiFreeze); err != nil {
			for _, done := range points[:i] {
				err = errors.Join(err, each(done, fiThaw))
			}
			return 0, err
		}
	}
	return len(points), nil
}

func thaw() (int, error) {
	points, err := writable()
	if err != nil {
		return 0, err
	}
	n := 0
	for _, p := range points {
		if oneErr := each(p, fiThaw); oneErr == nil {
			n++
		} else if !errors.Is(oneErr, unix.EINVAL) { // EINVAL: it is not frozen
			err = errors.Join(err, oneErr)
		}
	}
	return n, err
}

func each(point string, request uint) error {
	fd, err := unix.Open(point, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("%s: %w", point, err)
	}
	defer unix.Close(fd)
	if err := unix.IoctlSetInt(fd, request, 0); err != nil {
		return fmt.Errorf("%s: %w", point, err)
	}
	return nil
}
