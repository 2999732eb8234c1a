// Package switches drives switches that no agent stands beside: an Open vSwitch of another
// maker, reached by TCP or TLS from a server alone. Such a switch is a row of the hosts table with
// Switch set. Ports are bound to it with binding:host_id, and binding:profile names the device
// of each; what the ports' networks, groups and routers need of it is told by the same
// views and put into it by the same driver as on any host.
//
// It reads hosts and views; it writes heartbeats, and the states of ports through link.Sink, while
// this server holds the office. May import: model, store, link, datapath. Must not import: a
// part, api, agent, openflow, ovsdb.
package switches
