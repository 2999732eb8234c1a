package nova

import (
	"cmp"
	"iter"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"yakumo/api"
	"yakumo/compute"
	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// test tells whether a server is to be listed.
type test func(v *viewer, s *model.Server) bool

// Names of query parameters of the list of servers.
var (
	listAll = []string{"all_tenants", "changes-since", "flavor", "image", "ip", "name", "reservation_id", "status", "limit", "marker",
		"sort_key", "sort_dir", "ip6", "tags", "tags-any", "not-tags", "not-tags-any", "changes-before", "locked"}
	listAdmin = []string{"host", "node", "project_id", "tenant_id", "deleted", "uuid", "hostname", "description", "launch_index", "root_device_name",
		"kernel_id", "ramdisk_id", "access_ip_v4", "access_ip_v6", "auto_disk_config", "soft_deleted"}
	// Since 2.83 everybody may filter by these.
	list83 = []string{"availability_zone", "config_drive", "key_name", "created_at", "launched_at", "terminated_at", "power_state",
		"task_state", "vm_state", "progress", "user_id"}
	sortKeys = []string{"access_ip_v4", "access_ip_v6", "auto_disk_config", "availability_zone", "config_drive", "created_at", "display_description",
		"display_name", "host", "hostname", "image_ref", "instance_type_id", "kernel_id", "key_name", "launch_index", "launched_at", "locked",
		"locked_by", "node", "power_state", "progress", "project_id", "ramdisk_id", "root_device_name", "task_state", "terminated_at",
		"updated_at", "user_id", "uuid", "vm_state"}
)

// statuses are those that a server here can have, and the others that Nova knows.
var statuses = []string{"ACTIVE", "BUILD", "DELETED", "ERROR", "HARD_REBOOT", "MIGRATING", "PASSWORD", "PAUSED", "REBOOT", "REBUILD", "RESCUE",
	"RESIZE", "REVERT_RESIZE", "SHELVED", "SHELVED_OFFLOADED", "SHUTOFF", "SOFT_DELETED", "SUSPENDED", "UNKNOWN", "VERIFY_RESIZE"}

func queryTime(q url.Values, name string) (time.Time, error) {
	s := q.Get(name)
	if s == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999", "2006-01-02T15:04:05-0700", "2006-01-02 15:04:05", "2006-01-02"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, nil
		}
	}
	return time.Time{}, badRequest("Invalid input for query parameters %s. Value: %s. %s is not a 'date-time'", name, api.Clip(s), api.Quoted(s))
}

func queryBool(q url.Values, name string) (value, there bool, err error) {
	vs, there := q[name]
	if !there {
		return false, false, nil
	}
	s := vs[0]
	switch {
	case s == "" || slices.Contains(truths, s) || s == "t" || s == "y":
		return true, true, nil
	case slices.Contains(lies, s) || s == "f" || s == "n":
		return false, true, nil
	}
	return false, true, badRequest("Invalid input for query parameters %s. Value: %s. %s is not a boolean", name, api.Clip(s), api.Quoted(s))
}

// scopeOfList tells whose servers are listed; all: everybody's.
func scopeOfList(c *api.Context, q url.Values) (project string, all bool, err error) {
	all, asked, err := queryBool(q, "all_tenants")
	if err != nil {
		return "", false, err
	}
	project = q.Get("project_id")
	if project == "" {
		project = q.Get("tenant_id")
	}
	if all && !c.Caller.CloudAdmin {
		return "", false, fault.New(fault.Forbidden, "Policy doesn't allow os_compute_api:servers:detail:get_all_tenants to be performed.")
	}
	if c.Caller.CloudAdmin && project != "" && (all || !asked) {
		return project, false, nil
	}
	return c.Caller.ProjectID, all, nil
}

