package house

import (
	"slices"
	"strings"
	"testing"
)

// layers is the order of imports. A package imports from layers before its own, and within
// its layer only what `beside` says.
var layers = [][]string{
	{"fault", "model", "netspace"},
	{"openflow", "ovsdb", "store"},
	{"reconcile", "link", "channel", "hostview", "hypervisor", "datapath", "block"},
	{"identity", "images", "network", "compute", "placement", "trace", "switches", "volume", "check", "launch"},
	{"api", "agent", "web", "cli"},
	{"lab", "cmd"},
	{"test"},
}

// beside lists the imports within a layer, each with its reason.
var beside = map[string][]string{
	"hostview": {"link"}, // it makes the views that the link sends
	"check":    {"placement"},
	"launch":   {"compute", "network", "images", "volume"}, // it composes what a server's creation needs of them
	"compute":  {"placement"},                              // a pure library; ports are reached through compute's own interface
	"cmd":      {"lab"},                                    // the command that starts a lab
}

// never lists what a folder must not import although it stands in an earlier layer. A name
// means the folder and all below it.
var never = map[string][]string{
	"model":     {"fault"},
	"store":     {"openflow", "ovsdb"},
	"reconcile": {"model", "openflow", "ovsdb"},
	"link":      {"openflow", "ovsdb"},
	"channel":   {"store", "openflow", "ovsdb"},
	"hostview":  {"openflow", "ovsdb"},
	// The seams and their drivers run on hosts: they know rows at most, no store.
	"hypervisor": {"model", "store", "openflow", "ovsdb"},
	"datapath":   {"store"},
	"block":      {"model", "store", "openflow", "ovsdb"},
	// Parts know nothing of hosts' insides: what a host must know is hostview's business.
	"identity":  {"link", "hostview", "hypervisor", "datapath", "openflow", "ovsdb"},
	"images":    {"link", "hostview", "hypervisor", "datapath", "openflow", "ovsdb"},
	"network":   {"link", "hostview", "hypervisor", "datapath", "openflow", "ovsdb"},
	"compute":   {"link", "hostview", "hypervisor", "datapath", "openflow", "ovsdb"},
	"volume":    {"link", "hostview", "hypervisor", "datapath", "openflow", "ovsdb"},
	"launch":    {"reconcile", "link", "hostview", "hypervisor", "datapath", "openflow", "ovsdb"},
	"switches":  {"reconcile", "hostview", "hypervisor", "openflow", "ovsdb"},
	"trace":     {"openflow", "ovsdb", "hypervisor"},
	"placement": {"store", "reconcile", "link", "hostview", "hypervisor", "datapath", "openflow", "ovsdb"},
	"api":       {"link", "hostview", "hypervisor", "datapath", "openflow", "ovsdb"},
	// The agent knows rows, the link and the two seams.
	"agent": {"store", "reconcile", "hostview", "openflow", "ovsdb", "identity", "images", "network", "compute", "placement", "trace", "volume", "check", "launch"},
	// Commands are clients of the API.
	"cli": {"store", "reconcile", "link", "hostview", "hypervisor", "datapath", "openflow", "ovsdb", "identity", "images", "network", "compute", "placement", "trace", "volume", "check", "launch"},
	"web": {"store", "reconcile", "link", "hostview", "hypervisor", "datapath", "openflow", "ovsdb", "identity", "images", "network", "compute", "placement", "trace", "volume", "check", "launch"},
}

func rank(u string) int {
	return slices.IndexFunc(layers, func(l []string) bool { return slices.Contains(l, u) })
}

// below tells whether path is the folder or stands in it.
func below(path, folder string) bool { return path == folder || strings.HasPrefix(path, folder+"/") }

func TestEveryFolderHasItsLayer(t *testing.T) {
	for _, p := range project(t).packs {
		if rank(unit(p.path())) < 0 {
			t.Errorf("%s: the folder %s stands in no layer; name its layer in test/house, or move the package", p.ImportPath, unit(p.path()))
		}
	}
}

func TestImportsFollowTheLayers(t *testing.T) {
	for _, p := range project(t).packs {
		from := unit(p.path())
		for _, imp := range p.Imports {
			to := inside(imp)
			if to == "" || unit(to) == from {
				continue
			}
			switch {
			case rank(unit(to)) > rank(from):
				t.Errorf("%s imports %s, which is in a later layer", p.path(), to)
			case rank(unit(to)) == rank(from) && !slices.Contains(beside[from], unit(to)):
				t.Errorf("%s imports %s: they stand side by side", p.path(), to)
			}
			for _, bad := range never[from] {
				if below(to, bad) {
					t.Errorf("%s imports %s: %s must not know %s", p.path(), to, from, bad)
				}
			}
		}
		// Tests may use drivers and the parts beside theirs, but nothing of a later layer.
		for _, imp := range slices.Concat(p.TestImports, p.XTestImports) {
			if to := inside(imp); to != "" && rank(unit(to)) > rank(from) {
				t.Errorf("a test of %s imports %s, which is in a later layer", p.path(), to)
			}
		}
	}
}

