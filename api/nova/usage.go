package nova

import (
	"cmp"
	"net/http"
	"slices"
	"strconv"
	"time"

	"yakumo/api"
	"yakumo/compute"
)

func (d *dialect) usageRoutes(route adder) {
	route(http.MethodGet, "/os-simple-tenant-usage", api.Admin, 1, d.listUsage)
	route(http.MethodGet, "/os-simple-tenant-usage/{project}", api.Reader, 1, d.showUsage)
	route(http.MethodGet, "/os-instance_usage_audit_log", api.Admin, 1, d.auditLog)
	route(http.MethodGet, "/os-instance_usage_audit_log/{before}", api.Admin, 1, d.auditLog)
}

// usageTime reads a time as the usage API has it: now where none is given, no offset.
func usageTime(s string, now time.Time) (time.Time, error) {
	if s == "" {
		return now, nil
	}
	for _, layout := range []string{"2006-01-02T15:04:05", "2006-01-02 15:04:05"} { // either with a fraction
		if t, err := time.Parse(layout, s); err == nil {
			return t, nil
		}
	}
	return time.Time{}, badRequest("Datetime is in invalid format")
}

// usage is the page of a measurement that a request asks for.
type usage struct {
	from, to time.Time
	rows     []compute.Measured
	last     string // the marker of the next page; "" where there is none
	limit    int
}

// measure reads the query and gives what was used by a project, or by all.
func measure(c *api.Context, project string) (*usage, error) {
	known, paged := []string{"start", "end", "detailed"}, at(c, 40)
	if paged {
		known = append(known, "limit", "marker")
	}
	if err := unknownQuery(c, 75, known...); err != nil {
		return nil, err
	}
	q := c.Query()
	u := &usage{}
	var err error
	if u.from, err = usageTime(q.Get("start"), c.Now); err != nil {
		return nil, err
	}
	if u.to, err = usageTime(q.Get("end"), c.Now); err != nil {
		return nil, err
	}
	// Without either Nova measures the moment between its two looks at the clock: nothing.
	if u.from.After(u.to) || u.from.Equal(u.to) && (q.Get("start") != "" || q.Get("end") != "") {
		return nil, badRequest("Invalid start time. The start time cannot occur after the end time.")
	}
	pg := api.Page{}
	if paged {
		if pg, err = page(q); err != nil {
			return nil, err
		}
	}
	if u.to.After(c.Now) {
		u.to = c.Now
	}
	all, err := compute.Measure(c.Snapshot(), scope(c), project, u.from, u.to)
	if err != nil {
		return nil, err
	}
	rows, more, err := api.Cut(all, pg, func(m compute.Measured) string { return m.ServerID })
	if err != nil {
		return nil, badRequest("Marker %s could not be found.", api.Clip(pg.Marker))
	}
	u.rows, u.limit = rows, pg.Limit
	if more && len(rows) > 0 {
		u.last = rows[len(rows)-1].ServerID
	}
	return u, nil
}

// server shows what one server used.
func (u *usage) server(m compute.Measured, now time.Time) object {
	end := m.EndedAt
	if end.IsZero() {
		end = now
	}
	return object{
		"instance_id": m.ServerID, "name": m.Name, "tenant_id": m.ProjectID, "hours": m.Within(u.from, u.to).Hours(), "flavor": m.Flavor, "vcpus": m.VCPUs,
		"memory_mb": m.MemoryMiB, "local_gb": m.DiskGiB, "started_at": micros(m.StartedAt), "ended_at": micros(m.EndedAt), "state": m.State,
		"uptime": int64(max(0, end.Sub(m.StartedAt)) / time.Second),
	}
}

// project shows what the rows of one project come to.
func (u *usage) project(rows []compute.Measured, now time.Time, detailed bool) object {
	var hours, disk, memory, cpus float64
	servers := make([]object, 0, len(rows))
	for _, m := range rows {
		h := m.Within(u.from, u.to).Hours()
		hours, disk, memory, cpus = hours+h, disk+h*float64(m.DiskGiB), memory+h*float64(m.MemoryMiB), cpus+h*float64(m.VCPUs)
		servers = append(servers, u.server(m, now))
	}
	o := object{
		"tenant_id": rows[0].ProjectID, "start": micros(u.from), "stop": micros(u.to), "total_hours": hours, "total_local_gb_usage": disk,
		"total_memory_mb_usage": memory, "total_vcpus_usage": cpus,
	}
	if detailed {
		o["server_usages"] = servers
	}
	return o
}

func (d *dialect) listUsage(c *api.Context) error {
	u, err := measure(c, "")
	if err != nil {
		return err
	}
	out := []object{}
	for rows := u.rows; len(rows) > 0; {
		n := slices.IndexFunc(rows, func(m compute.Measured) bool { return m.ProjectID != rows[0].ProjectID })
		if n < 0 {
			n = len(rows)
		}
		out = append(out, u.project(rows[:n], c.Now, c.Query().Get("detailed") == "1"))
		rows = rows[n:]
	}
	body := object{"tenant_usages": out}
	if u.last != "" {
		body["tenant_usages_links"] = next(c, "/os-simple-tenant-usage", u.last, u.limit)
	}
	return c.JSON(http.StatusOK, body)
}

func (d *dialect) showUsage(c *api.Context) error {
	p := c.Param("project")
	u, err := measure(c, p)
	if err != nil {
		return err
	}
	o := object{}
	if len(u.rows) > 0 {
		o = u.project(u.rows, c.Now, true)
	}
	body := object{"tenant_usage": o}
	if u.last != "" {
		body["tenant_usage_links"] = next(c, "/os-simple-tenant-usage/"+p, u.last, u.limit)
	}
	return c.JSON(http.StatusOK, body)
}

// auditLog answers as Nova does where no host writes records of audits: this cloud measures by os-simple-tenant-usage.
func (d *dialect) auditLog(c *api.Context) error {
	member, before := "instance_usage_audit_logs", c.Now.UTC()
	if s := c.Param("before"); s != "" {
		t, err := usageTime(s, before)
		if err != nil {
			return badRequest("Invalid timestamp for date %s", api.Clip(s))
		}
		member, before = "instance_usage_audit_log", t
	}
	end := time.Date(before.Year(), before.Month(), 1, 0, 0, 0, 0, time.UTC)
	names := []string{}
	for h := range computers(c.Snapshot()) {
		names = append(names, h.Name)
	}
	slices.SortFunc(names, cmp.Compare[string])
	return c.JSON(http.StatusOK, object{member: object{
		"period_beginning": end.AddDate(0, -1, 0).Format(time.DateTime), "period_ending": end.Format(time.DateTime), "num_hosts": len(names), "num_hosts_done": 0,
		"num_hosts_running": 0, "num_hosts_not_run": len(names), "hosts_not_run": names, "total_instances": 0, "total_errors": 0, "log": object{},
		"overall_status": "0 of " + strconv.Itoa(len(names)) + " hosts done. 0 errors.",
	}})
}