// tests makes the filters of a query. none: nothing can match.
func tests(c *api.Context, q url.Values) (out []test, none bool, err error) {
	admin := c.Caller.CloudAdmin
	if at(c, 75) {
		for name := range q {
			if !slices.Contains(listAll, name) && !slices.Contains(listAdmin, name) && !slices.Contains(list83, name) {
				return nil, false, badRequest("Additional properties are not allowed ('%s' was unexpected)", api.Clip(name))
			}
		}
	}
	equal := func(name string, get func(v *viewer, s *model.Server) string) {
		if vs, ok := q[name]; ok {
			out = append(out, func(v *viewer, s *model.Server) bool { return slices.Contains(vs, get(v, s)) })
		}
	}
	pattern := func(name string, get func(s *model.Server) []string) error {
		if q.Get(name) == "" {
			return nil
		}
		re, err := regexp.Compile("(?i)" + q.Get(name))
		if err != nil {
			return badRequest("Invalid input for query parameters %s. Value: %s. It is not a valid regular expression.", name, api.Clip(q.Get(name)))
		}
		out = append(out, func(v *viewer, s *model.Server) bool { return slices.ContainsFunc(get(s), re.MatchString) })
		return nil
	}
	if err := pattern("name", func(s *model.Server) []string { return []string{s.Name} }); err != nil {
		return nil, false, err
	}
	equal("reservation_id", func(_ *viewer, s *model.Server) string { return s.Reservation })
	equal("image", func(_ *viewer, s *model.Server) string { return s.ImageID })
	equal("flavor", func(_ *viewer, s *model.Server) string { return s.Flavor.ID })
	addresses := func(name string, v6 bool) error {
		expr := q.Get(name)
		if expr == "" {
			return nil
		}
		re, err := regexp.Compile(expr)
		if err != nil {
			return badRequest("Invalid input for query parameters %s. Value: %s. It is not a valid regular expression.", name, api.Clip(expr))
		}
		out = append(out, func(v *viewer, s *model.Server) bool {
			for _, p := range v.ports(s) {
				for _, f := range p.FixedIPs {
					if f.Address.Is6() == v6 && re.MatchString(f.Address.String()) {
						return true
					}
				}
			}
			return false
		})
		return nil
	}
	if err := addresses("ip", false); err != nil {
		return nil, false, err
	}
	if admin || at(c, 5) {
		if err := addresses("ip6", true); err != nil {
			return nil, false, err
		}
	}
	if vs, ok := q["status"]; ok {
		var want []string
		for _, s := range vs {
			up := strings.ToUpper(s)
			switch {
			case slices.Contains(statuses, up):
				want = append(want, up)
			case at(c, 38):
				return nil, false, badRequest("Invalid status value")
			}
			if up == "DELETED" && !admin {
				return nil, false, fault.New(fault.Forbidden, "Only administrators may list deleted instances")
			}
		}
		none = none || len(want) == 0
		out = append(out, func(_ *viewer, s *model.Server) bool { st, _ := status(s); return slices.Contains(want, st) })
	}
	since, err := queryTime(q, "changes-since")
	if err != nil {
		return nil, false, err
	}
	if !since.IsZero() {
		out = append(out, func(_ *viewer, s *model.Server) bool { return !s.UpdatedAt.Before(since) })
	}
	if at(c, 66) {
		before, err := queryTime(q, "changes-before")
		if err != nil {
			return nil, false, err
		}
		if !before.IsZero() {
			if before.Before(since) {
				return nil, false, badRequest("The value of changes-since must be less than or equal to changes-before.")
			}
			out = append(out, func(_ *viewer, s *model.Server) bool { return !s.UpdatedAt.After(before) })
		}
	}
	if at(c, 26) {
		for _, name := range []string{"tags", "tags-any", "not-tags", "not-tags-any"} {
			if _, ok := q[name]; !ok {
				continue
			}
			want := strings.Split(q.Get(name), ",")
			out = append(out, func(_ *viewer, s *model.Server) bool {
				has := 0
				for _, t := range want {
					if slices.Contains(s.Tags, t) {
						has++
					}
				}
				switch name {
				case "tags":
					return has == len(want)
				case "tags-any":
					return has > 0
				case "not-tags":
					return has < len(want)
				}
				return has == 0
			})
		}
	}
	if at(c, 73) {
		if want, ok, err := queryBool(q, "locked"); err != nil {
			return nil, false, err
		} else if ok {
			out = append(out, func(_ *viewer, s *model.Server) bool { return s.Locked == want })
		}
	}
	if admin || at(c, 83) {
		equal("availability_zone", func(v *viewer, s *model.Server) string {
			if h := v.host(s.Host); h != nil {
				return h.Zone
			}
			return s.Zone
		})
		equal("key_name", func(_ *viewer, s *model.Server) string { return s.KeyName })
		equal("user_id", func(_ *viewer, s *model.Server) string { return s.UserID })
		equal("vm_state", func(_ *viewer, s *model.Server) string { return compute.State(s) })
		equal("task_state", func(_ *viewer, s *model.Server) string { return s.Status.Task })
		equal("power_state", func(_ *viewer, s *model.Server) string { _, p := status(s); return strconv.Itoa(p) })
		if want, ok, err := queryBool(q, "config_drive"); err != nil {
			return nil, false, err
		} else if ok {
			out = append(out, func(_ *viewer, s *model.Server) bool { return s.ConfigDrive == want })
		}
	}
	if admin {
		name := func(v *viewer, s *model.Server) string {
			if h := v.host(s.Host); h != nil {
				return h.Name
			}
			return ""
		}
		equal("host", name)
		equal("node", name)
		equal("uuid", func(_ *viewer, s *model.Server) string { return s.ID })
		equal("hostname", func(_ *viewer, s *model.Server) string { return s.HostName })
	}
	return out, none, nil
}

