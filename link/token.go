package link

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"strings"
	"time"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// ServerName is the name in every server's certificate: hosts trust the authority and
// this name, so that servers may have any address.
const ServerName = "yakumo-server"

func sum(b []byte) string { h := sha256.Sum256(b); return hex.EncodeToString(h[:]) }

// NewJoinToken makes a token that lets one host join once, until ttl has passed. hostName
// binds it to that name, which also lets a host of the name join again; "" is any new
// host. The token is <id>.<secret>.<SHA-256 of the authority's certificate>: the last part
// lets the host know the servers before it trusts them. Only a hash of it is stored.
//
// Errors: fault.Invalid for a name that no host can have.
func NewJoinToken(ctx context.Context, st *store.Store, a *Authority, hostName string, ttl time.Duration, now time.Time) (string, error) {
	if hostName != "" && !goodHostName(hostName) {
		return "", fault.New(fault.Invalid, "The host name %q cannot be used: letters, digits, '.', '-' and '_', at most 255.", hostName)
	}
	secret := make([]byte, 24)
	rand.Read(secret)
	s := base64.RawURLEncoding.EncodeToString(secret)
	t := &model.JoinToken{ID: model.NewHexID()[:16], Hash: sum([]byte(s)), HostName: hostName, ExpiresAt: now.UTC().Add(ttl)}
	if _, err := st.Update(ctx, func(tx *store.Tx) error {
		for old := range store.JoinTokens.All(tx) {
			if old.ExpiresAt.Before(now.Add(-24 * time.Hour)) {
				if err := store.JoinTokens.Delete(tx, old.ID); err != nil {
					return err
				}
			}
		}
		return store.JoinTokens.Put(tx, t)
	}); err != nil {
		return "", err
	}
	return t.ID + "." + s + "." + a.Fingerprint(), nil
}

// splitToken gives the part that is sent and the authority's fingerprint.
func splitToken(token string) (send, fingerprint string, err error) {
	parts := strings.Split(strings.TrimSpace(token), ".")
	malformed := fault.New(fault.Invalid, "The join token is malformed. Make one with: yakumo host token.")
	if len(parts) != 3 || parts[0] == "" || parts[1] == "" {
		return "", "", malformed
	}
	if raw, err := hex.DecodeString(parts[2]); err != nil || len(raw) != sha256.Size {
		return "", "", malformed
	}
	return parts[0] + "." + parts[1], strings.ToLower(parts[2]), nil
}

// goodHostName tells whether a host may have the name: it stands in claims, logs and DNS.
func goodHostName(s string) bool {
	if s == "" || len(s) > 255 {
		return false
	}
	for _, c := range []byte(s) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '-', c == '_':
		default:
			return false
		}
	}
	return true
}

// spend checks the token and registers the host, in one transaction. key is the hash of
// the public key that is to be certified: a host that lost the answer may ask again.
func (s *Server) spend(ctx context.Context, token, hostName, key string) (model.ID, error) {
	id, secret, _ := strings.Cut(token, ".")
	if !goodHostName(hostName) {
		return "", fault.New(fault.Invalid, "The host name %q cannot be used: letters, digits, '.', '-' and '_', at most 255.", hostName)
	}
	refused := fault.New(fault.Unauthorized, "The join token is not valid: unknown, used or expired. Make a new one with: yakumo host token.")
	var host model.ID
	_, err := s.cfg.Store.Update(ctx, func(tx *store.Tx) error {
		now := s.cfg.Now().UTC()
		t, ok := store.JoinTokens.Get(tx, id)
		if !ok || subtle.ConstantTimeCompare([]byte(t.Hash), []byte(sum([]byte(secret)))) != 1 || now.After(t.ExpiresAt) {
			return refused
		}
		if t.HostName != "" && t.HostName != hostName {
			return fault.New(fault.Forbidden, "The join token is for the host %s, not for %s.", t.HostName, hostName)
		}
		if t.UsedBy != "" {
			if t.UsedKey != key {
				return refused
			}
			host = t.UsedBy
			return nil
		}
		old, exists := store.Hosts.Claimed(tx, hostName)
		switch {
		case exists && t.HostName == "":
			return fault.New(fault.Conflict, "A host named %s has joined already. If it is this machine, make a token for it with: yakumo host token --host %s", hostName, hostName)
		case exists:
			host = old.ID
		default:
			h := &model.Host{Meta: model.NewMeta("", hostName, now), Zone: "nova"}
			host = h.ID
			if err := store.Hosts.Put(tx, h); err != nil {
				return err
			}
		}
		spent := *t
		spent.UsedBy, spent.UsedAt, spent.UsedKey = host, now, key
		return store.JoinTokens.Put(tx, &spent)
	})
	return host, err
}
