package lab

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/flavors"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"
	"github.com/gophercloud/gophercloud/v2/openstack/image/v2/imagedata"
	"github.com/gophercloud/gophercloud/v2/openstack/image/v2/images"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/networks"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/subnets"
	"github.com/gophercloud/gophercloud/v2/pagination"

	"yakumo/fault"
)

// DemoConfig says how the demonstration is run.
type DemoConfig struct {
	Image    string // path of the guest image
	Progress func(step string, took time.Duration)
}

// Names of what the demonstration makes; made once and used again.
const (
	demoImage   = "yakumo-mini"
	demoFlavor  = "m1.nano"
	demoNetwork = "demo"
	demoSubnet  = "demo-v4"
	demoMarker  = "yakumo-demo:"
)

// Demo does the main job through the API: loads an image, makes a network, boots two guests
// on two hosts and lets one ping the other, and the outside ping one. It takes up what is there from a run before.
func (l *Lab) Demo(ctx context.Context, cfg DemoConfig) error {
	step := func(name string, f func() error) error {
		began := time.Now()
		if err := f(); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if cfg.Progress != nil {
			cfg.Progress(name, time.Since(began))
		}
		return nil
	}
	if l.cfg.Hosts < 2 {
		return fault.New(fault.Invalid, "The demonstration needs a lab of 2 hosts or more.")
	}
	var (
		c                      *Cloud
		imageID, flavorID, net string
		guests                 [2]*servers.Server
		addr                   [2]string
	)
	for _, s := range []struct {
		name string
		run  func() (err error)
	}{
		{"log in", func() (err error) { c, err = l.Connect(ctx, l.Credentials()); return err }},
		{"load the image " + demoImage, func() (err error) { imageID, err = EnsureImage(ctx, c, demoImage, cfg.Image); return err }},
		{"find the flavor " + demoFlavor, func() (err error) { flavorID, err = flavorByName(ctx, c, demoFlavor); return err }},
		{"create the network " + demoNetwork, func() (err error) { net, err = ensureNetwork(ctx, c); return err }},
		{"boot guest demo-1 on " + HostName(1), func() (err error) {
			guests[0], err = ensureGuest(ctx, c, "demo-1", HostName(1), imageID, flavorID, net, "")
			return err
		}},
		{"boot guest demo-2 on " + HostName(2) + ", which pings demo-1", func() (err error) {
			if addr[0], err = awaitAddress(ctx, c, guests[0].ID); err != nil {
				return err
			}
			// The other guest may still be booting: the ping that counts begins when it answers.
			script := fmt.Sprintf("#!/bin/sh\nn=0\nuntil ping -c 1 -W 1 %[1]s >/dev/null 2>&1; do n=$((n+1)); [ $n -lt 100 ] || break; sleep 0.2; done\n"+
				"ping -i 0.3 -c 3 -W 2 %[1]s 2>&1 | sed 's/^/%[2]s /' >/dev/console\n", addr[0], demoMarker)
			guests[1], err = ensureGuest(ctx, c, "demo-2", HostName(2), imageID, flavorID, net, script)
			return err
		}},
		{"wait until both are ACTIVE", func() error {
			for _, g := range guests {
				if _, err := AwaitServer(ctx, c, g.ID, "ACTIVE"); err != nil {
					return err
				}
			}
			return nil
		}},
	} {
		if err := step(s.name, s.run); err != nil {
			return err
		}
	}
	var said []string
	if err := step("ping "+addr[0]+" from demo-2", func() (err error) { said, err = awaitPing(ctx, c, guests[1].ID); return err }); err != nil {
		return err
	}
	var public, floating string
	var answers []string
	for _, s := range []struct {
		name string
		run  func() (err error)
	}{
		{"create the external network " + demoPublic, func() (err error) { public, err = ensurePublic(ctx, c); return err }},
		{"create the router " + demoRouter, func() error { return ensureRouter(ctx, c, public, net) }},
		{"give demo-1 a floating IP", func() (err error) { floating, err = ensureFloating(ctx, c, public, guests[0].ID); return err }},
		{"ping it from the outside", func() (err error) { answers, err = l.pingFromOutside(ctx, floating); return err }},
	} {
		if err := step(s.name, s.run); err != nil {
			return err
		}
	}
	fmt.Printf("\nWhat demo-2 on %s wrote to its console:\n", HostName(2))
	for _, line := range said {
		fmt.Println("  " + line)
	}
	fmt.Printf("\nWhat the outside sees of demo-1, at its floating IP %s:\n", floating)
	for _, line := range answers {
		fmt.Println("  " + line)
	}
	return nil
}

// EnsureImage uploads a qcow2 image of yakumo-mini's kind as public, unless one of the name is there and active.
func EnsureImage(ctx context.Context, c *Cloud, name, path string) (string, error) {
	page, err := images.List(c.Image, images.ListOpts{Name: name}).AllPages(ctx)
	if err != nil {
		return "", err
	}
	all, err := images.ExtractImages(page)
	if err != nil {
		return "", err
	}
	id := ""
	for _, i := range all {
		switch i.Status {
		case images.ImageStatusActive:
			return i.ID, nil
		case images.ImageStatusQueued: // a run before was cut off
			id = i.ID
		}
	}
	if id == "" {
		public := images.ImageVisibilityPublic
		i, err := images.Create(ctx, c.Image, images.CreateOpts{Name: name, Visibility: &public, DiskFormat: "qcow2", ContainerFormat: "bare",
			Properties: map[string]string{"hw_qemu_guest_agent": "yes", "os_admin_user": "cirros"}}).Extract()
		if err != nil {
			return "", err
		}
		id = i.ID
	}
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	return id, imagedata.Upload(ctx, c.Image, id, f).ExtractErr()
}

