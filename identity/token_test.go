package identity

import (
	"bytes"
	"context"
	"encoding/base64"
	"testing"
	"time"

	"pgregory.net/rapid"

	"yakumo/fault"
	"yakumo/model"
)

func genClaims(t *rapid.T) Claims {
	id := rapid.OneOf(rapid.StringMatching(`[0-9a-f]{32}`), rapid.StringN(1, 60, 255), rapid.StringMatching(`[0-9A-Fa-f]{32}`))
	c := Claims{
		UserID:   id.Draw(t, "user"),
		Scope:    Scope{Kind: ScopeKind(rapid.IntRange(0, int(scopeKindEnd)-1).Draw(t, "scope"))},
		Methods:  Methods(rapid.IntRange(0, int(methodsEnd)-1).Draw(t, "methods")),
		Via:      ViaKind(rapid.IntRange(0, int(viaKindEnd)-1).Draw(t, "via")),
		IssuedAt: time.UnixMicro(rapid.Int64Range(0, 1<<52).Draw(t, "issued")).UTC(),
	}
	if c.Scope.Kind == ProjectScope || c.Scope.Kind == DomainScope {
		c.Scope.ID = id.Draw(t, "scope id")
	}
	if c.Via != ViaNothing {
		c.ViaID = id.Draw(t, "via id")
	}
	c.ExpiresAt = c.IssuedAt.Add(time.Duration(rapid.Int64Range(0, 1<<40).Draw(t, "life")) * time.Microsecond)
	copy(c.Audit[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "audit"))
	if rapid.Bool().Draw(t, "chain") {
		copy(c.Root[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "root"))
	}
	return c
}

func TestTokenRoundTrip(t *testing.T) {
	key := &signingKey{id: keyID{1, 2, 3, 4}, secret: bytes.Repeat([]byte{5}, 32)}
	rapid.Check(t, func(t *rapid.T) {
		want := genClaims(t)
		text := signToken(&want, key)
		got, id, _, _, err := parseToken(text)
		if err != nil || id != key.id {
			t.Fatalf("parse %s: %v", text, err)
		}
		if got != want {
			t.Fatalf("got %+v\nwant %+v", got, want)
		}
	})
}

