package ec2_test

import (
	"encoding/xml"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// FuzzForm gives the dialect forms that nobody meant: each is answered in EC2's form, and with no failure of the server's.
func FuzzForm(f *testing.F) {
	for _, s := range []string{"Action=DescribeInstances&InstanceId.1=i-1", "Action=DescribeImages&Filter.1.Name=name&Filter.1.Value.1=%2A%5C", "Action=RunInstances&ImageId=ami-1&NetworkInterface.1.SubnetId=x",
		"Action=CreateTags&ResourceId.1=i-0123456789abcdef0&Tag.1.Key=Name&Tag.2", "Action=DescribeVolumes&MaxResults=1&NextToken=vol-", "Action=StopInstances&InstanceId.-1=x&InstanceId.99999999999999999999=y",
		"Action=ModifyImageAttribute&LaunchPermission.Add.1.Group=all", "Action=DescribeRegions&Filter.1.1.1.1.1.1.1.1.1=x", "%zz", "Action=CreateVolume&Size=1e9&TagSpecification.1.Tag.1.Key=%ff"} {
		f.Add(s)
	}
	c := newCloud(f)
	f.Fuzz(func(t *testing.T, body string) {
		r := httptest.NewRequest(http.MethodPost, "/ec2/?AWSAccessKeyId=red", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		w := httptest.NewRecorder()
		c.front.ServeHTTP(w, r)
		if w.Code >= 500 {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		if err := xml.Unmarshal(w.Body.Bytes(), new(struct {
			ID string `xml:"requestId"`
		})); err != nil {
			t.Fatalf("%v: %s", err, w.Body)
		}
	})
}
