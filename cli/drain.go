package cli

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"time"

	"yakumo/fault"
)

// DrainInfo is how far a drain has come, as the native API shows it.
type DrainInfo struct {
	Host     string      `json:"host"`
	Draining bool        `json:"draining"`
	Done     bool        `json:"done"`
	Servers  []DrainLeft `json:"servers"`
}

// DrainLeft is a server that is not where it is to be.
type DrainLeft struct {
	ID       string `json:"id"`
	Name     string `json:"name"`
	State    string `json:"state"`
	Moving   bool   `json:"moving"`
	Progress struct {
		MemoryTotal     int64 `json:"memory_total"`
		MemoryRemaining int64 `json:"memory_remaining"`
		DiskTotal       int64 `json:"disk_total"`
		DiskRemaining   int64 `json:"disk_remaining"`
	} `json:"progress"`
	Why string `json:"why"`
}

// move tells whether the server moves, or why not, and what is left to copy.
func (s DrainLeft) move() (move, left string) {
	if !s.Moving {
		return or(s.Why, "waits"), ""
	}
	if total := s.Progress.MemoryTotal + s.Progress.DiskTotal; total > 0 {
		left = fmt.Sprintf("%d of %d MiB", (s.Progress.MemoryRemaining+s.Progress.DiskRemaining)>>20, total>>20)
	}
	return "moving", left
}

func (c *Client) drain(ctx context.Context, method, host string, body any) (DrainInfo, error) {
	var out struct {
		Drain DrainInfo `json:"drain"`
	}
	err := c.Do(ctx, method, "/yakumo/v1/hosts/"+url.PathEscape(host)+"/drain", body, &out)
	return out.Drain, err
}

// table is what a drain has left, for people.
func (d DrainInfo) table() [][]string {
	rows := [][]string{{"SERVER", "NAME", "STATE", "MOVE", "LEFT"}}
	for _, s := range d.Servers {
		move, left := s.move()
		rows = append(rows, []string{s.ID, s.Name, s.State, move, left})
	}
	return rows
}

func (d DrainInfo) print(output string) error {
	switch {
	case output == "json":
		return JSON(os.Stdout, d)
	case d.Done:
		fmt.Println(d.Host + " has no servers.")
		return nil
	}
	return Table(os.Stdout, d.table())
}

type hostDrain struct {
	Name    string        `arg:"" help:"The host's name or id."`
	Reason  string        `help:"Why, as other operators will read it."`
	Wait    bool          `help:"Show the progress, and end when the host has no servers."`
	Every   time.Duration `help:"How often to look, with --wait." default:"2s"`
	Timeout time.Duration `help:"How long to wait; 0: for ever." default:"0"`
	Output  string        `short:"o" help:"text or json." default:"text" enum:"text,json"`
}

// Run drains a host.
func (c *hostDrain) Run(ctx context.Context) error {
	cl, err := connect(ctx)
	if err != nil {
		return err
	}
	d, err := cl.drain(ctx, "POST", c.Name, map[string]string{"reason": c.Reason})
	if err != nil {
		return err
	}
	if !c.Wait {
		return d.print(c.Output)
	}
	last := -1
	return follow(ctx, c.Every, c.Timeout, d, followed[DrainInfo]{
		done: func(d DrainInfo) bool { return d.Done },
		tell: func(d DrainInfo) {
			if n := len(d.Servers); c.Output == "text" && n != last {
				fmt.Printf("%s: %d servers left\n", d.Host, n)
				last = n
			}
		},
		print: func(d DrainInfo) error { return d.print(c.Output) },
		again: func(ctx context.Context) (DrainInfo, error) { return cl.drain(ctx, "GET", c.Name, nil) },
		late: func(d DrainInfo) error {
			return fault.New(fault.Unavailable, "%s still has %d servers.", d.Host, len(d.Servers))
		},
		ended: func(d DrainInfo) error {
			if !d.Draining && !d.Done {
				return fault.New(fault.Conflict, "The drain of %s was ended by somebody else.", d.Host)
			}
			return nil
		},
	})
}

type hostUndrain struct {
	Name   string `arg:"" help:"The host's name or id."`
	Output string `short:"o" help:"text or json." default:"text" enum:"text,json"`
}

// Run ends a drain.
func (c *hostUndrain) Run(ctx context.Context) error {
	cl, err := connect(ctx)
	if err != nil {
		return err
	}
	d, err := cl.drain(ctx, "DELETE", c.Name, nil)
	if err != nil || c.Output != "json" {
		return err
	}
	return d.print(c.Output)
}

type hostFence struct {
	Name         string `arg:"" help:"The host's name or id."`
	ConfirmedOff bool   `help:"The host is off: its power is cut, and it will not come back with guests that run." required:""`
	Output       string `short:"o" help:"text or json." default:"text" enum:"text,json"`
}

// Run fences a host.
func (c *hostFence) Run(ctx context.Context) error {
	cl, err := connect(ctx)
	if err != nil {
		return err
	}
	var out struct {
		Host HostInfo `json:"host"`
	}
	if err := cl.Do(ctx, "POST", "/yakumo/v1/hosts/"+url.PathEscape(c.Name)+"/fence", map[string]bool{"confirmed_off": c.ConfirmedOff}, &out); err != nil {
		return err
	}
	if c.Output == "json" {
		return JSON(os.Stdout, out.Host)
	}
	return nil
}
