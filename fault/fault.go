// Package fault names the kinds of error that a user of Yakumo may meet, and keeps
// what the user may read apart from the cause that only an operator may read.
//
// Every layer below the API returns ordinary wrapped errors; where the reason is the
// caller's business it makes a *fault.Error. Only the API dialects turn a Kind into a
// status code and an error body. The package imports nothing of the project.
package fault

import (
	"errors"
	"fmt"
)

// Kind says what went wrong in terms that every dialect can turn into a status.
type Kind uint8

// The kinds. Internal is the kind of every error that does not say otherwise.
const (
	Internal       Kind = iota // our defect or a broken peer: 500
	Invalid                    // the request is malformed or breaks a rule: 400
	Unauthorized               // no valid credentials: 401
	Forbidden                  // valid credentials, not allowed: 403
	NotFound                   // no such thing, or not the caller's to see: 404
	Conflict                   // the state of a thing forbids it, or a name is taken: 409
	OverQuota                  // a quota or a pool is used up: 403, 409 or 413 by dialect
	TooLarge                   // the body is larger than allowed: 413
	Gone                       // it existed and does not any more: 410
	Unsupported                // a media type or a version that is not served: 406 or 415
	Precondition               // a stale If-Match or revision: 412
	Unavailable                // try again: no host, no leader, no store: 503
	NotAcceptable              // no representation the client accepts: 406
	NotImplemented             // known to the dialect, not offered: 501
)

var kindNames = [...]string{
	"internal", "invalid", "unauthorized", "forbidden", "not found", "conflict", "over quota", "too large",
	"gone", "unsupported", "precondition failed", "unavailable", "not acceptable", "not implemented",
}

// String gives the kind's name in lower case.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Error is an error with a kind and a text that its user may read.
type Error struct {
	Kind Kind
	// Code is the dialect's own name for the error where it has one, such as Neutron's
	// "IpAddressAlreadyAllocated"; empty otherwise.
	Code string
	// Text is a whole sentence for the user. It never holds a secret or a host's name.
	Text string
	// Cause is what lies below; operators see it in the log, users do not.
	Cause error
}

// Error gives the user's text, and the cause behind a colon where there is one.
func (e *Error) Error() string {
	if e.Cause != nil {
		return e.Text + ": " + e.Cause.Error()
	}
	return e.Text
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Cause }

// New makes an error of kind k whose text is format filled with args.
func New(k Kind, format string, args ...any) *Error {
	return &Error{Kind: k, Text: fmt.Sprintf(format, args...)}
}

// Coded is New with the dialect's own name for the error.
func Coded(k Kind, code, format string, args ...any) *Error {
	return &Error{Kind: k, Code: code, Text: fmt.Sprintf(format, args...)}
}

// Wrap is New around a cause.
func Wrap(k Kind, cause error, format string, args ...any) *Error {
	return &Error{Kind: k, Text: fmt.Sprintf(format, args...), Cause: cause}
}

// KindOf gives the kind of the first *Error in err's chain, Internal where there is none.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return Internal
}

// Is tells whether err is of kind k.
func Is(err error, k Kind) bool {
	var e *Error
	return errors.As(err, &e) && e.Kind == k
}

// Text gives what the user may read of err, and false where nothing in it is for the user.
func Text(err error) (string, bool) {
	var e *Error
	if errors.As(err, &e) && e.Kind != Internal {
		return e.Text, true
	}
	return "", false
}

// CodeOf gives the dialect's name of the first *Error in err's chain, or "".
func CodeOf(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}
