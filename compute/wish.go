package compute

import (
	"yakumo/model"
	"yakumo/placement"
	"yakumo/store"
)

// wishOf gives what a server wants of its host beside room: by its flavor, its image, its hints and its group.
// Servers that hints name and that the project does not own count as none.
func wishOf(r store.Reader, s *model.Server) placement.Wish {
	w := placement.Wish{Project: s.ProjectID, Specs: s.Flavor.ExtraSpecs, Hardware: s.Image.Hardware}
	w.Processors, w.Memory = processors(s), pagingOf(s, &s.Flavor)
	if s.Container {
		w.Hypervisor = placement.Containers
	} else if img, ok := store.Images.Get(r, s.ImageID); ok {
		w.Hypervisor = hypervisorOf(img)
	}
	hosts := func(hint string) (out []string) {
		for _, id := range s.Hints[hint] {
			if other, ok := store.Servers.Get(r, id); ok && other.ProjectID == s.ProjectID && other.Host != "" {
				out = append(out, other.Host)
			}
		}
		return out
	}
	if len(s.Hints) > 0 {
		w.Same, w.Different, w.HasSame = hosts("same_host"), hosts("different_host"), len(s.Hints["same_host"]) > 0
	}
	if s.GroupID == "" {
		return w
	}
	g, ok := store.ServerGroups.Get(r, s.GroupID)
	if !ok {
		return w
	}
	w.Group = &placement.ServerGroup{ID: g.ID, Policy: g.Policy, Max: g.Rules["max_server_per_host"], Hosts: map[string]int{}}
	for m := range store.Servers.List(r, "group", g.ID) {
		if m.ID == s.ID || m.Deleted {
			continue
		}
		if m.Host != "" {
			w.Group.Hosts[m.Host]++
		}
		if m.Move != nil && m.Move.Target != "" && m.Move.Target != m.Host {
			w.Group.Hosts[m.Move.Target]++
		}
	}
	return w
}

// processors gives what a server wants of its host's CPUs for itself.
func processors(s *model.Server) model.Processors { return processorsOf(s, &s.Flavor) }

// processorsOf gives what a server wants with a flavor: what cannot be is refused before there is a server.
func processorsOf(s *model.Server, f *model.Flavor) model.Processors {
	p, _ := model.ProcessorsOf(f.VCPUs, f.ExtraSpecs, s.Image.Hardware)
	return p
}

func pagingOf(s *model.Server, f *model.Flavor) model.Paging {
	return model.PagingOf(f.VCPUs, f.MemoryMiB, f.ExtraSpecs, s.Image.Hardware)
}

// seats gives the CPUs that a host keeps for single servers and its huge pages, with who has which.
func seats(r store.Reader, h *model.Host) placement.Seats {
	return placement.Seats{Kept: h.Capacity.Dedicated, Pages: h.Capacity.HugePages, Given: h.Capacity.Given, Servers: func() (out []placement.Seated) {
		for s := range store.Servers.List(r, "host", h.ID) {
			f := &s.Flavor
			if s.Move != nil {
				f = s.Move.On(h.ID, f)
			}
			if p, m := processorsOf(s, f), pagingOf(s, f); len(p.Dedicated) > 0 || m.KiB > 0 {
				out = append(out, placement.Seated{ID: s.ID, Wish: p, Memory: m})
			}
		}
		return out
	}}
}
