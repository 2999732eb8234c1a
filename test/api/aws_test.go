package api_test

import (
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"yakumo/store"
)

// awsLoop is the AWS CLI as stockLoop is the OpenStack client.
const awsLoop = `
import contextlib, io, json, sys
from awscli.clidriver import create_clidriver
driver = create_clidriver()
for line in sys.stdin:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = driver.main(json.loads(line))
        except SystemExit as e:
            code = e.code or 0
    print(json.dumps({"code": code, "out": out.getvalue(), "err": err.getvalue()}), flush=True)
`

// aws is Debian's AWS CLI with the EC2 credentials of a user of a project of the same name.
type aws struct {
	*stock
	url string
}

func startAWS(t *testing.T, c *cloud, name string) aws {
	t.Helper()
	u := signIn(t, c, name, name+"-password")
	me, ok := store.Users.Holder(c.Store.Snapshot(), "default,"+name)
	if !ok {
		t.Fatalf("there is no user %s", name)
	}
	key := u.call("POST", "/identity/v3/users/"+me+"/credentials/OS-EC2", object{"tenant_id": u.project})
	return aws{startLoop(t, "aws", awsLoop, "AWS_ACCESS_KEY_ID="+key["access"].(string), "AWS_SECRET_ACCESS_KEY="+key["secret"].(string), "AWS_DEFAULT_REGION=RegionOne",
		"AWS_PAGER=", "AWS_MAX_ATTEMPTS=1", "AWS_EC2_METADATA_DISABLED=true"), c.URL + "/ec2"}
}

// ec2 runs aws ec2 with what is written as on a command line without quotes (~ stands for a space inside an argument), and reads what it says into v.
func (a aws) ec2(v any, line string) {
	a.t.Helper()
	out := a.do("ec2 " + line + " --endpoint-url " + a.url)
	if v == nil || a.t.Failed() {
		return
	}
	if err := json.Unmarshal([]byte(out), v); err != nil {
		a.t.Fatalf("aws ec2 %s: %v: %s", line, err, out)
	}
}

// text runs a command and gives one value of what it says, by a query.
func (a aws) text(line, query string) string {
	a.t.Helper()
	return strings.TrimSpace(a.do("ec2 " + line + " --output text --query " + query + " --endpoint-url " + a.url))
}

// refused runs a command that must fail with EC2's code.
func (a aws) refused(code, line string) {
	a.t.Helper()
	exit, out, errs := a.run(words("ec2 " + line + " --endpoint-url " + a.url)...)
	if exit == 0 || !strings.Contains(errs, "("+code+")") {
		a.t.Errorf("aws ec2 %s: exit %d, want %s\n%s%s", line, exit, code, out, errs)
	}
}

// becomes asks until a value is as wanted: the CLI's own waiters ask every 15 s.
func (a aws) becomes(line, query, want string) {
	a.t.Helper()
	got := ""
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); {
		if got = a.text(line, query); got == want {
			return
		}
	}
	a.t.Fatalf("aws ec2 %s: %s is %s, never %s", line, query, got, want)
}

