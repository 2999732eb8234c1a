// Package link is the one stream between a host's agent and any server: joining with a
// one-time token, certificates, desired rows down, reports up, questions that a server asks
// a host, streams of bytes that it opens to one, and image bytes. Protobuf over HTTP/2 (gRPC) with mutual TLS.
//
// The server's half (Server, Authority) reads and writes hosts, heartbeats and join tokens
// in the store; what rows a host must know comes from a Views, what becomes of reports is a
// Sink's business. The agent's half (Client) imports nothing of the store. Neither knows
// what a row means.
//
// May import: fault, model, store. Must not import: a part, api, agent, hypervisor, datapath.
package link
