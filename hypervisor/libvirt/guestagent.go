package libvirt

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"yakumo/fault"
	"yakumo/hypervisor"
)

// agentChannel is the name of the port that QEMU's guest agent opens in a guest.
const agentChannel = "org.qemu.guest_agent.0"

// agentPatience is how long the agent in a guest may take for one command. A busy emulated guest takes seconds to hash a
// password; without a bound libvirt would wait for ever.
const agentPatience = 30 * time.Second

// agent adds the channel, whose controller takes a port.
func (v *devicesXML) agent() {
	v.Channels = []channelXML{{Type: "unix", Target: targetXML{Type: "virtio", Name: agentChannel}}}
	v.Controllers = append(v.Controllers, controllerXML{Type: "virtio-serial"})
}

// SetPassword implements hypervisor.GuestAgent.
func (d *Driver) SetPassword(ctx context.Context, id, user, password string) error {
	const doing = "set a password in"
	ref, err := d.attended(ctx, id, doing)
	if err != nil {
		return err
	}
	_, err = d.ask(ctx, slow, procDomainSetPassword, new(encoder).dom(ref).some(user).some(password).u32(0))
	return agentRefused(id, doing, err)
}

// Thaw implements hypervisor.GuestAgent.
func (d *Driver) Thaw(ctx context.Context, id string) error {
	const doing = "thaw the file systems of"
	ref, err := d.attended(ctx, id, doing)
	if err != nil {
		return err
	}
	_, err = d.ask(ctx, slow, procDomainThaw, new(encoder).dom(ref).u32(0).u32(0)) // no mount points: all
	return agentRefused(id, doing, err)
}

// attended is known for calls to the agent; it bounds them.
func (d *Driver) attended(ctx context.Context, id, doing string) (domainRef, error) {
	ref, _, err := d.known(ctx, id, doing)
	if err != nil {
		return ref, err
	}
	_, err = d.ask(ctx, slow, procAgentPatience, new(encoder).dom(ref).i32(int32(agentPatience/time.Second)).u32(0))
	return ref, refused(id, doing, err)
}

// agentRefused gives err, an answer to a call to guest id's agent, its kind.
func agentRefused(id, doing string, err error) error {
	const unsynced, timeout, failed = 97, 112, 113 // VIR_ERR_AGENT_UNSYNCED, _COMMAND_TIMEOUT, _COMMAND_FAILED
	var said *Error
	errors.As(err, &said)
	switch {
	case hasCode(err, codeAgentUnresponsive, unsynced, timeout):
		return fault.Wrap(fault.Unavailable, err, "The guest agent of %s does not answer.", id)
	case hasCode(err, codeArgUnsupported):
		return fault.Wrap(fault.NotImplemented, err, "Guest %s has no channel to a guest agent.", id)
	case hasCode(err, failed), said != nil && said.Code == codeInternal && strings.Contains(said.Message, "agent"):
		return fault.Wrap(fault.Invalid, err, "The guest agent of %s refused.", id)
	}
	return refused(id, doing, err)
}

// quiesced does what takes a moment while the guest's file systems stand still, as far as that is asked for. A driver that
// dies in between leaves them so until the next Thaw.
func (d *Driver) quiesced(ctx context.Context, id string, ref domainRef, q hypervisor.Quiesce, moment func() error) error {
	if q == hypervisor.QuiesceNever {
		return moment()
	}
	const doing = "freeze the file systems of"
	err := d.Thaw(ctx, id) // a frozen guest's agent refuses to freeze it
	if err == nil {
		_, err = d.ask(ctx, slow, procDomainFreeze, new(encoder).dom(ref).u32(0).u32(0))
		err = agentRefused(id, doing, err)
		defer func() { // also after a failure, which may be the answer's alone
			late, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*agentPatience)
			defer cancel()
			if err := d.Thaw(late, id); err != nil {
				d.log.Error("a guest's file systems stay frozen; its agent does not thaw them", "server", id, "error", err)
			}
		}()
	}
	var said *Error
	switch {
	case err == nil:
	case q == hypervisor.QuiesceMust && errors.As(err, &said):
		return fault.Wrap(fault.Invalid, err, "Guest %s cannot be quiesced, as its image requires: its guest agent does not do it.", id)
	case q == hypervisor.QuiesceMust:
		return fmt.Errorf("quiesce guest %s: %w", id, err)
	default:
		d.log.Info("a disk is copied without quiescing its guest", "server", id, "reason", err)
	}
	return moment()
}
