package nova_test

import (
	"fmt"
	"math"
	"net/url"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"yakumo/model"
	"yakumo/store"
)

// usageOf asks for usage; the members of the query alternate names and values.
func (c *cloud) usageOf(token, path, version string, query ...string) object {
	c.t.Helper()
	q := url.Values{}
	for i := 0; i+1 < len(query); i += 2 {
		q.Set(query[i], query[i+1])
	}
	a := c.do(token, "GET", "/os-simple-tenant-usage"+path+"?"+q.Encode(), nil, version)
	if a.status != 200 {
		c.t.Fatalf("usage of %s as %s with %v: %d %s", path, token, query, a.status, a.raw)
	}
	return a.body
}

// TestUsageOfAServersLife measures a server from its first run until after it is gone, and who may read that.
func TestUsageOfAServersLife(t *testing.T) {
	c := newCloud(t)
	c.furnish()
	c.host("h1")
	c.host("h2")
	day := time.Now().Add(24 * time.Hour).UTC().Format("2006-01-02T15:04:05")
	ask := func() object {
		return c.usageOf("red", "/"+red, "2.1", "start", "2020-01-01T00:00:00", "end", day)["tenant_usage"].(object)
	}
	if got := ask(); len(got) != 0 {
		t.Errorf("a project without servers used %v", got)
	}
	id := c.boot("red", "web")
	c.wait("red", id, "status", "ACTIVE")
	one := ask()["server_usages"].([]any)[0].(object)
	if one["instance_id"] != id || one["state"] != "active" || one["ended_at"] != nil || one["flavor"] != "tiny" || one["vcpus"] != 1.0 || one["memory_mb"] != 128.0 ||
		one["local_gb"] != 1.0 || one["tenant_id"] != red || one["name"] != "web" {
		t.Errorf("a running server is measured as %v", one)
	}
	c.must(202, "red", "POST", "/servers/"+id+"/action", object{"resize": object{"flavorRef": "2"}})
	c.wait("red", id, "status", "VERIFY_RESIZE")
	c.must(204, "red", "POST", "/servers/"+id+"/action", object{"confirmResize": nil})
	c.wait("red", id, "status", "ACTIVE")
	if one = ask()["server_usages"].([]any)[0].(object); one["flavor"] != "small" || one["vcpus"] != 2.0 {
		t.Errorf("a resized server is measured as %v", one)
	}
	c.must(204, "red", "DELETE", "/servers/"+id, nil)
	c.gone("red", id)
	end := ask()
	one = end["server_usages"].([]any)[0].(object)
	if one["instance_id"] != id || one["state"] != "terminated" || one["ended_at"] == nil || end["total_hours"] != one["hours"] {
		t.Errorf("a server that is gone is measured as %v", end)
	}
	if ask()["total_hours"] != end["total_hours"] {
		t.Error("a server that is gone is measured still")
	}
	// Before it began, and from when it was gone on, it used nothing.
	if got := c.usageOf("admin", "", "2.1", "start", "2020-01-01T00:00:00", "end", "2020-02-01T00:00:00.5")["tenant_usages"].([]any); len(got) != 0 {
		t.Errorf("used before it was there: %v", got)
	}
	list := c.usageOf("admin", "", "2.96", "start", "2020-01-01 00:00:00.25", "detailed", "0")["tenant_usages"].([]any)
	if len(list) != 1 || list[0].(object)["tenant_id"] != red || list[0].(object)["server_usages"] != nil || list[0].(object)["start"] != "2020-01-01T00:00:00.250000" {
		t.Errorf("of all projects: %v", list)
	}
	if got := c.usageOf("admin", "", "2.1")["tenant_usages"].([]any); len(got) != 0 {
		t.Errorf("the present moment: %v", got)
	}

	c.usageOf("red-reader", "/"+red, "2.1")
	c.usageOf("admin", "/"+red, "2.1")
	c.refused(403, "forbidden", "blue", "GET", "/os-simple-tenant-usage/"+red, nil)
	c.refused(403, "forbidden", "red-admin", "GET", "/os-simple-tenant-usage", nil)
	c.refused(403, "forbidden", "red-admin", "GET", "/os-simple-tenant-usage/"+blue, nil)
	for _, x := range []struct{ query, version string }{
		{"start=yesterday", "2.1"}, {"end=2026-13-01T00:00:00", "2.1"}, {"start=2026-02-01T00:00:00&end=2026-01-01T00:00:00", "2.1"},
		{"start=2026-02-01T00:00:00&end=2026-02-01T00:00:00", "2.1"}, {"limit=-1", "2.40"}, {"marker=" + model.NewID(), "2.40"}, {"x=y", "2.75"},
	} {
		c.refused(400, "badRequest", "red", "GET", "/os-simple-tenant-usage/"+red+"?"+x.query, nil, x.version)
	}
	c.usageOf("red", "/"+red, "2.39", "limit", "x", "marker", "y") // which older versions do not know

	log := c.must(200, "admin", "GET", "/os-instance_usage_audit_log", nil)
	if log["num_hosts"] != 2.0 || log["overall_status"] != "0 of 2 hosts done. 0 errors." || log["hosts_not_run"].([]any)[0] != "h1" {
		t.Errorf("the log of audits: %v", log)
	}
	if log = c.must(200, "admin", "GET", "/os-instance_usage_audit_log/2026-03-05%2000:00:00", nil); log["period_beginning"] != "2026-02-01 00:00:00" ||
		log["period_ending"] != "2026-03-01 00:00:00" {
		t.Errorf("the log of audits of a time: %v", log)
	}
	c.refused(400, "badRequest", "admin", "GET", "/os-instance_usage_audit_log/x", nil)
}

