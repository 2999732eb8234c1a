// Package model holds the nouns of the cloud: identity, images, compute, network, hosts,
// and the rows that a host is told. It is pure data and the rules that need nothing but
// the data itself. It imports only the standard library.
//
// A noun is stored as one row. What a user wants stands in the row's own fields (the
// spec, bumped Generation on every change of intent), what the cloud made of it in its
// Status. Times are UTC. Ids are UUIDs in their canonical lower-case form unless a type
// says otherwise. A row that was read from the store is shared by all its readers and is
// never changed in place: copy it, change the copy, put the copy.
package model

import (
	"crypto/rand"
	"encoding/hex"
	"math"
	"time"
)

// ID is the identifier of a row: a UUID in canonical form (RFC 9562) except where a
// type says otherwise (Keystone's own ids are 32 hex digits without dashes).
type ID = string

// NewID makes a random (version 4) UUID.
func NewID() ID {
	var b [16]byte
	rand.Read(b[:]) // never fails: crypto/rand aborts the program instead
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	h := hex.EncodeToString(b[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// NewHexID makes a random id of 32 hex digits, the form of Keystone's projects, users,
// domains and roles.
func NewHexID() ID {
	var b [16]byte
	rand.Read(b[:])
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return hex.EncodeToString(b[:])
}

// Meta is what most rows share.
type Meta struct {
	ID          ID        `json:"id"`
	ProjectID   ID        `json:"project_id,omitempty"`
	Name        string    `json:"name,omitempty"`
	Description string    `json:"description,omitempty"`
	Tags        []string  `json:"tags,omitempty"`
	CreatedAt   time.Time `json:"created_at"`
	UpdatedAt   time.Time `json:"updated_at"`
	// Generation counts the changes of intent, from 1; it is Neutron's revision_number.
	Generation int64 `json:"generation"`
}

// NewMeta makes the Meta of a new row: a random UUID, generation 1, both times now.
func NewMeta(project ID, name string, now time.Time) Meta {
	now = now.UTC()
	return Meta{ID: NewID(), ProjectID: project, Name: name, CreatedAt: now, UpdatedAt: now, Generation: 1}
}

// Touch records a change of intent.
func (m *Meta) Touch(now time.Time) { m.UpdatedAt = now.UTC(); m.Generation++ }

func newestFirst(created time.Time, id ID) string {
	const digits = 20
	b := make([]byte, digits, digits+len(id))
	for at, n := digits-1, uint64(math.MaxInt64-created.UnixMicro()); at >= 0; at, n = at-1, n/10 {
		b[at] = '0' + byte(n%10)
	}
	for at := range len(id) {
		b = append(b, 0x7f-id[at]&0x7f) // the other way round
	}
	return string(b)
}
