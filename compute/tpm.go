package compute

import (
	"yakumo/fault"
	"yakumo/model"
)

// withTPM tells whether a server's guest has a trusted platform module, whose memory is nowhere but at the host that runs the guest.
func withTPM(s *model.Server) bool {
	return model.TPMOf(s.Flavor.ExtraSpecs, s.Image.Hardware) != model.TPM{}
}

// noTPM refuses what a server's trusted platform module would not outlive, or not be there for.
func noTPM(s *model.Server, operation string) error {
	if withTPM(s) {
		return fault.New(fault.Conflict, "Operation '%s' not supported for vTPM-enabled instance (%s).", operation, s.ID)
	}
	return nil
}
