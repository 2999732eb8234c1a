package agent

import (
	"context"
	"fmt"
	"os"
	"slices"

	"yakumo/block"
	"yakumo/block/chunk"
	"yakumo/fault"
	"yakumo/model"
)

// arrive takes note that a volume is of another engine now: of the one to which it was copied here, or of the place here to which a guest copied it.
func (v *volumeKeeper) arrive(row *model.HostVolume, p *volumeProgress) error {
	here := row.Seat != 0 && p.Placed == row.Seat // a guest has copied it to here
	if here && p.Made && p.Engine == row.Engine || !here && (p.Engine == "" || p.Engine == row.Engine) {
		return nil
	}
	n := volumeProgress{Engine: row.Engine, Generation: p.Generation, Made: here || p.Copied == row.Engine, Fills: p.Fills, Placed: p.Placed, Vacated: p.Vacated}
	if here {
		n.Fills = row.Fills
	}
	*p = n
	if err := v.a.ledger.saveVolume(row.ID, *p); err != nil {
		return err
	}
	v.wake(row.ID)
	return nil
}

// elsewhere makes a volume be in another engine too, or in one not any more. What it does is last: nothing else waits for it.
func (v *volumeKeeper) elsewhere(ctx context.Context, e block.Engine, row *model.HostVolume, p *volumeProgress) error {
	switch {
	case row.Clear != "" && p.Cleared != row.Clear:
		old, err := v.engine(row.Clear, row.ID)
		if err == nil {
			err = take(ctx, old, row.ID)
		}
		if err != nil {
			return fault.Wrap(fault.Unavailable, err, "Volume %s is still in the engine %s.", row.ID, row.Clear)
		}
		p.Cleared = row.Clear
	case row.Copy != "" && p.Copied != row.Copy:
		to, err := v.engine(row.Copy, row.ID)
		if err == nil {
			err = v.copyTo(ctx, e, to, row.ID)
		}
		if err != nil {
			return fmt.Errorf("copy volume %s to the engine %s: %w", row.ID, row.Copy, err)
		}
		p.Copied = row.Copy
	default:
		return nil
	}
	return v.keep(row.ID, *p)
}

// take takes a volume away from an engine, which nobody has it open in.
func take(ctx context.Context, e block.Engine, id model.ID) error {
	if err := shut(ctx, e, id); err != nil {
		return err
	}
	if err := e.Remove(ctx, id); err != nil {
		return fmt.Errorf("remove volume %s: %w", id, err)
	}
	return nil
}

// shut ends what an engine keeps running for a volume, which nobody has open.
func shut(ctx context.Context, e block.Engine, id model.ID) error {
	c, ok := e.(block.Closer)
	if !ok {
		return nil
	}
	if err := c.Close(ctx, id); err != nil {
		return fmt.Errorf("close volume %s: %w", id, err)
	}
	return nil
}

// copyTo copies a volume, which nobody writes to, to another engine, and compares what is there with it. It begins anew where it was cut off.
func (v *volumeKeeper) copyTo(ctx context.Context, from, to block.Engine, id model.ID) error {
	if err := take(ctx, to, id); err != nil {
		return err
	}
	path := v.scratch(id)
	defer forget(path)
	size, want, err := exported(ctx, from, id, path)
	if err != nil {
		return err
	}
	if err := to.Make(ctx, id, size, block.Source{File: path, Format: "raw"}); err != nil {
		return err
	}
	there, got, err := exported(ctx, to, id, path)
	if err != nil {
		return err
	}
	if there != size || !slices.Equal(got, want) {
		return fault.New(fault.Conflict, "The copy of volume %s holds something else than the volume.", id)
	}
	return nil
}

// exported writes what a volume holds to the file path, and gives its size and sums.
func exported(ctx context.Context, e block.Engine, id model.ID, path string) (int64, []chunk.Sum, error) {
	if err := forget(path); err != nil {
		return 0, nil, err
	}
	if err := e.Export(ctx, id, "", "raw", path); err != nil {
		return 0, nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return 0, nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return 0, nil, err
	}
	sums, err := chunk.Sums(ctx, f)
	return st.Size(), sums, err
}
