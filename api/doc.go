// Package api is the HTTP front of every dialect: one listener, a prefix per service,
// request ids, authentication, the access table, microversions, strict JSON, paging,
// errors in the dialect's own form, metrics and the access log.
//
// A dialect (api/keystone, api/glance, api/nova, api/neutron …) hands it a Service: a list
// of Routes, each of which names who may call it. The list of all routes is the one table
// of rights of the whole cloud (Front.Table). The quirks of a dialect stay in its folder;
// the rules of the cloud are in the parts (identity, images, compute, network).
//
// May import: fault, model, store. Must not import: agent, hypervisor, datapath, a part.
package api
