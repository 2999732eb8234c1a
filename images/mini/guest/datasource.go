package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"time"
)

// instance is what a data source says about this guest.
type instance struct {
	id       string
	hostname string
	keys     []string // lines for authorized_keys
	userData []byte
}

const (
	stateDir = "/var/lib/yakumo"
	// metadataDeadline bounds the search for a metadata service, from the start of this program.
	metadataDeadline = 2 * time.Minute
	// addressWait bounds the wait for an address before user data is run.
	addressWait = 30 * time.Second
)

// runDataSource finds the instance's data, applies it and runs the user data if this instance has not run it yet.
// It writes a line to the fifo as soon as keys, host name and an address are set: the login prompt waits for that.
func runDataSource(ctx context.Context, drive, fifo string) error {
	start := time.Now()
	inst, source, tries, err := findInstance(ctx, drive)
	if err != nil {
		signalReady(fifo)
		return fmt.Errorf("none found in %.1f s: %w", time.Since(start).Seconds(), err)
	}
	again := ""
	if tries > 1 {
		again = fmt.Sprintf(", at try %d", tries)
	}
	say("data source: %s, instance %s, found in %.1f s%s", source, inst.id, time.Since(start).Seconds(), again)
	first, err := beginInstance(inst.id)
	if err != nil {
		signalReady(fifo)
		return err
	}
	err = errors.Join(setHostname(inst.hostname), authorize(inst.keys))
	// A config drive is read before the network is up; being ready, and user data, want one.
	wait, cancel := context.WithTimeout(ctx, addressWait)
	defer cancel()
	if waitErr := waitForAddress(wait); waitErr != nil {
		say("going on without an address: %v", waitErr)
	}
	signalReady(fifo)
	if !first {
		say("user data: done before for this instance")
		return err
	}
	return errors.Join(err, applyUserData(inst.userData))
}

func findInstance(ctx context.Context, drive string) (inst *instance, source string, tries int, err error) {
	if _, err := os.Stat(drive); err == nil {
		inst, err := readDrive(drive)
		return inst, "config drive", 1, err
	}
	ctx, cancel := context.WithTimeout(ctx, metadataDeadline)
	defer cancel()
	if err := waitForAddress(ctx); err != nil {
		return nil, "", 0, err
	}
	pause := 100 * time.Millisecond
	for tries = 1; ; tries++ {
		inst, source, err := metadata{address: metadataAddress()}.read(ctx)
		if err == nil {
			return inst, source, tries, nil
		}
		select {
		case <-ctx.Done():
			return nil, "", tries, err
		case <-time.After(pause):
		}
		pause = min(2*pause, 5*time.Second)
	}
}

// metadataAddress is where the service is: at its IPv4 address, or where there is none of our own at its IPv6
// address on the first interface that has one (https://docs.openstack.org/nova/latest/user/metadata.html).
func metadataAddress() string {
	if four, six := addressed(); !four && six != "" {
		return "[fe80::a9fe:a9fe%" + six + "]:80"
	}
	return "169.254.169.254:80"
}

// addressed tells whether an interface has its IPv4 lease or fixed address, and names the first one with an IPv6
// address that others may reach.
func addressed() (four bool, six string) {
	dirs, err := filepath.Glob("/run/nic/*")
	if err != nil {
		return false, ""
	}
	for _, d := range dirs {
		four = four || fileExists(filepath.Join(d, "address"))
		i, err := net.InterfaceByName(filepath.Base(d))
		if err != nil || six != "" {
			continue
		}
		addrs, err := i.Addrs()
		if err != nil {
			continue
		}
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok && n.IP.To4() == nil && n.IP.IsGlobalUnicast() {
				six = i.Name
			}
		}
	}
	return four, six
}

// patience4 is how long a guest that has an IPv6 address waits for an IPv4 one.
const patience4 = 2 * time.Second

// waitForAddress returns when an interface has its address, at once if there is no interface.
func waitForAddress(ctx context.Context) error {
	nics, err := filepath.Glob("/sys/class/net/*/device")
	if err != nil || len(nics) == 0 {
		return err
	}
	var since time.Time // when there was an IPv6 address
	for {
		four, six := addressed()
		if six != "" && since.IsZero() {
			since = time.Now()
		}
		if four || (!since.IsZero() && time.Since(since) > patience4) {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.New("no interface got an address by DHCP or router advertisement")
		case <-time.After(30 * time.Millisecond):
		}
	}
}

// openstackMetadata is the part used of meta_data.json, the same on a config drive and from the service; see
// https://docs.openstack.org/nova/latest/user/metadata.html.
type openstackMetadata struct {
	UUID       string            `json:"uuid"`
	Hostname   string            `json:"hostname"`
	Name       string            `json:"name"`
	PublicKeys map[string]string `json:"public_keys"`
}

