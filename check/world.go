package check

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"yakumo/model"
	"yakumo/store"
)

// compare holds what hosts have against what rows say that they may have.
func compare(snap store.Snapshot, have map[model.ID]*model.Inventory) []Finding {
	var out []Finding
	running := map[model.ID][]string{} // guest → names of hosts where it runs
	for id, inv := range have {
		h, ok := store.Hosts.Get(snap, id)
		if !ok {
			continue
		}
		find := func(rule, kind, thing, format string, args ...any) {
			out = append(out, Finding{Rule: rule, Kind: kind, ID: thing, Host: h.Name, Detail: fmt.Sprintf(format, args...)})
		}
		mine := func(server model.ID) *model.Server {
			s, ok := store.Servers.Get(snap, server)
			if !ok || s.Host != id && (s.Move == nil || s.Move.Source != id && s.Move.Target != id) {
				return nil
			}
			return s
		}
		seen := map[model.ID]bool{}
		owner := map[int]model.ID{} // of CPUs that are one guest's alone
		for _, g := range inv.Guests {
			seen[g.ID] = true
			for _, c := range g.CPUs {
				if other := owner[c]; other != "" {
					find("cpu-is-one-guests", "guest", g.ID, "CPU %d is guest %s's, too", c, other)
				}
				owner[c] = g.ID
			}
			if g.Power == model.PowerRunning {
				running[g.ID] = append(running[g.ID], h.Name)
			}
			s := mine(g.ID)
			switch {
			case s == nil:
				find("no-orphan-guest", "guest", g.ID, "no server row puts it here; it is %s", g.Power)
			case s.Host == id && s.Move == nil && s.Status.Phase == model.PhaseReady && s.Status.Task == "" && g.Power != s.Status.Power:
				find("power-is-told", "guest", g.ID, "it is %s here, its row says %s", g.Power, s.Status.Power)
			}
		}
		for s := range store.Servers.List(snap, "host", id) {
			if s.Host == id && s.Move == nil && s.Status.Phase == model.PhaseReady && s.Status.Power == model.PowerRunning && s.Status.Task == "" && !seen[s.ID] {
				find("guest-is-there", "server", s.ID, "its row says that it runs here, and there is no such guest")
			}
		}
		for _, dir := range inv.Folders {
			if mine(dir) == nil {
				find("no-orphan-disk", "folder", dir, "no server row puts it here")
			}
		}
		taps := map[string]bool{}
		for p := range store.Ports.List(snap, "host", id) {
			taps[model.TapName(p.ID)] = true
		}
		for p := range store.Ports.List(snap, "next_host", id) {
			taps[model.TapName(p.ID)] = true
		}
		for s := range store.Servers.List(snap, "host", id) { // the old host of a cold move keeps nothing wired, but may be about to let go
			if s.Move != nil {
				for _, p := range s.Ports {
					taps[model.TapName(p)] = true
				}
			}
		}
		for _, t := range inv.Taps {
			if !taps[t] {
				find("no-orphan-tap", "tap", t, "no port row puts it here")
			}
		}
		for _, v := range inv.Volumes {
			row, ok := store.Volumes.Get(snap, v)
			if !ok || !row.InAt(model.EngineLocal, id) {
				find("no-orphan-volume", "volume", v, "no volume row puts it here")
			}
		}
		for _, x := range inv.Quarantined {
			find("nothing-laid-aside", string(x.Kind), x.ID, "nobody ordered it to go, and no row named it on %s; its files are in %s, and are erased after %s", x.At.UTC().Format(time.DateTime), x.Folder, x.Until.UTC().Format(time.DateTime))
		}
	}
	for guest, hosts := range running {
		if len(hosts) > 1 {
			slices.Sort(hosts)
			out = append(out, Finding{Rule: "one-run", Kind: "guest", ID: guest, Host: strings.Join(hosts, ","), Detail: "it runs on several hosts"})
		}
	}
	return out
}
