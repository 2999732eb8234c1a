package cli

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"time"

	"yakumo/fault"
)

// Environment is the commands about where all that a project has is to be.
type Environment struct {
	Move    environmentMove    `cmd:"" help:"Move the project's servers, volumes and gateways to a zone; running servers without stopping them. Back is the same with the other zone."`
	Show    environmentShow    `cmd:"" help:"Show how far a move has come, and what does not move and why."`
	Release environmentRelease `cmd:"" help:"Want the project in no zone any more: what has moved stays where it is."`
}

// EnvironmentInfo is where a project's things are to be and which are not, as the native API shows it.
type EnvironmentInfo struct {
	Project string      `json:"project"`
	Zone    string      `json:"zone"`
	Since   time.Time   `json:"since"`
	Done    bool        `json:"done"`
	Servers []DrainLeft `json:"servers"`
	Volumes []struct {
		ID     string `json:"id"`
		Name   string `json:"name"`
		State  string `json:"state"`
		Moving bool   `json:"moving"`
		Why    string `json:"why"`
	} `json:"volumes"`
}

func (c *Client) environment(ctx context.Context, method, project string, body any) (EnvironmentInfo, error) {
	var out struct {
		Environment EnvironmentInfo `json:"environment"`
	}
	err := c.Do(ctx, method, "/yakumo/v1/environments/"+url.PathEscape(project), body, &out)
	return out.Environment, err
}

func (e EnvironmentInfo) print(output string) error {
	switch {
	case output == "json":
		return JSON(os.Stdout, e)
	case e.Done:
		fmt.Printf("All of project %s is in %s.\n", e.Project, e.Zone)
		return nil
	}
	rows := [][]string{{"KIND", "ID", "NAME", "STATE", "MOVE", "LEFT"}}
	for _, s := range e.Servers {
		move, left := s.move()
		rows = append(rows, []string{"server", s.ID, s.Name, s.State, move, left})
	}
	for _, v := range e.Volumes {
		move := or(v.Why, "waits")
		if v.Moving {
			move = "moving"
		}
		rows = append(rows, []string{"volume", v.ID, v.Name, v.State, move, ""})
	}
	return Table(os.Stdout, rows)
}

type environmentMove struct {
	Zone    string        `arg:"" help:"The availability zone."`
	Project string        `help:"The project's id, of administrators." default:"self"`
	Wait    bool          `help:"Show the progress, and end when everything is there."`
	Every   time.Duration `help:"How often to look, with --wait." default:"2s"`
	Timeout time.Duration `help:"How long to wait; 0: for ever." default:"0"`
	Output  string        `short:"o" help:"text or json." default:"text" enum:"text,json"`
}

// Run moves an environment.
func (c *environmentMove) Run(ctx context.Context) error {
	cl, err := connect(ctx)
	if err != nil {
		return err
	}
	e, err := cl.environment(ctx, "PUT", c.Project, map[string]string{"zone": c.Zone})
	if err != nil {
		return err
	}
	if !c.Wait {
		return e.print(c.Output)
	}
	last := -1
	return follow(ctx, c.Every, c.Timeout, e, followed[EnvironmentInfo]{
		done: func(e EnvironmentInfo) bool { return e.Done },
		tell: func(e EnvironmentInfo) {
			if n := len(e.Servers) + len(e.Volumes); c.Output == "text" && n != last {
				fmt.Printf("%s: %d servers and %d volumes left\n", e.Zone, len(e.Servers), len(e.Volumes))
				last = n
			}
		},
		print: func(e EnvironmentInfo) error { return e.print(c.Output) },
		again: func(ctx context.Context) (EnvironmentInfo, error) {
			return cl.environment(ctx, "GET", c.Project, nil)
		},
		late: func(e EnvironmentInfo) error {
			return fault.New(fault.Unavailable, "%d servers and %d volumes are not in %s.", len(e.Servers), len(e.Volumes), e.Zone)
		},
		ended: func(e EnvironmentInfo) error {
			if e.Zone != c.Zone {
				return fault.New(fault.Conflict, "The environment was sent to %s by somebody else.", e.Zone)
			}
			return nil
		},
	})
}

type environmentShow struct {
	Project string `help:"The project's id, of administrators." default:"self"`
	Output  string `short:"o" help:"text or json." default:"text" enum:"text,json"`
}

// Run shows an environment.
func (c *environmentShow) Run(ctx context.Context) error {
	cl, err := connect(ctx)
	if err != nil {
		return err
	}
	e, err := cl.environment(ctx, "GET", c.Project, nil)
	if err != nil {
		return err
	}
	return e.print(c.Output)
}

type environmentRelease struct {
	Project string `help:"The project's id, of administrators." default:"self"`
}

// Run ends an environment's wish for a zone.
func (c *environmentRelease) Run(ctx context.Context) error {
	cl, err := connect(ctx)
	if err != nil {
		return err
	}
	return cl.Do(ctx, "DELETE", "/yakumo/v1/environments/"+url.PathEscape(c.Project), nil, nil)
}
