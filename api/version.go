package api

import (
	"fmt"
	"strconv"
	"strings"

	"yakumo/fault"
)

// Version is a microversion.
type Version struct{ Major, Minor int }

// Less tells whether v is older than o.
func (v Version) Less(o Version) bool {
	return v.Major < o.Major || v.Major == o.Major && v.Minor < o.Minor
}

// AtLeast tells whether v is o or newer.
func (v Version) AtLeast(major, minor int) bool { return !v.Less(Version{major, minor}) }

// String gives major.minor.
func (v Version) String() string { return fmt.Sprintf("%d.%d", v.Major, v.Minor) }

// VersionRange is what a service serves, and under which names clients ask.
type VersionRange struct {
	Service  string // in the header OpenStack-API-Version: "compute"
	Legacy   string // older header, such as "X-OpenStack-Nova-API-Version"; empty: none
	Min, Max Version
}

// negotiate reads the request's headers and sets the response's, by the API-SIG's
// microversion specification: no header means the minimum, "latest" the maximum.
func (v *VersionRange) negotiate(c *Context) error {
	h := c.W.Header()
	h.Add("Vary", "OpenStack-API-Version")
	if v.Legacy != "" {
		h.Add("Vary", v.Legacy)
	}
	asked := ""
	for _, line := range c.R.Header.Values("Openstack-Api-Version") {
		for _, part := range strings.Split(line, ",") {
			if f := strings.Fields(part); len(f) == 2 && f[0] == v.Service {
				asked = f[1]
			}
		}
	}
	if asked == "" && v.Legacy != "" {
		asked = strings.TrimSpace(c.R.Header.Get(v.Legacy))
	}
	c.Version = v.Min
	switch asked {
	case "":
	case "latest":
		c.Version = v.Max
	default:
		major, minor, ok := strings.Cut(asked, ".")
		ma, err1 := strconv.Atoi(major)
		mi, err2 := strconv.Atoi(minor)
		if !ok || err1 != nil || err2 != nil || ma < 0 || mi < 0 {
			return fault.New(fault.Invalid, "API Version String '%s' is of invalid format. It must be of format MajorNum.MinorNum.", asked)
		}
		want := Version{ma, mi}
		if want.Less(v.Min) || v.Max.Less(want) {
			return fault.New(fault.NotAcceptable, "Version %s is not supported by the API. Minimum is %s and maximum is %s.", want, v.Min, v.Max)
		}
		c.Version = want
	}
	h.Set("OpenStack-API-Version", v.Service+" "+c.Version.String())
	if v.Legacy != "" {
		h.Set(v.Legacy, c.Version.String())
	}
	return nil
}
