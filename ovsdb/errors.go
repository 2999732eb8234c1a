package ovsdb

import "fmt"

// A Code is the word that the protocol has for an error. It is an error itself, so that
// errors.Is(err, ovsdb.ConstraintViolation) asks for it.
type Code string

// Error gives the word.
func (c Code) Error() string { return string(c) }

// The codes (RFC 7047, 3.1, 4.1, 5.2 and ovsdb-server(7)).
const (
	ConstraintViolation Code = "constraint violation"            // a value, a unique index or a number of rows is not allowed
	ReferentialError    Code = "referential integrity violation" // a reference to a row that does not exist
	DomainError         Code = "domain error"                    // a mutation cannot be computed
	RangeError          Code = "range error"                     // a mutation's result does not fit
	TimedOut            Code = "timed out"                       // a wait operation's condition did not come true
	NotSupported        Code = "not supported"                   // the server cannot do it
	Aborted             Code = "aborted"                         // by an abort operation
	NotOwner            Code = "not owner"                       // an assert operation names a lock that the client does not hold
	Canceled            Code = "canceled"                        // by its caller
	ResourcesExhausted  Code = "resources exhausted"             // memory or disk
	IOError             Code = "I/O error"                       // the database's file
	UnknownDatabase     Code = "unknown database"                // the server does not serve it
	UnknownMethod       Code = "unknown method"                  // the server is older than the request
	UnknownTable        Code = "unknown table"                   // the schema has no such table
	UnknownColumn       Code = "unknown column"                  // the schema has no such column
	SyntaxCode          Code = "syntax error"                    // the request is not understood
	DuplicateName       Code = "duplicate uuid-name"             // two inserts of a transaction have one name
	ClusterError        Code = "cluster error"                   // the cluster could not commit it
)

// Commit is an OpError's Index where no single operation failed but the whole.
const Commit = -1

// An OpError is the server's refusal of a transaction. Nothing of it was done.
type OpError struct {
	Index   int    // which operation failed, counted from 0, or Commit
	Op      string // such as "insert"; "commit" for the whole
	Table   string // the operation's table, or ""
	Code    Code
	Details string // the server's words
	Syntax  string // the part that was not understood
}

// Error says which operation failed and why.
func (e *OpError) Error() string {
	what := "commit"
	if e.Index != Commit {
		what = fmt.Sprintf("operation %d (%s", e.Index, e.Op)
		if e.Table != "" {
			what += " " + e.Table
		}
		what += ")"
	}
	return what + ": " + joinError(e.Code, e.Details, e.Syntax)
}

// Unwrap gives the code.
func (e *OpError) Unwrap() error { return e.Code }
