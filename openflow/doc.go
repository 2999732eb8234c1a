// Package openflow is a wire codec for OpenFlow 1.5 (wire version 0x06) with the Nicira
// extensions that Open vSwitch needs for conntrack, learning, conjunctions, resubmit and
// rich packet-ins, and a connection to a switch.
//
// It owns the byte formats and the life of a connection. It reads and writes sockets and
// nothing else, keeps no state outside its values, and imports the standard library only.
// It knows nothing of what flows are for: no tenant, network or host may appear in it.
//
// # Messages
//
// A [Message] carries no transaction id. [Append] encodes one under an id; [Decode] gives
// header and message. Decoders bound every length, never panic, and copy nothing out of a
// buffer that the caller might reuse unless they say so. Two equal matches encode to equal
// bytes: fields are in a fixed order, masks are in simplest form and 64- and 128-bit
// registers are spelled as 32-bit registers (see [Match]).
//
// # Connections
//
// [Dial] and [Listen] make a [Conn], which shakes hands, probes the peer with echoes, writes
// from its own goroutine and correlates replies by transaction id. [Conn.Bundle] is the way
// to change many entries at once: all or nothing, in order, with the failing message named.
//
// Sources: OpenFlow Switch Specification 1.5.1 (ONF TS-025), and Open vSwitch's ovs-fields(7)
// and ovs-actions(7). Every encoder is tested against Open vSwitch itself.
package openflow
