package native

import (
	"net/http"

	"yakumo/api"
	"yakumo/compute"
	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// Drain is how the dialect shows a drain.
type Drain struct {
	Host     string        `json:"host"`
	Draining bool          `json:"draining"`
	Done     bool          `json:"done"` // the host has no servers
	Servers  []DrainServer `json:"servers"`
}

// DrainServer is a server that the host still has.
type DrainServer struct {
	ID       string         `json:"id"`
	Name     string         `json:"name"`
	State    string         `json:"state"`
	Moving   bool           `json:"moving"`
	Progress model.Progress `json:"progress"`
	Why      string         `json:"why"` // it does not move; "" where it does, or will
}

func drainOf(r store.Reader, h *model.Host) Drain {
	st := compute.DrainOf(r, h)
	out := Drain{Host: h.Name, Draining: st.Draining, Done: st.Done(), Servers: []DrainServer{}}
	for _, s := range st.Left {
		out.Servers = append(out.Servers, DrainServer(s))
	}
	return out
}

// computer finds a host that runs guests.
func computer(r store.Reader, key string) (*model.Host, error) {
	h, err := find(r, key)
	if err == nil && h.Switch != nil {
		return nil, fault.New(fault.Invalid, "%s is a switch: no server runs there.", h.Name)
	}
	return h, err
}

// answerHost changes a host and answers with what f makes of it.
func (d *dialect) answerHost(c *api.Context, change func(tx *store.Tx, h *model.Host) (*model.Host, error), answer func(store.Reader, *model.Host) any) error {
	var h *model.Host
	if _, err := c.Store().Update(c.R.Context(), func(tx *store.Tx) error {
		old, err := computer(tx, c.Param("host"))
		if err != nil {
			return err
		}
		h, err = change(tx, old)
		return err
	}); err != nil {
		return err
	}
	return c.JSON(http.StatusOK, answer(c.Snapshot(), h))
}

func showingDrain(r store.Reader, h *model.Host) any { return map[string]any{"drain": drainOf(r, h)} }

func (d *dialect) drain(c *api.Context) error {
	var body struct {
		Reason string `json:"reason"`
	}
	if err := c.Decode(&body); err != nil {
		return err
	}
	if len(body.Reason) > 255 {
		return fault.New(fault.Invalid, "reason must be at most 255 bytes long.")
	}
	return d.answerHost(c, func(tx *store.Tx, h *model.Host) (*model.Host, error) {
		return d.cfg.Compute.Drain(tx, h.ID, body.Reason)
	}, showingDrain)
}

func (d *dialect) undrain(c *api.Context) error {
	return d.answerHost(c, func(tx *store.Tx, h *model.Host) (*model.Host, error) { return d.cfg.Compute.Undrain(tx, h.ID) }, showingDrain)
}

func (d *dialect) showDrain(c *api.Context) error {
	snap := c.Snapshot()
	h, err := computer(snap, c.Param("host"))
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, showingDrain(snap, h))
}

// fence takes an administrator's word that a host is off. The word must be said, so that nobody says it by mistake.
func (d *dialect) fence(c *api.Context) error {
	var body struct {
		Off bool `json:"confirmed_off"`
	}
	if err := c.Decode(&body); err != nil {
		return err
	}
	if !body.Off {
		return fault.New(fault.Invalid, "confirmed_off must be true: the host's servers will run elsewhere, and must not run there.")
	}
	return d.answerHost(c, func(tx *store.Tx, h *model.Host) (*model.Host, error) { return d.cfg.Compute.Fence(tx, h.ID) },
		func(r store.Reader, h *model.Host) any { return map[string]any{"host": show(r, h)} })
}
