package ec2_test

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"yakumo/api"
	"yakumo/model"
	"yakumo/store"
)

// TestRightsOfEveryOperation walks the table of rights: without a signature nothing answers, who has no role in a project is refused, a reader
// changes nothing, and what belongs to another project is not found and not changed.
func TestRightsOfEveryOperation(t *testing.T) {
	c := running(t)
	c.types()
	i := c.guest(red)
	ami, _ := c.image(red, "mine", model.VisibilityPrivate)
	subnet, _ := c.subnet(red, "10.0.0.0/24")
	named := map[string]string{"InstanceId": i, "ImageId": ami, "SubnetId": subnet}
	// foreign are operations on things of another project, and what EC2 says.
	type asked struct {
		code   string
		params []string
	}
	one := func(code string, params ...string) asked { return asked{code, params} }
	const noInstance, noImage = "InvalidInstanceID.NotFound", "InvalidAMIID.NotFound"
	foreign := map[string]asked{
		"DescribeInstances": one(noInstance, "InstanceId.1", i), "StartInstances": one(noInstance, "InstanceId.1", i), "StopInstances": one(noInstance, "InstanceId.1", i),
		"RebootInstances": one(noInstance, "InstanceId.1", i), "TerminateInstances": one(noInstance, "InstanceId.1", i), "DescribeInstanceStatus": one(noInstance, "InstanceId.1", i),
		"GetConsoleOutput": one(noInstance, "InstanceId", i), "DescribeInstanceAttribute": one(noInstance, "InstanceId", i, "Attribute", "userData"),
		"ModifyInstanceAttribute": one(noInstance, "InstanceId", i, "GroupId.1", "sg-0123456789abcdef0"), "CreateImage": one(noInstance, "InstanceId", i, "Name", "stolen"),
		"CreateTags": one(noInstance, "ResourceId.1", i, "Tag.1.Key", "k", "Tag.1.Value", "v"), "DeleteTags": one(noInstance, "ResourceId.1", i, "Tag.1.Key", "Name"),
		"DescribeImages": one(noImage, "ImageId.1", ami), "DeregisterImage": one(noImage, "ImageId", ami), "DescribeImageAttribute": one(noImage, "ImageId", ami, "Attribute", "description"),
		"ModifyImageAttribute": one(noImage, "ImageId", ami, "Description.Value", "stolen"), "ResetImageAttribute": one(noImage, "ImageId", ami, "Attribute", "launchPermission"),
		"RunInstances": one(noImage, "ImageId", ami, "InstanceType", "m1.tiny"),
	}
	everything := func() string {
		snap := c.store.Snapshot()
		out := map[string]any{"servers": slices.Collect(store.Servers.All(snap)), "images": slices.Collect(store.Images.All(snap)), "volumes": slices.Collect(store.Volumes.All(snap)),
			"snapshots": slices.Collect(store.VolumeSnapshots.All(snap)), "keys": slices.Collect(store.KeyPairs.All(snap)), "networks": slices.Collect(store.Networks.All(snap)),
			"subnets": slices.Collect(store.Subnets.All(snap)), "ports": slices.Collect(store.Ports.All(snap)), "groups": slices.Collect(store.SecurityGroups.All(snap)),
			"rules": slices.Collect(store.SecurityRules.All(snap)), "routers": slices.Collect(store.Routers.All(snap)), "addresses": slices.Collect(store.FloatingIPs.All(snap)),
			"gateways": slices.Collect(store.InternetGateways.All(snap))}
		b, err := json.Marshal(out)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	c.must(nil, "blue", "DescribeSecurityGroups") // which makes its default one
	before := everything()
	checked := 0
	for _, row := range c.front.Table() {
		op := strings.TrimPrefix(row.Path, "/ec2/")
		writes := !strings.HasPrefix(op, "Describe") // or shows what only members see
		if row.Method != http.MethodPost || row.Access != api.Reader && row.Access != api.Member {
			t.Errorf("%s is for %v", row.Path, row.Access)
		}
		if writes != (row.Access == api.Member) {
			t.Errorf("%s is for %v", op, row.Access)
		}
		c.refused(401, "MissingAuthenticationToken", "", op)
		c.refused(401, "AuthFailure", "nobody", op)
		c.refused(403, "UnauthorizedOperation", "unscoped", op)
		if writes {
			c.refused(403, "UnauthorizedOperation", "red-reader", op, foreign[op].params...)
		}
		if f, ok := foreign[op]; ok {
			c.refused(400, f.code, "blue", op, f.params...)
			// An administrator of the cloud is a member of his project here, and no more.
			c.refused(400, f.code, "admin", op, f.params...)
			checked++
		} else if strings.HasPrefix(op, "Describe") {
			// A list has nothing of it.
			if _, body := c.call("blue", op); slices.ContainsFunc(slices.Collect(maps.Values(named)), func(id string) bool { return strings.Contains(body, id) }) {
				t.Errorf("%s shows what is another project's: %s", op, body)
			}
		}
	}
	if checked != len(foreign) {
		t.Errorf("%d of %d operations are there", checked, len(foreign))
	}
	if after := everything(); after != before {
		t.Errorf("what was refused changed something:\n%s\n%s", before, after)
	}
}