// inOrder gives a table's servers newest first, after the marker.
func inOrder(r store.Reader, table *store.Table[model.Server], project string, all bool, marker *model.Server) iter.Seq[*model.Server] {
	index, prefix := "project_newest", project+","
	if all {
		index, prefix = "newest", ""
	}
	if marker == nil {
		return table.Prefix(r, index, prefix)
	}
	from := prefix + marker.NewestFirst()
	return func(yield func(*model.Server) bool) {
		for s := range table.Seek(r, index, prefix, from) {
			if s.ID != marker.ID && !yield(s) {
				return
			}
		}
	}
}

// tablesOf gives where the servers are that are asked for. An administrator may ask for those that are gone; and whoever asks for what has
// changed is told of what has gone, too.
func tablesOf(c *api.Context, q url.Values) ([]*store.Table[model.Server], error) {
	asked := false
	if c.Caller.CloudAdmin {
		gone, there, err := queryBool(q, "deleted")
		if err != nil || gone || strings.EqualFold(q.Get("status"), "deleted") {
			return []*store.Table[model.Server]{store.GoneServers}, err
		}
		asked = there
	}
	if !asked && (q.Get("changes-since") != "" || at(c, 66) && q.Get("changes-before") != "") {
		return []*store.Table[model.Server]{store.Servers, store.GoneServers}, nil
	}
	return []*store.Table[model.Server]{store.Servers}, nil
}

