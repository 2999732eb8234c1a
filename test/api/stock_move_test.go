package api_test

import (
	"fmt"
	"strings"
	"testing"

	"yakumo/model"
	"yakumo/store"
)

// TestStockMoves does with Debian's stock client what moves servers: live and cold, resize with both ends, what is asked of a move that
// runs, and evacuation of a host that is down.
func TestStockMoves(t *testing.T) {
	c, img := startComputeCloud(t)
	newMember(t, c, "demo")
	admin := startStock(t, c, "admin", adminPassword, "admin")
	s := startStock(t, c, "demo", "demo-password", "demo")
	s.ids["image"] = img.ID
	s.do("network create wire")
	s.do("subnet create --network wire --subnet-range 10.0.0.0/24 sub")
	s.make("web", "server create --flavor tiny --image $image --network wire web")
	s.becomes(c, "$web", "ACTIVE")
	admin.ids["web"] = s.ids["web"]
	host := func() string { return fmt.Sprint(admin.show("server show $web")["OS-EXT-SRV-ATTR:host"]) }
	other := func() string { return map[string]string{"host1": "host2", "host2": "host1"}[host()] }
	on := func(want string) {
		t.Helper()
		if got := host(); got != want {
			t.Errorf("the server is on %s, want %s", got, want)
		}
	}
	const live = "--os-compute-api-version 2.30 server migrate --live-migration "

	to := other()
	admin.do(live + "$web")
	s.becomes(c, "$web", "ACTIVE")
	on(to)
	to = other()
	admin.do(live + "--host " + to + " $web")
	s.becomes(c, "$web", "ACTIVE")
	on(to)
	admin.do(live + "--block-migration $web")
	s.becomes(c, "$web", "ACTIVE")
	admin.refused("current host", live+"--host "+host()+" $web")
	admin.refused("could not be found", live+"--host nowhere $web")
	s.refused("Policy doesn't allow", live+"$web")

	// A move that runs.
	s.do("server set --property busy=yes $web")
	running := func() string {
		t.Helper()
		for range 200 {
			if l := admin.list("--os-compute-api-version 2.80 server migration list --server $web --status running"); len(l) == 1 {
				return fmt.Sprint(l[0]["Id"])
			}
		}
		t.Fatal("the migration does not run")
		return ""
	}
	from := host()
	admin.do(live + "$web")
	id := running()
	admin.wants("--os-compute-api-version 2.80 server migration show $web "+id, "Status=running", "Server UUID=$web")
	admin.do("--os-compute-api-version 2.80 server migration abort $web " + id)
	s.becomes(c, "$web", "ACTIVE")
	on(from)
	to = other()
	admin.do(live + "$web")
	admin.do("--os-compute-api-version 2.80 server migration force complete $web " + running())
	s.becomes(c, "$web", "ACTIVE")
	on(to)
	s.do("server unset --property busy $web")

	// Cold, and another size.
	admin.do("server migrate $web")
	s.becomes(c, "$web", "VERIFY_RESIZE")
	s.do("server resize confirm $web")
	s.becomes(c, "$web", "ACTIVE")
	from = host()
	s.do("server resize --flavor larger $web")
	s.becomes(c, "$web", "VERIFY_RESIZE")
	s.wants("server show $web", "flavor=larger")
	s.do("server resize revert $web")
	s.becomes(c, "$web", "ACTIVE")
	s.wants("server show $web", "flavor=tiny")
	on(from)
	s.do("server resize --flavor larger $web")
	s.becomes(c, "$web", "VERIFY_RESIZE")
	s.do("server resize confirm $web")
	s.becomes(c, "$web", "ACTIVE")
	s.refused("resize disk down", "server resize --flavor tiny $web")
	s.refused("must change flavor", "server resize --flavor larger $web")

	// Evacuation.
	const evacuate = "--os-compute-api-version 2.29 server evacuate $web"
	admin.refused("still in use", evacuate)
	from, to = host(), other()
	admin.do("compute service set --disable --disable-reason broken " + from + " nova-compute")
	admin.do("--os-compute-api-version 2.11 compute service set --down " + from + " nova-compute")
	// Debian's client asks, and then stumbles over its own answer: it shows what is no server.
	if code, out, errs := admin.run(words(evacuate)...); code != 0 && !strings.Contains(errs, "'TupleWithMeta' object has no attribute") {
		t.Errorf("evacuate: exit %d\n%s%s", code, out, errs)
	}
	s.becomes(c, "$web", "ACTIVE")
	on(to)
	kinds := map[string]int{}
	for _, m := range admin.list("--os-compute-api-version 2.80 server migration list --server $web") {
		kinds[fmt.Sprint(m["Type"], " ", m["Status"])]++
	}
	for kind, want := range map[string]int{"live-migration completed": 4, "live-migration cancelled": 1, "migration confirmed": 1, "resize confirmed": 1, "resize reverted": 1, "evacuation done": 1} {
		if kinds[kind] != want {
			t.Errorf("%d migrations are %q, want %d: %v", kinds[kind], kind, want, kinds)
		}
	}
	for m := range store.Migrations.All(c.Store.Snapshot()) {
		if m.Kind == model.MoveEvacuate && m.Message == "" {
			t.Error("nothing says that the disk is another")
		}
	}
}
