package main

import (
	"context"
	"log/slog"
	"os"
	"os/exec"
	"syscall"

	"yakumo/agent"
)

// leaseKeeperCmd watches the leases of an agent's guests, and outlives the agent; the agent starts it.
type leaseKeeperCmd struct {
	DataDir string `help:"The agent's." required:"" type:"path"`
}

// Run watches until ctx ends.
func (c *leaseKeeperCmd) Run(ctx context.Context, log *slog.Logger) error {
	return agent.KeepLeases(ctx, c.DataDir, log)
}

// keepLeases starts a watcher of the agent's leases, in a session of its own.
func (c *agentCmd) keepLeases() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self, "lease-keeper", "--data-dir", c.DataDir)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	go cmd.Wait() // it is not to become a zombie
	return nil
}