// TestWithinFolders holds the order inside the folders that have one.
func TestWithinFolders(t *testing.T) {
	for _, p := range project(t).packs {
		from := p.path()
		for _, imp := range p.Imports {
			to := inside(imp)
			switch {
			case to == "":
			case from == "api" && slices.Contains([]string{"identity", "images", "network", "compute", "placement", "trace", "volume", "check", "launch"}, unit(to)):
				t.Errorf("api imports %s: the front serves any part; only a dialect knows one", to)
			case strings.HasPrefix(from, "api/") && strings.HasPrefix(to, "api/"):
				t.Errorf("%s imports %s: dialects do not know each other", from, to)
			case from == "hypervisor" && strings.HasPrefix(to, "hypervisor/"),
				from == "datapath" && strings.HasPrefix(to, "datapath/") && to != "datapath/pipeline",
				from == "block" && strings.HasPrefix(to, "block/"),
				from == "images" && strings.HasPrefix(to, "images/") && to != "images/qcow2",
				from == "store" && strings.HasPrefix(to, "store/"):
				t.Errorf("%s imports %s: a seam does not know its drivers", from, to)
			case below(from, "datapath/pipeline") && strings.HasPrefix(to, "datapath") && !below(to, "datapath/pipeline"):
				t.Errorf("%s imports %s: the pipeline knows no driver", from, to)
			}
		}
	}
}

// wiring is the package that puts the program together.
const wiring = "cmd/yakumo"

// only lists what a few packages alone may import.
var only = []struct {
	what string // an import path, or its beginning with a slash at the end
	who  []string
	why  string
}{
	{"go.etcd.io/etcd/", []string{"store", "store/embed", "store/storetest", wiring}, "only the store knows etcd (and the wiring, which dials an external one)"},
	{"go.etcd.io/etcd/server/", []string{"store/embed"}, "only store/embed runs etcd"},
	{"go.etcd.io/bbolt", []string{"agent"}, "the ledger is the agent's"},
	{"github.com/gorilla/websocket", []string{"api/console", "cli"}, "WebSockets are the consoles'"},
	{"github.com/tidwall/btree", []string{"store"}, "the mirror is the store's"},
	{"google.golang.org/grpc/", []string{"link", "link/linkpb", "store"}, "the link is the only RPC (the store names etcd's request metadata)"},
	{module + "/link/linkpb", []string{"link"}, "the envelope is the link's"},
	{module + "/openflow", []string{"datapath/ovs"}, "only the driver speaks OpenFlow"},
	{module + "/ovsdb", []string{"datapath/ovs"}, "only the driver speaks OVSDB"},
	{module + "/datapath/pipeline/sim", []string{"datapath/fake", "datapath/dptest", "trace"}, "the simulation is for tests and explanations"},
	// Concrete drivers are named where the program is wired together, and in the lab.
	{module + "/hypervisor/libvirt", []string{wiring, "lab", "hypervisor/libvirt/libvirttest"}, "only cmd and lab name drivers"},
	{module + "/datapath/ovs", []string{wiring, "lab"}, "only cmd and lab name drivers"},
	{module + "/block/files", []string{wiring, "lab"}, "only cmd and lab name drivers"},
	{module + "/block/rbd", []string{wiring, "lab"}, "only cmd and lab name drivers"},
	{module + "/images/files", []string{wiring, "lab"}, "only cmd and lab name drivers"},
	{module + "/hypervisor/fake", []string{wiring, "lab"}, "only cmd and lab name drivers"},
	{module + "/datapath/fake", []string{wiring, "lab"}, "only cmd and lab name drivers"},
}

// supports are packages that only tests, and other such packages, import.
func supports(path string) bool {
	last := path[strings.LastIndex(path, "/")+1:]
	return strings.HasSuffix(last, "test") && last != "test" || below(path, "test")
}

func TestFewMayImport(t *testing.T) {
	for _, p := range project(t).packs {
		if supports(p.path()) && !strings.HasPrefix(p.path(), "store/") {
			continue
		}
		for _, imp := range p.Imports {
			for _, o := range only {
				if imp == o.what || strings.HasSuffix(o.what, "/") && strings.HasPrefix(imp, o.what) {
					if !slices.Contains(o.who, p.path()) && !below(p.path(), strings.TrimPrefix(o.what, module+"/")) {
						t.Errorf("%s imports %s: %s", p.path(), imp, o.why)
					}
				}
			}
		}
	}
}

// TestOnlyTestsImportTestSupport keeps storetest, dptest and the like out of the program.
func TestOnlyTestsImportTestSupport(t *testing.T) {
	for _, p := range project(t).packs {
		if supports(p.path()) {
			continue
		}
		for _, imp := range p.Imports {
			if to := inside(imp); to != "" && supports(to) || imp == "testing" {
				t.Errorf("%s imports %s outside its tests", p.path(), imp)
			}
		}
	}
}
