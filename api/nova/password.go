package nova

import (
	"net/http"

	"yakumo/api"
	"yakumo/compute"
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
