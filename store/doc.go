// Package store keeps the cloud's durable truth in etcd and mirrors it in memory.
//
// A Table is a typed set of rows with indexes and claims. Writing is one etcd
// transaction (Store.Update): every row that the transaction read or wrote is compared,
// so it commits only on what it saw, and is run again on a conflict. A claim is a name
// that one row of a table may hold (an address in a subnet, a MAC, a VNI, a name): it is a
// key of its own that a transaction creates only if absent.
//
// Reading is from memory: a Snapshot is an immutable view at one revision, kept by a
// watch that resumes after compaction by listing again. A write returns once the mirror
// has it; Sync waits for what anybody wrote before, so that a read sees it on any server.
//
// The package owns the key layout below its prefix and imports only fault, model and
// etcd; nothing else of the project imports etcd.
//
//	r/<kind>/<key>    a row, JSON
//	c/<kind>/<claim>  a claim; the value is the key of the row that holds it
//	g/<name>          a guard: see Tx.Mark and Tx.Guard
//	e/<name>/…        an election
//	head              written by every transaction: its revision is the newest write
package store
