package ec2_test

import (
	"encoding/base64"
	"encoding/xml"
	"strings"
	"testing"

	"yakumo/compute"
	"yakumo/store"
)

type shownInstance struct {
	ID     string `xml:"instanceId"`
	Image  string `xml:"imageId"`
	State  string `xml:"instanceState>name"`
	Code   int    `xml:"instanceState>code"`
	Type   string `xml:"instanceType"`
	Zone   string `xml:"placement>availabilityZone"`
	Reason string `xml:"stateReason>message"`
	Key    string `xml:"keyName"`
	Index  int    `xml:"amiLaunchIndex"`
	Token  string `xml:"clientToken"`
	Priv   string `xml:"privateIpAddress"`
	Subnet string `xml:"subnetId"`
	Root   string `xml:"rootDeviceType"`
	Disks  []struct {
		Volume string `xml:"ebs>volumeId"`
		Device string `xml:"deviceName"`
		Remove bool   `xml:"ebs>deleteOnTermination"`
	} `xml:"blockDeviceMapping>item"`
	Groups []string `xml:"groupSet>item>groupId"`
	Tags   []struct {
		Key   string `xml:"key"`
		Value string `xml:"value"`
	} `xml:"tagSet>item"`
}

// tag gives the value of an instance's tag.
func (i *shownInstance) tag(key string) string {
	for _, t := range i.Tags {
		if t.Key == key {
			return t.Value
		}
	}
	return ""
}

// instances gives the instances as the caller sees them.
func (c *cloud) instances(caller string, params ...string) (out []shownInstance) {
	c.t.Helper()
	var body struct {
		Of []struct {
			ID        string          `xml:"reservationId"`
			Instances []shownInstance `xml:"instancesSet>item"`
		} `xml:"reservationSet>item"`
	}
	c.must(&body, caller, "DescribeInstances", params...)
	for _, r := range body.Of {
		if r.ID == "" {
			c.t.Errorf("a reservation without a name: %+v", r)
		}
		out = append(out, r.Instances...)
	}
	return out
}

// becomes waits for the state of an instance of red.
func (c *cloud) becomes(id, state string) (i shownInstance) {
	c.t.Helper()
	c.eventually("instance "+id+" is "+state, func() bool {
		i = c.instances("red", "InstanceId.1", id)[0]
		return i.State == state
	})
	return i
}

// turned calls an operation on instances and gives what it says of their states: id:before>after.
func (c *cloud) turned(operation string, params ...string) string {
	c.t.Helper()
	var body struct {
		Of []struct {
			ID     string `xml:"instanceId"`
			Before string `xml:"previousState>name"`
			Now    string `xml:"currentState>name"`
		} `xml:"instancesSet>item"`
	}
	c.must(&body, "red", operation, params...)
	var out []string
	for _, x := range body.Of {
		out = append(out, x.Before+">"+x.Now)
	}
	return strings.Join(out, " ")
}

