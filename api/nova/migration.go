package nova

import (
	"cmp"
	"net/http"
	"slices"
	"strconv"

	"yakumo/api"
	"yakumo/compute"
	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

func (d *dialect) migrationRoutes(route adder) {
	route(http.MethodGet, "/os-migrations", api.Admin, 1, d.listMigrations)
	route(http.MethodGet, "/servers/{id}/migrations", api.Admin, 23, d.listServerMigrations)
	route(http.MethodGet, "/servers/{id}/migrations/{migration}", api.Admin, 23, d.showServerMigration)
	route(http.MethodPost, "/servers/{id}/migrations/{migration}/action", api.Admin, 22, d.forceMigration)
	route(http.MethodDelete, "/servers/{id}/migrations/{migration}", api.Admin, 24, d.abortMigration)
}

// ends names the hosts of a migration, as Nova does: nil where there is none.
func ends(snap store.Reader, m *model.Migration) object {
	o := object{"source_compute": nil, "source_node": nil, "dest_compute": nil, "dest_node": nil, "dest_host": nil}
	if h, ok := store.Hosts.Get(snap, m.Source); ok {
		o["source_compute"], o["source_node"] = h.Name, h.Name
	}
	if h, ok := store.Hosts.Get(snap, m.Target); ok {
		o["dest_compute"], o["dest_node"] = h.Name, h.Name
		if h.TunnelIP.IsValid() {
			o["dest_host"] = h.TunnelIP.String()
		}
	}
	return o
}

// migrationOf shows a migration in the list of all.
func migrationOf(c *api.Context, snap store.Reader, m *model.Migration) object {
	o := ends(snap, m)
	o["id"], o["instance_uuid"], o["status"] = m.Number, m.ServerID, m.Status
	o["old_instance_type_id"], o["new_instance_type_id"] = number(m.OldFlavor), number(m.NewFlavor)
	o["created_at"], o["updated_at"] = micros(m.CreatedAt), micros(m.UpdatedAt)
	if at(c, 23) {
		o["migration_type"] = m.Kind
		if inProgress(m) {
			o["links"] = links(c, "servers/"+m.ServerID+"/migrations/"+strconv.FormatInt(m.Number, 10))
		}
	}
	if at(c, 59) {
		o["uuid"] = m.ID
	}
	if at(c, 80) {
		o["user_id"], o["project_id"] = m.UserID, m.ProjectID
	}
	return o
}

// serverMigrationOf shows a live migration under way.
func serverMigrationOf(c *api.Context, snap store.Reader, m *model.Migration) object {
	o := ends(snap, m)
	p := m.Progress
	o["id"], o["server_uuid"], o["status"] = m.Number, m.ServerID, m.Status
	o["created_at"], o["updated_at"] = micros(m.CreatedAt), micros(m.UpdatedAt)
	o["memory_total_bytes"], o["memory_processed_bytes"], o["memory_remaining_bytes"] = p.MemoryTotal, p.MemoryProcessed, p.MemoryRemaining
	o["disk_total_bytes"], o["disk_processed_bytes"], o["disk_remaining_bytes"] = p.DiskTotal, p.DiskProcessed, p.DiskRemaining
	if at(c, 59) {
		o["uuid"] = m.ID
	}
	if at(c, 80) {
		o["user_id"], o["project_id"] = m.UserID, m.ProjectID
	}
	return o
}

func (d *dialect) listMigrations(c *api.Context) error {
	known := []string{"hidden", "host", "instance_uuid", "source_compute", "status", "migration_type"}
	paged := []string{"limit", "marker", "changes-since"}
	switch {
	case at(c, 80):
		known = append(append(known, paged...), "changes-before", "user_id", "project_id")
	case at(c, 66):
		known = append(append(known, paged...), "changes-before")
	case at(c, 59):
		known = append(known, paged...)
	}
	if err := unknownQuery(c, 59, known...); err != nil {
		return err
	}
	q, snap := c.Query(), c.Snapshot()
	wants := func(name, value string) bool {
		return !slices.Contains(known, name) || q.Get(name) == "" || q.Get(name) == value
	}
	pg := api.Page{}
	since, err := queryTime(q, "changes-since")
	if err != nil {
		return err
	}
	before, err := queryTime(q, "changes-before")
	if err != nil {
		return err
	}
	switch {
	case !before.IsZero() && before.Before(since):
		return badRequest("The value of changes-since must be less than or equal to changes-before.")
	case at(c, 59):
		if pg, err = page(q); err != nil {
			return err
		}
	}
	hidden, _, err := queryBool(q, "hidden")
	if err != nil {
		return err
	}
	var rows []*model.Migration
	for m := range store.Migrations.All(snap) {
		e := ends(snap, m)
		at59 := at(c, 59)
		host := q.Get("host")
		switch {
		case hidden: // none is
		case host != "" && e["source_compute"] != host && e["dest_compute"] != host:
		case q.Get("source_compute") != "" && e["source_compute"] != q.Get("source_compute"):
		case !wants("instance_uuid", m.ServerID), !wants("status", m.Status), !wants("migration_type", string(m.Kind)), !wants("user_id", m.UserID),
			!wants("project_id", m.ProjectID):
		case at59 && !since.IsZero() && m.UpdatedAt.Before(since):
		case at(c, 66) && !before.IsZero() && m.UpdatedAt.After(before):
		default:
			rows = append(rows, m)
		}
	}
	slices.SortFunc(rows, func(a, b *model.Migration) int {
		return cmp.Or(b.CreatedAt.Compare(a.CreatedAt), cmp.Compare(b.Number, a.Number))
	})
	rows, more, err := api.Cut(rows, pg, func(m *model.Migration) string { return m.ID })
	if err != nil {
		return badRequest("Marker %s could not be found.", api.Clip(pg.Marker))
	}
	out := make([]object, 0, len(rows))
	for _, m := range rows {
		out = append(out, migrationOf(c, snap, m))
	}
	body := object{"migrations": out}
	if more && len(rows) > 0 && at(c, 59) {
		body["migrations_links"] = next(c, "/os-migrations", rows[len(rows)-1].ID, pg.Limit)
	}
	return c.JSON(http.StatusOK, body)
}

func (d *dialect) listServerMigrations(c *api.Context) error {
	snap, s, err := d.serverOf(c)
	if err != nil {
		return err
	}
	out := []object{}
	for m := range store.Migrations.List(snap, "server", s.ID) {
		if inProgress(m) {
			out = append(out, serverMigrationOf(c, snap, m))
		}
	}
	return c.JSON(http.StatusOK, object{"migrations": out})
}

// pathMigration finds the migration of the path.
func pathMigration(c *api.Context, r store.Reader, s *model.Server) (*model.Migration, error) {
	n, err := strconv.ParseInt(c.Param("migration"), 10, 64)
	if err != nil || n < 1 {
		return nil, fault.New(fault.NotFound, "Migration %s not found for instance %s", api.Clip(c.Param("migration")), s.ID)
	}
	return compute.MigrationOf(r, s.ID, n)
}

func (d *dialect) showServerMigration(c *api.Context) error {
	snap, s, err := d.serverOf(c)
	if err != nil {
		return err
	}
	m, err := pathMigration(c, snap, s)
	if err != nil {
		return err
	}
	if !inProgress(m) {
		what := "Live migration %d for server %s is not in progress."
		if m.Kind != model.MoveLive {
			what = "Migration %d for server %s is not live-migration."
		}
		return fault.New(fault.NotFound, what, m.Number, s.ID)
	}
	return c.JSON(http.StatusOK, object{"migration": serverMigrationOf(c, snap, m)})
}

func (d *dialect) forceMigration(c *api.Context) error {
	if _, err := decode(c, exactly(members{"force_complete": null}, "force_complete")); err != nil {
		return err
	}
	return d.steer(c, d.c.Hurry)
}

// abortMigration ends a live migration; before 2.65 only one that copies.
func (d *dialect) abortMigration(c *api.Context) error {
	return d.steer(c, func(tx *store.Tx, sc compute.Scope, server, migration model.ID) (*model.Server, error) {
		if m, ok := store.Migrations.Get(tx, migration); ok && !at(c, 65) && m.Status != compute.MigrationRunning {
			return nil, badRequest("Migration %d state of instance %s is %s. Cannot abort live migration while the migration is in this state.", m.Number, server, m.Status)
		}
		return d.c.Abort(tx, sc, server, migration)
	})
}

func (d *dialect) steer(c *api.Context, f func(tx *store.Tx, sc compute.Scope, server, migration model.ID) (*model.Server, error)) error {
	return change(c, func(tx *store.Tx) error {
		s, err := compute.Get(tx, scope(c), c.Param("id"))
		if err != nil {
			return err
		}
		m, err := pathMigration(c, tx, s)
		if err != nil {
			return err
		}
		_, err = f(tx, scope(c), s.ID, m.ID)
		return err
	})
}
