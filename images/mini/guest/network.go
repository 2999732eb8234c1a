package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
)

// networkData is the part used of network_data.json; its schema is in
// https://docs.openstack.org/nova/latest/user/metadata.html#openstack-format-metadata.
type networkData struct {
	Links []struct {
		ID  string `json:"id"`
		MAC string `json:"ethernet_mac_address"`
		MTU int    `json:"mtu"`
	} `json:"links"`
	Networks []networkEntry `json:"networks"`
	Services []service      `json:"services"`
}

type networkEntry struct {
	Link     string    `json:"link"`
	Type     string    `json:"type"`
	Address  string    `json:"ip_address"`
	Netmask  string    `json:"netmask"`
	Gateway  string    `json:"gateway"`
	Routes   []route   `json:"routes"`
	Services []service `json:"services"`
}

type route struct {
	Network string `json:"network"`
	Netmask string `json:"netmask"`
	Gateway string `json:"gateway"`
}

type service struct {
	Type    string `json:"type"`
	Address string `json:"address"`
}

// plan is what one interface gets: arguments for ip(8), in order.
type plan struct {
	commands [][]string
	fixed    bool // has a fixed IPv4 address, so no DHCP
	fixed6   bool // the same for IPv6
	dns      []string
}

// plans computes the plan of each interface; names maps lower-case MAC addresses to interface names. Links that are
// not here and networks that are left to DHCP or router advertisements have none.
func (d networkData) plans(names map[string]string) (map[string]*plan, error) {
	links := map[string]string{}
	out := map[string]*plan{}
	for _, l := range d.Links {
		name, ok := names[strings.ToLower(l.MAC)]
		if !ok {
			continue
		}
		links[l.ID] = name
		p := &plan{commands: [][]string{{"link", "set", name, "up"}}}
		if l.MTU > 0 {
			p.commands = append(p.commands, []string{"link", "set", name, "mtu", fmt.Sprint(l.MTU)})
		}
		out[name] = p
	}
	for _, n := range d.Networks {
		name, ok := links[n.Link]
		if !ok || (n.Type != "ipv4" && n.Type != "ipv6") {
			continue
		}
		prefix, err := parsePrefix(n.Address, n.Netmask)
		if err != nil {
			return nil, fmt.Errorf("network of link %s: %w", n.Link, err)
		}
		p := out[name]
		p.fixed, p.fixed6 = p.fixed || n.Type == "ipv4", p.fixed6 || n.Type == "ipv6"
		family := "-4"
		if prefix.Addr().Is6() {
			family = "-6"
		}
		p.commands = append(p.commands, []string{family, "address", "replace", prefix.String(), "dev", name})
		routes := n.Routes
		if n.Gateway != "" {
			routes = append([]route{{Network: "default", Gateway: n.Gateway}}, routes...)
		}
		for _, r := range routes {
			to := r.Network
			if to != "default" {
				dst, err := parsePrefix(r.Network, r.Netmask)
				if err != nil {
					return nil, fmt.Errorf("route of link %s: %w", n.Link, err)
				}
				to = dst.Masked().String()
			}
			p.commands = append(p.commands, []string{family, "route", "replace", to, "via", r.Gateway, "dev", name, "onlink"})
		}
		for _, s := range append(n.Services, d.Services...) {
			if s.Type == "dns" {
				p.dns = append(p.dns, s.Address)
			}
		}
	}
	return out, nil
}

// parsePrefix accepts "a/len", and an address with a netmask of either family written as an address.
func parsePrefix(address, netmask string) (netip.Prefix, error) {
	if strings.Contains(address, "/") {
		return netip.ParsePrefix(address)
	}
	a, err := netip.ParseAddr(address)
	if err != nil {
		return netip.Prefix{}, err
	}
	if netmask == "" {
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	m, err := netip.ParseAddr(netmask)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("netmask: %w", err)
	}
	ones, bits := net.IPMask(m.AsSlice()).Size()
	if bits != a.BitLen() {
		return netip.Prefix{}, fmt.Errorf("netmask %s does not fit %s", netmask, address)
	}
	return netip.PrefixFrom(a, ones), nil
}

// configureNetwork sets the fixed addresses of the config drive's network_data.json, if it has one, and marks their
// interfaces so that they are not given to DHCP.
func configureNetwork(drive string) error {
	text, err := os.ReadFile(filepath.Join(drive, "openstack", "latest", "network_data.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var data networkData
	if err := json.Unmarshal(text, &data); err != nil {
		return fmt.Errorf("parse network_data.json: %w", err)
	}
	ifs, err := net.Interfaces()
	if err != nil {
		return err
	}
	names := map[string]string{}
	for _, i := range ifs {
		names[i.HardwareAddr.String()] = i.Name
	}
	plans, err := data.plans(names)
	if err != nil {
		return err
	}
	var errs []error
	for name, p := range plans {
		errs = append(errs, p.apply(name))
	}
	return errors.Join(errs...)
}

func (p *plan) apply(name string) error {
	for _, args := range p.commands {
		if err := run("ip", args...); err != nil {
			return err
		}
	}
	if p.fixed6 {
		if err := writeFile(filepath.Join("/run/nic", name+".fixed6"), nil, 0o644); err != nil {
			return err
		}
	}
	if !p.fixed {
		return nil
	}
	dir := filepath.Join("/run/nic", name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	var resolv strings.Builder
	for _, a := range p.dns {
		fmt.Fprintf(&resolv, "nameserver %s\n", a)
	}
	say("%s: fixed address from the config drive", name)
	return errors.Join(
		writeFile(filepath.Join(dir, "address"), nil, 0o644),
		writeFile(filepath.Join(dir, "resolv"), []byte(resolv.String()), 0o644),
		writeFile("/run/resolv.conf", []byte(resolv.String()), 0o644),
		writeFile(dir+".fixed", nil, 0o644))
}
