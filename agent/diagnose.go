package agent

import (
	"context"
	"fmt"
	"os"
	"time"

	"yakumo/fault"
	"yakumo/hypervisor"
	"yakumo/model"
)

// diagnostics asks what a guest that is on has used.
func (a *Agent) diagnostics(ctx context.Context, q model.DiagnosticsQuery) (model.Diagnostics, error) {
	row := a.ledger.server(q.ServerID)
	if row == nil || row.Deleted {
		return model.Diagnostics{}, fault.New(fault.NotFound, "Instance %s could not be found.", q.ServerID)
	}
	d, ok := a.cfg.Hypervisor.(hypervisor.Diagnoser)
	if !ok {
		return model.Diagnostics{}, fault.New(fault.NotImplemented, "The hypervisor of this host counts nothing.")
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	x, err := d.Diagnostics(ctx, q.ServerID)
	if err != nil {
		return model.Diagnostics{}, err
	}
	out := model.Diagnostics{Driver: "libvirt", UptimeSecs: int64(x.Uptime / time.Second), MemoryMiB: x.MemoryMiB, UsedMiB: x.UsedMiB}
	if c, known := a.ledger.lastCapacity(); known {
		out.Hypervisor = "qemu"
		if c.Accelerator == "kvm" {
			out.Hypervisor = "kvm"
		}
		if c.HypervisorType != "QEMU" {
			out.Driver, out.Hypervisor = c.HypervisorType, c.HypervisorType
		}
	}
	for _, t := range x.CPUTime {
		out.CPUNanos = append(out.CPUNanos, int64(t))
	}
	for _, c := range x.Disks {
		out.Disks = append(out.Disks, model.DiskCounters{
			ReadBytes: c.ReadBytes, ReadRequests: c.ReadRequests, WriteBytes: c.WriteBytes, WriteRequests: c.WriteRequests, Errors: c.Errors,
		})
	}
	for _, c := range x.NICs {
		out.NICs = append(out.NICs, model.NICCounters(c))
	}
	return out, nil
}

// interrupt gives a guest a non-maskable interrupt.
func (a *Agent) interrupt(ctx context.Context, q model.InterruptQuery) error {
	row := a.ledger.server(q.ServerID)
	if row == nil || row.Deleted {
		return fault.New(fault.NotFound, "Instance %s could not be found.", q.ServerID)
	}
	h, ok := a.cfg.Hypervisor.(hypervisor.Interrupter)
	if !ok {
		return fault.New(fault.NotImplemented, "The hypervisor of this host cannot interrupt guests.")
	}
	if err := h.Interrupt(ctx, row.ID); err != nil {
		return err
	}
	a.log.Info("a guest was interrupted, to dump its memory", "server", row.ID)
	return nil
}

// uptime tells how long this host runs and how busy it is: proc(5).
func uptime() (u model.HostUptime, err error) {
	var up float64
	for _, x := range []struct {
		path   string
		values []any
	}{{"/proc/uptime", []any{&up}}, {"/proc/loadavg", []any{&u.Load[0], &u.Load[1], &u.Load[2]}}} {
		b, err := os.ReadFile(x.path)
		if err != nil {
			return u, err
		}
		if _, err := fmt.Sscan(string(b), x.values...); err != nil {
			return u, fmt.Errorf("%s: %w", x.path, err)
		}
	}
	u.UpSecs = int64(up)
	return u, nil
}
