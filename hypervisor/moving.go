package hypervisor

import "errors"

// ErrUncertain is in the chain of Send's error where the other end was told to run the guest and did not say whether it does: the
// passage broke just then. The guest is Paused here, so that it runs once at most. Who learns that it runs at the other end
// removes it here; who learns that it does not starts it.
var ErrUncertain = errors.New("the guest may run at the other end")
