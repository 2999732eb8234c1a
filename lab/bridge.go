package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Bridge is a netdev bridge of the machine's Open vSwitch that learns addresses, as an operator
// makes one for the uplink of tunnels or for a provider network.
type Bridge struct {
	Name string `json:"name"`
	// Ports are the devices that stand on it; a last "*" means every device whose name begins so.
	Ports []string `json:"ports"`
	// MAC is that of the bridge's own device; empty: the switch chooses.
	MAC string `json:"mac,omitempty"`
	// Addresses are those of the bridge's own device; where there are none it stays down.
	Addresses []string `json:"addresses,omitempty"`
	// Internal are more devices of the machine on the bridge.
	Internal []Device `json:"internal,omitempty"`
}

// Device is a network device with addresses, each with its prefix length. Other addresses of
// global scope do not stay on it.
type Device struct {
	Name      string   `json:"name"`
	VLAN      int      `json:"vlan,omitempty"` // on a bridge: the VLAN whose frames it sends and gets untagged; 0: none
	MAC       string   `json:"mac,omitempty"`  // on a bridge: its hardware address; empty: the switch chooses
	Addresses []string `json:"addresses,omitempty"`
}

// keeper keeps a machine's network. joined holds the index of each device that it has put on a
// bridge: a cable that went and came back has the same name, and is another device.
type keeper struct {
	in     *initd
	joined map[string]int
}

// keepNetwork keeps the machine's bridges and devices as described, whatever daemon restarts
// and whatever cable comes late.
func (in *initd) keepNetwork(ctx context.Context) {
	k := keeper{in, map[string]int{}}
	last := ""
	for ctx.Err() == nil {
		m := in.machine()
		var errs []error
		for _, b := range m.Bridges {
			errs = append(errs, k.bridge(ctx, b))
		}
		for _, d := range m.Devices {
			errs = append(errs, k.device(d))
		}
		err := errors.Join(errs...)
		pause := 300 * time.Millisecond
		if err != nil {
			pause = 50 * time.Millisecond
			if err.Error() != last {
				fmt.Fprintf(in.log, "%s: network: %v\n", m.Name, err)
				last = err.Error()
			}
		}
		in.mu.Lock()
		in.settled = err == nil
		in.mu.Unlock()
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

// bridge makes the bridge what it should be; where it is, it only looks.
func (k *keeper) bridge(ctx context.Context, b Bridge) error {
	ports, err := matching(b.Ports)
	if err != nil {
		return err
	}
	var args []string
	add := func(cmd ...string) { args = append(append(args, "--"), cmd...) }
	if _, err := net.InterfaceByName(b.Name); err != nil {
		add("--may-exist", "add-br", b.Name)
		add("set", "bridge", b.Name, "datapath_type=netdev", "fail_mode=standalone")
		if b.MAC != "" {
			add("set", "bridge", b.Name, `other-config:hwaddr="`+b.MAC+`"`)
		}
	}
	for _, p := range ports {
		if k.joined[p.Name] == p.Index {
			continue
		}
		if k.joined[p.Name] != 0 { // the switch still holds the device that is gone
			if err := k.vsctl(ctx, true, "--if-exists", "del-port", b.Name, p.Name); err != nil {
				return err
			}
		}
		// The kernel sees the frames of a user-space switch's ports too, and would answer ARP for the bridge's address
		// with the port's MAC: whoever hears that answer last sends tunnels to where no switch listens.
		if err := k.in.ip("link", "set", "dev", p.Name, "arp", "off", "up"); err != nil {
			return err
		}
		add("--may-exist", "add-port", b.Name, p.Name)
	}
	for _, d := range b.Internal {
		if _, err := net.InterfaceByName(d.Name); err != nil {
			add("--may-exist", "add-port", b.Name, d.Name)
			add("set", "interface", d.Name, "type=internal")
			if d.MAC != "" {
				add("set", "interface", d.Name, `mac="`+d.MAC+`"`)
			}
			add("set", "port", d.Name, fmt.Sprintf("tag=%d", d.VLAN))
		}
	}
	if len(args) > 0 {
		// Without the wait: vswitchd may not be there yet, and the devices tell when it has acted.
		if err := k.vsctl(ctx, false, args[1:]...); err != nil {
			return err
		}
		for _, p := range ports {
			k.joined[p.Name] = p.Index
		}
	}
	errs := []error{}
	if len(b.Addresses) > 0 {
		errs = append(errs, k.device(Device{Name: b.Name, Addresses: b.Addresses}))
	} else if _, err := net.InterfaceByName(b.Name); err != nil {
		errs = append(errs, fmt.Errorf("waiting for the switch to make %s", b.Name))
	}
	for _, d := range b.Internal {
		errs = append(errs, k.device(d))
	}
	if len(ports) < len(b.Ports) {
		errs = append(errs, fmt.Errorf("%s waits for devices %v", b.Name, b.Ports))
	}
	return errors.Join(errs...)
}

func (k *keeper) vsctl(ctx context.Context, wait bool, args ...string) error {
	if _, err := os.Stat("/run/openvswitch/db.sock"); err != nil {
		return errors.New("waiting for the switch's database")
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if !wait {
		args = append([]string{"--no-wait"}, args...)
	}
	out, err := k.in.output(ctx, "ovs-vsctl", args...)
	if err != nil {
		return fmt.Errorf("ovs-vsctl %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

// device sees to a device's addresses and has it up.
func (k *keeper) device(d Device) error {
	i, err := net.InterfaceByName(d.Name)
	if err != nil {
		return fmt.Errorf("waiting for the device %s", d.Name)
	}
	addrs, err := i.Addrs()
	if err != nil {
		return err
	}
	var have []string
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); !ok || n.IP.IsLinkLocalUnicast() {
			continue
		}
		if !slices.Contains(d.Addresses, a.String()) {
			if err := k.in.ip("addr", "del", a.String(), "dev", d.Name); err != nil {
				return err
			}
			continue
		}
		have = append(have, a.String())
	}
	if i.Flags&net.FlagUp == 0 {
		if err := k.in.ip("link", "set", d.Name, "up"); err != nil {
			return err
		}
	}
	for _, a := range d.Addresses {
		if slices.Contains(have, a) {
			continue
		}
		args := []string{"addr", "replace", a, "dev", d.Name}
		if strings.Contains(a, ":") {
			args = append(args, "nodad") // nobody else has it
		}
		if err := k.in.ip(args...); err != nil {
			return err
		}
	}
	return nil
}

// matching gives the devices here that patterns name.
func matching(patterns []string) ([]net.Interface, error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(i net.Interface) bool {
		return !slices.ContainsFunc(patterns, func(p string) bool {
			ok, err := filepath.Match(p, i.Name)
			return ok && err == nil
		})
	}), nil
}
