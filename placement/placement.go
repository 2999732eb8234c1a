// Package placement chooses hosts for servers: a pure function over what hosts offer, what
// is used of it, and what a request needs. It refuses a host with a reason, the constraint
// and its numbers, so that an operator can see why.
//
// It reads nothing and writes nothing; whoever commits a choice accounts for it in the next
// (Pool.Take). May import: model. Must not import: store, a part, api, agent.
package placement

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"yakumo/model"
)

// Ratios say how much of a host may be promised.
type Ratios struct {
	VCPU   float64 // virtual CPUs per CPU of the host; 0: 16
	Memory float64 // of memory less what is reserved; 0: 1.5
	Disk   float64 // of disk; 0: 1
	// ReservedMiB is kept for the host itself; 0: 512; negative: nothing.
	ReservedMiB int
}

// WithDefaults fills in what is not set.
func (r Ratios) WithDefaults() Ratios {
	r.VCPU, r.Memory, r.Disk = cmp.Or(r.VCPU, 16), cmp.Or(r.Memory, 1.5), cmp.Or(r.Disk, 1)
	if r.ReservedMiB = cmp.Or(r.ReservedMiB, 512); r.ReservedMiB < 0 {
		r.ReservedMiB = 0
	}
	return r
}

// Size is what a server takes of a host, or a host has.
type Size struct {
	VCPUs, MemoryMiB, DiskGiB int
	PCPUs                     int    // CPUs for one server alone; VCPUs are the others
	PagesMiB                  [2]int // memory in pages of model.PageSizes
}

// Add gives the sum.
func (s Size) Add(o Size) Size {
	return Size{s.VCPUs + o.VCPUs, s.MemoryMiB + o.MemoryMiB, s.DiskGiB + o.DiskGiB, s.PCPUs + o.PCPUs, [2]int{s.PagesMiB[0] + o.PagesMiB[0], s.PagesMiB[1] + o.PagesMiB[1]}}
}

func sizeOf(l model.Load) Size {
	return Size{l.VCPUs, l.MemoryMiB, l.DiskGiB, l.PCPUs, l.PagesMiB}
}

// CapacityOf gives what a host has, before over-commit.
func CapacityOf(c *model.HostCapacity) Size {
	s := Size{VCPUs: c.SharedCPUs(), MemoryMiB: c.MemoryMiB, DiskGiB: c.DiskGiB, PCPUs: len(c.Dedicated)}
	for i, kib := range model.PageSizes {
		s.PagesMiB[i] = c.HugePagesMiB(kib)
	}
	return s
}

// SizeOf gives what a server takes. A flavour without a disk takes the image's size; a server that boots from a volume, none.
func SizeOf(s *model.Server) Size {
	return sizeOf(s.Load())
}

// SizeOn gives what a server takes of a host: of both hosts of a move, with the flavor that it has there.
func SizeOn(s *model.Server, host model.ID) Size {
	return sizeOf(s.Taken(host))
}

// Host is a candidate.
type Host struct {
	ID, Name, Zone string
	Up             bool // it has been heard of, and nobody forced it down
	Disabled       bool
	Arch           string
	Capacity       Size // before over-commit
	Used           Size // by every server that is on it, whatever its state
	Link           Link
	Hypervisor     string              // QEMU, LXC; "": it has not said
	Features       []string            // of its processors, as libvirt names them, sorted
	Aggregates     []map[string]string // the metadata of each aggregate that it is in
	UEFI           bool                // guests can have a UEFI firmware
	SecureBoot     bool                // which starts what is signed only
	TPM            []string            // versions of TPMs that guests can have
	Threads        int                 // of a core; 0: as 1
	Seats          Seats
}

// limit gives what may be promised of the host in all.
func (h *Host) limit(r Ratios) Size { return Limit(h.Capacity, r) }

// Limit gives what may be promised in all of a host with the capacity.
func Limit(capacity Size, r Ratios) Size {
	return Size{
		VCPUs:     int(float64(capacity.VCPUs) * r.VCPU),
		MemoryMiB: int(float64(max(0, capacity.MemoryMiB-r.ReservedMiB)) * r.Memory),
		DiskGiB:   int(float64(capacity.DiskGiB) * r.Disk),
		PCPUs:     capacity.PCPUs, PagesMiB: capacity.PagesMiB, // there are no more of these than there are
	}
}

// Request is what a server needs.
type Request struct {
	Size
	Zone    string   // "": any
	Host    string   // by name; "": any
	Arch    string   // "": any
	Exclude []string // ids of hosts that have failed it
	Need    Need
	Wish    Wish
}

// pages gives which of model.PageSizes the memory is in, -1 for ordinary pages.
func (s *Size) pages() int {
	return slices.IndexFunc(s.PagesMiB[:], func(mib int) bool { return mib > 0 })
}

// Constraint is a reason to refuse a host.
type Constraint string