// TestStockEC2 does with the AWS CLI what docs/guide/ec2.md says, with real keys and signatures.
func TestStockEC2(t *testing.T) {
	c := startVolumeCloud(t)
	newMember(t, c, "demo")
	newMember(t, c, "other")
	u := signIn(t, c, "demo", "demo-password")
	net := u.call("POST", "/network/v2.0/networks", object{"network": object{"name": "lan"}})["id"].(string)
	u.call("POST", "/network/v2.0/subnets", object{"subnet": object{"network_id": net, "ip_version": 4, "cidr": "10.20.0.0/24"}})
	a, o := startAWS(t, c, "demo"), startAWS(t, c, "other")

	if got := a.text("describe-images --owners "+adminProject(t, c), "Images[].Name"); got != "mini" {
		t.Errorf("the images are %q", got)
	}
	a.ids["ami"] = a.text("describe-images --filters Name=name,Values=mini", "Images[0].ImageId")
	if got := a.text("describe-instance-types --instance-types tiny", "InstanceTypes[0].[VCpuInfo.DefaultVCpus,MemoryInfo.SizeInMiB]"); got != "1\t128" {
		t.Errorf("the type is %q", got)
	}
	if got := a.text("create-key-pair --key-name mine --key-type ed25519", "KeyMaterial"); !strings.Contains(got, "PRIVATE KEY") {
		t.Errorf("the key is %q", got)
	}
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	a.ids["i"] = a.text("run-instances --image-id $ami --instance-type tiny --key-name mine --client-token once --user-data file://"+script+
		" --tag-specifications ResourceType=instance,Tags=[{Key=Name,Value=web}]", "Instances[0].InstanceId")
	a.becomes("describe-instances --instance-ids $i", "Reservations[0].Instances[0].State.Name", "running")
	if got := a.text("describe-instances --filters Name=tag:Name,Values=web Name=instance-state-name,Values=running",
		"Reservations[].Instances[].[InstanceType,KeyName,Placement.AvailabilityZone,Tags[0].Value,starts_with(PrivateIpAddress,'10.20.0.')]"); got != "tiny\tmine\tnova\tweb\tTrue" {
		t.Errorf("the instance is %q", got)
	}
	if got := a.text("describe-instance-attribute --instance-id $i --attribute userData", "UserData.Value"); got != base64.StdEncoding.EncodeToString([]byte("#!/bin/sh\n")) {
		t.Errorf("the user data is %q", got)
	}
	if got := a.text("get-console-output --instance-id $i", "length(Output)"); got == "0" || got == "" {
		t.Errorf("the console has %s bytes", got)
	}
	a.ec2(nil, "create-tags --resources $i --tags Key=team,Value=x")

	// A volume comes and goes; a snapshot stays a while.
	a.ids["v"] = a.text("create-volume --size 1 --availability-zone nova", "VolumeId")
	a.becomes("describe-volumes --volume-ids $v", "Volumes[0].State", "available")
	a.ec2(nil, "attach-volume --volume-id $v --instance-id $i --device /dev/sdf")
	a.becomes("describe-volumes --volume-ids $v", "Volumes[0].Attachments[0].State", "attached")
	if got := a.text("describe-tags --filters Name=resource-id,Values=$i", "Tags[].Key"); got != "Name\tteam" {
		t.Errorf("the tags are %q", got)
	}
	a.ec2(nil, "detach-volume --volume-id $v")
	a.becomes("describe-volumes --volume-ids $v", "Volumes[0].State", "available")
	a.ec2(nil, "delete-volume --volume-id $v")

	// Off and on; an image of it.
	a.ec2(nil, "stop-instances --instance-ids $i")
	a.becomes("describe-instances --instance-ids $i", "Reservations[0].Instances[0].State.Name", "stopped")
	a.ids["copy"] = a.text("create-image --instance-id $i --name backup --no-reboot", "ImageId")
	a.becomes("describe-images --image-ids $copy", "Images[0].State", "available")
	a.ec2(nil, "deregister-image --image-id $copy")

	// Nobody else's, and no other's key.
	o.refused("InvalidInstanceID.NotFound", "terminate-instances --instance-ids "+a.ids["i"])
	o.refused("InvalidInstanceID.NotFound", "describe-instances --instance-ids "+a.ids["i"])
	if got := o.text("describe-instances", "length(Reservations)"); got != "0" {
		t.Errorf("another project has %s reservations", got)
	}
	a.refused("InvalidAMIID.NotFound", "run-instances --image-id ami-0123456789abcdef0 --instance-type tiny")
	a.refused("DryRunOperation", "terminate-instances --dry-run --instance-ids $i")
	if got := a.text("terminate-instances --instance-ids $i", "TerminatingInstances[0].[PreviousState.Name,CurrentState.Name]"); got != "stopped\tshutting-down" {
		t.Errorf("it went from %q", got)
	}
	a.becomes("describe-instances --instance-ids $i", "Reservations[0].Instances[0].State.Name", "terminated")
	a.ec2(nil, "delete-key-pair --key-name mine")
}