// TestUsageAddsUp compares what is told of random servers in random periods with what the rows say by themselves: totals are the sums of
// the servers' parts, periods that meet add up to the whole, and pages to the list.
func TestUsageAddsUp(t *testing.T) {
	c := newCloud(t)
	const layout, member = "2006-01-02T15:04:05", "tenant_usages"
	base := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	at := func(minute int) string { return base.Add(time.Duration(minute) * time.Minute).Format(layout) }
	round := 0
	rapid.Check(t, func(r *rapid.T) {
		round++
		project := func() string { return rapid.SampledFrom([]string{red, blue}).Draw(r, "project") + fmt.Sprint(round) }
		minute := rapid.IntRange(0, 10_000)
		var rows []*model.ServerUsage
		c.update(func(tx *store.Tx) error {
			rows = nil
			for u := range store.ServerUsages.All(tx) {
				if err := store.ServerUsages.Delete(tx, u.ServerID); err != nil {
					return err
				}
			}
			return nil
		})
		for range rapid.IntRange(0, 8).Draw(r, "servers") {
			from := minute.Draw(r, "from")
			rows = append(rows, &model.ServerUsage{ServerID: model.NewID(), ProjectID: project(), Flavor: "f", VCPUs: rapid.IntRange(1, 8).Draw(r, "vcpus"),
				MemoryMiB: rapid.IntRange(1, 4096).Draw(r, "ram"), DiskGiB: rapid.IntRange(0, 40).Draw(r, "disk"), StartedAt: base.Add(time.Duration(from) * time.Minute),
				EndedAt: base.Add(time.Duration(from+minute.Draw(r, "long")) * time.Minute)})
		}
		c.update(func(tx *store.Tx) error {
			for _, u := range rows {
				if err := store.ServerUsages.Put(tx, u); err != nil {
					return err
				}
			}
			return nil
		})
		a := minute.Draw(r, "a")
		b := a + 1 + minute.Draw(r, "b")
		z := b + 1 + minute.Draw(r, "z")
		// sum gives hours, vcpu hours, MiB hours and GiB hours by project.
		sum := func(from, to int) map[string][4]float64 {
			out := map[string][4]float64{}
			for _, x := range c.usageOf("admin", "", "2.1", "start", at(from), "end", at(to), "detailed", "1")[member].([]any) {
				o := x.(object)
				var own [4]float64
				for _, y := range o["server_usages"].([]any) {
					s := y.(object)
					h := s["hours"].(float64)
					for i, f := range []float64{1, s["vcpus"].(float64), s["memory_mb"].(float64), s["local_gb"].(float64)} {
						own[i] += h * f
					}
				}
				for i, name := range []string{"total_hours", "total_vcpus_usage", "total_memory_mb_usage", "total_local_gb_usage"} {
					if got := o[name].(float64); math.Abs(got-own[i]) > 1e-6*(1+own[i]) {
						r.Fatalf("%s is %v, and its servers' parts are %v", name, got, own[i])
					}
				}
				out[o["tenant_id"].(string)] = own
			}
			return out
		}
		first, second, whole := sum(a, b), sum(b, z), sum(a, z)
		for p := range whole {
			minutes := 0.0
			for _, u := range rows {
				from, to := max(u.StartedAt.Sub(base).Minutes(), float64(a)), min(u.EndedAt.Sub(base).Minutes(), float64(z))
				if u.ProjectID == p && to > from {
					minutes += to - from
				}
			}
			if math.Abs(whole[p][0]-minutes/60) > 1e-6*(1+minutes) {
				r.Fatalf("%s is told of %v hours, and was there for %v minutes", p, whole[p][0], minutes)
			}
			for i := range 4 {
				if math.Abs(first[p][i]+second[p][i]-whole[p][i]) > 1e-6*(1+whole[p][i]) {
					r.Fatalf("parts %v and %v are not %v", first[p], second[p], whole[p])
				}
			}
		}
		// Page by page, as the links lead.
		servers := func(body object) (out []string) {
			for _, x := range body[member].([]any) {
				for _, y := range x.(object)["server_usages"].([]any) {
					out = append(out, y.(object)["instance_id"].(string))
				}
			}
			return out
		}
		all := servers(c.usageOf("admin", "", "2.1", "start", at(a), "end", at(z), "detailed", "1"))
		var got []string
		query := url.Values{"start": {at(a)}, "end": {at(z)}, "detailed": {"1"}, "limit": {fmt.Sprint(rapid.IntRange(1, 4).Draw(r, "limit"))}}.Encode()
		for query != "" {
			body := c.do("admin", "GET", "/os-simple-tenant-usage?"+query, nil, "2.40").body
			got, query = append(got, servers(body)...), ""
			if links, ok := body[member+"_links"].([]any); ok {
				_, query, _ = strings.Cut(links[0].(object)["href"].(string), "?")
			}
			if len(got) > len(all) {
				break
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(all) {
			r.Fatalf("pages give %v, and the list %v", got, all)
		}
	})
}