// sortValue gives what a server is sorted by.
func sortValue(v *viewer, s *model.Server, key string) string {
	stamp := func(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000000000") }
	st, power := status(s)
	host := ""
	if h := v.host(s.Host); h != nil {
		host = h.Name
	}
	switch key {
	case "created_at":
		return stamp(s.CreatedAt)
	case "updated_at":
		return stamp(s.UpdatedAt)
	case "launched_at":
		return stamp(s.Status.LaunchedAt)
	case "display_name":
		return s.Name
	case "display_description":
		return s.Description
	case "host", "node":
		return host
	case "hostname":
		return s.HostName
	case "image_ref":
		return s.ImageID
	case "instance_type_id":
		return s.Flavor.ID
	case "key_name":
		return s.KeyName
	case "project_id":
		return s.ProjectID
	case "user_id":
		return s.UserID
	case "uuid":
		return s.ID
	case "vm_state":
		return compute.State(s)
	case "task_state":
		return s.Status.Task
	case "power_state":
		return strconv.Itoa(power)
	case "availability_zone":
		return s.Zone
	case "locked":
		return strconv.FormatBool(s.Locked)
	case "locked_by":
		return s.LockedBy
	case "launch_index":
		return strconv.Itoa(1e9 + s.LaunchIndex)
	case "config_drive":
		return strconv.FormatBool(s.ConfigDrive)
	case "access_ip_v4":
		return s.AccessIPv4
	case "access_ip_v6":
		return s.AccessIPv6
	}
	return cmp.Or(st, "")
}

func page(q url.Values) (api.Page, error) {
	for _, name := range []string{"limit"} {
		if s := q.Get(name); s != "" {
			if n, err := strconv.Atoi(s); err != nil || n < 0 {
				return api.Page{}, badRequest("Invalid input for query parameters %s. Value: %s. %s does not match '^[0-9]*$'", name, api.Clip(s), api.Quoted(s))
			}
		}
	}
	return api.ParsePage(q, maxLimit)
}

// next gives the link to the next page.
func next(c *api.Context, path, marker string, limit int) []link {
	q := c.Query()
	q.Set("marker", marker)
	if q.Get("limit") != "" {
		q.Set("limit", strconv.Itoa(limit))
	}
	return []link{{"next", c.URL("/v2.1" + path + "?" + q.Encode())}}
}

func (d *dialect) listServers(c *api.Context, detail bool) error {
	q := c.Query()
	pg, err := page(q)
	if err != nil {
		return err
	}
	project, all, err := scopeOfList(c, q)
	if err != nil {
		return err
	}
	filters, none, err := tests(c, q)
	if err != nil {
		return err
	}
	tables, err := tablesOf(c, q)
	if err != nil {
		return err
	}
	snap := c.Snapshot()
	v := newViewer(c, snap)
	var marker *model.Server
	if pg.Marker != "" {
		for _, table := range tables {
			if s, ok := table.Get(snap, pg.Marker); ok && scope(c).Owns(s.ProjectID) {
				marker = s
			}
		}
		if marker == nil {
			return badRequest("marker [%s] not found", api.Clip(pg.Marker))
		}
	}
	var sorting []api.SortKey
	for _, k := range pg.Sort {
		if !slices.Contains(sortKeys, k.Key) {
			return badRequest("Invalid input for query parameters sort_key. Value: %s. %s is not one of %s", api.Clip(k.Key), api.Quoted(k.Key), api.Quoted(sortKeys))
		}
		if (k.Key == "host" || k.Key == "node") && !c.Caller.CloudAdmin {
			return fault.New(fault.Forbidden, "Only administrators can sort servers by host or node")
		}
		if len(q["sort_dir"]) == 0 { // unlike elsewhere, the default is downwards
			k.Desc = true
		}
		sorting = append(sorting, k)
	}
	if len(tables) > 1 && sorting == nil {
		sorting = []api.SortKey{} // each table is in order, and both together are not
	}
	rows, more := []*model.Server{}, false
	take := func(s *model.Server) bool {
		for _, f := range filters {
			if !f(v, s) {
				return true
			}
		}
		if sorting == nil && len(rows) == pg.Limit {
			more = true
			return false
		}
		rows = append(rows, s)
		return true
	}
	if !none {
		first := marker
		if sorting != nil {
			first = nil
		}
		for _, table := range tables {
			inOrder(snap, table, project, all, first)(take)
		}
	}
	if sorting != nil {
		sorting = append(sorting, api.SortKey{Key: "created_at", Desc: true}, api.SortKey{Key: "uuid", Desc: true})
		slices.SortStableFunc(rows, func(a, b *model.Server) int {
			for _, k := range sorting {
				n := cmp.Compare(sortValue(v, a, k.Key), sortValue(v, b, k.Key))
				if k.Desc {
					n = -n
				}
				if n != 0 {
					return n
				}
			}
			return 0
		})
		if rows, more, err = api.Cut(rows, pg, func(s *model.Server) string { return s.ID }); err != nil {
			return badRequest("marker [%s] not found", api.Clip(pg.Marker))
		}
	}
	out := make([]object, 0, len(rows))
	for _, s := range rows {
		if detail {
			out = append(out, v.full(s))
		} else {
			out = append(out, v.brief(s))
		}
	}
	body := object{"servers": out}
	if more && len(rows) > 0 {
		path := "/servers"
		if detail {
			path += "/detail"
		}
		body["servers_links"] = next(c, path, rows[len(rows)-1].ID, pg.Limit)
	}
	return c.JSON(http.StatusOK, body)
}
