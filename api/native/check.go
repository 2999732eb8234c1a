package native

import (
	"context"
	"net/http"

	"yakumo/api"
	"yakumo/check"
	"yakumo/fault"
)

// Checker looks for what must never be; *check.Checker is one.
type Checker interface {
	World(ctx context.Context) (check.Report, error)
}

// check answers with what contradicts itself in the cloud: rows among each other, and rows and hosts.
func (d *dialect) check(c *api.Context) error {
	if d.cfg.Checker == nil {
		return fault.New(fault.NotImplemented, "This server does not check.")
	}
	r, err := d.cfg.Checker.World(c.R.Context())
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, map[string]any{"check": r})
}
