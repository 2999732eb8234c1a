// Package ec2 speaks Amazon's EC2 dialect, the Query API of version 2016-11-15: operations named by Action, parameters of a form, signatures
// of version 2 or 4 with the EC2 credentials that Keystone gives, answers in XML, and EC2's error codes. What may be done is decided in the
// parts; a thing is the same thing that the OpenStack dialects show, under an id of EC2's form that is made of its own.
//
// Source: the Amazon EC2 API reference, https://docs.aws.amazon.com/AWSEC2/latest/APIReference/.
//
// Reads and writes only through compute, network, images, volume, launch and the store's tables; it keeps nothing. May import: api, fault, model,
// identity (what a signature covers), compute, network, images, volume, launch, store. Must not import: another dialect, agent, hypervisor, datapath.
package ec2

import (
	"context"
	"net/http"

	"yakumo/api"
	"yakumo/compute"
	"yakumo/fault"
	"yakumo/identity"
	"yakumo/images"
	"yakumo/launch"
	"yakumo/model"
	"yakumo/network"
	"yakumo/store"
	"yakumo/volume"
)

// apiVersion is the version of the API that is spoken, whatever a request names.
const apiVersion = "2016-11-15"

// Asker puts a question to a host and waits for the answer; *link.Server is one.
type Asker interface {
	Ask(ctx context.Context, host model.ID, name string, body []byte) ([]byte, error)
}

// Config makes the service.
type Config struct {
	Compute *compute.Compute
	Network *network.Network
	Images  *images.Images
	Volumes *volume.Volumes
	Hosts   Asker
	// Signed gives who signed a request, or fault.Unauthorized.
	Signed func(context.Context, identity.EC2Request) (*api.Caller, error)
	// Region is the name of the cloud's region.
	Region string
}

type dialect struct {
	cfg  Config
	c    *compute.Compute
	net  *network.Network
	img  *images.Images
	vols *volume.Volumes

	launch *launch.Launcher
}

// operation is one value of Action.
type operation struct {
	access api.Access
	// run answers with what stands in the response's element behind the request id: a struct.
	run func(*request) (any, error)
	// params are the names of the parameters that it knows, without numbers and what is below them.
	params []string
}

// New gives the service at /ec2.
func New(cfg Config) api.Service {
	d := &dialect{cfg: cfg, c: cfg.Compute, net: cfg.Network, img: cfg.Images, vols: cfg.Volumes,
		launch: launch.New(launch.Config{Compute: cfg.Compute, Network: cfg.Network, Images: cfg.Images, Volumes: cfg.Volumes})}
	s := api.Service{Name: "ec2", Prefix: "/ec2", Error: writeError, Operation: action, Signed: d.signed}
	for name, op := range d.operations() {
		s.Routes = append(s.Routes, api.Route{Method: http.MethodPost, Pattern: "/" + name, Access: op.access, Handle: op.serve(name)})
	}
	return s
}

// operations are all of them by name.
func (d *dialect) operations() map[string]operation {
	out := map[string]operation{}
	add := func(name string, access api.Access, run func(*request) (any, error), params ...string) {
		out[name] = operation{access, run, params}
	}
	d.regionOperations(add)
	d.instanceOperations(add)
	d.keyOperations(add)
	d.tagOperations(add)
	d.imageOperations(add)
	d.typeOperations(add)
	d.runOperations(add)
	d.volumeOperations(add)
	d.snapshotOperations(add)
	d.groupOperations(add)
	d.vpcOperations(add)
	d.subnetOperations(add)
	d.gatewayOperations(add)
	d.routeOperations(add)
	d.addressOperations(add)
	d.interfaceOperations(add)
	return out
}

// adder adds an operation: its name, who may call it, what it does, and the parameters that it knows.
type adder func(name string, access api.Access, run func(*request) (any, error), params ...string)

// serve gives the handler of the operation.
func (op operation) serve(name string) api.Handler {
	return func(c *api.Context) error {
		q := &request{Context: c, params: formOf(c.R).params}
		if err := q.known(op.params); err != nil {
			return err
		}
		body, err := op.run(q)
		if err != nil {
			return err
		}
		if q.flag("DryRun") {
			return errDryRun
		}
		return answer(c, name, body)
	}
}

// errDryRun is the answer to DryRun where nothing stands against the request.
var errDryRun = fault.Coded(fault.Precondition, "DryRunOperation", "Request would have succeeded, but DryRun flag is set.")

// update runs f in a transaction, which a dry run takes back.
func (q *request) update(f func(*store.Tx) error) error {
	_, err := q.Store().Update(q.R.Context(), func(tx *store.Tx) error {
		if err := f(tx); err != nil {
			return err
		}
		if q.flag("DryRun") {
			return errDryRun
		}
		return nil
	})
	return err
}

// scope says on whose behalf the request is made. A cloud administrator is one project's member here: EC2 knows no more.
func (q *request) scope() compute.Scope {
	return compute.Scope{ProjectID: q.Caller.ProjectID, UserID: q.Caller.UserID, RequestID: q.RequestID}
}

func (q *request) netScope() network.Scope { return network.Scope{ProjectID: q.Caller.ProjectID} }

func (q *request) volumeScope() volume.Scope {
	return volume.Scope{ProjectID: q.Caller.ProjectID, UserID: q.Caller.UserID, RequestID: q.RequestID}
}

func (q *request) imageCaller() images.Caller { return images.Caller{ProjectID: q.Caller.ProjectID} }