// The constraints, in the order in which they are looked at.
const (
	AskedHost    Constraint = "host"
	ExcludedHost Constraint = "excluded"
	Down         Constraint = "down"
	Disabled     Constraint = "disabled"
	Zone         Constraint = "zone"
	Architecture Constraint = "architecture"
	VCPUs        Constraint = "vcpus"
	PCPUs        Constraint = "pcpus"
	Memory       Constraint = "memory"
	Disk         Constraint = "disk"
)

// constraints are all of them, in the order in which a refusal counts them up.
var constraints = []Constraint{AskedHost, ExcludedHost, Down, Disabled, Zone, Architecture, Hypervisor, Machine, Firmware, TPM, Trait, Aggregate, Tenant, Hint, Group,
	VCPUs, PCPUs, Siblings, Pages, Memory, Disk, Reach, Bandwidth}

// words are what a tenant may read of a constraint.
var words = map[Constraint]string{
	AskedHost: "it is not the host asked for", ExcludedHost: "it could not start the server", Down: "it is down", Disabled: "it is disabled",
	Zone: "it is in another availability zone", Architecture: "it has another architecture", VCPUs: "it has too few vCPUs free", PCPUs: "it has too few CPUs free that are kept for single servers",
	Siblings: "it has too few threads of cores free that are kept for single servers",
	Memory:   "it has too little memory free", Disk: "it has too little disk free",
	Hypervisor: "it has another hypervisor than the image is for", Trait: "its processors have not the traits asked for", Aggregate: "it is in no aggregate that the flavor asks for",
	Machine: "it does not offer what the flavor or the image asks of the machine", TPM: "it emulates no TPM of the version asked for", Firmware: "it has not the firmware that the flavor or the image asks for", Pages: "it has too little memory in pages of the size asked for",
	Tenant: "it is kept for other projects", Hint: "a scheduler hint forbids it", Group: "the server group's policy forbids it",
	Reach: "it does not reach a physical network of the server's ports", Bandwidth: "it has too little bandwidth left to promise",
}

// Reason is why one host was refused.
type Reason struct {
	HostID, HostName string
	Constraint       Constraint
	Detail           string // with numbers; for operators
}

// Refusal is returned where no host will do. Error gives words that a tenant may read:
// kinds of constraints and how many hosts each refused, no names.
type Refusal struct {
	Reasons []Reason // one for each host, in the order of names
}

// Error gives a sentence without host names.
func (r *Refusal) Error() string {
	if len(r.Reasons) == 0 {
		return "there are no hosts"
	}
	count := map[Constraint]int{}
	for _, x := range r.Reasons {
		count[x.Constraint]++
	}
	var parts []string
	for _, c := range constraints {
		if n := count[c]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d of %d: %s", n, len(r.Reasons), words[c]))
		}
	}
	return strings.Join(parts, "; ")
}

// Details gives a line for each host, with numbers; for operators.
func (r *Refusal) Details() string {
	var b strings.Builder
	for _, x := range r.Reasons {
		fmt.Fprintf(&b, "%s: %s: %s\n", x.HostName, x.Constraint, x.Detail)
	}
	return b.String()
}

// Pool is a set of hosts with what is used of them.
type Pool struct {
	ratios Ratios
	hosts  []*Host // by name
	byID   map[string]*Host
	groups map[string]*ServerGroup // that requests have named, with what was taken since
}

// NewPool makes a Pool. The hosts are the pool's from then on.
func NewPool(ratios Ratios, hosts []*Host) *Pool {
	p := &Pool{ratios: ratios.WithDefaults(), hosts: hosts, byID: make(map[string]*Host, len(hosts))}
	slices.SortFunc(p.hosts, func(a, b *Host) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID)) })
	for _, h := range p.hosts {
		p.byID[h.ID] = h
	}
	return p
}

// Place chooses the host for a request: of those that fit, the one that a soft policy of its
// server group likes best; among equals the one with the most memory free for promises; then the one with the most vCPUs free, then the first by name.
// It changes nothing; see Take. The error is a *Refusal.
func (p *Pool) Place(req Request) (*Host, error) {
	var best *Host
	var room Size
	var liked int
	p.know(req.Wish.Group)
	for _, h := range p.hosts {
		if p.refuse(h, &req) != "" {
			continue
		}
		limit := h.limit(p.ratios)
		free := Size{VCPUs: limit.VCPUs - h.Used.VCPUs, MemoryMiB: limit.MemoryMiB - h.Used.MemoryMiB}
		like := p.likes(h, req.Wish.Group)
		if best == nil || cmp.Or(cmp.Compare(like, liked), cmp.Compare(free.MemoryMiB, room.MemoryMiB), cmp.Compare(free.VCPUs, room.VCPUs)) > 0 {
			best, room, liked = h, free, like
		}
	}
	if best != nil {
		return best, nil
	}
	r := &Refusal{Reasons: make([]Reason, 0, len(p.hosts))}
	for _, h := range p.hosts {
		c := p.refuse(h, &req)
		r.Reasons = append(r.Reasons, Reason{h.ID, h.Name, c, p.detail(h, &req, c)})
	}
	return nil, r
}

