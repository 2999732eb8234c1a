package neutron

import (
	"net/http"

	"yakumo/api"
	"yakumo/fault"
	"yakumo/model"
	"yakumo/network"
	"yakumo/store"
)

type subnetUse struct {
	ID        string `json:"subnet_id"`
	Name      string `json:"subnet_name"`
	CIDR      string `json:"cidr"`
	IPVersion int    `json:"ip_version"`
	Total     uint64 `json:"total_ips"`
	Used      int    `json:"used_ips"`
}

type networkUse struct {
	ID        string      `json:"network_id"`
	Name      string      `json:"network_name"`
	ProjectID string      `json:"project_id"`
	TenantID  string      `json:"tenant_id"`
	Total     uint64      `json:"total_ips"`
	Used      int         `json:"used_ips"`
	Subnets   []subnetUse `json:"subnet_ip_availability"`
}

func useOf(r store.Reader, w *model.Network) networkUse {
	out := networkUse{ID: w.ID, Name: w.Name, ProjectID: w.ProjectID, TenantID: w.ProjectID, Subnets: []subnetUse{}}
	for s := range store.Subnets.List(r, "network", w.ID) {
		u := subnetUse{ID: s.ID, Name: s.Name, CIDR: s.CIDR.String(), IPVersion: s.IPVersion, Total: network.PoolSize(s)}
		for p := range store.Ports.List(r, "subnet", s.ID) {
			for _, f := range p.FixedIPs {
				if f.SubnetID == s.ID {
					u.Used++
				}
			}
		}
		out.Total += u.Total
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
	snap := c.Snapshot()
	out := []networkUse{}
	for w := range store.Networks.All(snap) {
		if q.finds(map[string]string{"network_id": w.ID, "network_name": w.Name, "project_id": w.ProjectID, "tenant_id": w.ProjectID, "ip_version": "4"}) {
			out = append(out, useOf(snap, w))
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
	return c.JSON(http.StatusOK, map[string]any{"network_ip_availability": useOf(snap, w)})
}
