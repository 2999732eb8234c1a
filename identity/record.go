package identity

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"net/url"
	"strings"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// The collections of identity records.
const (
	Inferences       = "inference"  // role ParentID implies role PeerID
	Regions          = "region"     // ParentID: the region above
	Services         = "service"    // Name; Body: type, description
	Endpoints        = "endpoint"   // ParentID: service, PeerID: region; Body: interface, url, name, description
	ProjectEndpoints = "ep_project" // ParentID: project, PeerID: endpoint
	Credentials      = "credential" // OwnerID: user, ParentID: project; Body: type; Secret: the sealed blob
	AppCredentials   = "app_credential"
	AccessRules      = "access_rule" // OwnerID: user; Body: service, method, path
	Trusts           = "trust"       // OwnerID: trustor, PeerID: trustee, ParentID: project
	Consumers        = "consumer"    // Secret: sealed
	RequestTokens    = "request_token"
	AccessTokens     = "access_token" // OwnerID: user, ParentID: consumer, PeerID: project
	Policies         = "policy"
	Mappings         = "mapping"
	RegisteredLimits = "registered_limit" // ParentID: service, PeerID: region; Body: resource_name, default_limit
	Limits           = "limit"            // ParentID: project or domain, PeerID: registered limit
)

// nouns are Keystone's words for the collections in its messages.
var nouns = map[string]string{
	Inferences: "role inference rule", Regions: "region", Services: "service", Endpoints: "endpoint",
	ProjectEndpoints: "project endpoint association", Credentials: "credential", AppCredentials: "Application Credential",
	AccessRules: "Access Rule", Trusts: "trust", Consumers: "Consumer", RequestTokens: "Request Token",
	AccessTokens: "Access Token", Policies: "policy", Mappings: "mapping", RegisteredLimits: "registered limit", Limits: "limit",
}

func recordKey(collection, id string) string { return collection + "," + id }

// GetRecord gives a record, or fault.NotFound.
func GetRecord(r store.Reader, collection, id string) (*model.IdentityRecord, error) {
	rec, ok := store.IdentityRecords.Get(r, recordKey(collection, id))
	if !ok {
		return nil, notFound(nouns[collection], id)
	}
	return rec, nil
}

// ListRecords gives a collection in the order of ids.
func ListRecords(r store.Reader, collection string) []*model.IdentityRecord {
	return collect(store.IdentityRecords.Prefix(r, "id", collection+","))
}

func copyRecord(rec *model.IdentityRecord) *model.IdentityRecord {
	out := *rec
	out.Body = maps.Clone(rec.Body)
	if out.Body == nil {
		out.Body = map[string]any{}
	}
	return &out
}

func body(rec *model.IdentityRecord, key string) string { s, _ := rec.Body[key].(string); return s }

// CreateRecord stores a new record of one of the plain collections: regions, services,
// endpoints, project endpoints, credentials, policies, mappings, consumers, limits and
// registered limits. It gives it an id where it has none. secret is sealed.
func (i *Identity) CreateRecord(ctx context.Context, rec *model.IdentityRecord, secret string) (*model.IdentityRecord, error) {
	out, err := i.CreateRecords(ctx, []*model.IdentityRecord{rec}, []string{secret})
	if err != nil {
		return nil, err
	}
	return out[0], nil
}

