package launch_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"yakumo/compute"
	"yakumo/fault"
	"yakumo/images"
	"yakumo/launch"
	"yakumo/model"
	"yakumo/network"
	"yakumo/store"
	"yakumo/store/storetest"
	"yakumo/volume"
)

// world has a flavor, and images of project red: one with bytes, one with a mapping.
type world struct {
	t     *testing.T
	store *store.Store
	comp  *compute.Compute
	l     *launch.Launcher
}

func newWorld(t *testing.T) *world {
	t.Helper()
	s, quiet := storetest.New(t), slog.New(slog.DiscardHandler)
	net := network.New(network.Config{Log: quiet})
	img := images.New(images.Config{Store: s, Log: quiet})
	vols := volume.New(volume.Config{Store: s, Log: quiet})
	if err := vols.Bootstrap(t.Context()); err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, store: s, comp: compute.New(compute.Config{Store: s, Ports: net, Volumes: vols, Images: img, Log: quiet})}
	w.l = launch.New(launch.Config{Compute: w.comp, Network: net, Images: img, Volumes: vols})
	if err := w.update(func(tx *store.Tx) error {
		for _, h := range []string{"h1", "h2"} {
			if err := store.Hosts.Put(tx, &model.Host{Meta: model.Meta{ID: h, Name: h}, Zone: "nova"}); err != nil {
				return err
			}
		}
		type object = map[string]any
		list := []object{{"source_type": "image", "uuid": image, "destination_type": "volume", "volume_size": 1, "boot_index": 0}}
		for range 4 {
			list = append(list, object{"source_type": "blank", "destination_type": "volume", "volume_size": 1, "boot_index": nil})
		}
		mapping, err := json.Marshal(list)
		if err != nil {
			return err
		}
		if err := store.Images.Put(tx, &model.Image{Meta: model.Meta{ID: mappedImage, ProjectID: "red"}, Status: model.ImageActive, Visibility: "private",
			Properties: map[string]string{"block_device_mapping": string(mapping)}}); err != nil {
			return err
		}
		if err := store.Images.Put(tx, &model.Image{Meta: model.Meta{ID: image, ProjectID: "red"}, Status: model.ImageActive, Visibility: "private", DiskFormat: "qcow2",
			ContainerFormat: "bare", BlobID: "b", Size: 1 << 20, VirtualSize: 1 << 20}); err != nil {
			return err
		}
		return store.Flavors.Put(tx, &model.Flavor{ID: "small", Name: "small", VCPUs: 1, MemoryMiB: 64, DiskGiB: 1, Public: true})
	}); err != nil {
		t.Fatal(err)
	}
	return w
}

const (
	image       = "33333333-3333-4333-8333-333333333333"
	mappedImage = "11111111-1111-4111-8111-111111111111"
)

func (w *world) update(f func(*store.Tx) error) error {
	_, err := w.store.Update(w.t.Context(), f)
	return err
}

// request wants n servers, each with a disk of an image and a blank volume.
func request(n int) launch.Request {
	return launch.Request{NewServer: compute.NewServer{Name: "s"}, FlavorID: "small", ImageID: image, Min: n, Max: n, Disks: []launch.Disk{{Source: "blank", SizeGiB: 1}}}
}

func (w *world) run(r launch.Request) ([]*model.Server, error) {
	return w.l.Run(w.t.Context(), w.store, compute.Scope{ProjectID: "red", UserID: "u", RequestID: "req-1"}, &r, slog.New(slog.DiscardHandler))
}

func (w *world) counts() string {
	snap := w.store.Snapshot()
	servers := 0
	for s := range store.Servers.List(snap, "project", "red") {
		if !s.Deleted {
			servers++
		}
	}
	return fmt.Sprint(servers, store.Volumes.Count(snap, "project", "red"), store.Ports.Count(snap, "project", "red"))
}