func flavorByName(ctx context.Context, c *Cloud, name string) (string, error) {
	page, err := flavors.ListDetail(c.Compute, nil).AllPages(ctx)
	if err != nil {
		return "", err
	}
	all, err := flavors.ExtractFlavors(page)
	if err != nil {
		return "", err
	}
	for _, f := range all {
		if f.Name == name {
			return f.ID, nil
		}
	}
	return "", fault.New(fault.NotFound, "There is no flavor %s.", name)
}

// first gives the first thing of a page by an extractor.
func first[T any](page pagination.Page, err error, extract func(pagination.Page) ([]T, error)) (*T, error) {
	if err != nil {
		return nil, err
	}
	all, err := extract(page)
	if err != nil || len(all) == 0 {
		return nil, err
	}
	return &all[0], nil
}

func ensureNetwork(ctx context.Context, c *Cloud) (string, error) {
	page, err := networks.List(c.Network, networks.ListOpts{Name: demoNetwork}).AllPages(ctx)
	n, err := first(page, err, networks.ExtractNetworks)
	if err != nil {
		return "", err
	}
	if n == nil {
		if n, err = networks.Create(ctx, c.Network, networks.CreateOpts{Name: demoNetwork}).Extract(); err != nil {
			return "", err
		}
	}
	if len(n.Subnets) == 0 {
		if _, err := subnets.Create(ctx, c.Network, subnets.CreateOpts{NetworkID: n.ID, Name: demoSubnet, CIDR: "10.1.0.0/24", IPVersion: gophercloud.IPv4,
			DNSNameservers: []string{"9.9.9.9"}}).Extract(); err != nil {
			return "", err
		}
	}
	return n.ID, nil
}

func ensureGuest(ctx context.Context, c *Cloud, name, host, image, flavor, network, script string) (*servers.Server, error) {
	page, err := servers.List(c.Compute, servers.ListOpts{Name: "^" + name + "$"}).AllPages(ctx)
	s, err := first(page, err, servers.ExtractServers)
	if err != nil {
		return nil, err
	}
	if s != nil && s.Status != "ERROR" {
		return s, nil
	}
	if s != nil {
		if err := servers.Delete(ctx, c.Compute, s.ID).ExtractErr(); err != nil {
			return nil, err
		}
	}
	opts := servers.CreateOpts{Name: name, ImageRef: image, FlavorRef: flavor, Networks: []servers.Network{{UUID: network}}, AvailabilityZone: "nova:" + host}
	if script != "" {
		opts.UserData = []byte(script)
	}
	return servers.Create(ctx, c.Compute, opts, nil).Extract()
}

// AwaitServer waits until a server has the status; ERROR ends the wait with its fault.
func AwaitServer(ctx context.Context, c *Cloud, id, status string) (*servers.Server, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for {
		s, err := servers.Get(ctx, c.Compute, id).Extract()
		if err != nil {
			return nil, err
		}
		if s.Status == status {
			return s, nil
		}
		if s.Status == "ERROR" {
			return s, fault.New(fault.Conflict, "Server %s is in ERROR: %s %s", s.Name, s.Fault.Message, s.Fault.Details)
		}
		select {
		case <-ctx.Done():
			return s, fmt.Errorf("server %s is %s, not %s: %w", s.Name, s.Status, status, ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func awaitAddress(ctx context.Context, c *Cloud, id string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		s, err := servers.Get(ctx, c.Compute, id).Extract()
		if err != nil {
			return "", err
		}
		if a := addresses(s); len(a) > 0 {
			return a[0], nil
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("server %s has no address: %w", s.Name, ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// awaitPing reads the console until the guest has told how its ping went.
func awaitPing(ctx context.Context, c *Cloud, id string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for {
		log, err := servers.ShowConsoleOutput(ctx, c.Compute, id, servers.ShowConsoleOutputOpts{Length: 400}).Extract()
		if err == nil {
			var said []string
			for _, line := range strings.Split(log, "\n") {
				if _, text, ok := strings.Cut(strings.TrimRight(line, "\r"), demoMarker+" "); ok {
					said = append(said, text)
				}
			}
			for _, line := range said {
				if strings.Contains(line, "packet loss") {
					if !strings.Contains(line, " 0% packet loss") {
						return said, fault.New(fault.Conflict, "The ping failed: %s", line)
					}
				}
				if strings.Contains(line, "min/avg/max") {
					return said, nil
				}
			}
		}
		select {
		case <-ctx.Done():
			if err == nil {
				err = ctx.Err()
			}
			return nil, fmt.Errorf("demo-2 said nothing of its ping: %w; its console: openstack console log show demo-2", err)
		case <-time.After(200 * time.Millisecond):
		}
	}
}