// CreateRecords is CreateRecord of several, all or none.
func (i *Identity) CreateRecords(ctx context.Context, recs []*model.IdentityRecord, secrets []string) ([]*model.IdentityRecord, error) {
	out := make([]*model.IdentityRecord, len(recs))
	for n, rec := range recs {
		row := copyRecord(rec)
		if row.ID == "" {
			row.ID = model.NewHexID()
		}
		if secrets != nil && secrets[n] != "" {
			if err := i.setSecret(row, secrets[n]); err != nil {
				return nil, err
			}
		}
		out[n] = row
	}
	_, err := i.store.Update(ctx, func(tx *store.Tx) error {
		for n := range out {
			row := copyRecord(out[n])
			if err := checkID(row); err != nil {
				return err
			}
			if _, twice := store.IdentityRecords.Get(tx, row.Key()); twice {
				return fault.New(fault.Conflict, "Conflict occurred attempting to store %s - Duplicate ID, %s.", nouns[row.Collection], row.ID)
			}
			if err := checkRecord(tx, row); err != nil {
				return err
			}
			mark(tx, row.OwnerID, row.ParentID, row.PeerID)
			if err := store.IdentityRecords.Put(tx, row); err != nil {
				return duplicate(err, nouns[row.Collection], "the same attributes")
			}
			out[n] = row
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func checkID(row *model.IdentityRecord) error {
	if len(row.ID) > 255 || strings.ContainsAny(row.ID, "/,\x00") || strings.TrimSpace(row.ID) != row.ID {
		return fault.New(fault.Invalid, "Invalid input for field 'id': '%.64s' is not the id of a %s.", row.ID, nouns[row.Collection])
	}
	return nil
}

// setSecret seals a secret into a row whose id is final. A credential of EC2 takes its id
// from its access key, as in Keystone, so that there is at most one with the key.
func (i *Identity) setSecret(row *model.IdentityRecord, secret string) error {
	if row.Collection == Credentials && body(row, "type") == "ec2" {
		var blob struct{ Access, Secret string }
		if json.Unmarshal([]byte(secret), &blob) != nil {
			return fault.New(fault.Invalid, "Invalid blob in credential")
		}
		if blob.Access == "" || blob.Secret == "" {
			return fault.New(fault.Invalid, "Invalid blob in credential: it needs access and secret.")
		}
		if row.ParentID == "" {
			return fault.New(fault.Invalid, "Could not find required attribute project_id of an ec2 credential.")
		}
		row.ID = accessID(blob.Access)
	}
	row.Secret = i.seal.closeText(row.Key(), secret)
	return nil
}

// accessID is the id of the credential with an access key.
func accessID(access string) model.ID {
	sum := sha256.Sum256([]byte(access))
	return hex.EncodeToString(sum[:])
}

// Secret opens the sealed secret of a record.
func (i *Identity) Secret(rec *model.IdentityRecord) (string, error) {
	if rec.Secret == "" {
		return "", nil
	}
	return i.seal.openText(rec.Key(), rec.Secret)
}

// UpdateRecord changes a record of a plain collection. change works on a copy and may run
// more than once. secret, where it is not nil, replaces the sealed one.
func (i *Identity) UpdateRecord(ctx context.Context, collection, id string, secret *string, change func(*model.IdentityRecord) error) (*model.IdentityRecord, error) {
	var out *model.IdentityRecord
	_, err := i.store.Update(ctx, func(tx *store.Tx) error {
		old, err := GetRecord(tx, collection, id)
		if err != nil {
			return err
		}
		out = copyRecord(old)
		if err := change(out); err != nil {
			return err
		}
		if secret != nil {
			if err := i.setSecret(out, *secret); err != nil {
				return err
			}
			if out.ID != old.ID {
				return fault.New(fault.Invalid, "The access key of a credential cannot be changed.")
			}
		}
		if err := checkRecord(tx, out); err != nil {
			return err
		}
		mark(tx, out.OwnerID, out.ParentID, out.PeerID)
		return duplicate(store.IdentityRecords.Put(tx, out), nouns[collection], "the same attributes")
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// DeleteRecord deletes a record and what hangs on it.
func (i *Identity) DeleteRecord(ctx context.Context, collection, id string) error {
	return i.removeAll(ctx, func(s *sweep) error {
		rec, err := GetRecord(s.tx, collection, id)
		if err != nil {
			return err
		}
		guard(s.tx, id)
		hangs := append(collect(store.IdentityRecords.List(s.tx, "parent", id)), collect(store.IdentityRecords.List(s.tx, "peer", id))...)
		for _, h := range hangs {
			switch {
			case collection == Regions && h.Collection == Regions:
				return forbidden("Unable to delete region %s because it or its child regions have associated endpoints.", id)
			case collection == Regions && (h.Collection == Endpoints || h.Collection == RegisteredLimits):
				return forbidden("Unable to delete region %s because it or its child regions have associated endpoints.", id)
			case collection == RegisteredLimits && h.Collection == Limits:
				return forbidden("Unable to update or delete registered limit %s because there are project limits associated with it.", id)
			case collection == AccessRules:
				return forbidden("Access rule %s is in use by an application credential.", id)
			}
			if err := sweepTree(s, h, 0); err != nil {
				return err
			}
		}
		if collection == AccessRules && accessRuleUsed(s.tx, rec) {
			return forbidden("Unable to delete access rule %s: it is in use by an application credential.", id)
		}
		unmark(s.tx, id)
		return sweepRow(s, store.IdentityRecords, rec.Key())
	})
}

// sweepTree deletes a record and the records below it.
func sweepTree(s *sweep, rec *model.IdentityRecord, depth int) error {
	if depth < maxDepth {
		for _, index := range []string{"parent", "peer"} {
			for _, below := range collect(store.IdentityRecords.List(s.tx, index, rec.ID)) {
				if err := sweepTree(s, below, depth+1); err != nil {
					return err
				}
			}
		}
	}
	return sweepRow(s, store.IdentityRecords, rec.Key())
}

// sweepRecords deletes the records that go with a user, project, domain or role.
func sweepRecords(s *sweep, id model.ID) error {
	for _, index := range []string{"owner", "parent", "peer"} {
		for _, rec := range collect(store.IdentityRecords.List(s.tx, index, id)) {
			if err := sweepTree(s, rec, 0); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkRecord holds the rules of the plain collections; it sets their claims.
func checkRecord(tx *store.Tx, rec *model.IdentityRecord) error {
	claim := ""
	switch rec.Collection {
	case Regions:
		if rec.ParentID != "" {
			if _, err := GetRecord(tx, Regions, rec.ParentID); err != nil {
				return err
			}
			for up, n := rec.ParentID, 0; up != "" && n < 64; n++ {
				if up == rec.ID {
					return fault.New(fault.Invalid, "Circular region hierarchy: region %s is above itself.", rec.ID)
				}
				parent, err := GetRecord(tx, Regions, up)
				if err != nil {
					return err
				}
				up = parent.ParentID
			}
		}
	case Services:
		if err := checkName("type", body(rec, "type")); err != nil {
			return err
		}
	case Endpoints:
		if err := checkEndpoint(tx, rec); err != nil {
			return err
		}
	case ProjectEndpoints:
		if _, err := GetProject(tx, rec.ParentID); err != nil {
			return err
		}
		if _, err := GetRecord(tx, Endpoints, rec.PeerID); err != nil {
			return err
		}
	case Credentials:
		if _, err := GetUser(tx, rec.OwnerID); err != nil {
			return err
		}
		if rec.ParentID != "" {
			if _, err := GetProject(tx, rec.ParentID); err != nil {
				return err
			}
		}
	case RegisteredLimits, Limits:
		var err error
		if claim, err = checkLimit(tx, rec); err != nil {
			return err
		}
	}
	delete(rec.Body, "_claim")
	if claim != "" {
		rec.Body["_claim"] = claim
	}
	return nil
}

func checkEndpoint(tx *store.Tx, rec *model.IdentityRecord) error {
	if _, err := GetRecord(tx, Services, rec.ParentID); err != nil {
		return err
	}
	if rec.PeerID != "" {
		if _, err := GetRecord(tx, Regions, rec.PeerID); err != nil {
			return err
		}
	}
	switch body(rec, "interface") {
	case "public", "internal", "admin":
	default:
		return fault.New(fault.Invalid, "Invalid input for field 'interface': '%s' is not one of ['admin', 'internal', 'public']", body(rec, "interface"))
	}
	u, err := url.Parse(strings.NewReplacer("$(", "", ")s", "", "%(", "").Replace(body(rec, "url")))
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return fault.New(fault.Invalid, "Malformed endpoint URL (%s), see ERROR log for details.", body(rec, "url"))
	}
	return nil
}

// checkLimit holds the rules of unified limits and gives the row's claim: there is one
// registered limit of a resource in a service and region, and one limit of it a project
// or domain.
func checkLimit(tx *store.Tx, rec *model.IdentityRecord) (string, error) {
	meaning := func(r *model.IdentityRecord, service, region string) string {
		return service + "," + region + "," + body(r, "resource_name")
	}
	if rec.Collection == RegisteredLimits {
		if _, err := GetRecord(tx, Services, rec.ParentID); err != nil {
			return "", err
		}
		if rec.PeerID != "" {
			if _, err := GetRecord(tx, Regions, rec.PeerID); err != nil {
				return "", err
			}
		}
		claim := meaning(rec, rec.ParentID, rec.PeerID)
		if old, ok := store.IdentityRecords.Get(tx, rec.Key()); ok && body(old, "_claim") != claim && len(collect(store.IdentityRecords.List(tx, "peer", rec.ID))) > 0 {
			return "", forbidden("Unable to update or delete registered limit %s because there are project limits associated with it.", rec.ID)
		}
		guard(tx, rec.ID)
		return claim, nil
	}
	service, region := body(rec, "service_id"), body(rec, "region_id")
	var holder string
	for _, reg := range collect(store.IdentityRecords.List(tx, "parent", service)) {
		if reg.Collection == RegisteredLimits && body(reg, "_claim") == meaning(rec, service, region) {
			holder = reg.ID
		}
	}
	if holder == "" {
		return "", forbidden("No registered limit of %s in service %s and region %s.", body(rec, "resource_name"), service, region)
	}
	rec.PeerID = holder
	if _, err := GetRecord(tx, RegisteredLimits, holder); err != nil { // compared at commit
		return "", err
	}
	if _, err := GetProject(tx, rec.ParentID); err != nil {
		if _, err := GetDomain(tx, rec.ParentID); err != nil {
			return "", notFound("project", rec.ParentID)
		}
	}
	return rec.ParentID + "," + meaning(rec, service, region), nil
}

// RecordRoles gives the roles that a delegation's record hands on.
func RecordRoles(rec *model.IdentityRecord) []model.ID { return strs(rec.Body["roles"]) }
