package compute

import (
	"strings"
	"time"

	"yakumo/fault"
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

// ChangePassword begins the setting of a password by the agent in a server's guest, and gives the guest's user that it is for.
// Whoever calls it asks the host and ends it by PasswordChanged: a password is no wish that could be kept until it is served.
//
// Where the guest's image has no agent the action is recorded with what it came to; that refusal is apart from the error, so
// that the record is written.
func (c *Compute) ChangePassword(tx *store.Tx, sc Scope, id model.ID) (s *model.Server, user string, refusal, err error) {
	s, err = c.change(tx, sc, id, false, func(s *model.Server) error {
		if err := allow(sc, s, "changePassword", []string{Active}, nil); err != nil {
			return err
		}
		if err := c.begin(tx, sc, s, "changePassword", TaskPassword); err != nil {
			return err
		}
		if hasAgent(s) {
			return nil
		}
		refused := fault.New(fault.Conflict, "QEMU guest agent is not enabled")
		refusal = refused
		return c.end(tx, s, refused.Text)
	})
	if err != nil {
		return nil, "", nil, err
	}
	return s, adminOf(s), refusal, nil
}

// PasswordChanged ends what ChangePassword began with the request; failure is empty where the password is set. What was
// ended meanwhile, as by a delete, stays as it is.
func (c *Compute) PasswordChanged(tx *store.Tx, id model.ID, request, failure string) error {
	old, ok := store.Servers.Get(tx, id)
	if !ok || old.Status.Task != TaskPassword || old.Status.Action != request {
		return nil
	}
	s := copyOf(old)
	if err := c.end(tx, s, failure); err != nil {
		return err
	}
	// A guest that turned itself off meanwhile stays off, as ever.
	if p := s.Status.Power; s.Status.Generation == s.Generation && (p == model.PowerOff || p == model.PowerCrashed) && s.Power == model.PowerRunning {
		s.Power = model.PowerOff
		s.Touch(c.now())
	}
	s.UpdatedAt = c.now()
	return store.Servers.Put(tx, s)
}

// tellPass has the guest told a password by the config drive that it starts with next, where it has one; "" is none. It is in the store, and in
// its host's ledger, until then.
func (c *Compute) tellPass(s *model.Server, password string) {
	if s.AdminPass = nil; password != "" && s.ConfigDrive && c.cfg.Seal != nil {
		s.AdminPass = c.cfg.Seal(s.PassPlace(), []byte(password))
	}
}

// toldPass forgets a password once the guest runs that was made with it.
func toldPass(s *model.Server) {
	st := &s.Status
	rescue := int64(0)
	if s.Rescue != nil {
		rescue = s.Rescue.Revision
	}
	if s.Move == nil && st.Phase == model.PhaseReady && st.Power == model.PowerRunning && st.Rebuilds == s.Rebuilds && st.Rescue == rescue {
		s.AdminPass = nil
	}
}

// passwordLimit is how long a change of a password may be under way: whoever asked a host for it has died otherwise.
const passwordLimit = 5 * time.Minute

// unanswered gives servers whose password somebody began to change who will not end it.
func (p *Sweeper) unanswered(snap store.Snapshot) (out []*model.Server) {
	for s := range store.Servers.List(snap, "task", TaskPassword) {
		if a := actionOf(snap, s.ID, s.Status.Action); a == nil || p.c.now().Sub(a.StartedAt) > passwordLimit {
			out = append(out, s)
		}
	}
	return out
}

// hasAgent tells whether a server's image says that a guest agent runs in it.
func hasAgent(s *model.Server) bool {
	switch strings.ToLower(strings.TrimSpace(s.Image.Hardware["hw_qemu_guest_agent"])) {
	case "yes", "y", "true", "t", "on", "1":
		return true
	}
	return false
}

// adminOf gives the user of a guest whose password is its administrator's.
func adminOf(s *model.Server) string {
	if user := s.Image.Hardware["os_admin_user"]; user != "" {
		return user
	}
	if s.Image.Hardware["os_type"] == "windows" {
		return "Administrator"
	}
	return "root"
}
