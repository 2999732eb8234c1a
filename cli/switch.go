package cli

import (
	"context"
	"net/url"
	"os"
	"strconv"
)

// Switch is the commands about switches that no agent stands beside.
type Switch struct {
	Add    switchAdd    `cmd:"" help:"Drive a switch over the network alone. Bind ports to it with binding:host_id and a binding:profile that names the device."`
	List   switchList   `cmd:"" help:"List such switches."`
	Show   switchShow   `cmd:"" help:"Show one."`
	Remove switchRemove `cmd:"" help:"Forget one that has no ports."`
}

// SwitchInfo is a switch as the native API shows it.
type SwitchInfo struct {
	ID       string `json:"id"`
	Name     string `json:"name"`
	Up       bool   `json:"up"`
	TunnelIP string `json:"tunnel_ip"`
	OVSDB    string `json:"ovsdb"`
	OpenFlow string `json:"openflow"`
	Bridge   string `json:"bridge"`
	Datapath string `json:"datapath"`
	Ports    int    `json:"ports"`
}

func printSwitches(output string, one any, list ...SwitchInfo) error {
	if output == "json" {
		return JSON(os.Stdout, one)
	}
	rows := [][]string{{"NAME", "STATE", "TUNNEL", "OVSDB", "OPENFLOW", "BRIDGE", "PORTS"}}
	for _, s := range list {
		state := "down"
		if s.Up {
			state = "up"
		}
		rows = append(rows, []string{s.Name, state, s.TunnelIP, s.OVSDB, s.OpenFlow, s.Bridge, strconv.Itoa(s.Ports)})
	}
	return Table(os.Stdout, rows)
}

type switchAdd struct {
	Name     string `arg:"" help:"Its name, as ports' binding:host_id will have it."`
	OVSDB    string `name:"ovsdb" required:"" help:"Where its database listens: tcp:HOST:6640 or ssl:HOST:6640."`
	OpenFlow string `name:"openflow" required:"" help:"Where its bridge shall listen: tcp:HOST:6653 or ssl:HOST:6653."`
	TunnelIP string `name:"tunnel-ip" required:"" help:"Its IPv4 address on the underlay."`
	Bridge   string `help:"The bridge to make, or to take over whole." default:"br-int"`
	Datapath string `help:"system (the kernel's) or netdev (user space)." default:"system" enum:"system,netdev"`
	Output   string `short:"o" help:"text or json." default:"text" enum:"text,json"`
}

// Run registers a switch.
func (c *switchAdd) Run(ctx context.Context) error {
	cl, err := connect(ctx)
	if err != nil {
		return err
	}
	var out struct {
		Switch SwitchInfo `json:"switch"`
	}
	if err := cl.Do(ctx, "POST", "/yakumo/v1/switches", map[string]any{"name": c.Name, "ovsdb": c.OVSDB, "openflow": c.OpenFlow,
		"tunnel_ip": c.TunnelIP, "bridge": c.Bridge, "datapath": c.Datapath}, &out); err != nil {
		return err
	}
	return printSwitches(c.Output, out.Switch, out.Switch)
}

type switchList struct {
	Output string `short:"o" help:"text or json." default:"text" enum:"text,json"`
}

// Run lists switches.
func (c *switchList) Run(ctx context.Context) error {
	cl, err := connect(ctx)
	if err != nil {
		return err
	}
	var out struct {
		Switches []SwitchInfo `json:"switches"`
	}
	if err := cl.Do(ctx, "GET", "/yakumo/v1/switches", nil, &out); err != nil {
		return err
	}
	return printSwitches(c.Output, out.Switches, out.Switches...)
}

type switchShow struct {
	Name   string `arg:"" help:"The switch's name or id."`
	Output string `short:"o" help:"text or json." default:"text" enum:"text,json"`
}

// Run shows a switch.
func (c *switchShow) Run(ctx context.Context) error {
	cl, err := connect(ctx)
	if err != nil {
		return err
	}
	var out struct {
		Switch SwitchInfo `json:"switch"`
	}
	if err := cl.Do(ctx, "GET", "/yakumo/v1/switches/"+url.PathEscape(c.Name), nil, &out); err != nil {
		return err
	}
	return printSwitches(c.Output, out.Switch, out.Switch)
}

type switchRemove struct {
	Name string `arg:"" help:"The switch's name or id."`
}

// Run forgets a switch.
func (c *switchRemove) Run(ctx context.Context) error {
	cl, err := connect(ctx)
	if err != nil {
		return err
	}
	return cl.Do(ctx, "DELETE", "/yakumo/v1/switches/"+url.PathEscape(c.Name), nil, nil)
}
