package identity

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"runtime"
	"strings"

	"golang.org/x/crypto/argon2"

	"yakumo/fault"
)

// HashParams says what a password hash costs (RFC 9106, section 3.1).
type HashParams struct {
	MemoryKiB   uint32 // default 19456: 19 MiB, the OWASP password storage recommendation with 2 passes
	Passes      uint32 // default 2
	Concurrency int    // hashes at the same time; default the number of processors
}

// maxPassword is the longest password in bytes.
const maxPassword = 4096

// hasher hashes and verifies secrets. At most Concurrency run at once, so that a storm of
// logins takes that many times MemoryKiB and no more; the others wait.
type hasher struct {
	p     HashParams
	slots chan struct{}
	dummy string // a hash of nothing, verified where there is no user, so that time tells nothing
}

func newHasher(p HashParams) *hasher {
	if p.MemoryKiB == 0 {
		p.MemoryKiB = 19456
	}
	if p.Passes == 0 {
		p.Passes = 2
	}
	if p.Concurrency == 0 {
		p.Concurrency = runtime.GOMAXPROCS(0)
	}
	h := &hasher{p: p, slots: make(chan struct{}, p.Concurrency)}
	salt, sum := make([]byte, 16), make([]byte, 32)
	rand.Read(salt)
	rand.Read(sum)
	h.dummy = phc(p.MemoryKiB, p.Passes, salt, sum)
	return h
}

// phc writes the hash in the PHC string format.
func phc(memory, passes uint32, salt, sum []byte) string {
	b := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=1$%s$%s", argon2.Version, memory, passes, b.EncodeToString(salt), b.EncodeToString(sum))
}

func (h *hasher) run(ctx context.Context, password, salt []byte, memory, passes, size uint32) ([]byte, error) {
	select {
	case h.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, fault.Wrap(fault.Unavailable, ctx.Err(), "Too many logins at once. Try again.")
	}
	defer func() { <-h.slots }()
	return argon2.IDKey(password, salt, passes, memory, 1, size), nil
}

// hash gives the PHC string of a password.
func (h *hasher) hash(ctx context.Context, password string) (string, error) {
	if len(password) > maxPassword {
		return "", fault.New(fault.Invalid, "Invalid input for field 'password': it is longer than %d bytes.", maxPassword)
	}
	salt := make([]byte, 16)
	rand.Read(salt)
	sum, err := h.run(ctx, []byte(password), salt, h.p.MemoryKiB, h.p.Passes, 32)
	if err != nil {
		return "", err
	}
	return phc(h.p.MemoryKiB, h.p.Passes, salt, sum), nil
}

// verify tells whether the password is the hashed one. An empty hash costs the same as a
// wrong password.
func (h *hasher) verify(ctx context.Context, hash, password string) (bool, error) {
	if rest, ok := strings.CutPrefix(hash, fastPrefix); ok {
		sum := sha256.Sum256([]byte(password))
		return subtle.ConstantTimeCompare([]byte(base64.RawStdEncoding.EncodeToString(sum[:])), []byte(rest)) == 1, nil
	}
	known := hash != ""
	if !known {
		hash = h.dummy
	}
	if len(password) > maxPassword {
		known, password = false, password[:maxPassword]
	}
	memory, passes, salt, want, err := parsePHC(hash)
	if err != nil {
		return false, err
	}
	got, err := h.run(ctx, []byte(password), salt, memory, passes, uint32(len(want)))
	if err != nil {
		return false, err
	}
	return subtle.ConstantTimeCompare(got, want) == 1 && known, nil
}

// fastPrefix marks the hash of a secret that we made of 32 random bytes: nobody guesses
// it, so that a slow hash would only slow its owner.
const fastPrefix = "$sha256$"

func fastHash(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return fastPrefix + base64.RawStdEncoding.EncodeToString(sum[:])
}

// randomSecret makes a secret of 32 random bytes.
func randomSecret() string {
	b := make([]byte, 32)
	rand.Read(b)
	return base64.RawURLEncoding.EncodeToString(b)
}

var errPHC = errors.New("a password hash is not in the PHC format of argon2id")

func parsePHC(s string) (memory, passes uint32, salt, sum []byte, err error) {
	f := strings.Split(s, "$")
	if len(f) != 6 || f[0] != "" || f[1] != "argon2id" || f[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return 0, 0, nil, nil, errPHC
	}
	var lanes uint32
	if n, err := fmt.Sscanf(f[3], "m=%d,t=%d,p=%d", &memory, &passes, &lanes); err != nil || n != 3 || lanes != 1 || passes == 0 || passes > 64 || memory > 1<<20 {
		return 0, 0, nil, nil, errPHC
	}
	if salt, err = base64.RawStdEncoding.DecodeString(f[4]); err != nil || len(salt) < 8 {
		return 0, 0, nil, nil, errPHC
	}
	if sum, err = base64.RawStdEncoding.DecodeString(f[5]); err != nil || len(sum) < 16 || len(sum) > 64 {
		return 0, 0, nil, nil, errPHC
	}
	return memory, passes, salt, sum, nil
}