func TestInstances(t *testing.T) {
	c := running(t)
	a, b := c.guest(red), c.guest(red)
	theirs := c.guest(blue)
	if got := c.instances("red-reader"); len(got) != 2 || got[0].State != "running" || got[0].Code != 16 || got[0].Type != "tiny" || got[0].Zone != "nova" || got[0].Root != "instance-store" {
		t.Fatalf("%+v", got)
	}
	for filter, n := range map[string]int{"instance-state-name=running": 2, "instance-state-code=80": 0, "instance-id=" + a: 1, "instance-type=t*": 2, "tag:Name=guest": 2, "tag-key=x": 0,
		"availability-zone=nova": 2, "owner-id=" + red: 2, "owner-id=" + blue: 0, "launch-index=0": 2, "root-device-type=ebs": 0, "key-name=x": 0} {
		name, value, _ := strings.Cut(filter, "=")
		if got := c.instances("red", "Filter.1.Name", name, "Filter.1.Value.1", value); len(got) != n {
			t.Errorf("%s: %+v", filter, got)
		}
	}
	var page struct {
		IDs  []string `xml:"reservationSet>item>instancesSet>item>instanceId"`
		Next string   `xml:"nextToken"`
	}
	c.must(&page, "red", "DescribeInstances", "MaxResults", "1")
	if len(page.IDs) != 1 || page.Next == "" {
		t.Fatalf("%+v", page)
	}
	first := page.IDs[0]
	c.must(&page, "red", "DescribeInstances", "MaxResults", "1", "NextToken", page.Next)
	if page.IDs[len(page.IDs)-1] == first {
		t.Errorf("%+v", page)
	}

	// Off and on, two at once; again is success.
	if got := c.turned("StopInstances", "InstanceId.1", a, "InstanceId.2", b); got != "running>stopping running>stopping" {
		t.Error(got)
	}
	c.becomes(a, "stopped")
	c.becomes(b, "stopped")
	if got := c.turned("StopInstances", "InstanceId.1", a); got != "stopped>stopped" {
		t.Error(got)
	}
	c.refused(400, "IncorrectInstanceState", "red", "RebootInstances", "InstanceId.1", a)
	c.refused(412, "DryRunOperation", "red", "StartInstances", "InstanceId.1", a, "DryRun", "true")
	if got := c.turned("StartInstances", "InstanceId.1", a); got != "stopped>pending" {
		t.Error(got)
	}
	c.becomes(a, "running")
	if got := c.turned("StartInstances", "InstanceId.1", a); got != "running>running" {
		t.Error(got)
	}
	c.must(nil, "red", "RebootInstances", "InstanceId.1", a)

	// Asleep is stopped, and starts where it was.
	c.becomes(a, "running")
	c.eventually("it hibernates", func() bool {
		code, _ := c.call("red", "StopInstances", "InstanceId.1", a, "Hibernate", "true")
		return code == 200
	})
	c.becomes(a, "stopped")
	c.eventually("it is asleep", func() bool {
		s := c.server(a)
		return compute.State(s) == compute.Suspended && s.Status.Task == ""
	})
	c.must(nil, "red", "StartInstances", "InstanceId.1", a)
	c.becomes(a, "running")

	// What it says, and how it is.
	var console struct {
		Output string `xml:"output"`
	}
	c.must(&console, "red", "GetConsoleOutput", "InstanceId", a)
	c.refused(403, "UnauthorizedOperation", "red-reader", "DescribeInstanceAttribute", "InstanceId", a, "Attribute", "userData")
	c.must(nil, "red-reader", "DescribeInstanceAttribute", "InstanceId", a, "Attribute", "instanceType")
	if out, err := base64.StdEncoding.DecodeString(console.Output); err != nil || len(out) == 0 {
		t.Errorf("%q: %v", out, err)
	}
	if _, body := c.call("red", "DescribeInstanceStatus"); strings.Count(body, "<instanceId>") != 1 || strings.Count(body, "<status>ok</status>") != 2 {
		t.Error(body)
	}
	if _, body := c.call("red", "DescribeInstanceStatus", "IncludeAllInstances", "true", "Filter.1.Name", "instance-state-name", "Filter.1.Value.1", "stopped"); !strings.Contains(body, b) ||
		!strings.Contains(body, "not-applicable") {
		t.Error(body)
	}
	if _, body := c.call("red", "DescribeInstanceAttribute", "InstanceId", a, "Attribute", "instanceType"); !strings.Contains(body, "<instanceType><value>tiny</value></instanceType>") {
		t.Error(body)
	}

	// Nothing is done to any where one cannot.
	c.refused(400, "InvalidInstanceID.NotFound", "red", "StopInstances", "InstanceId.1", a, "InstanceId.2", theirs)
	c.refused(400, "IncorrectInstanceState", "red", "RebootInstances", "InstanceId.1", a, "InstanceId.2", b)
	if i := c.instances("red", "InstanceId.1", a)[0]; i.State != "running" {
		t.Errorf("%+v", i)
	}
	c.update(func(tx *store.Tx) error {
		_, err := c.compute.Lock(tx, compute.Scope{ProjectID: red}, c.server(b).ID, "")
		return err
	})
	c.refused(400, "OperationNotPermitted", "red", "TerminateInstances", "InstanceId.1", b)
	if got := c.turned("TerminateInstances", "InstanceId.1", a); got != "running>shutting-down" {
		t.Error(got)
	}
	if i := c.becomes(a, "terminated"); i.Code != 48 || i.tag("Name") != "guest" {
		t.Errorf("%+v", i)
	}
	if got := c.turned("TerminateInstances", "InstanceId.1", a); got != "terminated>terminated" {
		t.Error(got)
	}
	c.refused(400, "IncorrectInstanceState", "red", "StartInstances", "InstanceId.1", a)
	c.refused(400, "InvalidInstanceID.NotFound", "blue", "DescribeInstances", "InstanceId.1", a)
	c.refused(400, "InvalidInstanceID.Malformed", "red", "DescribeInstances", "InstanceId.1", "i-1")
	c.refused(400, "MissingParameter", "red", "StopInstances")
}