// Take accounts for a server on a host.
func (p *Pool) Take(host string, req Request) {
	if h := p.byID[host]; h != nil {
		h.Used = h.Used.Add(req.Size)
		h.Seats.take(&req.Wish.Processors, req.Wish.Memory)
		h.Link.take(&req.Need)
		p.join(h, req.Wish.Group)
	}
}

// refuse gives the first constraint that the host does not meet, "" where it meets all.
func (p *Pool) refuse(h *Host, req *Request) Constraint {
	limit := h.limit(p.ratios)
	switch {
	case req.Host != "" && req.Host != h.Name:
		return AskedHost
	case slices.Contains(req.Exclude, h.ID):
		return ExcludedHost
	case !h.Up:
		return Down
	case h.Disabled:
		return Disabled
	case req.Zone != "" && req.Zone != h.Zone:
		return Zone
	case req.Arch != "" && req.Arch != h.Arch:
		return Architecture
	}
	if c := p.forbids(h, req); c != "" {
		return c
	}
	switch {
	// One server is never promised more CPUs or memory than the host has: over-commit is
	// for the sum of many.
	case req.VCPUs > 0 && (h.Used.VCPUs+req.VCPUs > limit.VCPUs || req.VCPUs > h.Capacity.VCPUs):
		return VCPUs
	case h.Used.PCPUs+req.PCPUs > limit.PCPUs && req.PCPUs > 0:
		return PCPUs
	case h.Seats.short(&req.Wish.Processors) != "":
		return Siblings
	case req.pages() >= 0 && h.Used.PagesMiB[req.pages()]+req.PagesMiB[req.pages()] > limit.PagesMiB[req.pages()]:
		return Pages
	case h.Seats.apart(req.Wish.Memory) != "":
		return Pages
	case h.Used.MemoryMiB+req.MemoryMiB > limit.MemoryMiB || req.MemoryMiB > h.Capacity.MemoryMiB:
		return Memory
	case h.Used.DiskGiB+req.DiskGiB > limit.DiskGiB:
		return Disk
	case h.Link.missing(&req.Need) != "":
		return Reach
	}
	if _, short := h.Link.short(&req.Need); short {
		return Bandwidth
	}
	return ""
}

func (p *Pool) detail(h *Host, req *Request, c Constraint) string {
	limit := h.limit(p.ratios)
	amount := func(unit string, want, used, limit, has, all int, ratio float64) string {
		if want > all {
			return fmt.Sprintf("wants %d %s for one server; the host has %d at all", want, unit, all)
		}
		return fmt.Sprintf("wants %d %s; %d of %d promised (%d × %g)", want, unit, used, limit, has, ratio)
	}
	switch c {
	case AskedHost:
		return "the request asks for " + req.Host
	case ExcludedHost:
		return "it has failed this server before"
	case Down:
		return "it has not been heard of, or is forced down"
	case Disabled:
		return "an administrator has disabled it"
	case Zone:
		return fmt.Sprintf("it is in %s, the request asks for %s", h.Zone, req.Zone)
	case Architecture:
		return fmt.Sprintf("it is %s, the image is for %s", h.Arch, req.Arch)
	case Pages:
		i := req.pages()
		if h.Used.PagesMiB[i]+req.PagesMiB[i] <= limit.PagesMiB[i] {
			return h.Seats.apart(req.Wish.Memory)
		}
		return fmt.Sprintf("wants %d MiB in pages of %d KiB; %d of %d MiB in such pages promised", req.PagesMiB[i], model.PageSizes[i], h.Used.PagesMiB[i], limit.PagesMiB[i])
	case PCPUs:
		return fmt.Sprintf("wants %d CPUs for itself; %d of %d that are kept for single servers promised", req.PCPUs, h.Used.PCPUs, limit.PCPUs)
	case Siblings:
		return h.Seats.short(&req.Wish.Processors)
	case Hypervisor, Machine, Firmware, TPM, Trait, Aggregate, Tenant, Hint, Group:
		return p.why(h, &req.Wish, c)
	case VCPUs:
		return amount("vCPUs", req.VCPUs, h.Used.VCPUs, limit.VCPUs, h.Capacity.VCPUs, h.Capacity.VCPUs, p.ratios.VCPU)
	case Memory:
		return amount("MiB", req.MemoryMiB, h.Used.MemoryMiB, limit.MemoryMiB, max(0, h.Capacity.MemoryMiB-p.ratios.ReservedMiB), h.Capacity.MemoryMiB, p.ratios.Memory)
	case Disk:
		return amount("GiB", req.DiskGiB, h.Used.DiskGiB, limit.DiskGiB, h.Capacity.DiskGiB, limit.DiskGiB, p.ratios.Disk)
	case Reach:
		return "it has no bridge for " + h.Link.missing(&req.Need)
	case Bandwidth:
		return h.Link.shortage(&req.Need)
	}
	return string(c)
}
