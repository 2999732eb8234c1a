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
	w.Isolate = isolates(s)
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

// isolates tells whether no sibling of the CPUs that a server has for itself may run anything.
func isolates(s *model.Server) bool {
	p, _ := model.ProcessorsOf(s.Flavor.VCPUs, s.Flavor.ExtraSpecs, s.Image.Hardware)
	return p.Isolate
}
