package compute

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// Limits of a server.
const (
	MaxMetadata = 128   // items
	MaxTags     = 50    // tags
	MaxUserData = 65535 // bytes of base64
	MaxPorts    = 32    // interfaces
)

// NewServer is what a request wants of a new server.
type NewServer struct {
	ID          model.ID // its ports' device already
	ProjectID   model.ID // "" : the scope's
	Name        string
	Description string
	Flavor      *model.Flavor
	Image       *model.Image // nil: it boots from a volume
	Copy        model.ImageCopy
	Key         *model.KeyPair // nil: none
	UserData    string         // base64
	AdminPass   string         // told by the config drive, where it has one
	ConfigDrive bool
	Metadata    map[string]string
	Tags        []string
	Zone, Host  string // asked for; Host by name, of administrators
	HostName    string // "": made of the name
	Ports       []model.ID
	Volumes     []NewUse // in the order of the guest's disks; one may be the root disk
	AccessIPv4  string
	AccessIPv6  string
	DiskConfig  string
	Reservation string
	LaunchIndex int
	GroupID     model.ID            // of its server group; Join allowed it
	Hints       map[string][]string // the scheduler hints as they were given
	PortTags    map[model.ID]string // device tags, by port
	Token       string              // the client's own name for the request; kept for its dialect
	// Received is when the request came in.
	Received time.Time
}

// Create makes a server that waits for its host. The quota is the caller's to check for
// all servers of the request at once (Spend).
//
// Errors: fault.Invalid where the flavor is too small for the image, the image is for
// another architecture than any, or what is wanted no container has and the image is for one.
func (c *Compute) Create(tx *store.Tx, sc Scope, n NewServer) (*model.Server, error) {
	if n.Image == nil {
		if !slices.ContainsFunc(n.Volumes, func(u NewUse) bool { return u.Boot }) {
			return nil, fault.New(fault.Invalid, "Block Device Mapping is Invalid: Boot sequence for the instance and image/block device mapping combination is not valid.")
		}
		n.Image = &model.Image{}
	} else if err := fits(n.Flavor, n.Image); err != nil {
		return nil, err
	}
	if err := contain(&n); err != nil {
		return nil, err
	}
	if err := possessed(n.Flavor, n.Copy.Hardware); err != nil {
		return nil, err
	}
	now := c.now()
	project := n.ProjectID
	if project == "" {
		project = sc.ProjectID
	}
	s := &model.Server{
		Meta: model.NewMeta(project, n.Name, now), UserID: sc.UserID, Flavor: *n.Flavor, ImageID: n.Image.ID, Image: n.Copy,
		UserData: n.UserData, ConfigDrive: n.ConfigDrive, Metadata: cloneMap(n.Metadata), Zone: n.Zone, WantHost: n.Host,
		HostName: n.HostName, Ports: n.Ports, Token: n.Token, Power: model.PowerRunning, AccessIPv4: n.AccessIPv4, AccessIPv6: n.AccessIPv6,
		DiskConfig: n.DiskConfig, Reservation: n.Reservation, LaunchIndex: n.LaunchIndex, RequestID: sc.RequestID,
		Arch: archOf(n.Image), GroupID: n.GroupID, Hints: n.Hints, PortTags: n.PortTags,
		Container: containerized(n.Image),
	}
	s.ID, s.Description = n.ID, n.Description
	s.Tags = slices.Sorted(slices.Values(n.Tags))
	s.Flavor.Access = nil
	if s.HostName == "" {
		s.HostName = HostName(n.Name, s.ID)
	}
	c.tellPass(s, n.AdminPass)
	if n.Key != nil {
		s.KeyName, s.PublicKey = n.Key.Name, n.Key.PublicKey
	}
	s.Status = model.ServerStatus{Phase: model.PhasePlacing, Task: TaskScheduling, Action: sc.RequestID}
	if _, taken := store.Servers.Get(tx, s.ID); taken {
		return nil, fault.New(fault.Conflict, "Instance %s exists already.", s.ID)
	}
	for _, u := range n.Volumes {
		if _, err := c.use(tx, sc, s, u); err != nil {
			return nil, err
		}
	}
	if err := store.Servers.Put(tx, s); err != nil {
		return nil, err
	}
	return s, c.record(tx, sc, s, "create", receipt(n.Received, now))
}

