package cli

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"strconv"
	"time"
)

// Host is the commands about hosts.
type Host struct {
	Token  hostToken  `cmd:"" help:"Make a one-time token with which a host joins: yakumo agent --join-token TOKEN."`
	List   hostList   `cmd:"" help:"List the hosts."`
	Remove hostRemove `cmd:"" help:"Forget a host that has no servers."`

	Drain   hostDrain   `cmd:"" help:"Move every server of a host away, running ones without stopping them, and give it no new ones."`
	Undrain hostUndrain `cmd:"" help:"End a drain: the host takes servers again."`
	Fence   hostFence   `cmd:"" help:"Say that a host that is not heard of is off for certain, so that its servers may run elsewhere."`
}

type hostToken struct {
	Host   string        `help:"Only the host of this name may use it; needed for a name that has joined before."`
	TTL    time.Duration `help:"How long it may be used." default:"1h"`
	Output string        `short:"o" help:"text or json." default:"text" enum:"text,json"`
}

// Run makes a token.
func (c *hostToken) Run(ctx context.Context) error {
	cl, err := connect(ctx)
	if err != nil {
		return err
	}
	var out struct {
		Token     string `json:"token"`
		Host      string `json:"host"`
		ExpiresAt string `json:"expires_at"`
	}
	if err := cl.Do(ctx, "POST", "/yakumo/v1/join-tokens", map[string]any{"host": c.Host, "ttl": int(c.TTL.Seconds())}, &out); err != nil {
		return err
	}
	if c.Output == "json" {
		return JSON(os.Stdout, out)
	}
	fmt.Println(out.Token)
	return nil
}

func connect(ctx context.Context) (*Client, error) {
	cred, err := FromEnv()
	if err != nil {
		return nil, err
	}
	return Login(ctx, cred)
}

// HostInfo is a host as the native API shows it.
type HostInfo struct {
	ID       string `json:"id"`
	Name     string `json:"name"`
	Zone     string `json:"zone"`
	Up       bool   `json:"up"`
	Disabled bool   `json:"disabled"`
	Draining bool   `json:"draining"`
	Fenced   bool   `json:"fenced"`
	TunnelIP string `json:"tunnel_ip"`
	// BridgeMappings gives the host's provider bridge for each physical network.
	BridgeMappings map[string]string `json:"bridge_mappings"`
	Version        string            `json:"version"`
	Servers        int               `json:"servers"`
	Ports          int               `json:"ports"`
	Capacity       struct {
		VCPUs     int `json:"vcpus"`
		Dedicated []struct {
			ID int `json:"id"`
		} `json:"dedicated"`
		MemoryMiB   int    `json:"memory_mib"`
		DiskGiB     int    `json:"disk_gib"`
		Accelerator string `json:"accelerator"`
	} `json:"capacity"`
}

// State is up or down, and what an administrator said of the host.
func (h HostInfo) State() string {
	switch {
	case !h.Up && h.Fenced:
		return "down, fenced"
	case !h.Up:
		return "down"
	case h.Draining:
		return "up, draining"
	case h.Disabled:
		return "up, disabled"
	}
	return "up"
}

// Hosts lists the hosts.
func (c *Client) Hosts(ctx context.Context) ([]HostInfo, error) {
	var out struct {
		Hosts []HostInfo `json:"hosts"`
	}
	err := c.Do(ctx, "GET", "/yakumo/v1/hosts", nil, &out)
	return out.Hosts, err
}

// HostTable is hosts for people.
func HostTable(hosts []HostInfo) [][]string {
	rows := [][]string{{"NAME", "STATE", "ZONE", "TUNNEL", "VCPUS", "MEMORY", "DISK", "ACCEL", "SERVERS", "PORTS", "VERSION"}}
	for _, h := range hosts {
		n := len(h.Capacity.Dedicated)
		cpus := strconv.Itoa(h.Capacity.VCPUs - n)
		if n > 0 {
			cpus += "+" + strconv.Itoa(n) // that are kept for single guests
		}
		rows = append(rows, []string{h.Name, h.State(), h.Zone, h.TunnelIP, cpus, strconv.Itoa(h.Capacity.MemoryMiB) + " MiB",
			strconv.Itoa(h.Capacity.DiskGiB) + " GiB", h.Capacity.Accelerator, strconv.Itoa(h.Servers), strconv.Itoa(h.Ports), h.Version})
	}
	return rows
}

type hostList struct {
	Output string `short:"o" help:"text or json." default:"text" enum:"text,json"`
}

// Run lists hosts.
func (c *hostList) Run(ctx context.Context) error {
	cl, err := connect(ctx)
	if err != nil {
		return err
	}
	hosts, err := cl.Hosts(ctx)
	if err != nil {
		return err
	}
	if c.Output == "json" {
		return JSON(os.Stdout, hosts)
	}
	return Table(os.Stdout, HostTable(hosts))
}

type hostRemove struct {
	Name string `arg:"" help:"The host's name or id."`
}

// Run forgets a host.
func (c *hostRemove) Run(ctx context.Context) error {
	cl, err := connect(ctx)
	if err != nil {
		return err
	}
	return cl.Do(ctx, "DELETE", "/yakumo/v1/hosts/"+url.PathEscape(c.Name), nil, nil)
}
