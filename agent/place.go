package agent

import (
	"context"
	"fmt"

	"yakumo/block"
	"yakumo/fault"
	"yakumo/hypervisor"
	"yakumo/model"
)

// place makes what a volume's row says of a place beside it: an empty volume, to which a guest copies it, or nothing.
func (v *volumeKeeper) place(ctx context.Context, row *model.HostVolume) error {
	o := row.Place
	if o == nil {
		return nil
	}
	p, _ := v.a.ledger.volumeOf(row.ID)
	if row.Engine == o.Engine && (row.Mine || o.Engine != model.EngineLocal) {
		return fault.New(fault.Unavailable, "Volume %s is said to be, and not to be, in the engine %s.", row.ID, o.Engine)
	}
	if !row.Mine {
		v.cut(row.ID, o.Guests)
	}
	switch {
	case o.Clear && p.Vacated != o.Number:
		e, err := v.engine(o.Engine, row.ID)
		if err == nil {
			err = take(ctx, e, row.ID)
		}
		if err != nil {
			return fault.Wrap(fault.Unavailable, err, "Volume %s is still in the engine %s.", row.ID, o.Engine)
		}
		if !row.Mine { // it was this host's, maybe
			p = volumeProgress{Generation: p.Generation, Placed: p.Placed, Seat: p.Seat}
		}
		p.Vacated, p.Refused, p.PlaceFault = o.Number, 0, nil
		v.a.log.Info("nothing of a volume is left where it was, or was to be", "volume", row.ID, "engine", o.Engine)
	case !o.Clear && p.Placed != o.Number && p.Refused != o.Number:
		err := v.make(ctx, row)
		if err != nil && fault.KindOf(err) != fault.Invalid && !v.last(row.ID, row.Generation) {
			return fmt.Errorf("make a place for volume %s in the engine %s: %w", row.ID, o.Engine, err)
		}
		if err != nil {
			text, ok := fault.Text(err)
			if !ok {
				text = "The volume cannot be made where it is to go."
			}
			p.Refused, p.PlaceFault = o.Number, &model.Fault{Code: 500, Message: text, Details: err.Error(), At: v.a.now()}
			break
		}
		p.Placed, p.Refused, p.PlaceFault = o.Number, 0, nil
	}
	return v.keep(row.ID, p)
}

// make makes the empty volume. What is there is of no use: no server has been told that it is.
func (v *volumeKeeper) make(ctx context.Context, row *model.HostVolume) error {
	e, err := v.engine(row.Place.Engine, row.ID)
	if err != nil {
		return err
	}
	if err := take(ctx, e, row.ID); err != nil {
		return err
	}
	return e.Make(ctx, row.ID, int64(row.SizeGiB)<<30, block.Source{})
}

// openAt says of a disk where it is once it has gone to where it is to go.
func (v *volumeKeeper) openAt(ctx context.Context, out *hypervisor.Disk, d model.HostDisk) error {
	var at block.Access
	e, err := v.engine(d.To.Engine, d.VolumeID)
	switch {
	case d.To.Owner.HostID != "":
		at, err = v.relay(ctx, d.VolumeID, d.To.Number)
	case err == nil:
		at, err = e.Open(ctx, d.VolumeID)
	}
	if fault.Is(err, fault.NotFound) {
		return fault.Wrap(fault.Unavailable, err, "Volume %s cannot be opened now where it is to go.", d.VolumeID)
	}
	if err != nil {
		return err
	}
	found(out, at)
	return nil
}
