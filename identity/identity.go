// Package identity holds the rules of users, projects, domains, roles and tokens: who
// may authenticate, for what scope, with which roles, and what goes when a thing goes.
// It speaks no HTTP; api/keystone is its dialect.
//
// Tokens are signed and self-contained. Any server validates one without a look-up of
// the token: the signature says what was granted, and the snapshot in memory says
// whether it still holds (enabled, roles, revocations), so a change acts at once.
//
// Owns the tables Domains, Projects, Users, Groups, Roles, Assignments, IdentityRecords,
// Revocations and SigningKeys, and the settings whose names begin with "identity.".
// Imports fault, model and store; never api or a dialect.
package identity

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// Config makes an Identity.
type Config struct {
	Store *store.Store
	// Master is the cloud's master key, 32 random bytes that every server is given. The
	// signing keys and the secrets that must be read again are sealed under it.
	Master []byte
	// TokenTTL is how long a token lives; default 1 hour.
	TokenTTL time.Duration
	// KeyLife is how long a signing key signs before Run replaces it; default 7 days.
	KeyLife time.Duration
	// Hash says how passwords are hashed; zero: the recommendation of OWASP.
	Hash HashParams
	// Now is the clock; nil: time.Now.
	Now func() time.Time
	Log *slog.Logger
}

// Identity is the cloud's identity service.
type Identity struct {
	cfg   Config
	store *store.Store
	seal  *sealer
	keys  *keyring
	hash  *hasher
}

// New makes an Identity. It fails where Master does not have 32 bytes.
func New(cfg Config) (*Identity, error) {
	if cfg.TokenTTL == 0 {
		cfg.TokenTTL = time.Hour
	}
	if cfg.KeyLife == 0 {
		cfg.KeyLife = 7 * 24 * time.Hour
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	s, err := newSealer(cfg.Master)
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	return &Identity{cfg: cfg, store: cfg.Store, seal: s, keys: newKeyring(s), hash: newHasher(cfg.Hash)}, nil
}

func (i *Identity) now() time.Time { return i.cfg.Now().UTC() }

// Snapshot gives the state as this server has it.
func (i *Identity) Snapshot() store.Snapshot { return i.store.Snapshot() }

// notFound is Keystone's text for a thing that is not there.
func notFound(noun, id string) error {
	return fault.New(fault.NotFound, "Could not find %s: %s.", noun, id)
}

// forbidden is Keystone's text for what a rule forbids.
func forbidden(format string, args ...any) error { return fault.New(fault.Forbidden, format, args...) }

// duplicate turns a taken claim into Keystone's conflict; other errors pass.
func duplicate(err error, noun, what string) error {
	var taken *store.TakenError
	if errors.As(err, &taken) {
		return fault.Wrap(fault.Conflict, taken, "Conflict occurred attempting to store %s - Duplicate entry found with %s.", noun, what)
	}
	return err
}

func checkName(field, name string) error {
	switch {
	case strings.TrimSpace(name) == "":
		return fault.New(fault.Invalid, "Invalid input for field '%s': it must not be empty.", field)
	case len([]rune(name)) > 255:
		return fault.New(fault.Invalid, "Invalid input for field '%s': '%s…' is too long (255 characters at most).", field, string([]rune(name)[:32]))
	case strings.ContainsRune(name, 0):
		return fault.New(fault.Invalid, "Invalid input for field '%s': it holds a NUL character.", field)
	}
	return nil
}

// immutable tells whether the resource option "immutable" protects the thing.
func immutable(options map[string]any) bool { on, _ := options["immutable"].(bool); return on }

// loosens tells whether a change does nothing but take away the immutable option.
func loosens(before, after map[string]any) bool { return immutable(before) && !immutable(after) }

func refuseImmutable(verb, noun, id string) error {
	return forbidden("Unable to %s immutable %s resource: `%s. Set resource option \"immutable\" to false first.", verb, noun, id)
}

// sweepBudget is how many rows one transaction of a removal deletes; a row costs up
// to four keys with its claim and guard, and store.MaxOps bounds the keys.
const sweepBudget = 200

// sweep deletes what hangs on a thing, as much as one transaction may hold.
type sweep struct {
	tx   *store.Tx
	left int
}

// errSwept says that a sweep stopped because its transaction is full.
var errSwept = errors.New("the transaction is full")

func sweepRow[T any](s *sweep, t *store.Table[T], key string) error {
	if s.left <= 0 {
		return errSwept
	}
	s.left--
	return t.Delete(s.tx, key)
}

// removeAll runs f until it deletes everything in one transaction; where too much hangs
// on the thing for that, earlier transactions take away parts of it.
func (i *Identity) removeAll(ctx context.Context, f func(*sweep) error) error {
	for {
		full := false
		_, err := i.store.Update(ctx, func(tx *store.Tx) error {
			err := f(&sweep{tx: tx, left: sweepBudget})
			if full = errors.Is(err, errSwept); full {
				return nil
			}
			return err
		})
		if err != nil || !full {
			return err
		}
	}
}

// mark and guard keep an addition from slipping past a removal: whoever hangs something
// on a thing marks it, whoever removes the thing guards it.
func mark(tx *store.Tx, ids ...model.ID) {
	for _, id := range ids {
		if id != "" {
			tx.Mark("identity," + id)
		}
	}
}

func guard(tx *store.Tx, id model.ID) { tx.Guard("identity," + id) }

func unmark(tx *store.Tx, id model.ID) { tx.Unmark("identity," + id) }