func TestServersComeWithAllThatTheyAreOf(t *testing.T) {
	w := newWorld(t)
	made, err := w.run(request(9)) // more than one transaction
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for i, s := range made {
		names = append(names, s.Name)
		if s.LaunchIndex != i || len(s.Volumes) != 1 {
			t.Errorf("%+v", s)
		}
	}
	if got := strings.Join(names, " "); got != "s-1 s-2 s-3 s-4 s-5 s-6 s-7 s-8 s-9" || w.counts() != "9 9 0" {
		t.Errorf("%s; %s", got, w.counts())
	}
	one, err := w.run(request(1))
	if err != nil || len(one) != 1 || one[0].Name != "s" {
		t.Errorf("%v %v", one, err)
	}
}

// An image's mapping may make servers larger than what the request shows: all are made nevertheless.
func TestAMappingMakesNoServerLess(t *testing.T) {
	w := newWorld(t)
	r := request(2)
	r.ImageID, r.Disks = mappedImage, nil
	made, err := w.run(r)
	if err != nil || len(made) != 2 || w.counts() != "2 10 0" || !made[1].Volumes[0].Boot || made[1].ImageID != "" {
		t.Errorf("%d %v %s", len(made), err, w.counts())
	}
}

func TestWhatIsRefusedLeavesNothing(t *testing.T) {
	w := newWorld(t)
	for name, c := range map[string]struct {
		change func(*launch.Request)
		kind   fault.Kind
		text   string
	}{
		"flavor":   {func(r *launch.Request) { r.FlavorID = "huge" }, fault.Invalid, "Flavor huge could not be found."},
		"image":    {func(r *launch.Request) { r.ImageID = "22222222-2222-4222-8222-222222222222" }, fault.Invalid, "could not be found"},
		"key":      {func(r *launch.Request) { r.KeyName = "none" }, fault.Invalid, "Invalid key_name provided."},
		"zone":     {func(r *launch.Request) { r.Zone = "mars" }, fault.Invalid, "The requested availability zone is not available"},
		"host":     {func(r *launch.Request) { r.Host = strings.Repeat("h", 500) }, fault.Invalid, "…"},
		"group":    {func(r *launch.Request) { r.Groups = []string{"none"} }, fault.Invalid, "Security group none not found for project red."},
		"network":  {func(r *launch.Request) { r.NICs = []launch.NIC{{Network: "n"}} }, fault.Invalid, "Network n could not be found."},
		"port":     {func(r *launch.Request) { r.NICs = []launch.NIC{{Port: "p"}} }, fault.Invalid, "Port id p could not be found."},
		"volume":   {func(r *launch.Request) { r.Disks = []launch.Disk{{Source: "volume", ID: "v"}} }, fault.Invalid, "failed to get volume v."},
		"snapshot": {func(r *launch.Request) { r.Disks = []launch.Disk{{Source: "snapshot", ID: "v"}} }, fault.Invalid, "failed to get snapshot v."},
		"quota":    {func(r *launch.Request) { r.Min, r.Max = 50, 50 }, fault.OverQuota, "Quota exceeded"},
	} {
		r := request(1)
		c.change(&r)
		made, err := w.run(r)
		text, _ := fault.Text(err)
		if fault.KindOf(err) != c.kind || !strings.Contains(text, c.text) || made != nil || w.counts() != "0 0 0" {
			t.Errorf("%s: %v %v %s", name, made, err, w.counts())
		}
	}
}

// A transaction that fails after others takes back what those made.
func TestAllOrNothingOverSeveralTransactions(t *testing.T) {
	w := newWorld(t)
	r, n := request(9), 0
	r.Also = func(_ *store.Tx, made []*model.Server) error {
		if n += len(made); n > 5 {
			return fault.New(fault.Unavailable, "Something else is away.")
		}
		return nil
	}
	_, err := w.run(r)
	if !fault.Is(err, fault.Unavailable) || !strings.HasPrefix(w.counts(), "0 ") {
		t.Errorf("%v %s", err, w.counts())
	}
}
