package hypervisor

import "context"

// GuestAgent is a Driver that can ask the program in a guest that its image says it has (hw_qemu_guest_agent): QEMU's
// guest agent, https://www.qemu.org/docs/master/interop/qemu-ga-ref.html.
//
// Errors beside Driver's: fault.NotImplemented for a guest without the channel, fault.Unavailable where nothing in the guest
// answers, fault.Invalid where what answers refuses.
type GuestAgent interface {
	// SetPassword sets the password of a user of the running guest. It is in no error and no log.
	SetPassword(ctx context.Context, id, user, password string) error
	// Thaw lets the guest's file systems be written again, whatever held them: see Quiesce. Those that are not held are a success.
	Thaw(ctx context.Context, id string) error
}

// Quiesce says what a copy of a running guest's disk asks of its agent: that the file systems are whole on the disk and
// stand still at the moment that the copy is of.
type Quiesce uint8

// The ways to quiesce.
const (
	QuiesceNever Quiesce = iota // the copy is what a power cut would leave
	QuiesceTry                  // where the agent answers
	QuiesceMust                 // or there is no copy, but a fault.Invalid
)
