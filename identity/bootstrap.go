package identity

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// Start says what a new cloud begins with.
type Start struct {
	AdminPassword string // of the user admin, when he is made
	// BaseURL is where clients reach the API, such as "http://203.0.113.1:8780".
	BaseURL string
	Region  string // default RegionOne
}

// catalogStart is the services that the cloud offers.
var catalogStart = []struct{ kind, name, path string }{
	{"identity", "keystone", "/identity/v3"},
	{"image", "glance", "/image"},
	{"compute", "nova", "/compute/v2.1"},
	{"network", "neutron", "/network"},
	{"block-storage", "cinder", "/volume/v3"},
	{"volumev3", "cinderv3", "/volume/v3/$(project_id)s"},
	{"ec2", "ec2", "/ec2/"},
}

// The users and projects that Bootstrap makes.
const (
	adminName          = "admin"
	bootstrapSetting   = "identity.bootstrap"
	bootstrapURL       = "_bootstrap_url" // an endpoint's URL as Bootstrap wrote it
	defaultDomainName  = "Default"
	DefaultRegion      = "RegionOne" // where Start names none
	bootstrapMaxThings = 64
)

// Bootstrap makes what a cloud needs before anybody can log in: a signing key, the default
// domain, the roles, project and user admin with the admin role on project and system, and
// the service catalogue. It may run at every start. What it has made once it does not
// make again, so what a user changed or deleted stays so; only the URLs of endpoints that
// nobody changed follow BaseURL.
func (i *Identity) Bootstrap(ctx context.Context, s Start) error {
	if s.Region == "" {
		s.Region = DefaultRegion
	}
	hash, err := i.bootstrapHash(ctx, s.AdminPassword)
	if err != nil {
		return err
	}
	now := i.now()
	key := i.newKey(now)
	ids := make([]model.ID, 0, bootstrapMaxThings)
	_, err = i.store.Update(ctx, func(tx *store.Tx) error {
		b := &bootstrap{tx: tx, done: map[string]string{}, ids: ids}
		if err := b.load(); err != nil {
			return err
		}
		if err := b.run(s, hash, key, i); err != nil {
			return err
		}
		ids = b.ids
		return b.save()
	})
	if err != nil {
		return fmt.Errorf("bootstrap identity: %w", err)
	}
	return nil
}

// bootstrapHash hashes the password where the admin is yet to be made.
func (i *Identity) bootstrapHash(ctx context.Context, password string) (string, error) {
	if err := i.store.Sync(ctx); err != nil {
		return "", err
	}
	if _, done := store.Settings.Get(i.store.Snapshot(), bootstrapSetting); done {
		return "", nil
	}
	if password == "" {
		return "", fault.New(fault.Invalid, "The user admin needs a password.")
	}
	return i.hash.hash(ctx, password)
}

// bootstrap is one run. done says which things were ever made and their ids.
type bootstrap struct {
	tx    *store.Tx
	done  map[string]string
	ids   []model.ID // random ids, the same when the transaction runs again
	taken int
	dirty bool
}

func (b *bootstrap) load() error {
	row, ok := store.Settings.Get(b.tx, bootstrapSetting)
	if !ok {
		return nil
	}
	return json.Unmarshal(row.Value, &b.done)
}

func (b *bootstrap) save() error {
	if !b.dirty {
		return nil
	}
	value, err := json.Marshal(b.done)
	if err != nil {
		return err
	}
	return store.Settings.Put(b.tx, &model.Setting{Name: bootstrapSetting, Value: value})
}

func (b *bootstrap) id() model.ID {
	if b.taken == len(b.ids) {
		b.ids = append(b.ids, model.NewHexID())
	}
	b.taken++
	return b.ids[b.taken-1]
}

// once runs f where the thing was never made, with the id it shall have, and gives the id.
func (b *bootstrap) once(thing string, f func(id model.ID) error) (model.ID, error) {
	if id, ok := b.done[thing]; ok {
		return id, nil
	}
	id := b.id()
	if err := f(id); err != nil {
		return "", fmt.Errorf("%s: %w", thing, err)
	}
	b.done[thing], b.dirty = id, true
	return id, nil
}

