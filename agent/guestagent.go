package agent

import (
	"context"
	"time"

	"yakumo/fault"
	"yakumo/hypervisor"
	"yakumo/model"
)

// setPassword has the agent in a guest set a password. The password is on no disk of this host, and in no log: whoever asks
// waits, and asks again where the answer was lost.
func (a *Agent) setPassword(ctx context.Context, q model.PasswordQuery) (struct{}, error) {
	row := a.ledger.server(q.ServerID)
	if row == nil || row.Deleted {
		return struct{}{}, fault.New(fault.NotFound, "Instance %s could not be found.", q.ServerID)
	}
	h, ok := a.cfg.Hypervisor.(hypervisor.GuestAgent)
	if !ok {
		return struct{}{}, fault.New(fault.NotImplemented, "The hypervisor of this host reaches no guest agents.")
	}
	began := time.Now()
	if err := h.SetPassword(ctx, row.ID, q.User, q.Password); err != nil {
		a.log.Warn("a guest's agent has set no password", "server", row.ID, "err", err)
		return struct{}{}, err
	}
	a.log.Info("a guest's agent has set a password", "server", row.ID, "user", q.User, "took", time.Since(began))
	return struct{}{}, nil
}

// quiesceOf says how copies of a server's disks are quiesced: as Nova does, where its image has an agent, and else only where the
// image asks for it, which cannot be then.
func quiesceOf(row *model.HostServer) hypervisor.Quiesce {
	if must, _ := hypervisor.Flag(row.Image.Hardware["os_require_quiesce"]); must {
		return hypervisor.QuiesceMust
	}
	if has, _ := hypervisor.Flag(row.Image.Hardware["hw_qemu_guest_agent"]); has {
		return hypervisor.QuiesceTry
	}
	return hypervisor.QuiesceNever
}

// thaw undoes what a copy that is wanted no more, and that died half-way, may have left.
func (a *Agent) thaw(ctx context.Context, row *model.HostServer, power hypervisor.Power) {
	h, ok := a.cfg.Hypervisor.(hypervisor.GuestAgent)
	if !ok || quiesceOf(row) == hypervisor.QuiesceNever || power != hypervisor.Running {
		return
	}
	if err := h.Thaw(ctx, row.ID); err != nil && !fault.Is(err, fault.Unavailable) && !fault.Is(err, fault.NotImplemented) {
		a.log.Warn("a guest's file systems may be frozen", "server", row.ID, "err", err)
	}
}
