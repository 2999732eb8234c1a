package libvirt

import (
	"errors"
	"fmt"

	"yakumo/fault"
)

// Error is what libvirt said when it refused a call (remote_error of remote_protocol.x).
type Error struct {
	Code    int // VIR_ERR_… of virterror.h
	Domain  int // VIR_FROM_…: the part of libvirt that said it
	Message string
}

// Error gives libvirt's own words with the number of the error.
func (e *Error) Error() string { return fmt.Sprintf("libvirt error %d: %s", e.Code, e.Message) }

// Codes of virterror.h that the driver acts on.
const (
	codeInternal          = 1
	codeUnsupported       = 3
	codeInvalidArg        = 8
	codeOperationFailed   = 9
	codeNoDomain          = 42
	codeOperationInvalid  = 55
	codeOperationTimeout  = 68
	codeArgUnsupported    = 74
	codeOperationAborted  = 78
	codeNoMetadata        = 80
	codeAgentUnresponsive = 86
	codeResourceBusy      = 87
	codeDeviceMissing     = 99
)

func decodeError(p []byte) error {
	d := decoder{buf: p}
	e := &Error{Code: int(d.i32()), Domain: int(d.i32()), Message: d.opt()}
	// The level, domain, strings, numbers and network that follow say nothing more.
	if d.err != nil {
		return fmt.Errorf("decode an error of libvirt: %w", d.err)
	}
	return e
}

// hasCode tells whether err is an Error with one of the codes.
func hasCode(err error, codes ...int) bool {
	var e *Error
	if !errors.As(err, &e) {
		return false
	}
	for _, c := range codes {
		if e.Code == c {
			return true
		}
	}
	return false
}

// refused gives err, an answer to a call that did something to guest id, its kind.
func refused(id, doing string, err error) error {
	switch {
	case err == nil:
		return nil
	case hasCode(err, codeNoDomain):
		return fmt.Errorf("%s guest %s: %w", doing, id, fault.Wrap(fault.NotFound, err, "Guest %s is not defined on this host.", id))
	case hasCode(err, codeOperationInvalid):
		return fault.Wrap(fault.Conflict, err, "Cannot %s guest %s in its present state.", doing, id)
	case hasCode(err, codeOperationTimeout, codeResourceBusy, codeAgentUnresponsive):
		return fault.Wrap(fault.Unavailable, err, "Cannot %s guest %s as another operation on it is under way; try again.", doing, id)
	}
	return fmt.Errorf("%s guest %s: %w", doing, id, err)
}

// unavailable is the error of a call that libvirtd did not answer.
func unavailable(socket string, err error) error {
	return fault.Wrap(fault.Unavailable, fmt.Errorf("libvirtd at %s: %w", socket, err),
		"The hypervisor of this host does not answer; see that libvirtd runs and that this process may use its socket.")
}
