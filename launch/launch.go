// Package launch composes the creation of a server: of compute (the server, its flavor, key pair, quota), network (its ports), images (what it boots) and
// volume (its disks), in one transaction, for every dialect alike. A dialect reads its own words into a Request.
//
// Refusals are in Nova's words, which the parts use too; a dialect that has others makes its own of the kind and the code.
//
// It owns nothing; it reads and writes through those parts and the store's tables. May import: fault, model, compute, network, images, volume, store.
// Must not import: api, agent, hypervisor, datapath.
package launch

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"strconv"

	"yakumo/compute"
	"yakumo/fault"
	"yakumo/images"
	"yakumo/model"
	"yakumo/network"
	"yakumo/store"
	"yakumo/volume"
)

// Config makes a Launcher.
type Config struct {
	Compute *compute.Compute
	Network *network.Network
	Images  *images.Images
	Volumes *volume.Volumes // nil: this cloud has none
}

// Launcher creates servers.
type Launcher struct {
	c    *compute.Compute
	net  *network.Network
	img  *images.Images
	vols *volume.Volumes
}

// New makes a Launcher.
func New(cfg Config) *Launcher {
	return &Launcher{c: cfg.Compute, net: cfg.Network, img: cfg.Images, vols: cfg.Volumes}
}

// MaxCount is how many servers one request may make.
const MaxCount = 1000

// Request is what is wanted. What it names is looked up in the transaction; of NewServer, the fields that say so here are filled in there.
type Request struct {
	compute.NewServer        // ID, Flavor, Image, Copy, Key, Zone, Ports, PortTags, Volumes, LaunchIndex, and of several the name's number, are filled in
	ImageID           string // "": it boots from a volume
	FlavorID          string
	KeyName           string // of the scope's user; "": none
	Zone              string // "": any
	NICs              []NIC
	Auto              bool // the only network that the project can mean
	Allocate          bool // with Auto: where there is none, the project's automatic one
	None              bool // no network
	Groups            []string
	Min, Max          int  // at least 1, at most MaxCount
	Alike             bool // of several, all have the same name, and only what the guests call themselves has the number
	Disks             []Disk
	// Local: ImageID is named by a mapping too.
	Local bool
	// MultiAttach: the client knows that a volume may be several servers'.
	MultiAttach bool
	// Also runs at the end of each transaction, with what was made in it; it may refuse. nil: nothing.
	Also func(tx *store.Tx, made []*model.Server) error
}

// perTx is how many servers one transaction makes: what a server with its ports touches is
// limited. More go into several: the first makes sure of the quota for all.
func (r *Request) perTx() int { return max(1, 16/max(1, len(r.NICs)+2*len(r.Disks))) }

// NewReservation makes the name of a request's servers together.
func NewReservation() string {
	const letters = "0123456789abcdefghijklmnopqrstuvwxyz"
	b := []byte("r-")
	for range 8 {
		b = append(b, letters[rand.IntN(len(letters))])
	}
	return string(b)
}

// Run makes the servers: as many as the quota leaves room for, at most Max; all of Min, or none.
//
// Errors: fault.Invalid for what is not there or does not go together, fault.Forbidden, fault.Conflict (networks), fault.OverQuota.
func (l *Launcher) Run(ctx context.Context, st *store.Store, sc compute.Scope, r *Request, log *slog.Logger) ([]*model.Server, error) {
	if sc.ProjectID == "" {
		return nil, invalid("The token is of no project: a server needs one.")
	}
	w := *r
	var made []*model.Server
	for len(made) < w.Max {
		var part []*model.Server
		count := w.Max // those that were made, when the quota leaves room for fewer than Max
		_, err := st.Update(ctx, func(tx *store.Tx) (err error) {
			if part, count, err = l.create(tx, sc, &w, len(made)); err != nil || w.Also == nil {
				return err
			}
			return w.Also(tx, part)
		})
		if err != nil {
			for _, s := range made {
				if _, derr := st.Update(ctx, func(tx *store.Tx) error { return l.c.Delete(tx, sc, s.ID) }); derr != nil {
					log.Warn("a server of a request that failed stays", "server", s.ID, "err", derr)
				}
			}
			return nil, err
		}
		made = append(made, part...)
		w.Max = count
	}
	return made, nil
}

