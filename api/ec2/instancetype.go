package ec2

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"strconv"

	"yakumo/api"
	"yakumo/compute"
	"yakumo/fault"
	"yakumo/model"
	"yakumo/network"
	"yakumo/store"
)

func (d *dialect) typeOperations(add adder) {
	add("DescribeInstanceTypes", api.Reader, d.describeTypes, "InstanceType", "Filter", "MaxResults", "NextToken")
	add("DescribeInstanceTypeOfferings", api.Reader, d.describeOfferings, "LocationType", "Filter", "MaxResults", "NextToken")
	add("DescribeAccountAttributes", api.Reader, d.describeAccount, "AttributeName")
}

// flavorOf gives the flavor that is an instance type: by its name.
func (q *request) flavorOf(r store.Reader, name string) (*model.Flavor, error) {
	if id, ok := store.Flavors.Holder(r, name); ok {
		if f, err := compute.GetFlavor(r, q.scope(), id); err == nil {
			return f, nil
		}
	}
	return nil, fault.Coded(fault.Invalid, "InvalidInstanceType", "The following supplied instance types do not exist: [%s]", api.Clip(name))
}

// flavors gives the flavors that the request names, or all that the caller may use.
func (q *request) flavors(r store.Reader) ([]*model.Flavor, error) {
	var out []*model.Flavor
	names := q.strs("InstanceType")
	for _, name := range names {
		f, err := q.flavorOf(r, name)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(out, f) {
			out = append(out, f)
		}
	}
	if len(names) == 0 {
		for f := range store.Flavors.All(r) {
			if q.scope().Sees(f) {
				out = append(out, f)
			}
		}
	}
	return out, nil
}

type instanceType struct {
	Name         string      `xml:"instanceType"`
	Current      bool        `xml:"currentGeneration"`
	Free         bool        `xml:"freeTierEligible"`
	Usage        set[string] `xml:"supportedUsageClasses"`
	Roots        set[string] `xml:"supportedRootDeviceTypes"`
	Virtual      set[string] `xml:"supportedVirtualizationTypes"`
	Metal        bool        `xml:"bareMetal"`
	Architecture set[string] `xml:"processorInfo>supportedArchitectures"`
	VCPUs        int         `xml:"vCpuInfo>defaultVCpus"`
	Cores        int         `xml:"vCpuInfo>defaultCores"`
	Threads      int         `xml:"vCpuInfo>defaultThreadsPerCore"`
	MemoryMiB    int         `xml:"memoryInfo>sizeInMiB"`
	HasDisk      bool        `xml:"instanceStorageSupported"`
	DiskGiB      int         `xml:"instanceStorageInfo>totalSizeInGB"`
	NICs         int         `xml:"networkInfo>maximumNetworkInterfaces"`
	IPv6         bool        `xml:"networkInfo>ipv6Supported"`
	Hibernation  bool        `xml:"hibernationSupported"`
}

func (d *dialect) describeTypes(q *request) (any, error) {
	filters, err := q.filters("instance-type", "current-generation", "free-tier-eligible", "bare-metal", "hibernation-supported", "instance-storage-supported",
		"instance-storage-info.total-size-in-gb", "memory-info.size-in-mib", "vcpu-info.default-vcpus", "vcpu-info.default-cores", "processor-info.supported-architecture",
		"supported-root-device-type", "supported-virtualization-type", "supported-usage-class")
	if err != nil {
		return nil, err
	}
	r := q.Snapshot()
	flavors, err := q.flavors(r)
	if err != nil {
		return nil, err
	}
	kinds := map[string]bool{}
	for h := range store.Hosts.All(r) {
		if h.Capacity.Arch != "" {
			kinds[h.Capacity.Arch] = true
		}
	}
	architectures := setOf(slices.Sorted(maps.Keys(kinds))...)
	var all []instanceType
	for _, f := range flavors {
		x := instanceType{Name: f.Name, Current: true, Usage: setOf("on-demand"), Roots: setOf("ebs", "instance-store"), Virtual: setOf("hvm"), Architecture: architectures, VCPUs: f.VCPUs,
			Cores: f.VCPUs, Threads: 1, MemoryMiB: f.MemoryMiB, HasDisk: f.DiskGiB+f.Ephemeral > 0, DiskGiB: f.DiskGiB + f.Ephemeral, NICs: compute.MaxPorts, IPv6: true, Hibernation: true}
		if passes(filters, func(name string) []string {
			switch name {
			case "processor-info.supported-architecture":
				return x.Architecture.Items
			case "supported-root-device-type":
				return x.Roots.Items
			}
			return []string{map[string]string{"instance-type": x.Name, "current-generation": "true", "free-tier-eligible": "false", "bare-metal": "false", "hibernation-supported": "true",
				"instance-storage-supported": strconv.FormatBool(x.HasDisk), "instance-storage-info.total-size-in-gb": strconv.Itoa(x.DiskGiB),
				"memory-info.size-in-mib": strconv.Itoa(x.MemoryMiB), "vcpu-info.default-vcpus": strconv.Itoa(x.VCPUs), "vcpu-info.default-cores": strconv.Itoa(x.Cores),
				"supported-virtualization-type": "hvm", "supported-usage-class": "on-demand"}[name]}
		}) {
			all = append(all, x)
		}
	}
	var body struct {
		Types set[instanceType] `xml:"instanceTypeSet"`
		Next  string            `xml:"nextToken,omitempty"`
	}
	body.Types.Items, body.Next, err = paged(q, all, func(x instanceType) string { return "type-" + x.Name })
	return body, err
}

