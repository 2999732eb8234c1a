package nova

import (
	"yakumo/api"
	"yakumo/fault"
	"yakumo/store"
)

// stateActions are those that set what a server is said to be, and those that no guest here can be asked for.
func (d *dialect) stateActions(add adds) {
	add("os-resetState", action{
		rule:  "os_compute_api:os-admin-actions:reset_state",
		check: always(exactly(members{"state": oneOf("active", "error")}, "state")),
		run: func(c *api.Context, v any) error {
			errored := str(v.(object), "state") == "error"
			return change(c, func(tx *store.Tx) error {
				_, err := d.c.ResetState(tx, scope(c), c.Param("id"), errored)
				return err
			})
		},
	})
	add("restore", plainly(d.c.Restore))
	add("forceDelete", action{run: func(c *api.Context, _ any) error {
		return change(c, func(tx *store.Tx) error { return d.c.Delete(tx, scope(c), c.Param("id")) })
	}})
	add("changePassword", action{check: always(exactly(members{"adminPass": text(0, 255)}, "adminPass")), run: d.changePassword})
	add("trigger_crash_dump", action{from: 17, check: always(null), run: d.crashDump})
	for name, rule := range map[string]string{
		"resetNetwork": "os_compute_api:os-admin-actions:reset_network", "injectNetworkInfo": "os_compute_api:os-admin-actions:inject_network_info",
	} {
		add(name, action{rule: rule, run: func(*api.Context, any) error {
			return fault.New(fault.Gone, "This resource is no longer available. No forwarding address is given.")
		}})
	}
}