// archOf gives the architecture that an image asks for, "" any.
func archOf(img *model.Image) string {
	return cmp.Or(img.Properties["hw_architecture"], img.Properties["architecture"])
}

// fits refuses a flavor that is too small for the image.
func fits(f *model.Flavor, img *model.Image) error {
	if bad := model.BadFirmware(f.Name, img.ID, f.ExtraSpecs, img.Properties); bad != "" {
		return fault.New(fault.Invalid, "%s", bad)
	}
	switch disk := int64(f.DiskGiB) << 30; {
	case f.MemoryMiB < img.MinRAMMiB:
		return fault.New(fault.Invalid, "Flavor's memory is too small for requested image.")
	case disk > 0 && img.VirtualSize > disk:
		return fault.New(fault.Invalid, "Flavor's disk is too small for requested image. Flavor disk is %d bytes, image is %d bytes.", disk, img.VirtualSize)
	case disk > 0 && f.DiskGiB < img.MinDiskGiB:
		return fault.New(fault.Invalid, "Flavor's disk is smaller than the minimum size specified in image metadata. Flavor disk is %d bytes, minimum size is %d bytes.", disk, int64(img.MinDiskGiB)<<30)
	}
	return nil
}

// possessed refuses what a flavor and an image ask of the host's CPUs and memory and cannot have together.
func possessed(f *model.Flavor, hardware map[string]string) error {
	if _, wrong := model.ProcessorsOf(f.VCPUs, f.ExtraSpecs, hardware); wrong != "" {
		return fault.New(fault.Invalid, "%s", wrong)
	}
	if _, wrong := model.CellsOf(f.VCPUs, f.MemoryMiB, f.ExtraSpecs, hardware); wrong != "" {
		return fault.New(fault.Invalid, "%s", wrong)
	}
	if wrong := model.BadPages(f.ExtraSpecs, hardware); wrong != "" {
		return fault.New(fault.Invalid, "%s", wrong)
	}
	return nil
}

// HostName makes the name that a guest calls itself of a server's name, as Nova does:
// lower case, what no host name holds left out, at most 63 characters; server-<id> where
// nothing is left.
func HostName(name string, id model.ID) string {
	var b strings.Builder
	for _, r := range strings.ToLower(name) {
		switch {
		case r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-':
			b.WriteRune(r)
		case r == ' ' || r == '_' || r == '.':
			b.WriteByte('-')
		}
	}
	h := strings.Trim(b.String(), "-")
	if len(h) > 63 {
		h = strings.Trim(h[:63], "-")
	}
	if h == "" {
		return "server-" + id
	}
	return h
}

// change lets f change a server that the scope may see. spec true bumps its generation:
// what its host is told has changed.
func (c *Compute) change(tx *store.Tx, sc Scope, id model.ID, spec bool, f func(*model.Server) error) (*model.Server, error) {
	old, err := Get(tx, sc, id)
	if err != nil {
		return nil, err
	}
	s := copyOf(old)
	if err := f(s); err != nil {
		return nil, err
	}
	if spec {
		s.Touch(c.now())
		s.RequestID = sc.RequestID
	}
	unleased(s)
	s.UpdatedAt = c.now()
	return s, store.Servers.Put(tx, s)
}

// Update is what a request changes of a server; nil: nothing.
type Update struct {
	Name, Description, HostName        *string
	AccessIPv4, AccessIPv6, DiskConfig *string
}

// Update changes a server.
func (c *Compute) Update(tx *store.Tx, sc Scope, id model.ID, u Update) (*model.Server, error) {
	return c.change(tx, sc, id, u.Name != nil || u.HostName != nil, func(s *model.Server) error {
		u.apply(s)
		return nil
	})
}

