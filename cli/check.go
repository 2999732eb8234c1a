package cli

import (
	"context"
	"fmt"
	"os"
	"time"
)

// Check is the command that looks for what must never be.
type Check struct {
	Output string `short:"o" help:"text or json." default:"text" enum:"text,json"`
}

// Checked is a check as the native API shows it.
type Checked struct {
	At       time.Time `json:"at"`
	Revision int64     `json:"revision"`
	Rows     int       `json:"rows"`
	Hosts    int       `json:"hosts"`
	Silent   []string  `json:"silent"`
	Findings []struct {
		Rule   string `json:"rule"`
		Kind   string `json:"kind"`
		ID     string `json:"id"`
		Host   string `json:"host,omitempty"`
		Detail string `json:"detail"`
	} `json:"findings"`
}

// Run checks. It fails where something was found, so that a script notices.
func (c *Check) Run(ctx context.Context) error {
	cl, err := connect(ctx)
	if err != nil {
		return err
	}
	var out struct {
		Check Checked `json:"check"`
	}
	if err := cl.Do(ctx, "GET", "/yakumo/v1/check", nil, &out); err != nil {
		return err
	}
	r := out.Check
	if c.Output == "json" {
		if err := JSON(os.Stdout, r); err != nil {
			return err
		}
	} else {
		fmt.Printf("looked at %d rows of revision %d, and at %d hosts\n", r.Rows, r.Revision, r.Hosts)
		for _, h := range r.Silent {
			fmt.Printf("host %s did not answer: nothing is known of what it really has\n", h)
		}
		for _, f := range r.Findings {
			on := ""
			if f.Host != "" {
				on = " on " + f.Host
			}
			fmt.Printf("%s: %s %s%s: %s\n", f.Rule, f.Kind, f.ID, on, f.Detail)
		}
		if len(r.Findings) == 0 {
			fmt.Println("everything agrees")
		}
	}
	if n := len(r.Findings); n > 0 {
		return fmt.Errorf("%d findings", n)
	}
	return nil
}
