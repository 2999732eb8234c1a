package api_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"yakumo/api"
	"yakumo/api/glance"
	"yakumo/api/neutron"
	"yakumo/api/nova"
	"yakumo/compute"
	"yakumo/compute/computetest"
	"yakumo/fault"
	"yakumo/images"
	"yakumo/images/files"
	"yakumo/model"
	"yakumo/network"
	"yakumo/reconcile"
	"yakumo/store"
)

// fakeHosts are fake hosts by id; it answers what servers ask of them.
type fakeHosts map[model.ID]*computetest.Host

func (h fakeHosts) Ask(ctx context.Context, host model.ID, name string, body []byte) ([]byte, error) {
	if f := h[host]; f != nil {
		return f.Ask(ctx, name, body)
	}
	return nil, fault.New(fault.Unavailable, "The host is not connected.")
}

// startComputeCloud is startCloud with the compute, network and image services, the controllers, two fake hosts, flavors and a
// public image.
func startComputeCloud(t *testing.T) (*cloud, *model.Image) {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	net := network.New(network.Config{Log: quiet})
	hosts := fakeHosts{}
	var im *images.Images
	var comp *compute.Compute
	c := startCloud(t, func(c *cloud) []api.Service {
		blobs, err := files.New(files.Config{Dir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		im = images.New(images.Config{Store: c.Store, Blobs: blobs, Log: quiet})
		comp = compute.New(compute.Config{Store: c.Store, Ports: net, Images: im, Log: quiet})
		return []api.Service{neutron.New(neutron.Config{Network: net}), glance.New(glance.Config{Images: im}),
			nova.New(nova.Config{Compute: comp, Network: net, Images: im, Hosts: hosts})}
	})
	by := images.Caller{ProjectID: adminProject(t, c), Admin: true}
	img, err := im.Create(t.Context(), by, model.Image{Meta: model.Meta{Name: "mini"}, Visibility: model.VisibilityPublic, DiskFormat: "raw", ContainerFormat: "bare"})
	if err != nil {
		t.Fatal(err)
	}
	if img, err = im.Upload(t.Context(), by, img.ID, images.Expect{Size: 1 << 20}, bytes.NewReader(make([]byte, 1<<20))); err != nil {
		t.Fatal(err)
	}
	var rows []*model.Host
	if _, err := c.Store.Update(t.Context(), func(tx *store.Tx) error {
		rows = nil
		if _, err := comp.CreateFlavor(tx, model.Flavor{ID: "1", Name: "tiny", VCPUs: 1, MemoryMiB: 128, DiskGiB: 1, Public: true, RxTxFactor: 1}); err != nil {
			return err
		}
		if _, err := comp.CreateFlavor(tx, model.Flavor{ID: "2", Name: "larger", VCPUs: 2, MemoryMiB: 256, DiskGiB: 2, Public: true, RxTxFactor: 1}); err != nil {
			return err
		}
		for i := range 2 {
			h := &model.Host{Meta: model.NewMeta("", fmt.Sprintf("host%d", i+1), time.Now()), Zone: "nova", TunnelIP: netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)}), Underlay: 1500,
				Capacity: model.HostCapacity{VCPUs: 8, MemoryMiB: 16384, DiskGiB: 200, Arch: "x86_64"}}
			if err := store.Hosts.Put(tx, h); err != nil {
				return err
			}
			if err := store.Heartbeats.Put(tx, &model.Heartbeat{HostID: h.ID, At: time.Now()}); err != nil {
				return err
			}
			rows = append(rows, h)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	wire := &computetest.Wire{}
	for _, h := range rows {
		hosts[h.ID] = computetest.Start(t, computetest.Config{Store: c.Store, Sink: comp, Host: h.ID, Wire: wire,
			Busy: func(s *model.Server) bool { return s.Metadata["busy"] != "" }})
	}
	for _, ctl := range []reconcile.Controller{comp.Placer(), comp.Sweeper(), comp.Mover(), comp.Absence()} {
		done := make(chan struct{})
		go func() {
			defer close(done)
			reconcile.Run(t.Context(), reconcile.Config{Store: c.Store, Identity: "test", Log: quiet}, ctl)
		}()
		t.Cleanup(func() { <-done })
	}
	return c, img
}

// becomes waits until a server has the status and no task.
func (s *stock) becomes(c *cloud, name, status string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	sub := c.Store.Subscribe(store.Servers.Kind())
	defer sub.Close()
	for {
		if _, err := sub.Next(ctx); err != nil {
			s.t.Fatalf("server %s does not become %s: %s", name, status, s.do("server show "+name))
		}
		if row, ok := store.Servers.Get(c.Store.Snapshot(), s.ids[strings.TrimPrefix(name, "$")]); ok && row.Status.Task == "" {
			if o := s.show("server show " + name); o["status"] == status {
				return
			}
		}
	}
}

// TestStockCompute does with Debian's stock client what its users do with servers: each action from one state to the next, what must
// be refused, and what remains of it to be read.
func TestStockCompute(t *testing.T) {
	c, img := startComputeCloud(t)
	newMember(t, c, "demo")
	newMember(t, c, "other")
	admin := startStock(t, c, "admin", adminPassword, "admin")
	s := startStock(t, c, "demo", "demo-password", "demo")
	o := startStock(t, c, "other", "other-password", "other")
	for _, x := range []*stock{s, o, admin} {
		x.ids["image"] = img.ID
	}
	s.make("net", "network create wire")
	s.make("sub", "subnet create --network $net --subnet-range 10.7.0.0/24 wire-v4")
	s.make("side", "network create side")
	s.make("side-v4", "subnet create --network $side --subnet-range 10.8.0.0/24 --allocation-pool start=10.8.0.100,end=10.8.0.200 side-v4")
	s.make("web", "server create --image $image --flavor tiny --network $net web")
	o.ids["web"], admin.ids["web"] = s.ids["web"], s.ids["web"]
	s.becomes(c, "$web", "ACTIVE")

	t.Run("states", func(t *testing.T) { stockStates(c, at(t, s), at(t, o), at(t, admin)) })
	t.Run("disks", func(t *testing.T) { stockDisks(c, at(t, s), at(t, admin)) })
	t.Run("interfaces", func(t *testing.T) { stockInterfaces(c, at(t, s)) })
	t.Run("server groups", func(t *testing.T) { stockServerGroups(c, at(t, s), at(t, o)) })
	t.Run("events", func(t *testing.T) { stockEvents(at(t, s), at(t, o)) })

	s.do("server delete --wait $web")
	for x := range store.Servers.All(c.Store.Snapshot()) {
		t.Errorf("server %s is left", x.Name)
	}
	for _, line := range []string{"network delete $net $side", "image delete snap2"} {
		s.do(line)
	}
	for p := range store.Ports.All(c.Store.Snapshot()) {
		t.Errorf("port %s is left", p.ID)
	}
}

func stockStates(c *cloud, s, o, admin *stock) {
	step := func(line, status string) { s.t.Helper(); s.do(line + " $web"); s.becomes(c, "$web", status) }
	step("server stop", "SHUTOFF")
	s.refused("Cannot 'pause' instance", "server pause $web")
	s.refused("Cannot 'stop' instance", "server stop $web")
	step("server start", "ACTIVE")
	s.do("server reboot --wait $web")
	s.do("server reboot --hard --wait $web")
	step("server pause", "PAUSED")
	s.refused("while it is in vm_state paused", "server suspend $web")
	s.refused("while it is in vm_state paused", "server rescue $web")
	step("server unpause", "ACTIVE")
	s.refused("Cannot 'unpause' instance", "server unpause $web")
	step("server suspend", "SUSPENDED")
	s.refused("while it is in vm_state suspended", "server rebuild $web")
	step("server resume", "ACTIVE")
	s.refused("Cannot 'resume' instance", "server resume $web")
	s.do("server lock --reason not~now $web")
	s.wants("server show $web", "locked=true", "locked_reason=not now")
	s.refused("is locked", "server pause $web")
	s.do("server unlock $web")
	s.do("server set --name www --property a=b --tag t --description d $web")
	s.wants("server show $web", "name=www", "properties=a", "tags=t", "description=d")
	s.do("server unset --property a --tag t $web")
	s.do("server set --name web $web")
	s.refused("Policy doesn't allow", "server set --state error $web")
	admin.do("server set --state error $web")
	s.becomes(c, "$web", "ERROR")
	admin.do("server set --state active $web")
	s.becomes(c, "$web", "ACTIVE")
	s.refused("while it is in vm_state active", "server restore $web")
	s.refused("QEMU guest agent is not enabled", "server set --password secret $web")
	if out := s.do("console log show --lines 1 $web"); !strings.Contains(out, "login:") {
		s.t.Errorf("the console shows %q", out)
	}
	s.do("server dump create $web")
	if out := s.do("console log show $web"); !strings.Contains(out, "interrupted") {
		s.t.Errorf("no interrupt came: %q", out)
	}
	for _, line := range []string{"server pause $web", "server show $web", "server rescue $web", "server shelve $web", "server rebuild $web", "server delete $web", "server image create $web"} {
		if code, out, errs := o.run(words(line)...); code == 0 || !strings.Contains(out+errs, "No server") && !strings.Contains(out+errs, "No Server") {
			s.t.Errorf("openstack %s of another project: exit %d\n%s%s", line, code, out, errs)
		}
	}
}

func stockDisks(c *cloud, s, admin *stock) {
	step := func(line, status string) { s.t.Helper(); s.do(line + " $web"); s.becomes(c, "$web", status) }
	step("server rescue --password pw --image $image", "RESCUE")
	s.refused("while it is in vm_state rescued", "server pause $web")
	step("server unrescue", "ACTIVE")
	s.refused("Cannot 'unrescue' instance", "server unrescue $web")
	s.do("server rebuild --wait --image $image --password pw --name rebuilt --property k=v --description again $web")
	s.wants("server show $web", "name=rebuilt", "status=ACTIVE", "properties=k", "description=again")
	s.do("server set --name web $web")
	s.do("server image create --wait --name snap --property x=y $web")
	s.wants("image show snap", "status=active", "visibility=private", "properties=snapshot")
	s.do("image set --name snap2 snap")
	// Of two names, as the client looks for its backup by name while the one before is still there.
	s.do("server backup create --wait --name b1 --type daily --rotate 1 $web")
	s.do("server backup create --wait --name b2 --type daily --rotate 1 $web")
	s.refused("No Image found for b1", "image show b1")
	s.do("image delete b2")
	step("server shelve", "SHELVED_OFFLOADED")
	s.refused("Cannot 'start' instance", "server start $web")
	step("server unshelve", "ACTIVE")
	step("server shelve", "SHELVED_OFFLOADED")
	s.do("server unshelve --availability-zone nova $web")
	s.becomes(c, "$web", "ACTIVE")
	if rows := s.list("image list --private"); len(rows) != 1 {
		s.t.Errorf("images are left: %v", rows)
	}
	admin.wants("server show --diagnostics $web", "cpu_details=1500000000")
}

func stockInterfaces(c *cloud, s *stock) {
	settled := func() {
		s.t.Helper()
		ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
		defer cancel()
		sub := c.Store.Subscribe(store.Servers.Kind())
		defer sub.Close()
		for {
			if row, _ := store.Servers.Get(c.Store.Snapshot(), s.ids["web"]); len(row.Plugging) == 0 {
				return
			}
			if _, err := sub.Next(ctx); err != nil {
				s.t.Fatal("an interface is under way for ever")
			}
		}
	}
	s.make("port", "port create --network $side loose")
	s.do("server add port --tag back $web $port")
	settled()
	s.refused("still in use", "server add port $web $port")
	s.do("server add network $web $side")
	settled()
	s.do("server add fixed ip --fixed-ip-address 10.8.0.77 $web $side")
	settled()
	s.wants("server show $web", "addresses=10.8.0.77")
	if rows := s.list("port list --server $web"); len(rows) != 4 {
		s.t.Errorf("the ports are %v", rows)
	}
	s.do("server remove port $web $port")
	settled()
	s.wants("port show $port", "device_id=", "status=DOWN")
	s.do("server remove network $web $side")
	settled()
	if rows := s.list("port list --network $side"); len(rows) != 1 {
		s.t.Errorf("the ports are %v", rows)
	}
	s.do("port delete $port")
}

func stockServerGroups(c *cloud, s, o *stock) {
	s.make("group", "server group create --policy affinity near")
	s.make("apart", "server group create --policy anti-affinity --rule max_server_per_host=2 apart")
	s.wants("server group show $apart", "policy=anti-affinity", "rules=max_server_per_host")
	s.wants("server group show near", "policy=affinity", "members=[]")
	if rows := o.list("server group list"); len(rows) != 0 {
		s.t.Errorf("another project lists %v", rows)
	}
	if rows := s.list("server group list"); len(rows) != 2 {
		s.t.Errorf("the groups are %v", rows)
	}
	s.refused("could not be found", "server create --image $image --flavor tiny --network $net --hint group=11111111-1111-4111-8111-111111111111 x")
	s.do("server create --wait --image $image --flavor tiny --network $net --hint group=$group --min 2 --max 2 near")
	rows := s.list("server list --name near")
	if len(rows) != 2 {
		s.t.Fatalf("the servers are %v", rows)
	}
	for i, r := range rows {
		s.ids[fmt.Sprint("near", i)] = fmt.Sprint(r["ID"])
		s.becomes(c, fmt.Sprint("$near", i), "ACTIVE")
		s.wants("server group show near", "members="+fmt.Sprint(r["ID"]))
	}
	a, b := s.show("server show $near0"), s.show("server show $near1")
	if a["hostId"] != b["hostId"] {
		s.t.Errorf("servers of affinity are on %v and %v", a["hostId"], b["hostId"])
	}
	s.do("server group delete near $apart")
	s.do("server delete --wait $near0 $near1")
}

func stockEvents(s, o *stock) {
	var actions []string
	for _, e := range s.list("server event list $web") {
		actions = append(actions, fmt.Sprint(e["Action"]))
		one := s.show("server event show $web " + fmt.Sprint(e["Request ID"]))
		if events, _ := one["events"].([]any); len(events) == 0 {
			s.t.Errorf("%v has no events: %v", e["Action"], one)
		}
	}
	for _, want := range []string{"create", "stop", "start", "reboot", "pause", "unpause", "suspend", "resume", "lock", "unlock", "changePassword", "rescue", "unrescue", "rebuild",
		"createImage", "createBackup", "shelve", "unshelve", "attach_interface", "detach_interface"} {
		if !slices.Contains(actions, want) {
			s.t.Errorf("the events do not tell of %s: %v", want, actions)
		}
	}
	o.refused("could not be found", "server event list $web")
}