func (u *Update) apply(s *model.Server) {
	for _, x := range []struct{ dst, src *string }{
		{&s.Name, u.Name}, {&s.Description, u.Description}, {&s.HostName, u.HostName},
		{&s.AccessIPv4, u.AccessIPv4}, {&s.AccessIPv6, u.AccessIPv6}, {&s.DiskConfig, u.DiskConfig},
	} {
		if x.src != nil {
			*x.dst = *x.src
		}
	}
}

// Label changes the name and the metadata of a server, in whatever state it is: what EC2 calls its tags, which are given at once after it is made.
//
// Errors: fault.NotFound; fault.OverQuota (metadata_items); fault.Conflict where the server is being deleted or is locked.
func (c *Compute) Label(tx *store.Tx, sc Scope, id model.ID, name string, metadata map[string]string) (*model.Server, error) {
	return c.change(tx, sc, id, true, func(s *model.Server) error {
		if err := unlocked(sc, s); err != nil {
			return err
		}
		if s.Deleted {
			return wrongState("update metadata", s, "task_state", TaskDelete)
		}
		if limit := c.Quota(tx, s.ProjectID)[QuotaMetadata]; limit >= 0 && len(metadata) > limit {
			return fault.New(fault.OverQuota, "Maximum number of metadata items exceeds %d", limit)
		}
		s.Name, s.Metadata = name, cloneMap(metadata)
		return nil
	})
}

// SetMetadata lays items over the metadata of a server, or with replace puts them in its
// place.
//
// Errors: fault.OverQuota (metadata_items); fault.Conflict where the server is being
// built, deleted or is locked.
func (c *Compute) SetMetadata(tx *store.Tx, sc Scope, id model.ID, items map[string]string, replace Replace) (*model.Server, error) {
	return c.changeMetadata(tx, sc, id, "update metadata", func(m map[string]string) (map[string]string, error) {
		if replace {
			m = map[string]string{}
		}
		maps.Copy(m, items)
		return m, nil
	})
}

// Replace says whether what is given takes the place of what is there.
type Replace bool

// DeleteMetadata removes an item. It reports fault.NotFound where there is none.
func (c *Compute) DeleteMetadata(tx *store.Tx, sc Scope, id model.ID, key string) (*model.Server, error) {
	return c.changeMetadata(tx, sc, id, "delete metadata", func(m map[string]string) (map[string]string, error) {
		if _, ok := m[key]; !ok {
			return nil, fault.New(fault.NotFound, "Metadata item was not found")
		}
		delete(m, key)
		return m, nil
	})
}

func (c *Compute) changeMetadata(tx *store.Tx, sc Scope, id model.ID, what string, f func(map[string]string) (map[string]string, error)) (*model.Server, error) {
	return c.change(tx, sc, id, true, func(s *model.Server) error {
		if err := allow(sc, s, what, []string{Active, Paused, Suspended, Stopped}, nil); err != nil {
			return err
		}
		m := maps.Clone(s.Metadata)
		if m == nil {
			m = map[string]string{}
		}
		m, err := f(m)
		if err != nil {
			return err
		}
		if limit := c.Quota(tx, s.ProjectID)[QuotaMetadata]; limit >= 0 && len(m) > limit {
			return fault.New(fault.OverQuota, "Maximum number of metadata items exceeds %d", limit)
		}
		s.Metadata = m
		return nil
	})
}

// SetTags replaces the tags of a server.
func (c *Compute) SetTags(tx *store.Tx, sc Scope, id model.ID, f func(tags []string) ([]string, error)) (*model.Server, error) {
	return c.change(tx, sc, id, false, func(s *model.Server) error {
		if err := allow(sc, s, "update_tags", []string{Active, Paused, Suspended, Stopped}, nil); err != nil {
			return err
		}
		tags, err := f(slices.Clone(s.Tags))
		if err != nil {
			return err
		}
		slices.Sort(tags)
		if tags = slices.Compact(tags); len(tags) > MaxTags {
			return fault.New(fault.Invalid, "The number of tags exceeded the per-server limit %d", MaxTags)
		}
		s.Tags = tags
		return nil
	})
}