func (b *bootstrap) run(s Start, hash string, key *model.SigningKey, i *Identity) error {
	tx := b.tx
	steps := []struct {
		thing string
		make  func(model.ID) error
	}{
		{"signing key", func(model.ID) error { return store.SigningKeys.Put(tx, key) }},
		{"domain", func(model.ID) error {
			return store.Domains.Put(tx, &model.Domain{ID: model.DefaultDomain, Name: defaultDomainName, Description: "The default domain", Enabled: true})
		}},
		{"project", func(id model.ID) error {
			if err := store.Settings.Put(tx, &model.Setting{Name: adminProjectSetting, Value: []byte(id)}); err != nil {
				return err
			}
			return store.Projects.Put(tx, &model.Project{ID: id, DomainID: model.DefaultDomain, ParentID: model.DefaultDomain,
				Name: adminName, Description: "Bootstrap project for initializing the cloud.", Enabled: true})
		}},
		{"user", func(id model.ID) error {
			return store.Users.Put(tx, &model.User{ID: id, DomainID: model.DefaultDomain, Name: adminName, Enabled: true,
				PasswordHash: hash, PasswordSetAt: key.CreatedAt})
		}},
	}
	for _, role := range []string{AdminRole, ManagerRole, MemberRole, ReaderRole, ServiceRole} {
		steps = append(steps, struct {
			thing string
			make  func(model.ID) error
		}{"role " + role, func(id model.ID) error {
			return putRole(tx, model.Role{ID: id, Name: role, Options: map[string]any{"immutable": true}})
		}})
	}
	for _, step := range steps {
		if _, err := b.once(step.thing, step.make); err != nil {
			return err
		}
	}
	chain := []string{AdminRole, ManagerRole, MemberRole, ReaderRole}
	for n := range chain[1:] {
		if _, err := b.once("role "+chain[n]+" implies "+chain[n+1], func(model.ID) error {
			return imply(tx, b.done["role "+chain[n]], b.done["role "+chain[n+1]])
		}); err != nil {
			return err
		}
	}
	admin := model.Assignment{RoleID: b.done["role "+AdminRole], UserID: b.done["user"]}
	if _, err := b.once("assignment on project", func(model.ID) error { a := admin; a.ProjectID = b.done["project"]; return assign(tx, a) }); err != nil {
		return err
	}
	if _, err := b.once("assignment on system", func(model.ID) error { a := admin; a.System = true; return assign(tx, a) }); err != nil {
		return err
	}
	if !slices.ContainsFunc(collect(store.SigningKeys.All(tx)), func(k *model.SigningKey) bool { return k.RetiredAt.IsZero() }) {
		if err := store.SigningKeys.Put(tx, key); err != nil {
			return err
		}
	}
	return b.catalog(s)
}

func (b *bootstrap) catalog(s Start) error {
	if _, err := b.once("region "+s.Region, func(model.ID) error {
		return store.IdentityRecords.Put(b.tx, &model.IdentityRecord{Collection: Regions, ID: s.Region, Enabled: true, Body: map[string]any{"description": ""}})
	}); err != nil {
		return err
	}
	for _, svc := range catalogStart {
		service, err := b.once("service "+svc.kind, func(id model.ID) error {
			return store.IdentityRecords.Put(b.tx, &model.IdentityRecord{Collection: Services, ID: id, Name: svc.name, Enabled: true, Body: map[string]any{"type": svc.kind}})
		})
		if err != nil {
			return err
		}
		address := strings.TrimSuffix(s.BaseURL, "/") + svc.path
		for _, face := range []string{"public", "internal", "admin"} {
			id, err := b.once("endpoint "+svc.kind+" "+face+" "+s.Region, func(id model.ID) error {
				mark(b.tx, service, s.Region)
				return store.IdentityRecords.Put(b.tx, &model.IdentityRecord{Collection: Endpoints, ID: id, ParentID: service, PeerID: s.Region, Enabled: true,
					Body: map[string]any{"interface": face, "url": address, bootstrapURL: address}})
			})
			if err != nil {
				return err
			}
			if err := b.follow(id, address); err != nil {
				return err
			}
		}
	}
	return nil
}

// follow gives an endpoint the new URL where it still has the one that Bootstrap wrote.
func (b *bootstrap) follow(id model.ID, address string) error {
	e, ok := store.IdentityRecords.Get(b.tx, recordKey(Endpoints, id))
	if !ok || body(e, "url") == address || body(e, "url") != body(e, bootstrapURL) {
		return nil
	}
	row := copyRecord(e)
	row.Body["url"], row.Body[bootstrapURL] = address, address
	return store.IdentityRecords.Put(b.tx, row)
}
