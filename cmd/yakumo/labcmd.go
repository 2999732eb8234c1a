package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"yakumo/cli"
	"yakumo/images/mini/probe"
	"yakumo/lab"
)

type labCmd struct {
	Dir string `help:"The lab's folder." default:".yakumo/lab" type:"path"`

	Up       labUp       `cmd:"" help:"Start a lab, or what of it does not run."`
	Down     labDown     `cmd:"" help:"End a lab and remove all of it."`
	Status   labStatus   `cmd:"" help:"Show machines, hosts and guests."`
	Demo     labDemo     `cmd:"" help:"Two guests on two hosts, and a ping between them."`
	Renumber labRenumber `cmd:"" help:"Give a host another address on the underlay, under its running guests."`
	Exec     labExec     `cmd:"" help:"Run a command on a machine of the lab, as root there."`
	Unit     labUnit     `cmd:"" help:"Stop, start or kill a daemon of a machine."`
}

type labUp struct {
	Hosts      int      `help:"How many hosts." default:"3"`
	Containers int      `help:"How many of the hosts, the last ones, run containers instead of virtual machines; a lab keeps what it was made with."`
	Emulator   string   `help:"The QEMU that guests run on, an absolute path; default: libvirt's choice; a lab keeps what it was made with." type:"path"`
	API        string   `help:"Loopback address and port of the API." default:"127.0.0.1:8780"`
	Files      string   `help:"Where openrc and clouds.yaml are written, and removed from by down; made where it is not there; default: the folder above the lab's." type:"path"`
	AgentArgs  []string `help:"Arguments added to each agent's command." hidden:"" sep:"none"`
}

// Run starts a lab.
func (c *labUp) Run(ctx context.Context, l *labCmd) error {
	began := time.Now()
	lb, err := lab.New(lab.Config{Dir: l.Dir, Hosts: c.Hosts, Containers: c.Containers, Emulator: c.Emulator, API: c.API, AgentArgs: c.AgentArgs, Progress: progress})
	if err != nil {
		return err
	}
	files := c.Files
	if files == "" {
		files = filepath.Dir(lb.Dir())
	}
	if err := os.MkdirAll(files, 0o755); err != nil { // no lab is begun whose files have no place
		return err
	}
	if err := lb.Up(ctx); err != nil {
		return err
	}
	if err := lb.WriteClientFiles(files); err != nil {
		return err
	}
	fmt.Printf("The lab is up after %.1f s: %s\n", time.Since(began).Seconds(), lb.URL())
	return nil
}

func progress(step string, took time.Duration) {
	fmt.Printf("  %-58s %6.2f s\n", step, took.Seconds())
}

type labDown struct{}

// Run ends a lab.
func (c *labDown) Run(l *labCmd) error {
	lb, _ := lab.Open(l.Dir, "") // what is left of a lab is removed whether it can be read or not
	if err := lb.Down(); err != nil {
		return err
	}
	return lb.RemoveClientFiles()
}

type labStatus struct {
	Output string `short:"o" help:"text or json." default:"text" enum:"text,json"`
}

