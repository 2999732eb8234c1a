package identity

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"sync"
	"time"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// signingKey is an opened signing key.
type signingKey struct {
	id     keyID
	secret []byte
}

// keyring opens signing keys and remembers the open ones. What may sign and what may
// validate is read from the snapshot each time.
type keyring struct {
	seal *sealer
	mu   sync.RWMutex
	open map[string]*signingKey // by row id and sealed bytes
}

func newKeyring(s *sealer) *keyring { return &keyring{seal: s, open: map[string]*signingKey{}} }

func (k *keyring) unseal(row *model.SigningKey) (*signingKey, error) {
	name := row.ID + "," + string(row.Sealed)
	k.mu.RLock()
	key := k.open[name]
	k.mu.RUnlock()
	if key != nil {
		return key, nil
	}
	secret, err := k.seal.open("signing_key,"+row.ID, row.Sealed)
	if err != nil {
		return nil, fmt.Errorf("signing key %s: %w", row.ID, err)
	}
	key = &signingKey{secret: secret}
	if n, err := hex.Decode(key.id[:], []byte(row.ID)); err != nil || n != len(key.id) {
		return nil, fmt.Errorf("signing key %q: the id is not 8 hexadecimal digits", row.ID)
	}
	k.mu.Lock()
	k.open[name] = key
	k.mu.Unlock()
	return key, nil
}

// signer gives the newest key that may sign.
func (k *keyring) signer(r store.Reader) (*signingKey, error) {
	var best *model.SigningKey
	for row := range store.SigningKeys.All(r) {
		if row.RetiredAt.IsZero() && (best == nil || row.CreatedAt.After(best.CreatedAt)) {
			best = row
		}
	}
	if best == nil {
		return nil, fault.New(fault.Unavailable, "The cloud has no signing key yet. Try again.")
	}
	return k.unseal(best)
}

// verify tells whether mac signs the bytes under a key that is still known.
func (k *keyring) verify(r store.Reader, id keyID, signed, mac []byte) (bool, error) {
	row, ok := store.SigningKeys.Get(r, hex.EncodeToString(id[:]))
	if !ok {
		return false, nil
	}
	key, err := k.unseal(row)
	if err != nil {
		return false, err
	}
	m := hmac.New(sha256.New, key.secret)
	m.Write(signed)
	var sum [sha256.Size]byte
	return hmac.Equal(m.Sum(sum[:0]), mac), nil
}

func (i *Identity) newKey(now time.Time) *model.SigningKey {
	var id keyID
	rand.Read(id[:])
	secret := make([]byte, 32)
	rand.Read(secret)
	name := hex.EncodeToString(id[:])
	return &model.SigningKey{ID: name, Sealed: i.seal.close("signing_key,"+name, secret), CreatedAt: now}
}

// Rotate makes a new signing key. The keys before it sign no more and validate until
// every token that they signed has expired; then Tidy deletes them.
func (i *Identity) Rotate(ctx context.Context) error { return i.rotate(ctx, 0) }

// rotate is Rotate where the newest key is older than age.
func (i *Identity) rotate(ctx context.Context, age time.Duration) error {
	now := i.now()
	fresh := i.newKey(now)
	_, err := i.store.Update(ctx, func(tx *store.Tx) error {
		tx.Guard("identity-rotate") // two servers that rotate at once make one key
		var live []*model.SigningKey
		for row := range store.SigningKeys.All(tx) {
			if row.RetiredAt.IsZero() {
				if age > 0 && now.Sub(row.CreatedAt) < age {
					return nil
				}
				live = append(live, row)
			}
		}
		for _, row := range live {
			old := *row
			old.RetiredAt = now
			if err := store.SigningKeys.Put(tx, &old); err != nil {
				return err
			}
		}
		tx.Mark("identity-rotate")
		return store.SigningKeys.Put(tx, fresh)
	})
	if err != nil {
		return fmt.Errorf("rotate the signing key: %w", err)
	}
	return nil
}

// skew is by how much the servers' clocks may differ.
const skew = 5 * time.Minute

// Tidy deletes what time has made worthless: revocations of tokens that have expired,
// retired keys that no living token names, request tokens that were not used.
func (i *Identity) Tidy(ctx context.Context) error {
	now := i.now()
	return i.removeAll(ctx, func(s *sweep) error {
		for _, row := range collect(store.Revocations.All(s.tx)) {
			if now.After(row.ExpiresAt.Add(skew)) {
				if err := sweepRow(s, store.Revocations, row.AuditID); err != nil {
					return err
				}
			}
		}
		for _, row := range collect(store.SigningKeys.All(s.tx)) {
			if !row.RetiredAt.IsZero() && now.After(row.RetiredAt.Add(i.cfg.TokenTTL+skew)) {
				if err := sweepRow(s, store.SigningKeys, row.ID); err != nil {
					return err
				}
			}
		}
		for _, row := range collect(store.IdentityRecords.List(s.tx, "collection", RequestTokens)) {
			if now.After(row.ExpiresAt) {
				if err := sweepRow(s, store.IdentityRecords, row.Key()); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// Run rotates the signing key and tidies until ctx ends. Every server may run it.
func (i *Identity) Run(ctx context.Context) {
	t := time.NewTicker(10 * time.Minute)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		if err := i.rotate(ctx, i.cfg.KeyLife); err != nil && ctx.Err() == nil {
			i.cfg.Log.Warn("the signing key was not rotated", "err", err)
		}
		if err := i.Tidy(ctx); err != nil && ctx.Err() == nil {
			i.cfg.Log.Warn("expired identity rows were not deleted", "err", err)
		}
	}
}