// create makes the servers from the first on, at most r.perTx, in one transaction. It gives
// how many there are to be in all.
func (l *Launcher) create(tx *store.Tx, sc compute.Scope, r *Request, first int) ([]*model.Server, int, error) {
	flavor, err := compute.GetFlavor(tx, sc, r.FlavorID)
	if err != nil {
		return nil, 0, AsInvalid(err)
	}
	if flavor.Disabled {
		return nil, 0, invalid("Flavor %s could not be found.", r.FlavorID)
	}
	var img *model.Image
	if r, err = l.mapped(tx, sc, r); err != nil {
		return nil, 0, err
	}
	if r.ImageID != "" {
		if img, err = l.img.Bootable(tx, images.Caller{ProjectID: sc.ProjectID, Admin: sc.Admin}, r.ImageID); err != nil {
			return nil, 0, AsInvalid(err)
		}
	}
	var key *model.KeyPair
	if r.KeyName != "" {
		if key, err = compute.GetKeyPair(tx, sc.UserID, r.KeyName); err != nil {
			return nil, 0, invalid("Invalid key_name provided.")
		}
	}
	if err := Whereabouts(tx, r.Zone, r.Host); err != nil {
		return nil, 0, err
	}
	if limit := l.c.Quota(tx, sc.ProjectID)[compute.QuotaMetadata]; limit >= 0 && len(r.Metadata) > limit {
		return nil, 0, fault.New(fault.OverQuota, "Quota exceeded, too many metadata items.")
	}
	count := r.Max
	if first == 0 {
		// As many as the quota leaves room for, but at least Min.
		count = max(r.Min, l.c.Room(tx, sc.ProjectID, flavor, r.Max))
		err = l.c.Spend(tx, sc.ProjectID, flavor, count)
	} else {
		err = l.c.Spend(tx, sc.ProjectID, flavor, count-first)
	}
	if err != nil {
		return nil, 0, err
	}
	if r.GroupID != "" {
		if err := l.c.Join(tx, sc, r.GroupID, count-first); err != nil {
			return nil, 0, err
		}
	}
	groups, err := l.groups(tx, sc.ProjectID, r.Groups)
	if err != nil {
		return nil, 0, err
	}
	nics := r.NICs
	if r.Auto && !r.None {
		if nics, err = l.Choose(tx, sc, r.Allocate); err != nil {
			return nil, 0, err
		}
	}
	var out []*model.Server
	for i := first; i < min(count, first+r.perTx()); i++ {
		n := r.NewServer
		n.ID, n.LaunchIndex = model.NewID(), i
		if r.Max > 1 {
			if r.Alike && n.HostName == "" && n.Name != "" {
				n.HostName = compute.HostName(n.Name, n.ID)
			}
			if !r.Alike {
				n.Name += "-" + strconv.Itoa(i+1)
			}
			if n.HostName != "" {
				n.HostName += "-" + strconv.Itoa(i+1)
			}
		}
		n.Flavor, n.Image, n.Key, n.Zone = flavor, img, key, r.Zone
		if img != nil {
			n.Copy = images.Copy(img)
		}
		if n.Volumes, err = l.uses(tx, sc, r); err != nil {
			return nil, 0, err
		}
		for _, e := range nics {
			p, err := l.Plug(tx, sc, e, n.ID, r.Zone, groups)
			if err != nil {
				return nil, 0, err
			}
			n.Ports = append(n.Ports, p.ID)
			if e.Tag != "" {
				if n.PortTags == nil {
					n.PortTags = map[model.ID]string{}
				}
				n.PortTags[p.ID] = e.Tag
			}
		}
		s, err := l.c.Create(tx, sc, n)
		if err != nil {
			return nil, 0, err
		}
		out = append(out, s)
	}
	return out, count, nil
}

// Whereabouts checks that the zone and the host that are asked for exist; "" asks for none.
//
// Errors: fault.Invalid.
func Whereabouts(r store.Reader, zone, host string) error {
	z, h := zone == "", host == ""
	for x := range store.Hosts.All(r) {
		if x.Switch == nil {
			z, h = z || x.Zone == zone, h || x.Name == host
		}
	}
	switch {
	case !h:
		return invalid("Compute host %s could not be found.", clip(host))
	case !z:
		return invalid("The requested availability zone is not available")
	}
	return nil
}

// clip shortens what a client sent, for a message.
func clip(s string) string {
	if r := []rune(s); len(r) > 120 {
		return string(r[:120]) + "…"
	}
	return s
}

func invalid(format string, args ...any) error { return fault.New(fault.Invalid, format, args...) }

// AsInvalid makes the client's mistake of a thing that it named and that is not there.
func AsInvalid(err error) error {
	if fault.Is(err, fault.NotFound) {
		text, _ := fault.Text(err)
		return fault.Wrap(fault.Invalid, err, "%s", text)
	}
	return err
}
