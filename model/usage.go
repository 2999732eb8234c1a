package model

import "time"

// ServerUsage is what a server that is gone had, and for how long: what is left to measure its project by.
type ServerUsage struct {
	ServerID  ID     `json:"server_id"`
	ProjectID ID     `json:"project_id"`
	Name      string `json:"name"`
	Flavor    string `json:"flavor"` // the name of the last that it had
	VCPUs     int    `json:"vcpus"`
	MemoryMiB int    `json:"ram"`
	DiskGiB   int    `json:"disk"` // root and ephemeral, as the flavor has it
	// StartedAt is when it first ran.
	StartedAt time.Time `json:"started_at"`
	// EndedAt is when nothing was left of it; zero for one that is still there, which is never stored.
	EndedAt time.Time `json:"ended_at,omitzero"`
}

// UsageOf gives what a server has, from its first start on; nil for one that has not run yet.
func UsageOf(s *Server) *ServerUsage {
	if s.Status.LaunchedAt.IsZero() {
		return nil
	}
	f := &s.Flavor
	return &ServerUsage{ServerID: s.ID, ProjectID: s.ProjectID, Name: s.Name, Flavor: f.Name, VCPUs: f.VCPUs, MemoryMiB: f.MemoryMiB,
		DiskGiB: f.DiskGiB + f.Ephemeral, StartedAt: s.Status.LaunchedAt, EndedAt: s.Status.TerminatedAt}
}

// Within gives the time from from to to in which the server was there.
func (u *ServerUsage) Within(from, to time.Time) time.Duration {
	if !u.EndedAt.IsZero() && u.EndedAt.Before(to) {
		to = u.EndedAt
	}
	if u.StartedAt.After(from) {
		from = u.StartedAt
	}
	return max(0, to.Sub(from))
}

// EndedKey gives a key under which usages sort by their end, the oldest first.
func (u *ServerUsage) EndedKey() string { return u.EndedAt.UTC().Format("20060102T150405.000000000") }
