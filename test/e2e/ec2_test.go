package e2e_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/gophercloud/gophercloud/v2/openstack/identity/v3/ec2credentials"
)

// aws is Debian's AWS CLI with the EC2 credentials of a tenant.
type aws struct{ env []string }

func newAWS(t *testing.T, ten *tenant) *aws {
	t.Helper()
	key, err := ec2credentials.Create(t.Context(), ten.member.Identity, ten.userID, ec2credentials.CreateOpts{TenantID: ten.id}).Extract()
	if err != nil {
		t.Fatal(err)
	}
	return &aws{[]string{"PATH=/usr/bin:/bin", "HOME=" + t.TempDir(), "LANG=C.UTF-8", "AWS_ACCESS_KEY_ID=" + key.Access, "AWS_SECRET_ACCESS_KEY=" + key.Secret,
		"AWS_DEFAULT_REGION=RegionOne", "AWS_DEFAULT_OUTPUT=text", "AWS_PAGER=", "AWS_EC2_METADATA_DISABLED=true"}}
}

func (a *aws) exec(ctx context.Context, args ...string) (string, string, error) {
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, "/usr/bin/aws", append([]string{"ec2", "--endpoint-url", fix.lab.URL() + "/ec2"}, args...)...)
	cmd.Env, cmd.Stdout, cmd.Stderr = a.env, &out, &errs
	err := cmd.Run()
	return strings.TrimSpace(out.String()), errs.String(), err
}

// do runs a command, written as on a command line without quotes, that must succeed.
func (a *aws) do(t *testing.T, line string) string {
	t.Helper()
	out, errs, err := a.exec(t.Context(), strings.Fields(line)...)
	if err != nil {
		t.Fatalf("aws ec2 %s: %v\n%s%s", line, err, out, errs)
	}
	return out
}

// until repeats a command until it says what is wanted.
func (a *aws) until(t *testing.T, line, want string) {
	t.Helper()
	await(t, line+" to say "+want, bootPatience, func(ctx context.Context) string {
		out, errs, err := a.exec(ctx, strings.Fields(line)...)
		return unless(err == nil && out == want, out+errs)
	})
}

// undo removes something when the test ends, where the test did not.
func (a *aws) undo(t *testing.T, line string) {
	t.Cleanup(func() {
		if out, errs, err := a.exec(context.Background(), strings.Fields(line)...); err != nil && !strings.Contains(errs, ".NotFound)") {
			t.Errorf("aws ec2 %s: %v\n%s%s", line, err, out, errs)
		}
	})
}

// TestEC2: with the AWS CLI alone, an instance runs in a VPC of its own, takes a volume, is stopped and lets go of it, and ends.
func TestEC2(t *testing.T) {
	ten := newTenant(t, mine{t}, "ec2", "member")
	a := newAWS(t, ten)
	began := time.Now()
	took := func(what string) {
		t.Helper()
		measured(t, "%s: %.2f s", what, time.Since(began).Seconds())
		began = time.Now()
	}
	vpc := a.do(t, "create-vpc --cidr-block 10.84.0.0/16 --query Vpc.VpcId")
	a.undo(t, "delete-vpc --vpc-id "+vpc)
	subnet := a.do(t, "create-subnet --vpc-id "+vpc+" --cidr-block 10.84.1.0/24 --query Subnet.SubnetId")
	a.undo(t, "delete-subnet --subnet-id "+subnet)
	image := a.do(t, "describe-images --filters Name=name,Values=yakumo-mini --query Images[0].ImageId")
	i := a.do(t, "run-instances --image-id "+image+" --instance-type m1.nano --subnet-id "+subnet+" --private-ip-address 10.84.1.77 --query Instances[0].InstanceId")
	state := "describe-instances --instance-ids " + i + " --query Reservations[0].Instances[0].State.Name"
	t.Cleanup(func() {
		ctx := context.Background() // the test's own is over
		if out, errs, err := a.exec(ctx, "terminate-instances", "--instance-ids", i); err != nil {
			t.Errorf("terminate: %v\n%s%s", err, out, errs)
		}
		for range 600 { // its subnet goes after it
			if out, _, err := a.exec(ctx, strings.Fields(state)...); err == nil && out == "terminated" {
				return
			}
		}
		t.Error("the instance never went")
	})
	v := a.do(t, "create-volume --size 1 --availability-zone nova --query VolumeId")
	a.undo(t, "delete-volume --volume-id "+v)
	took("instance and volume are asked for")

	// It runs, and says so where the network that EC2 made gave it an address.
	await(t, "the console to say that the guest is ready", bootPatience, func(ctx context.Context) string {
		out, errs, err := a.exec(ctx, "get-console-output", "--instance-id", i, "--query", "Output")
		if raw, derr := base64.StdEncoding.DecodeString(out); derr == nil {
			out = string(raw)
		}
		return unless(err == nil && readyLine.MatchString(out) && strings.Contains(out, "10.84.1.77"), out+errs)
	})
	a.until(t, state, "running")
	took("the instance is ready")

	is := "describe-volumes --volume-ids " + v + " --query Volumes[0].[State,Attachments[0].State]"
	a.until(t, is, "available\tNone")
	a.do(t, "attach-volume --volume-id "+v+" --instance-id "+i+" --device /dev/sdf")
	a.until(t, is, "in-use\tattached")
	took("it has the volume")
	// Off, it lets go of it at once: a running guest that still takes a disk in may not hear that it is to let go, and is asked again only later.
	a.do(t, "stop-instances --instance-ids "+i)
	a.until(t, state, "stopped")
	a.do(t, "detach-volume --volume-id "+v)
	a.until(t, is, "available\tNone")
	took("it has let go of it")
	a.do(t, "delete-volume --volume-id "+v)
	a.do(t, "terminate-instances --instance-ids "+i)
	a.until(t, state, "terminated")
	took("it is gone")
}
