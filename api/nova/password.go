package nova

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"yakumo/api"
	"yakumo/compute"
	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

func (d *dialect) passwordRoutes(route adder) {
	route(http.MethodGet, "/servers/{id}/os-server-password", api.Reader, 1, d.showPassword)
	route(http.MethodDelete, "/servers/{id}/os-server-password", api.Member, 1, d.clearPassword)
}

// showPassword gives the password that the guest handed in by the metadata service, encrypted with its owner's key.
func (d *dialect) showPassword(c *api.Context) error {
	s, err := compute.Get(c.Snapshot(), scope(c), c.Param("id"))
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, object{"password": s.Sealed})
}

func (d *dialect) clearPassword(c *api.Context) error {
	if _, err := c.Store().Update(c.R.Context(), func(tx *store.Tx) error {
		_, err := d.c.ClearPassword(tx, scope(c), c.Param("id"))
		return err
	}); err != nil {
		return err
	}
	return c.Empty(http.StatusNoContent)
}

// passwordWait is how long a guest's agent may take to set a password; a busy emulated guest hashes one in seconds.
const passwordWait = time.Minute

// changePassword has the agent in the guest set its administrator's password, and answers once it has, as Nova does. It goes on
// when its client has gone: what it began it ends.
func (d *dialect) changePassword(c *api.Context, v any) error {
	q := model.PasswordQuery{ServerID: c.Param("id"), Password: str(v.(object), "adminPass")}
	if strings.ContainsRune(q.Password, 0) {
		return badRequest("Invalid input for field/attribute adminPass. A password has no NUL character.")
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.R.Context()), 2*passwordWait)
	defer cancel()
	var s *model.Server
	var refusal error
	if _, err := c.Store().Update(ctx, func(tx *store.Tx) (err error) {
		s, q.User, refusal, err = d.c.ChangePassword(tx, scope(c), q.ServerID)
		return err
	}); err != nil {
		return err
	}
	if refusal != nil {
		return refusal
	}
	failure := ""
	if err := d.tellPassword(ctx, s.Host, q); err != nil {
		failure = "The guest's host could not be asked."
		if text, ok := fault.Text(err); ok {
			failure = text
		}
	}
	if _, err := c.Store().Update(ctx, func(tx *store.Tx) error {
		return d.c.PasswordChanged(tx, s.ID, s.Status.Action, failure)
	}); err != nil {
		return err
	}
	if failure != "" {
		return fault.New(fault.Conflict, "Failed to set admin password on %s because %s", s.ID, failure)
	}
	return c.Empty(http.StatusAccepted)
}

func (d *dialect) tellPassword(ctx context.Context, host model.ID, q model.PasswordQuery) error {
	body, err := json.Marshal(q)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, passwordWait)
	defer cancel()
	_, err = d.ask.Ask(ctx, host, "password", body)
	return err
}