func TestTags(t *testing.T) {
	c := running(t)
	a := c.guest(red)
	var v shownVolume
	c.must(&v, "red", "CreateVolume", "Size", "1")
	c.must(nil, "red", "CreateTags", "ResourceId.1", a, "ResourceId.2", v.ID, "Tag.1.Key", "Name", "Tag.1.Value", "web", "Tag.2.Key", "team", "Tag.2.Value", "x")
	i := c.instances("red", "Filter.1.Name", "tag:team", "Filter.1.Value.1", "x")
	if len(i) != 1 || i[0].tag("Name") != "web" || c.server(a).Name != "web" || c.server(a).Metadata["team"] != "x" {
		t.Fatalf("%+v", i)
	}
	tags := func(caller string, params ...string) string {
		var body struct {
			Of []struct {
				Resource string `xml:"resourceId"`
				Type     string `xml:"resourceType"`
				Key      string `xml:"key"`
				Value    string `xml:"value"`
			} `xml:"tagSet>item"`
			Next string `xml:"nextToken"`
		}
		c.must(&body, caller, "DescribeTags", params...)
		var out []string
		for _, x := range body.Of {
			if x.Resource == a || x.Resource == v.ID {
				out = append(out, x.Type+":"+x.Key+"="+x.Value)
			}
		}
		return strings.Join(out, " ")
	}
	if got := tags("red-reader"); got != "instance:Name=web instance:team=x volume:Name=web volume:team=x" {
		t.Error(got)
	}
	if got := tags("red", "Filter.1.Name", "resource-type", "Filter.1.Value.1", "volume", "Filter.2.Name", "key", "Filter.2.Value.1", "team"); got != "volume:team=x" {
		t.Error(got)
	}
	if got := tags("blue"); got != "" {
		t.Error(got)
	}
	// Another value than it has takes no tag away.
	c.must(nil, "red", "DeleteTags", "ResourceId.1", a, "Tag.1.Key", "team", "Tag.1.Value", "y")
	c.must(nil, "red", "DeleteTags", "ResourceId.1", v.ID, "Tag.1.Key", "team")
	if got := tags("red"); got != "instance:Name=web instance:team=x volume:Name=web" {
		t.Error(got)
	}
	c.refused(400, "InvalidInstanceID.NotFound", "blue", "CreateTags", "ResourceId.1", a, "Tag.1.Key", "k", "Tag.1.Value", "v")
	c.refused(403, "UnauthorizedOperation", "red-reader", "CreateTags", "ResourceId.1", a, "Tag.1.Key", "k", "Tag.1.Value", "v")
	c.refused(400, "InvalidInstanceID.NotFound", "red", "CreateTags", "ResourceId.1", v.ID, "ResourceId.2", "i-0123456789abcdef0", "Tag.1.Key", "k", "Tag.1.Value", "v")
	c.refused(400, "InvalidID", "red", "CreateTags", "ResourceId.1", "web", "Tag.1.Key", "k", "Tag.1.Value", "v")
	c.refused(400, "InvalidParameterValue", "red", "CreateTags", "ResourceId.1", a, "Tag.1.Key", "aws:k", "Tag.1.Value", "v")
	c.refused(400, "MissingParameter", "red", "CreateTags", "ResourceId.1", a)
	c.refused(400, "MissingParameter", "red", "DeleteTags")
	if got := tags("red"); got != "instance:Name=web instance:team=x volume:Name=web" {
		t.Error(got)
	}
}

