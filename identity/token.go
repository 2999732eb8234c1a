package identity

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"strings"
	"time"

	"yakumo/model"
)

// Methods is the set of ways in which a token's user authenticated.
type Methods uint8

// The methods.
const (
	MethodPassword Methods = 1 << iota
	MethodToken
	MethodAppCredential
	MethodOAuth1
	MethodEC2
	methodsEnd
)

var methodNames = [...]string{"password", "token", "application_credential", "oauth1", "ec2credential"}

// Names gives the methods' names in Keystone.
func (m Methods) Names() []string {
	var out []string
	for i, n := range methodNames {
		if m&(1<<i) != 0 {
			out = append(out, n)
		}
	}
	return out
}

// ScopeKind is what a token is good for.
type ScopeKind uint8

// The kinds of scope.
const (
	Unscoped ScopeKind = iota
	ProjectScope
	DomainScope
	SystemScope
	scopeKindEnd
)

// Scope is what a token is good for; ID is that of the project or domain.
type Scope struct {
	Kind ScopeKind
	ID   model.ID
}

// ViaKind is what a token's rights were delegated by.
type ViaKind uint8

// The kinds of delegation.
const (
	ViaNothing ViaKind = iota
	ViaAppCredential
	ViaTrust
	ViaAccessToken
	viaKindEnd
)

// AuditID names a token in logs and revocations without giving it away.
type AuditID [16]byte

// String is Keystone's form: base64 for URLs without padding.
func (a AuditID) String() string { return base64.RawURLEncoding.EncodeToString(a[:]) }

func newAuditID() AuditID {
	var a AuditID
	rand.Read(a[:])
	return a
}

// Claims is what a token says. Times have microseconds.
type Claims struct {
	UserID    model.ID
	Scope     Scope
	Methods   Methods
	Via       ViaKind
	ViaID     model.ID
	IssuedAt  time.Time
	ExpiresAt time.Time
	Audit     AuditID
	Root      AuditID // of the first token of the chain; zero where this is the first
}

// AuditIDs gives the token's audit id and the chain's where that is another.
func (c *Claims) AuditIDs() []string {
	if c.Root == (AuditID{}) {
		return []string{c.Audit.String()}
	}
	return []string{c.Audit.String(), c.Root.String()}
}

// A token is the base64 (for URLs, without padding) of
//
//	1 byte   version, 1
//	4 bytes  id of the signing key
//	1 byte   methods
//	1 byte   scope kind << 4 | via kind << 1 | 1 where a root audit id follows
//	id       user
//	id       project or domain, where the scope has one
//	id       of the delegation, where there is one
//	uvarint  issued, microseconds since 1970
//	uvarint  life, microseconds
//	16 bytes audit id
//	16 bytes audit id of the chain's root, where there is one
//	32 bytes HMAC-SHA-256 of all that
//
// An id is a byte of its length and its bytes, or a zero byte and 16 bytes of which it is
// the hexadecimal form. Every claim has exactly one encoding.
const tokenVersion = 1

const maxToken = 1024 // characters; ids have at most 255 bytes

// keyID is the first part of a signing key's id.
type keyID [4]byte

var errToken = errors.New("not a token")

func appendID(b []byte, id string) []byte {
	if len(id) == 32 && strings.ToLower(id) == id {
		var raw [16]byte
		if _, err := hex.Decode(raw[:], []byte(id)); err == nil {
			return append(append(b, 0), raw[:]...)
		}
	}
	return append(append(b, byte(len(id))), id...)
}

