package ec2_test

import (
	"context"
	"encoding/xml"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"yakumo/api"
	"yakumo/api/apitest"
	"yakumo/api/ec2"
	"yakumo/compute"
	"yakumo/compute/computetest"
	"yakumo/fault"
	"yakumo/identity"
	"yakumo/images"
	"yakumo/model"
	"yakumo/network"
	"yakumo/store"
	"yakumo/store/storetest"
	"yakumo/volume"
)

// cloud is a server with the EC2 service.
type cloud struct {
	t       testing.TB
	store   *store.Store
	front   *api.Front
	compute *compute.Compute
	volumes *volume.Volumes
	network *network.Network
	host    asker
}

// asker is the host of the tests' guests; nil: it is not connected.
type asker struct{ *computetest.Host }

func (a *asker) Ask(ctx context.Context, _ model.ID, name string, body []byte) ([]byte, error) {
	if a.Host == nil {
		return nil, fault.New(fault.Unavailable, "The host is not connected. Try again when it is back.")
	}
	return a.Host.Ask(ctx, name, body)
}

func newCloud(t testing.TB) *cloud {
	t.Helper()
	s, quiet := storetest.New(t), slog.New(slog.DiscardHandler)
	n := network.New(network.Config{Log: quiet})
	imgs := images.New(images.Config{Store: s, Log: quiet})
	vols := volume.New(volume.Config{Store: s, Log: quiet})
	if err := vols.Bootstrap(t.Context()); err != nil {
		t.Fatal(err)
	}
	comp := compute.New(compute.Config{Store: s, Ports: n, Volumes: vols, Images: imgs, Log: quiet})
	c := &cloud{t: t, store: s, compute: comp, volumes: vols, network: n}
	var err error
	c.front, err = api.New(api.Config{Store: s, Auth: apitest.Callers(), Log: quiet, Services: []api.Service{
		ec2.New(ec2.Config{Compute: comp, Network: n, Images: imgs, Volumes: vols, Hosts: &c.host, Signed: signer, Region: "RegionOne"}),
	}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// signer takes access keys that are the names of apitest's callers; package identity's tests are about signatures.
func signer(ctx context.Context, q identity.EC2Request) (*api.Caller, error) {
	if q.Signature == "wrong" {
		return nil, fault.New(fault.Unauthorized, "wrong signature")
	}
	return apitest.Callers().Authenticate(ctx, q.Access)
}

// call calls an operation as the caller does: pairs of names and values.
func (c *cloud) call(caller, operation string, params ...string) (int, string) {
	c.t.Helper()
	form := url.Values{"Action": {operation}, "Version": {"2016-11-15"}}
	if caller != "" {
		form.Set("AWSAccessKeyId", caller)
	}
	for i := 0; i < len(params); i += 2 {
		form.Set(params[i], params[i+1])
	}
	r := httptest.NewRequest(http.MethodPost, "/ec2/", strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
	w := httptest.NewRecorder()
	c.front.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

// must calls and reads the answer into v, which may be nil.
func (c *cloud) must(v any, caller, operation string, params ...string) {
	c.t.Helper()
	code, body := c.call(caller, operation, params...)
	if code != http.StatusOK {
		c.t.Fatalf("%s: %d: %s", operation, code, body)
	}
	if v != nil {
		if err := xml.Unmarshal([]byte(body), v); err != nil {
			c.t.Fatalf("%s: %v: %s", operation, err, body)
		}
	}
}

// refused calls and checks EC2's error code and the status.
func (c *cloud) refused(status int, code, caller, operation string, params ...string) string {
	c.t.Helper()
	got, body := c.call(caller, operation, params...)
	var e struct {
		Code    string `xml:"Errors>Error>Code"`
		Message string `xml:"Errors>Error>Message"`
		ID      string `xml:"RequestID"`
	}
	if err := xml.Unmarshal([]byte(body), &e); err != nil {
		c.t.Fatalf("%s %v: %v: %s", operation, params, err, body)
	}
	if got != status || e.Code != code || e.Message == "" || e.ID == "" {
		c.t.Errorf("%s %v: %d %s: want %d %s", operation, params, got, body, status, code)
	}
	return e.Message
}

// update changes the store.
func (c *cloud) update(f func(*store.Tx) error) {
	c.t.Helper()
	if _, err := c.store.Update(c.t.Context(), f); err != nil {
		c.t.Fatal(err)
	}
}

func TestRequestsOfEC2sForm(t *testing.T) {
	c := newCloud(t)
	c.update(func(tx *store.Tx) error {
		for i, zone := range []string{"nova", "east", "nova"} {
			id := fmt.Sprintf("host-%d", i)
			if err := store.Hosts.Put(tx, &model.Host{Meta: model.Meta{ID: id, Name: id}, Zone: zone, Disabled: i == 1}); err != nil {
				return err
			}
		}
		return nil
	})
	var zones struct {
		XMLName   xml.Name `xml:"DescribeAvailabilityZonesResponse"`
		RequestID string   `xml:"requestId"`
		Names     []string `xml:"availabilityZoneInfo>item>zoneName"`
		States    []string `xml:"availabilityZoneInfo>item>zoneState"`
	}
	c.must(&zones, "red", "DescribeAvailabilityZones")
	if fmt.Sprint(zones.Names, zones.States) != "[east nova] [unavailable available]" || zones.RequestID == "" || zones.XMLName.Space != "http://ec2.amazonaws.com/doc/2016-11-15/" {
		t.Errorf("%+v", zones)
	}
	zones.Names = nil
	c.must(&zones, "red-reader", "DescribeAvailabilityZones", "Filter.1.Name", "zone-name", "Filter.1.Value.1", "x", "Filter.1.Value.2", "n*a")
	if fmt.Sprint(zones.Names) != "[nova]" {
		t.Errorf("%v", zones.Names)
	}
	c.must(nil, "red", "DescribeRegions", "RegionName.1", "RegionOne")
	// By GET, too.
	w := httptest.NewRecorder()
	c.front.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/ec2?Action=DescribeRegions&AWSAccessKeyId=red", nil))
	if w.Code != 200 || !strings.Contains(w.Body.String(), "<regionName>RegionOne</regionName>") {
		t.Errorf("%d %s", w.Code, w.Body)
	}

	c.refused(401, "MissingAuthenticationToken", "", "DescribeRegions")
	c.refused(401, "AuthFailure", "nobody", "DescribeRegions")
	c.refused(401, "AuthFailure", "red", "DescribeRegions", "Signature", "wrong")
	c.refused(403, "UnauthorizedOperation", "unscoped", "DescribeRegions")
	c.refused(400, "InvalidAction", "red", "MakeCoffee")
	c.refused(400, "InvalidAction", "red", "../Describe/Regions")
	c.refused(400, "MissingAction", "red", "")
	c.refused(400, "UnknownParameter", "red", "DescribeRegions", "Colour", "red")
	c.refused(400, "UnknownParameter", "red", "DescribeRegions", "Filter"+strings.Repeat(".1", 9), "red")
	c.refused(400, "InvalidParameterValue", "red", "DescribeRegions", "Filter.1.Name", "colour", "Filter.1.Value.1", "red")
	c.refused(400, "InvalidParameterValue", "red", "DescribeRegions", "Filter.1.Name", "region-name")
	c.refused(400, "InvalidParameterValue", "red", "DescribeRegions", "DryRun", "maybe")
	c.refused(412, "DryRunOperation", "red", "DescribeRegions", "DryRun", "true")
}
