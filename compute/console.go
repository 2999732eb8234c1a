package compute

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"time"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// Kinds of console.
const (
	ConsoleVNC    = "vnc"
	ConsoleSerial = "serial"
)

// NewConsole gives a token that opens a console of the server, ConsoleVNC or ConsoleSerial, for as long as
// Config.ConsoleTTL. Only its SHA-256 is kept.
//
// Errors: fault.NotFound; fault.Conflict where the server has no guest that runs; fault.Invalid for a container's screen.
func (c *Compute) NewConsole(tx *store.Tx, sc Scope, id model.ID, kind string) (string, *model.ConsoleToken, error) {
	s, err := Get(tx, sc, id)
	if err != nil {
		return "", nil, err
	}
	if s.Host == "" || s.Status.LaunchedAt.IsZero() && s.Status.Phase != model.PhaseStarting {
		return "", nil, fault.New(fault.Conflict, "Instance not yet ready")
	}
	if s.Container && kind == ConsoleVNC {
		return "", nil, fault.New(fault.Invalid, "Unavailable console type novnc: a container has no screen.")
	}
	switch state := State(s); state {
	case Active, Paused, Rescued, Building, Resized:
	default:
		return "", nil, fault.New(fault.Conflict, "Cannot 'get_%s_console' instance %s while it is in vm_state %s", kind, s.ID, state)
	}
	token := model.NewID()
	t := &model.ConsoleToken{Hash: consoleHash(token), ServerID: s.ID, ProjectID: s.ProjectID, Kind: kind, ExpiresAt: c.now().Add(c.cfg.ConsoleTTL)}
	return token, t, store.ConsoleTokens.Put(tx, t)
}

func consoleHash(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

// Console gives what a token opens, and the server; false where it opens nothing (any more).
func (c *Compute) Console(r store.Reader, token string) (*model.ConsoleToken, *model.Server, bool) {
	t, ok := store.ConsoleTokens.Get(r, consoleHash(token))
	if !ok || !c.now().Before(t.ExpiresAt) {
		return nil, nil, false
	}
	s, ok := store.Servers.Get(r, t.ServerID)
	if !ok || s.Deleted || s.ProjectID != t.ProjectID {
		return nil, nil, false
	}
	return t, s, true
}

// ExtendConsole lets a token live for at least d from now on: for a client whose console was cut off by
// no fault of its own. One that is gone stays so.
func (c *Compute) ExtendConsole(tx *store.Tx, hash string, d time.Duration) error {
	old, ok := store.ConsoleTokens.Get(tx, hash)
	until := c.now().Add(d)
	if !ok || !old.ExpiresAt.Before(until) {
		return nil
	}
	t := *old
	t.ExpiresAt = until
	return store.ConsoleTokens.Put(tx, &t)
}

// expired gives the tokens of consoles that open nothing any more, by batches.
func (p *Sweeper) expired(snap store.Snapshot) [][]string {
	var out []string
	now := p.c.now()
	for t := range store.ConsoleTokens.All(snap) {
		if !now.Before(t.ExpiresAt) {
			out = append(out, t.Hash)
		}
	}
	return slices.Collect(slices.Chunk(out, 256))
}