func TestEveryChangedBitSpoilsAToken(t *testing.T) {
	s, err := newSealer(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	i := &Identity{seal: s, keys: newKeyring(s)}
	row := i.newKey(time.Now())
	key, err := i.keys.unseal(row)
	if err != nil {
		t.Fatal(err)
	}
	c := Claims{UserID: model.NewHexID(), Methods: MethodPassword, Scope: Scope{ProjectScope, model.NewHexID()},
		IssuedAt: time.Unix(1e9, 0).UTC(), ExpiresAt: time.Unix(1e9+3600, 0).UTC(), Audit: newAuditID()}
	raw, err := tokenText.DecodeString(signToken(&c, key))
	if err != nil {
		t.Fatal(err)
	}
	for bit := range len(raw) * 8 {
		spoiled := bytes.Clone(raw)
		spoiled[bit/8] ^= 1 << (bit % 8)
		_, id, signed, sum, err := parseToken(tokenText.EncodeToString(spoiled))
		if err != nil || id != key.id {
			continue
		}
		if bytes.Equal(mac32(key.secret, signed), sum) {
			t.Fatalf("bit %d can be changed", bit)
		}
	}
}

func TestSealedSecretsStayInTheirPlace(t *testing.T) {
	s, err := newSealer(bytes.Repeat([]byte{1}, 32))
	if err != nil {
		t.Fatal(err)
	}
	other, err := newSealer(bytes.Repeat([]byte{2}, 32))
	if err != nil {
		t.Fatal(err)
	}
	sealed := s.close("here", []byte("secret"))
	if got, err := s.open("here", sealed); err != nil || string(got) != "secret" {
		t.Fatalf("open: %q, %v", got, err)
	}
	if bytes.Contains(sealed, []byte("secret")) {
		t.Error("the secret can be read")
	}
	for name, open := range map[string]func() ([]byte, error){
		"elsewhere":          func() ([]byte, error) { return s.open("there", sealed) },
		"another master key": func() ([]byte, error) { return other.open("here", sealed) },
		"cut":                func() ([]byte, error) { return s.open("here", sealed[:10]) },
		"damaged":            func() ([]byte, error) { return s.open("here", append(bytes.Clone(sealed[:20]), 0)) },
	} {
		if got, err := open(); err == nil {
			t.Errorf("%s: opened %q", name, got)
		}
	}
	if _, err := newSealer([]byte("short")); err == nil {
		t.Error("a short master key was taken")
	}
}

func TestPasswordHashes(t *testing.T) {
	h := newHasher(HashParams{MemoryKiB: 64, Passes: 1})
	hash, err := h.hash(t.Context(), "right")
	if err != nil {
		t.Fatal(err)
	}
	again, err := h.hash(t.Context(), "right")
	if err != nil || again == hash {
		t.Errorf("two hashes of one password are the same (%v)", err)
	}
	for _, c := range []struct {
		hash, password string
		want           bool
	}{{hash, "right", true}, {hash, "wrong", false}, {hash, "", false}, {"", "", false}, {"", "right", false}, {hash, string(make([]byte, 5000)), false},
		{fastHash("s"), "s", true}, {fastHash("s"), "t", false}} {
		if got, err := h.verify(t.Context(), c.hash, c.password); err != nil || got != c.want {
			t.Errorf("verify(%q, %.8q) = %v, %v", c.hash, c.password, got, err)
		}
	}
	for _, bad := range []string{"plain", "$argon2i$v=19$m=64,t=1,p=1$AAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAA", "$argon2id$v=19$m=64,t=0,p=1$AAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAA", "$argon2id$v=19$m=64,t=1,p=1$$"} {
		if ok, err := h.verify(t.Context(), bad, "x"); ok || err == nil {
			t.Errorf("verify with the hash %q: %v, %v", bad, ok, err)
		}
	}
	if _, err := h.hash(t.Context(), string(make([]byte, 5000))); err == nil {
		t.Error("a password of 5000 bytes was taken")
	}
}

// A storm of logins waits for its turn instead of taking memory, and gives up with its caller.
func TestHashesWaitForASlot(t *testing.T) {
	h := newHasher(HashParams{MemoryKiB: 64, Passes: 1, Concurrency: 1})
	h.slots <- struct{}{}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := h.hash(ctx, "x"); !fault.Is(err, fault.Unavailable) {
		t.Errorf("with every slot taken: %v", err)
	}
	if _, err := h.verify(ctx, "", "x"); !fault.Is(err, fault.Unavailable) {
		t.Errorf("with every slot taken: %v", err)
	}
	done := make(chan error)
	go func() { _, err := h.hash(t.Context(), "x"); done <- err }()
	<-h.slots
	if err := <-done; err != nil {
		t.Error(err)
	}
	if len(h.slots) != 0 {
		t.Error("a slot was not given back")
	}
}

func FuzzToken(f *testing.F) {
	key := &signingKey{id: keyID{1, 2, 3, 4}, secret: bytes.Repeat([]byte{5}, 32)}
	for _, c := range []Claims{
		{UserID: "u", IssuedAt: time.UnixMicro(1), ExpiresAt: time.UnixMicro(2)},
		{UserID: model.NewHexID(), Methods: MethodPassword | MethodToken, Scope: Scope{ProjectScope, model.NewHexID()}, Via: ViaTrust, ViaID: "t",
			IssuedAt: time.UnixMicro(1e15), ExpiresAt: time.UnixMicro(2e15), Audit: newAuditID(), Root: newAuditID()},
		{UserID: "default", Scope: Scope{Kind: SystemScope}, IssuedAt: time.UnixMicro(1), ExpiresAt: time.UnixMicro(1)},
	} {
		f.Add(signToken(&c, key))
	}
	f.Add("")
	f.Add("AQ")
	f.Add(base64.RawURLEncoding.EncodeToString(make([]byte, 64)))
	f.Fuzz(func(t *testing.T, text string) {
		c, id, signed, sum, err := parseToken(text)
		if err != nil {
			return
		}
		// Each token has one form: whatever is read is written back the same.
		if again := tokenText.EncodeToString(append(c.encode(nil, id), sum...)); again != text {
			t.Fatalf("read %q, wrote %q (%+v, %x)", text, again, c, signed)
		}
	})
}
