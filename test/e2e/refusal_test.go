package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/flavors"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"
	"github.com/gophercloud/gophercloud/v2/openstack/networking/v2/ports"

	"yakumo/lab"
)

// forms say where each dialect's errors hold the status and the words.
var forms = map[string]func(status int, body []byte) string{
	"identity": func(status int, body []byte) string {
		var e struct {
			Error struct {
				Code           int
				Title, Message string
			}
		}
		err := json.Unmarshal(body, &e)
		return unless(err == nil && e.Error.Code == status && e.Error.Message != "", "no identity error")
	},
	"compute": func(status int, body []byte) string {
		var e map[string]struct {
			Code    int
			Message string
		}
		err := json.Unmarshal(body, &e)
		ok := err == nil && len(e) == 1
		for _, v := range e {
			ok = ok && v.Code == status && v.Message != ""
		}
		return unless(ok, "no compute fault")
	},
	"network": func(_ int, body []byte) string {
		var e struct {
			NeutronError struct{ Type, Message string }
		}
		err := json.Unmarshal(body, &e)
		return unless(err == nil && e.NeutronError.Type != "" && e.NeutronError.Message != "", "no network error")
	},
	// Glance answers with a page.
	"image": func(status int, body []byte) string {
		return unless(strings.Contains(string(body), fmt.Sprintf("<title>%d ", status)), "no image error page")
	},
}

// send makes a plain call with a client's token and gives status and body.
func send(t *testing.T, c *gophercloud.ServiceClient, method, path string, body io.Reader) (int, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, fix.lab.URL()+path, body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Auth-Token", c.Token())
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return resp.StatusCode, b
}

// rows is what the API shows of everything that a bad call might change.
func rows(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	for _, path := range []string{"/identity/v3/projects", "/identity/v3/users", "/image/v2/images", "/compute/v2.1/servers?all_tenants=1", "/compute/v2.1/flavors/detail",
		"/network/v2.0/networks", "/network/v2.0/subnets", "/network/v2.0/ports", "/network/v2.0/security-groups"} {
		status, b := send(t, fix.admin.Network, http.MethodGet, path, nil)
		if status != http.StatusOK {
			t.Fatalf("GET %s: %d: %s", path, status, b)
		}
		fmt.Fprintf(&all, "%s %s\n", path, b)
	}
	return all.String()
}