func (c *Claims) encode(b []byte, key keyID) []byte {
	b = append(b, tokenVersion)
	b = append(b, key[:]...)
	kinds := byte(c.Scope.Kind)<<4 | byte(c.Via)<<1
	if c.Root != (AuditID{}) {
		kinds |= 1
	}
	b = append(b, byte(c.Methods), kinds)
	b = appendID(b, c.UserID)
	if c.Scope.Kind == ProjectScope || c.Scope.Kind == DomainScope {
		b = appendID(b, c.Scope.ID)
	}
	if c.Via != ViaNothing {
		b = appendID(b, c.ViaID)
	}
	b = binary.AppendUvarint(b, uint64(c.IssuedAt.UnixMicro()))
	b = binary.AppendUvarint(b, uint64(c.ExpiresAt.Sub(c.IssuedAt)/time.Microsecond))
	b = append(b, c.Audit[:]...)
	if kinds&1 != 0 {
		b = append(b, c.Root[:]...)
	}
	return b
}

// cursor reads a token's bytes; bad is set once something does not fit.
type cursor struct {
	b   []byte
	bad bool
}

func (r *cursor) bytes(n int) []byte {
	if r.bad || len(r.b) < n {
		r.bad = true
		return make([]byte, n)
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

func (r *cursor) id() string {
	n := int(r.bytes(1)[0])
	if n == 0 {
		return hex.EncodeToString(r.bytes(16))
	}
	id := string(r.bytes(n))
	if n == 32 && strings.ToLower(id) == id {
		if _, err := hex.DecodeString(id); err == nil {
			r.bad = true // has a shorter encoding
		}
	}
	return id
}

func (r *cursor) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if r.bad || n <= 0 || n > 1 && r.b[n-1] == 0 {
		r.bad = true
		return 0
	}
	r.b = r.b[n:]
	return v
}

// decodeClaims reads a token's bytes before the signature.
func decodeClaims(b []byte) (Claims, keyID, error) {
	r := &cursor{b: b}
	var c Claims
	var key keyID
	if r.bytes(1)[0] != tokenVersion {
		return c, key, errToken
	}
	copy(key[:], r.bytes(4))
	c.Methods = Methods(r.bytes(1)[0])
	kinds := r.bytes(1)[0]
	c.Scope.Kind, c.Via = ScopeKind(kinds>>4), ViaKind(kinds>>1&7)
	if c.Methods >= methodsEnd || c.Scope.Kind >= scopeKindEnd || c.Via >= viaKindEnd {
		return c, key, errToken
	}
	c.UserID = r.id()
	if c.Scope.Kind == ProjectScope || c.Scope.Kind == DomainScope {
		c.Scope.ID = r.id()
	}
	if c.Via != ViaNothing {
		c.ViaID = r.id()
	}
	issued, life := r.uvarint(), r.uvarint()
	if issued > 1<<53 || life > 1<<53 {
		return c, key, errToken
	}
	c.IssuedAt = time.UnixMicro(int64(issued)).UTC()
	c.ExpiresAt = c.IssuedAt.Add(time.Duration(min(life, 1<<63/1000)) * time.Microsecond)
	copy(c.Audit[:], r.bytes(16))
	if kinds&1 != 0 {
		copy(c.Root[:], r.bytes(16))
		if c.Root == (AuditID{}) {
			r.bad = true
		}
	}
	if r.bad || len(r.b) != 0 {
		return c, key, errToken
	}
	return c, key, nil
}

var tokenText = base64.RawURLEncoding.Strict()

// signToken makes the token's text.
func signToken(c *Claims, key *signingKey) string {
	b := c.encode(make([]byte, 0, 192), key.id)
	m := hmac.New(sha256.New, key.secret)
	m.Write(b)
	return tokenText.EncodeToString(m.Sum(b))
}

// parseToken splits a token's text in claims, what was signed, and the signature.
func parseToken(text string) (c Claims, key keyID, signed, mac []byte, err error) {
	if len(text) > maxToken {
		return c, key, nil, nil, errToken
	}
	b, err := tokenText.DecodeString(text)
	if err != nil || len(b) < sha256.Size {
		return c, key, nil, nil, errToken
	}
	signed, mac = b[:len(b)-sha256.Size], b[len(b)-sha256.Size:]
	c, key, err = decodeClaims(signed)
	return c, key, signed, mac, err
}