type offering struct {
	Type     string `xml:"instanceType"`
	Kind     string `xml:"locationType"`
	Location string `xml:"location"`
}

// describeOfferings gives where there are which types: everywhere, as flavors know no place.
func (d *dialect) describeOfferings(q *request) (any, error) {
	filters, err := q.filters("instance-type", "location")
	if err != nil {
		return nil, err
	}
	r := q.Snapshot()
	places := map[string]bool{}
	where := cmp.Or(q.str("LocationType"), "region")
	switch where {
	case "region":
		places[d.cfg.Region] = true
	case "availability-zone", "availability-zone-id":
		for h := range store.Hosts.All(r) {
			if h.Switch == nil {
				places[h.Zone] = true
			}
		}
	default:
		return nil, badValue("Value (%s) for parameter LocationType is invalid.", api.Clip(where))
	}
	flavors, err := q.flavors(r)
	if err != nil {
		return nil, err
	}
	var all []offering
	for _, f := range flavors {
		for place := range places {
			x := offering{f.Name, where, place}
			if passes(filters, func(name string) []string {
				return []string{map[string]string{"instance-type": x.Type, "location": x.Location}[name]}
			}) {
				all = append(all, x)
			}
		}
	}
	var body struct {
		Offerings set[offering] `xml:"instanceTypeOfferingSet"`
		Next      string        `xml:"nextToken,omitempty"`
	}
	body.Offerings.Items, body.Next, err = paged(q, all, func(x offering) string { return x.Location + "-" + x.Type })
	return body, err
}

type accountAttribute struct {
	Name   string        `xml:"attributeName"`
	Values set[anyValue] `xml:"attributeValueSet"`
}

type anyValue struct {
	Value string `xml:"attributeValue"`
}

func (d *dialect) describeAccount(q *request) (any, error) {
	r := q.Snapshot()
	limit := func(n int) string {
		if n < 0 { // none
			n = math.MaxInt32
		}
		return strconv.Itoa(n)
	}
	addresses := limit(d.net.Quota(r, q.Caller.ProjectID)[network.QuotaFloatingIP])
	vpc := "none"
	if v := usual(q.vpcs(r)); v != nil && v.isDefault() {
		vpc = v.id()
	}
	values := map[string]string{"supported-platforms": "VPC", "default-vpc": vpc, "max-instances": limit(d.c.Quota(r, q.Caller.ProjectID)[compute.QuotaInstances]),
		"max-elastic-ips": addresses, "vpc-max-elastic-ips": addresses}
	names := q.strs("AttributeName")
	if len(names) == 0 {
		names = slices.Sorted(maps.Keys(values))
	}
	var body struct {
		Attributes set[accountAttribute] `xml:"accountAttributeSet"`
	}
	for _, name := range names {
		v, ok := values[name]
		if !ok {
			return nil, badValue("Value (%s) for parameter attributeName is invalid. Unknown attribute.", api.Clip(name))
		}
		body.Attributes.Items = append(body.Attributes.Items, accountAttribute{name, setOf(anyValue{v})})
	}
	return body, nil
}