// TestBadInput: wrong calls get the right status in the dialect's form, and change nothing.
func TestBadInput(t *testing.T) {
	eve := newTenant(t, mine{t}, "eve", "member")
	victim := newTenant(t, mine{t}, "victim", "member")
	theirs := victim.newNetwork(t, mine{t}, "theirs", "10.70.0.0/24")
	own := eve.newNetwork(t, mine{t}, "own", "10.70.0.0/24")
	theirPort := victim.newPort(t, mine{t}, theirs, "10.70.0.20", "")
	const nobody = "00000000-0000-4000-8000-000000000000"
	nano := flavor(t, "m1.nano")
	server := func(extra string) string {
		return `{"server":{"name":"x","imageRef":"` + fix.image + `","flavorRef":"` + nano + `"` + extra + `}}`
	}
	huge := `{"server":{"name":"` + strings.Repeat("x", 2<<20) + `"}}`
	before := rows(t)
	for _, c := range []struct {
		service, method, path, body string
		status                      int
	}{
		// Broken JSON, and JSON of another shape.
		{"identity", "POST", "/identity/v3/auth/tokens", `{"auth":`, 400},
		{"identity", "POST", "/identity/v3/auth/tokens", `{"auth":[]}`, 400},
		{"compute", "POST", "/compute/v2.1/servers", `{"server":`, 400},
		{"compute", "POST", "/compute/v2.1/servers", `{"server":"x"}`, 400},
		{"compute", "POST", "/compute/v2.1/servers", `[]`, 400},
		{"network", "POST", "/network/v2.0/networks", `{"network"`, 400},
		{"network", "POST", "/network/v2.0/networks", `{"network":{"name":7}}`, 400},
		{"image", "POST", "/image/v2/images", `{"name":`, 400},
		{"image", "POST", "/image/v2/images", `{"min_disk":"much"}`, 400},
		// Wrong values.
		{"compute", "POST", "/compute/v2.1/servers", server(`,"networks":[{"uuid":7}]`), 400},
		{"compute", "POST", "/compute/v2.1/servers", server(`,"min_count":-1,"networks":"none"`), 400},
		{"compute", "POST", "/compute/v2.1/servers", server(`,"user_data":"not base64 !"`), 400},
		{"compute", "POST", "/compute/v2.1/servers", server(`,"networks":[{"uuid":"` + own.network.ID + `"}],"surprise":1`), 400},
		{"network", "POST", "/network/v2.0/subnets", `{"subnet":{"network_id":"` + own.network.ID + `","ip_version":4,"cidr":"10.0.0.0/99"}}`, 400},
		{"network", "POST", "/network/v2.0/ports", `{"port":{"network_id":"` + own.network.ID + `","mac_address":"zz"}}`, 400},
		// Bodies that are too large.
		{"compute", "POST", "/compute/v2.1/servers", huge, 413},
		{"network", "POST", "/network/v2.0/networks", huge, 413},
		{"identity", "POST", "/identity/v3/auth/tokens", huge, 413},
		{"image", "POST", "/image/v2/images", huge, 413},
		// What is not there.
		{"compute", "GET", "/compute/v2.1/servers/" + nobody, "", 404},
		{"compute", "DELETE", "/compute/v2.1/servers/" + nobody, "", 404},
		{"compute", "POST", "/compute/v2.1/servers", strings.Replace(server(""), fix.image, nobody, 1), 400},
		{"compute", "POST", "/compute/v2.1/servers", server(`,"networks":[{"uuid":"` + nobody + `"}]`), 400},
		{"network", "GET", "/network/v2.0/networks/" + nobody, "", 404},
		{"network", "DELETE", "/network/v2.0/ports/" + nobody, "", 404},
		{"network", "POST", "/network/v2.0/ports", `{"port":{"network_id":"` + nobody + `"}}`, 404},
		{"image", "GET", "/image/v2/images/" + nobody, "", 404},
		{"identity", "GET", "/identity/v3/projects/" + strings.ReplaceAll(nobody, "-", ""), "", 403}, // as for one that is there
		// What is another tenant's is as if it were not there.
		{"network", "GET", "/network/v2.0/networks/" + theirs.network.ID, "", 404},
		{"network", "PUT", "/network/v2.0/networks/" + theirs.network.ID, `{"network":{"name":"mine"}}`, 404},
		{"network", "DELETE", "/network/v2.0/networks/" + theirs.network.ID, "", 404},
		{"network", "DELETE", "/network/v2.0/ports/" + theirPort.ID, "", 404},
		{"network", "POST", "/network/v2.0/ports", `{"port":{"network_id":"` + theirs.network.ID + `"}}`, 404},
		{"compute", "POST", "/compute/v2.1/servers", server(`,"networks":[{"uuid":"` + theirs.network.ID + `"}]`), 400},
		{"compute", "POST", "/compute/v2.1/servers", server(`,"networks":[{"port":"` + theirPort.ID + `"}]`), 400},
		// What only an administrator may.
		{"compute", "POST", "/compute/v2.1/servers", server(`,"availability_zone":"nova:host1","networks":[{"uuid":"` + own.network.ID + `"}]`), 403},
		{"compute", "POST", "/compute/v2.1/flavors", `{"flavor":{"name":"f","ram":1,"disk":1,"vcpus":1}}`, 403},
		{"compute", "GET", "/compute/v2.1/os-hypervisors", "", 403},
		{"identity", "POST", "/identity/v3/projects", `{"project":{"name":"p"}}`, 403},
		// Ranges that overlap, addresses out of range or taken.
		{"network", "POST", "/network/v2.0/subnets", `{"subnet":{"network_id":"` + own.network.ID + `","ip_version":4,"cidr":"10.70.0.128/25"}}`, 400},
		{"network", "POST", "/network/v2.0/subnets", `{"subnet":{"network_id":"` + own.network.ID + `","ip_version":4,"cidr":"10.71.0.0/24","allocation_pools":[{"start":"10.71.0.10","end":"10.71.0.50"},{"start":"10.71.0.40","end":"10.71.0.60"}]}}`, 409},
		{"network", "POST", "/network/v2.0/subnets", `{"subnet":{"network_id":"` + own.network.ID + `","ip_version":4,"cidr":"10.71.0.0/24","allocation_pools":[{"start":"10.72.0.10","end":"10.72.0.50"}]}}`, 400},
		{"network", "POST", "/network/v2.0/ports", `{"port":{"network_id":"` + own.network.ID + `","fixed_ips":[{"ip_address":"192.0.2.9"}]}}`, 400},
	} {
		status, body := send(t, eve.member.Network, c.method, c.path, strings.NewReader(c.body))
		name := fmt.Sprintf("%s %s %.150s", c.method, c.path, c.body)
		if status != c.status {
			t.Errorf("%s: status %d, want %d: %.300s", name, status, c.status, body)
		} else if wrong := forms[c.service](status, body); wrong != "" {
			t.Errorf("%s: %s in %.300s", name, wrong, body)
		}
	}
	if after := rows(t); after != before {
		t.Errorf("bad calls changed something; before:\n%s\nafter:\n%s", before, after)
	}
	// A body without an end is cut off, and the API lives on.
	if status, _ := send(t, eve.member.Network, "POST", "/compute/v2.1/servers", io.LimitReader(endless{}, 64<<20)); status != 413 {
		t.Errorf("an endless body: status %d, want 413", status)
	}
}