func (m openstackMetadata) instance() (*instance, error) {
	if m.UUID == "" {
		return nil, errors.New("meta_data.json has no uuid")
	}
	inst := &instance{id: m.UUID, hostname: m.Hostname}
	if inst.hostname == "" {
		inst.hostname = m.Name
	}
	names := make([]string, 0, len(m.PublicKeys))
	for name := range m.PublicKeys {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		inst.keys = append(inst.keys, keyLines(m.PublicKeys[name])...)
	}
	return inst, nil
}

// keyLines splits text into authorized_keys lines, without blanks and comments.
func keyLines(text string) []string {
	var lines []string
	for l := range strings.Lines(text) {
		if l = strings.TrimSpace(l); l != "" && !strings.HasPrefix(l, "#") {
			lines = append(lines, l)
		}
	}
	return lines
}

func parseOpenstackMetadata(data []byte) (*instance, error) {
	var m openstackMetadata
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, fmt.Errorf("parse meta_data.json: %w", err)
	}
	return m.instance()
}

func readDrive(drive string) (*instance, error) {
	dir := filepath.Join(drive, "openstack", "latest")
	data, err := os.ReadFile(filepath.Join(dir, "meta_data.json"))
	if err != nil {
		return nil, fmt.Errorf("read config drive: %w", err)
	}
	inst, err := parseOpenstackMetadata(data)
	if err != nil {
		return nil, err
	}
	inst.userData, err = os.ReadFile(filepath.Join(dir, "user_data"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read config drive: %w", err)
	}
	return inst, nil
}

// beginInstance records that this disk now serves the instance and says whether it is the first time. The record is
// written before the user data runs: user data that ends the guest half-way must not run again at every boot. A disk
// that served another instance before gets new host keys.
func beginInstance(id string) (bool, error) {
	file := filepath.Join(stateDir, "instance-id")
	before, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("read the instance id of the last boot: %w", err)
	}
	old := strings.TrimSpace(string(before))
	if old == id {
		return false, nil
	}
	if old != "" {
		say("this disk served instance %s before; new ssh host keys", old)
		if err := run("/etc/init.d/sshd", "renew"); err != nil {
			return false, err
		}
	}
	if err := os.MkdirAll(stateDir, 0o755); err != nil {
		return false, err
	}
	return true, writeFile(file, []byte(id+"\n"), 0o644)
}

// writeFile replaces the file by name, so that a power cut leaves the old one or the new one.
func writeFile(name string, data []byte, mode fs.FileMode) error {
	tmp := name + ".new"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := errors.Join(f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(tmp, name)
}

// setHostname sets the short name, now and for later boots.
func setHostname(fqdn string) error {
	if fqdn == "" {
		return nil
	}
	short, _, _ := strings.Cut(fqdn, ".")
	if err := syscall.Sethostname([]byte(short)); err != nil {
		return fmt.Errorf("set host name %q: %w", short, err)
	}
	names := short
	if fqdn != short {
		names = fqdn + " " + short
	}
	hosts := "127.0.0.1 localhost\n127.0.1.1 " + names + "\n::1 localhost\n"
	return errors.Join(
		writeFile("/etc/hostname", []byte(short+"\n"), 0o644),
		writeFile("/etc/hosts", []byte(hosts), 0o644))
}

// authorize adds the keys to root's and cirros's authorized_keys; keys that are there stay.
func authorize(keys []string) error {
	if len(keys) == 0 {
		return nil
	}
	var errs []error
	for _, u := range []struct {
		home string
		id   int
	}{{"/root", 0}, {"/home/cirros", 1000}} {
		errs = append(errs, authorizeFor(filepath.Join(u.home, ".ssh"), u.id, keys))
	}
	return errors.Join(errs...)
}

func authorizeFor(dir string, owner int, keys []string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	file := filepath.Join(dir, "authorized_keys")
	text, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	have := map[string]bool{}
	for _, l := range keyLines(string(text)) {
		have[l] = true
	}
	if len(text) > 0 && text[len(text)-1] != '\n' {
		text = append(text, '\n')
	}
	for _, k := range keys {
		if !have[k] {
			have[k] = true
			text = append(text, k+"\n"...)
		}
	}
	if err := writeFile(file, text, 0o600); err != nil {
		return err
	}
	return errors.Join(os.Chown(dir, owner, owner), os.Chown(file, owner, owner))
}

// signalReady tells the start script to go on. When that has stopped waiting nobody reads the fifo (ENXIO), which is
// as good.
func signalReady(fifo string) {
	f, err := os.OpenFile(fifo, os.O_WRONLY|syscall.O_NONBLOCK, 0)
	if err == nil {
		_, err = f.WriteString("ready\n")
		err = errors.Join(err, f.Close())
	}
	if err != nil && !errors.Is(err, syscall.ENXIO) {
		say("tell the start script: %v", err)
	}
}
