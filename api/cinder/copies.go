package cinder

import (
	"cmp"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"yakumo/api"
	"yakumo/model"
	"yakumo/store"
	"yakumo/volume"
)

// copies is what snapshots and backups have in common, the copies of volumes: how they are listed, shown, named and removed, and what administrators do to one.
type copies[T any] struct {
	one, all string // "backup", "backups": members of bodies, and of paths
	table    *store.Table[T]
	about    func(*T) about
	get      func(store.Reader, volume.Scope, model.ID) (*T, error)
	short    func(c *api.Context, r store.Reader, x *T) object
	full     func(c *api.Context, r store.Reader, x *T) object
	// renamed is the microversion from which on names are changed, and metadata that from which on that is changed so too; 0: never.
	renamed, metadata int
	update            func(tx *store.Tx, sc volume.Scope, id model.ID, u volume.Update) (*T, error)
	remove            func(tx *store.Tx, sc volume.Scope, id model.ID, force bool) error
	reset             func(tx *store.Tx, id model.ID, state string) (*T, error)
	resets            []string // names of the action that sets a state
	refused           []string // actions that are Cinder's and not offered
}

// about is what one is listed by.
type about struct {
	meta                *model.Meta
	state, volume, user string
	size                int // GiB
	metadata            map[string]string
}

func (k *copies[T]) routes(route adder) {
	l := &listing[T]{name: k.all, meta: func(x *T) *model.Meta { return k.about(x).meta }, field: k.field, number: k.number, show: k.full}
	list := func(show func(*api.Context, store.Reader, *T) object) api.Handler {
		return func(c *api.Context) error {
			snap := c.Snapshot()
			return l.answer(c, snap, owned(c, snap, k.table), show)
		}
	}
	one := "/" + k.all + "/{id}"
	route(http.MethodGet, "/"+k.all, api.Reader, 0, list(k.short))
	route(http.MethodGet, "/"+k.all+"/detail", api.Reader, 0, list(k.full))
	route(http.MethodGet, one, api.Reader, 0, func(c *api.Context) error {
		snap := c.Snapshot()
		x, err := k.get(snap, scope(c), c.Param("id"))
		if err != nil {
			return err
		}
		return c.JSON(http.StatusOK, object{k.one: k.full(c, snap, x)})
	})
	route(http.MethodPut, one, api.Member, k.renamed, k.put)
	route(http.MethodDelete, one, api.Member, 0, func(c *api.Context) error {
		if err := do(c, func(tx *store.Tx) error { return k.remove(tx, scope(c), c.Param("id"), false) }); err != nil {
			return err
		}
		return c.Empty(http.StatusAccepted)
	})
	route(http.MethodPost, one+"/action", api.Member, 0, k.act)
}

func (k *copies[T]) put(c *api.Context) error {
	b, err := read(c, k.one)
	if err != nil {
		return err
	}
	u := volume.Update{Name: b.optional("name"), Description: b.optional("description")}
	if k.metadata > 0 && at(c, k.metadata) {
		u.Metadata = b.strings("metadata")
	}
	if b.err() != nil {
		return b.err()
	}
	x, err := update(c, func(tx *store.Tx) (*T, error) { return k.update(tx, scope(c), c.Param("id"), u) })
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, object{k.one: k.short(c, c.Snapshot(), x)})
}

// act does what an administrator asks.
func (k *copies[T]) act(c *api.Context) error {
	o, err := readAll(c)
	if err != nil {
		return err
	}
	x, err := k.get(c.Snapshot(), scope(c), c.Param("id"))
	if err != nil {
		return err
	}
	if len(o) != 1 {
		return badRequest("Malformed request body")
	}
	id, rule := k.about(x).meta.ID, "volume_extension:"+k.one+"_admin_actions:"
	b := &body{o: o}
	for name := range o {
		switch {
		case slices.Contains(k.resets, name):
			if err := adminOnly(c, rule+"reset_status"); err != nil {
				return err
			}
			in := b.inner(name)
			state := in.needed("status")
			if err := cmp.Or(b.err(), in.err()); err != nil {
				return err
			}
			err = do(c, func(tx *store.Tx) error { _, err := k.reset(tx, id, state); return err })
		case name == "os-force_delete":
			if err := adminOnly(c, rule+"force_delete"); err != nil {
				return err
			}
			err = do(c, func(tx *store.Tx) error { return k.remove(tx, scope(c), id, true) })
		case slices.Contains(k.refused, name):
			return notOffered("The action " + name)
		default:
			return badRequest("There is no such action: %s", api.Clip(name))
		}
	}
	if err != nil {
		return err
	}
	return c.Empty(http.StatusAccepted)
}

func (k *copies[T]) number(x *T, name string) (int64, bool) {
	switch a := k.about(x); name {
	case "size":
		return int64(a.size), true
	case "created_at":
		return a.meta.CreatedAt.UnixMicro(), true
	}
	return 0, false
}

func (k *copies[T]) field(_ store.Reader, x *T, name string) (string, bool) {
	a := k.about(x)
	switch name {
	case "id":
		return a.meta.ID, true
	case "name":
		return a.meta.Name, true
	case "status":
		return a.state, true
	case "volume_id":
		return a.volume, true
	case "project_id":
		return a.meta.ProjectID, true
	case "user_id":
		return a.user, true
	case "size":
		return strconv.Itoa(a.size), true
	case "created_at":
		return a.meta.CreatedAt.UTC().Format("2006-01-02T15:04:05.000000"), true
	}
	if key, ok := strings.CutPrefix(name, "metadata:"); ok {
		return a.metadata[key], true
	}
	return "", false
}
