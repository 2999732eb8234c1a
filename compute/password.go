package compute

import (
	"yakumo/model"
	"yakumo/store"
)

// ClearPassword forgets the password that a server's guest has handed in; the guest may hand in another then.
func (c *Compute) ClearPassword(tx *store.Tx, sc Scope, id model.ID) (*model.Server, error) {
	return c.change(tx, sc, id, false, func(s *model.Server) error {
		s.Sealed = ""
		s.SealedClears++
		return nil
	})
}

// sealed takes the password that a guest has handed in: the first one since it was last cleared.
func sealed(s *model.Server, r *model.ServerReport) {
	if s.Sealed == "" && r.SealedClears == s.SealedClears {
		s.Sealed = r.Sealed
	}
}