// endless reads as spaces.
type endless struct{}

func (endless) Read(p []byte) (int, error) {
	copy(p, bytes.Repeat([]byte{' '}, len(p)))
	return len(p), nil
}

// TestExhaustion: no address is given twice, and what does not fit is refused with reasons.
func TestExhaustion(t *testing.T) {
	ten := newTenant(t, mine{t}, "narrow", "member")
	n := ten.newNetwork(t, mine{t}, "narrow", "10.80.0.0/30") // .1 is the gateway, .2 is left
	ten.newPort(t, mine{t}, n, "10.80.0.2", "")
	for _, body := range []string{`{"port":{"network_id":"` + n.network.ID + `"}}`, `{"port":{"network_id":"` + n.network.ID + `","fixed_ips":[{"ip_address":"10.80.0.2"}]}}`} {
		status, b := send(t, ten.member.Network, "POST", "/network/v2.0/ports", strings.NewReader(body))
		if status != 409 || forms["network"](status, b) != "" {
			t.Errorf("a port too many: status %d, want 409: %s", status, b)
		}
	}
	page, err := ports.List(ten.member.Network, ports.ListOpts{NetworkID: n.network.ID}).AllPages(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if all, err := ports.ExtractPorts(page); err != nil || len(all) != 1 {
		t.Errorf("the full network has %d ports, want 1: %v", len(all), err)
	}

	// A flavor that no host can carry.
	f, err := flavors.Create(t.Context(), fix.admin.Compute, flavors.CreateOpts{Name: "giant", RAM: 144, VCPUs: 1, Disk: new(1 << 30)}).Extract()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		gone(t, "flavor giant", flavors.Delete(context.Background(), fix.admin.Compute, f.ID).ExtractErr())
	})
	wide := ten.newNetwork(t, mine{t}, "wide", "10.81.0.0/24")
	g := ten.boot(t, mine{t}, order{name: "giant", flavor: f.ID, network: wide.network.ID})
	await(t, "the giant to be refused", bootPatience, func(ctx context.Context) string {
		s, err := servers.Get(ctx, ten.member.Compute, g.id).Extract()
		if err != nil {
			return err.Error()
		}
		return unless(s.Status == "ERROR", s.Status)
	})
	s, err := servers.Get(t.Context(), ten.member.Compute, g.id).Extract()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(s.Fault.Message, "No valid host was found") {
		t.Errorf("the tenant reads: %+v", s.Fault)
	}
	if text := s.Fault.Message + s.Fault.Details; strings.Contains(text, "host1") {
		t.Errorf("the tenant reads names of hosts: %s", text)
	}
	if s, err = servers.Get(t.Context(), fix.admin.Compute, g.id).Extract(); err != nil {
		t.Fatal(err)
	}
	for n := range hosts {
		if !strings.Contains(s.Fault.Details, lab.HostName(n+1)+": ") {
			t.Errorf("the administrator reads no reason of %s: %+v", lab.HostName(n+1), s.Fault)
		}
	}
	measured(t, "the tenant reads %q, the administrator %q", s.Fault.Message, s.Fault.Details)
}
