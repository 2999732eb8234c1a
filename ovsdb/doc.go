// Package ovsdb is a client of the Open vSwitch Database Management Protocol: RFC 7047
// with Open vSwitch's extensions (ovsdb-server(7): set_db_change_aware, monitor_cond,
// monitor_cond_since).
//
// A Client keeps one connection (unix, TCP or TLS), makes a new one when it breaks, and
// keeps an in-memory replica of the tables that its user names: snapshots of it cost
// nothing to take and never change, rows are found by UUID or by an indexed column, and
// a Watch tells which rows changed. A Txn is a list of operations that the server
// commits all together or not at all. A Switch is a Client of the Open_vSwitch database
// with the few things that an owner of a switch does all the time: bridges and ports
// that exist, or do not, and are known to be in force.
//
// The package owns nothing outside the process. It reads and writes what the database
// server at the configured address holds. It imports the standard library only, and
// knows no words but those of the protocol and of the switch.
package ovsdb
