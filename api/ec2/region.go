package ec2

import (
	"cmp"
	"maps"
	"slices"

	"yakumo/api"
	"yakumo/store"
)

func (d *dialect) regionOperations(add adder) {
	add("DescribeRegions", api.Reader, d.describeRegions, "RegionName", "Filter", "AllRegions")
	add("DescribeAvailabilityZones", api.Reader, d.describeZones, "ZoneName", "Filter", "AllAvailabilityZones")
}

type region struct {
	Name     string `xml:"regionName"`
	Endpoint string `xml:"regionEndpoint"`
	OptIn    string `xml:"optInStatus"`
}

func (d *dialect) describeRegions(q *request) (any, error) {
	filters, err := q.filters("region-name", "endpoint", "opt-in-status")
	if err != nil {
		return nil, err
	}
	r := region{d.cfg.Region, q.R.Host, "opt-in-not-required"}
	var body struct {
		Regions set[region] `xml:"regionInfo"`
	}
	for _, name := range q.strs("RegionName") {
		if name != r.Name {
			return nil, badValue("Invalid region provided: %s", api.Clip(name))
		}
	}
	if passes(filters, func(name string) []string {
		return []string{map[string]string{"region-name": r.Name, "endpoint": r.Endpoint, "opt-in-status": r.OptIn}[name]}
	}) {
		body.Regions = setOf(r)
	}
	return body, nil
}

type zone struct {
	Name   string `xml:"zoneName"`
	State  string `xml:"zoneState"`
	Region string `xml:"regionName"`
	ID     string `xml:"zoneId"`
	Type   string `xml:"zoneType"`
}

func (d *dialect) describeZones(q *request) (any, error) {
	filters, err := q.filters("zone-name", "state", "region-name", "zone-id", "zone-type")
	if err != nil {
		return nil, err
	}
	zones := map[string]zone{}
	for h := range store.Hosts.All(q.Snapshot()) {
		if h.Switch != nil {
			continue
		}
		z := zone{h.Zone, "unavailable", d.cfg.Region, h.Zone, "availability-zone"}
		if !h.Disabled || zones[h.Zone].State == "available" {
			z.State = "available"
		}
		zones[h.Zone] = z
	}
	asked := q.strs("ZoneName")
	for _, name := range asked {
		if _, ok := zones[name]; !ok {
			return nil, badValue("Invalid availability zone: [%s]", api.Clip(name))
		}
	}
	var body struct {
		Zones set[zone] `xml:"availabilityZoneInfo"`
	}
	for _, z := range slices.SortedFunc(maps.Values(zones), func(a, b zone) int { return cmp.Compare(a.Name, b.Name) }) {
		if (len(asked) == 0 || slices.Contains(asked, z.Name)) && passes(filters, func(name string) []string {
			return []string{map[string]string{"zone-name": z.Name, "state": z.State, "region-name": z.Region, "zone-id": z.ID, "zone-type": z.Type}[name]}
		}) {
			body.Zones.Items = append(body.Zones.Items, z)
		}
	}
	return body, nil
}
