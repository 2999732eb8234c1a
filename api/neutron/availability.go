package neutron

import (
	"math/big"
	"net/http"
	"slices"
	"strconv"

	"yakumo/api"
	"yakumo/fault"
	"yakumo/model"
	"yakumo/network"
	"yakumo/store"
)

type subnetUse struct {
	ID        string   `json:"subnet_id"`
	Name      string   `json:"subnet_name"`
	CIDR      string   `json:"cidr"`
	IPVersion int      `json:"ip_version"`
	Total     *big.Int `json:"total_ips"` // of an IPv6 subnet far beyond 64 bits
	Used      int      `json:"used_ips"`
}

type networkUse struct {
	ID        string      `json:"network_id"`
	Name      string      `json:"network_name"`
	ProjectID string      `json:"project_id"`
	TenantID  string      `json:"tenant_id"`
	Total     *big.Int    `json:"total_ips"`
	Used      int         `json:"used_ips"`
	Subnets   []subnetUse `json:"subnet_ip_availability"`
}

// useOf counts the addresses of a network's subnets of the versions; none given: of all.
func useOf(r store.Reader, w *model.Network, versions []string) networkUse {
	out := networkUse{Total: new(big.Int), ID: w.ID, Name: w.Name, ProjectID: w.ProjectID, TenantID: w.ProjectID, Subnets: []subnetUse{}}
	for s := range store.Subnets.List(r, "network", w.ID) {
		if len(versions) > 0 && !slices.Contains(versions, strconv.Itoa(s.IPVersion)) {
			continue
		}
		u := subnetUse{ID: s.ID, Name: s.Name, CIDR: s.CIDR.String(), IPVersion: s.IPVersion, Total: network.PoolSize(s)}
		for p := range store.Ports.List(r, "subnet", s.ID) {
			for _, f := range p.FixedIPs {
				if f.SubnetID == s.ID {
					u.Used++
				}
			}
		}
		out.Total.Add(out.Total, u.Total)
		out.Used += u.Used
		out.Subnets = append(out.Subnets, u)
	}
	return out
}

func (d *dialect) listAvailability(c *api.Context) error {
	q, err := parseQuery(c.Query())
	if err != nil {
		return err
	}
	if err := q.only("network_id", "network_name", "project_id", "tenant_id", "ip_version"); err != nil {
		return err
	}
	versions := q.filters["ip_version"]
	delete(q.filters, "ip_version")
	snap := c.Snapshot()
	out := []networkUse{}
	for w := range store.Networks.All(snap) {
		if q.finds(map[string]string{"network_id": w.ID, "network_name": w.Name, "project_id": w.ProjectID, "tenant_id": w.ProjectID}) {
			out = append(out, useOf(snap, w, versions))
		}
	}
	return c.JSON(http.StatusOK, map[string]any{"network_ip_availabilities": out})
}

func (d *dialect) showAvailability(c *api.Context) error {
	snap := c.Snapshot()
	w, ok := store.Networks.Get(snap, c.Param("id"))
	if !ok {
		return fault.Coded(fault.NotFound, "NetworkNotFound", "Network %s could not be found.", c.Param("id"))
	}
	return c.JSON(http.StatusOK, map[string]any{"network_ip_availability": useOf(snap, w, nil)})
}
