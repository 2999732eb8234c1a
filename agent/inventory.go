package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"yakumo/model"
)

// inventory tells what this host really has, by a fresh look at the hypervisor, the disk and the kernel; what the
// ledger believes does not count.
func (a *Agent) inventory(ctx context.Context, _ struct{}) (model.Inventory, error) {
	inv := model.Inventory{Guests: []model.GuestAt{}, Folders: []model.ID{}, Taps: []string{}}
	guests, err := a.cfg.Hypervisor.List(ctx)
	if err != nil {
		return inv, fmt.Errorf("list guests: %w", err)
	}
	for _, g := range guests {
		own, err := a.cpus.inventory(ctx, g.ID)
		if err != nil {
			return inv, err
		}
		inv.Guests = append(inv.Guests, model.GuestAt{ID: g.ID, Power: powerOf(g.Power), CPUs: own})
	}
	folders, err := os.ReadDir(filepath.Dir(a.dir("x")))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return inv, fmt.Errorf("list guests' folders: %w", err)
	}
	for _, f := range folders {
		if f.IsDir() {
			inv.Folders = append(inv.Folders, f.Name())
		}
	}
	taps, err := a.cfg.Taps.List(ctx, tapPrefix)
	if err != nil {
		return inv, fmt.Errorf("list taps: %w", err)
	}
	for _, t := range taps {
		if isTapName(t) {
			inv.Taps = append(inv.Taps, t)
		}
	}
	slices.Sort(inv.Taps)
	if e := a.cfg.Engines[model.EngineLocal]; e != nil {
		volumes, err := e.List(ctx)
		if err != nil {
			return inv, fmt.Errorf("list volumes: %w", err)
		}
		for _, v := range volumes {
			inv.Volumes = append(inv.Volumes, v.ID)
		}
	}
	for _, x := range a.quarantine.list() {
		inv.Quarantined = append(inv.Quarantined, model.Quarantined{Kind: x.Kind, ID: x.ID, At: x.At, Until: x.At.Add(a.cfg.Quarantine), Folder: x.path})
	}
	return inv, nil
}