// Run shows a lab.
func (c *labStatus) Run(ctx context.Context, l *labCmd) error {
	lb, err := lab.Open(l.Dir, "")
	if err != nil {
		return err
	}
	machines := lb.Status()
	hosts, guests, apiErr := lb.Inventory(ctx)
	if c.Output == "json" {
		v := map[string]any{"api": lb.URL(), "machines": machines, "hosts": hosts, "guests": guests}
		if apiErr != nil {
			v["api_error"] = apiErr.Error()
		}
		return cli.JSON(os.Stdout, v)
	}
	fmt.Printf("API: %s\n\n", lb.URL())
	rows := [][]string{{"MACHINE", "INIT", "DAEMON", "PID", "STARTS"}}
	for _, m := range machines {
		state := "off"
		if m.PID != 0 {
			state = strconv.Itoa(m.PID)
		}
		rows = append(rows, []string{m.Name, state, "", "", ""})
		for _, u := range m.Units {
			pid := "down"
			if u.PID != 0 {
				pid = strconv.Itoa(u.PID)
			}
			rows = append(rows, []string{"", "", u.Name, pid, strconv.Itoa(u.Starts)})
		}
	}
	if err := cli.Table(os.Stdout, rows); err != nil {
		return err
	}
	fmt.Println()
	if apiErr != nil {
		return apiErr
	}
	if err := cli.Table(os.Stdout, cli.HostTable(hosts)); err != nil {
		return err
	}
	fmt.Println()
	rows = [][]string{{"GUEST", "NAME", "STATUS", "HOST", "ADDRESSES"}}
	for _, g := range guests {
		rows = append(rows, []string{g.ID, g.Name, g.Status, g.Host, g.Addresses})
	}
	return cli.Table(os.Stdout, rows)
}

type labDemo struct {
	Image string `help:"The guest image." default:".yakumo/images/yakumo-mini.qcow2" type:"existingfile"`
}

// Run shows the main job.
func (c *labDemo) Run(ctx context.Context, l *labCmd) error {
	lb, err := lab.Open(l.Dir, "")
	if err != nil {
		return err
	}
	return lb.Demo(ctx, lab.DemoConfig{Image: c.Image, Progress: progress})
}

type labExec struct {
	Machine string   `arg:"" help:"server, outside, host1, host2, …"`
	Command []string `arg:"" help:"The command; a shell where it is missing." optional:"" passthrough:""`
}

// Run runs a command on a machine.
func (c *labExec) Run(ctx context.Context, l *labCmd) error {
	lb, err := lab.Open(l.Dir, "")
	if err != nil {
		return err
	}
	if len(c.Command) > 0 && c.Command[0] == "--" {
		c.Command = c.Command[1:]
	}
	if len(c.Command) == 0 {
		c.Command = []string{"/bin/sh"}
	}
	cmd := lb.Command(ctx, c.Machine, c.Command...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	return cmd.Run()
}

type labUnit struct {
	Do      string `arg:"" enum:"stop,start,kill,halt" help:"stop (TERM), halt (KILL), kill (KILL; it starts again), start."`
	Machine string `arg:""`
	Name    string `arg:"" name:"unit" help:"server; ovsdb-server, ovs-vswitchd, libvirtd, agent; outside."`
}

// Run acts on a daemon.
func (c *labUnit) Run(l *labCmd) error {
	lb, err := lab.Open(l.Dir, "")
	if err != nil {
		return err
	}
	return lb.Unit(c.Machine, c.Name, c.Do)
}

type labInitCmd struct {
	Spec string `arg:""`
}

// Run is process 1 of a machine.
func (c *labInitCmd) Run() error {
	// The lab hands the API's socket to the server's machine as descriptor 3.
	fd := -1
	if st, err := os.Stat("/proc/self/fd/3"); err == nil && st.Mode()&os.ModeSocket != 0 {
		fd = 3
	}
	return lab.Init(c.Spec, fd)
}

type labRenumber struct {
	Host    string `arg:"" help:"host1, host2, …"`
	Address string `arg:"" help:"The new address, of 100.64.0.0/24."`
}

// Run renumbers a host.
func (c *labRenumber) Run(l *labCmd) error {
	lb, err := lab.Open(l.Dir, "")
	if err != nil {
		return err
	}
	return lb.Renumber(c.Host, c.Address)
}

type labOutsideCmd struct{}

// Run is the program of the lab's outside.
func (c *labOutsideCmd) Run(ctx context.Context) error { return lab.Outside(ctx) }

type labProbeCmd struct {
	Args []string `arg:"" optional:"" passthrough:""`
}

// Run asks whether addresses can be reached, from the machine it runs on.
func (c *labProbeCmd) Run(ctx context.Context) error { return probe.Command(ctx, os.Stdout, c.Args) }
