package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gophercloud/gophercloud/v2"
	"github.com/gophercloud/gophercloud/v2/openstack"
	"github.com/gophercloud/gophercloud/v2/openstack/compute/v2/servers"

	"yakumo/cli"
)

// Cloud is the lab's API through a stock client.
type Cloud struct {
	Compute, Network, Image, Identity *gophercloud.ServiceClient
}

// Connect logs in; Credentials gives the administrator's.
func (l *Lab) Connect(ctx context.Context, c cli.Credentials) (*Cloud, error) {
	p, err := openstack.AuthenticatedClient(ctx, gophercloud.AuthOptions{IdentityEndpoint: c.AuthURL, Username: c.Username, Password: c.Password,
		DomainName: c.UserDomain, TenantName: c.Project, AllowReauth: true})
	if err != nil {
		return nil, fmt.Errorf("log in as %s: %w", c.Username, err)
	}
	var cl Cloud
	eo := gophercloud.EndpointOpts{}
	var errs [4]error
	cl.Compute, errs[0] = openstack.NewComputeV2(p, eo)
	cl.Network, errs[1] = openstack.NewNetworkV2(p, eo)
	cl.Image, errs[2] = openstack.NewImageV2(p, eo)
	cl.Identity, errs[3] = openstack.NewIdentityV3(p, eo)
	return &cl, errors.Join(errs[:]...)
}

// Guest is a server as Status shows it.
type Guest struct {
	ID        string `json:"id"`
	Name      string `json:"name"`
	Status    string `json:"status"`
	Host      string `json:"host"`
	Addresses string `json:"addresses"`
}

// Inventory asks the API for hosts and guests.
func (l *Lab) Inventory(ctx context.Context) ([]cli.HostInfo, []Guest, error) {
	cl, err := cli.Login(ctx, l.Credentials())
	if err != nil {
		return nil, nil, err
	}
	hosts, err := cl.Hosts(ctx)
	if err != nil {
		return nil, nil, err
	}
	c, err := l.Connect(ctx, l.Credentials())
	if err != nil {
		return hosts, nil, err
	}
	page, err := servers.List(c.Compute, servers.ListOpts{AllTenants: true}).AllPages(ctx)
	if err != nil {
		return hosts, nil, err
	}
	all, err := servers.ExtractServers(page)
	if err != nil {
		return hosts, nil, err
	}
	guests := []Guest{}
	for _, s := range all {
		guests = append(guests, Guest{ID: s.ID, Name: s.Name, Status: s.Status, Host: s.Host, Addresses: strings.Join(addresses(&s), ", ")})
	}
	return hosts, guests, nil
}

// addresses gives a server's addresses, sorted.
func addresses(s *servers.Server) []string {
	var out []string
	for _, list := range s.Addresses {
		nics, _ := list.([]any)
		for _, n := range nics {
			m, _ := n.(map[string]any)
			if a, ok := m["addr"].(string); ok {
				out = append(out, a)
			}
		}
	}
	slices.Sort(out)
	return out
}

// WriteClientFiles writes openrc and clouds.yaml with the administrator's credentials, into a folder that is made where it is not there.
func (l *Lab) WriteClientFiles(dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if !slices.Contains(l.cfg.Files, dir) { // first: what is written is to be found again
		l.cfg.Files = append(l.cfg.Files, dir)
		if err := l.save(); err != nil {
			return err
		}
	}
	c := l.Credentials()
	openrc := fmt.Sprintf(`# An administrator's credentials for the lab in %s; use: . %s
export OS_AUTH_URL=%s
export OS_IDENTITY_API_VERSION=3
export OS_USERNAME=%s
export OS_PASSWORD=%s
export OS_PROJECT_NAME=%s
export OS_USER_DOMAIN_NAME=%s
export OS_PROJECT_DOMAIN_NAME=%s
export OS_REGION_NAME=RegionOne
`, l.cfg.Dir, filepath.Join(dir, "openrc"), c.AuthURL, c.Username, c.Password, c.Project, c.UserDomain, c.ProjectDomain)
	clouds := fmt.Sprintf(`# An administrator's credentials for the lab in %s; use: openstack --os-cloud yakumo …
clouds:
  yakumo:
    auth:
      auth_url: %s
      username: %s
      password: %s
      project_name: %s
      user_domain_name: %s
      project_domain_name: %s
    region_name: RegionOne
    identity_api_version: 3
`, l.cfg.Dir, c.AuthURL, c.Username, c.Password, c.Project, c.UserDomain, c.ProjectDomain)
	return errors.Join(writeFile(filepath.Join(dir, "openrc"), []byte(openrc)), writeFile(filepath.Join(dir, "clouds.yaml"), []byte(clouds)))
}

// RemoveClientFiles removes what WriteClientFiles wrote, and no other lab's; also where the lab could not be read, from the folder above it.
func (l *Lab) RemoveClientFiles() error {
	for _, dir := range append([]string{filepath.Dir(l.cfg.Dir)}, l.cfg.Files...) {
		for _, f := range []string{"openrc", "clouds.yaml"} {
			path := filepath.Join(dir, f)
			b, err := os.ReadFile(path)
			if err == nil && bytes.Contains(b, []byte("the lab in "+l.cfg.Dir+";")) {
				err = os.Remove(path)
			}
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}