func TestKeyPairs(t *testing.T) {
	c := newCloud(t)
	var k struct {
		ID      string `xml:"keyPairId"`
		Name    string `xml:"keyName"`
		Private string `xml:"keyMaterial"`
		Print   string `xml:"keyFingerprint"`
	}
	c.must(&k, "red", "CreateKeyPair", "KeyName", "mine", "KeyType", "ed25519")
	if k.Name != "mine" || !strings.Contains(k.Private, "PRIVATE KEY") || !strings.HasPrefix(k.ID, "key-") || len(k.Print) != 47 {
		t.Errorf("%+v", k)
	}
	_, body := c.call("red", "DescribeKeyPairs", "KeyPairId.1", k.ID, "IncludePublicKey", "true")
	var list struct {
		Public string `xml:"keySet>item>publicKey"`
		Type   string `xml:"keySet>item>keyType"`
	}
	if err := xml.Unmarshal([]byte(body), &list); err != nil || list.Type != "ed25519" {
		t.Fatalf("%s: %v", body, err)
	}
	c.must(nil, "red", "ImportKeyPair", "KeyName", "other", "PublicKeyMaterial", base64.StdEncoding.EncodeToString([]byte(list.Public)))
	if _, body := c.call("red", "DescribeKeyPairs", "Filter.1.Name", "key-name", "Filter.1.Value.1", "o*"); strings.Count(body, k.Print) != 1 || !strings.Contains(body, "<keyName>other</keyName>") {
		t.Error(body)
	}
	c.refused(400, "InvalidKeyPair.Duplicate", "red", "CreateKeyPair", "KeyName", "mine")
	c.refused(400, "InvalidParameterValue", "red", "CreateKeyPair", "KeyName", "a,b")
	c.refused(400, "InvalidParameterValue", "red", "CreateKeyPair", "KeyName", "a", "KeyType", "dsa")
	c.refused(400, "InvalidParameterValue", "red", "CreateKeyPair", "KeyName", "a", "KeyFormat", "ppk")
	c.refused(400, "InvalidKey.Format", "red", "ImportKeyPair", "KeyName", "a", "PublicKeyMaterial", "!")
	c.refused(400, "InvalidKey.Format", "red", "ImportKeyPair", "KeyName", "a", "PublicKeyMaterial", "aGVsbG8=")
	c.refused(400, "InvalidKeyPair.NotFound", "blue", "DescribeKeyPairs", "KeyName.1", "mine")
	c.refused(400, "InvalidKeyPair.NotFound", "red", "DescribeKeyPairs", "KeyPairId.1", "key-00000000000000001")
	c.refused(412, "DryRunOperation", "red", "DeleteKeyPair", "KeyName", "mine", "DryRun", "true")
	c.must(nil, "blue", "DeleteKeyPair", "KeyName", "mine") // of none: success
	c.must(nil, "red", "DeleteKeyPair", "KeyPairId", k.ID)
	c.refused(400, "InvalidKeyPair.NotFound", "red", "DescribeKeyPairs", "KeyName.1", "mine")
	if _, body := c.call("red", "DescribeKeyPairs"); strings.Count(body, "<keyName>") != 1 {
		t.Error(body)
	}
}
