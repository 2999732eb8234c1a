package keystone

import (
	"encoding/base64"
	"encoding/json"
	"net/http"

	"yakumo/api"
	"yakumo/fault"
	"yakumo/identity"
	"yakumo/model"
	"yakumo/store"
)

func (k *dialect) credentialRoutes() []api.Route {
	const ec2 = "/v3/users/{user}/credentials/OS-EC2"
	return []api.Route{
		{Method: "GET", Pattern: "/v3/credentials", Access: api.Anyone, Handle: k.listCredentials},
		{Method: "POST", Pattern: "/v3/credentials", Access: api.Anyone, Handle: k.createCredential},
		{Method: "GET", Pattern: "/v3/credentials/{credential}", Access: api.Anyone, Handle: k.getCredential},
		{Method: "PATCH", Pattern: "/v3/credentials/{credential}", Access: api.Anyone, Handle: k.updateCredential},
		{Method: "DELETE", Pattern: "/v3/credentials/{credential}", Access: api.Anyone, Handle: k.deleteCredential},
		{Method: "GET", Pattern: ec2, Access: api.Anyone, Handle: k.listEC2},
		{Method: "POST", Pattern: ec2, Access: api.Anyone, Handle: k.createEC2},
		{Method: "GET", Pattern: ec2 + "/{access}", Access: api.Anyone, Handle: k.getEC2},
		{Method: "DELETE", Pattern: ec2 + "/{access}", Access: api.Anyone, Handle: k.deleteEC2},
		{Method: "POST", Pattern: "/v3/ec2tokens", Access: api.Anyone, Handle: k.ec2Token},
		{Method: "POST", Pattern: "/v3/s3tokens", Access: api.Anyone, Handle: k.s3Token},
	}
}

func (k *dialect) showCredential(c *api.Context, rec *model.IdentityRecord) (map[string]any, error) {
	blob, err := k.id.Secret(rec)
	if err != nil {
		return nil, err
	}
	return render(extraOf(rec), map[string]any{"id": rec.ID, "user_id": rec.OwnerID, "project_id": orNull(rec.ParentID), "type": text(rec, "type"), "blob": blob,
		"links": self(c, "credentials", rec.ID)}), nil
}

func (k *dialect) answerCredential(c *api.Context, status int, rec *model.IdentityRecord) error {
	v, err := k.showCredential(c, rec)
	if err != nil {
		return err
	}
	return one(c, status, "credential", v)
}

func (k *dialect) listCredentials(c *api.Context) error {
	var rows []map[string]any
	for _, rec := range identity.ListRecords(c.Snapshot(), identity.Credentials) {
		if owns(c, rec.OwnerID, "") != nil {
			continue
		}
		v, err := k.showCredential(c, rec)
		if err != nil {
			return err
		}
		rows = append(rows, v)
	}
	return list(c, "credentials", rows, "user_id", "type")
}

// undelegated refuses a token whose rights were handed on: a credential that it made
// would outlive it and give its owner's whole rights.
func (k *dialect) undelegated(c *api.Context, action string) error {
	t, err := k.token(c)
	if err != nil {
		return err
	}
	if t.Via != identity.ViaNothing {
		return denied(action)
	}
	return nil
}

func (k *dialect) createCredential(c *api.Context) error {
	f, err := read(c, "credential")
	if err != nil {
		return err
	}
	rec := &model.IdentityRecord{Collection: identity.Credentials, OwnerID: c.Caller.UserID, Enabled: true, Body: map[string]any{}}
	blob := ""
	put(f, rec, "type", true)
	f.must("blob", &blob)
	f.text("user_id", &rec.OwnerID)
	f.text("project_id", &rec.ParentID)
	putExtra(f, rec)
	if f.err != nil {
		return f.err
	}
	if err := owns(c, rec.OwnerID, "create_credential"); err != nil {
		return err
	}
	if err := k.undelegated(c, "create_credential"); err != nil {
		return err
	}
	made, err := k.id.CreateRecord(c.R.Context(), rec, blob)
	if err != nil {
		return err
	}
	return k.answerCredential(c, http.StatusCreated, made)
}

// credentialFor gives the path's credential where it is the caller's or he is an administrator.
func (k *dialect) credentialFor(c *api.Context, action string) (*model.IdentityRecord, error) {
	rec, err := identity.GetRecord(c.Snapshot(), identity.Credentials, c.Param("credential"))
	if err != nil {
		if !c.Caller.CloudAdmin {
			return nil, denied(action)
		}
		return nil, err
	}
	return rec, owns(c, rec.OwnerID, action)
}

func (k *dialect) getCredential(c *api.Context) error {
	rec, err := k.credentialFor(c, "get_credential")
	if err != nil {
		return err
	}
	return k.answerCredential(c, http.StatusOK, rec)
}

func (k *dialect) updateCredential(c *api.Context) error {
	f, err := read(c, "credential")
	if err != nil {
		return err
	}
	rec, err := k.credentialFor(c, "update_credential")
	if err != nil {
		return err
	}
	if err := k.undelegated(c, "update_credential"); err != nil {
		return err
	}
	f.sameID("credential", rec.ID)
	var blob *string
	if f.has("blob") {
		blob = new(string)
		f.must("blob", blob)
	}
	made, err := k.id.UpdateRecord(c.R.Context(), identity.Credentials, rec.ID, blob, func(rec *model.IdentityRecord) error {
		before := text(rec, "type")
		put(f, rec, "type", false)
		f.text("user_id", &rec.OwnerID)
		f.text("project_id", &rec.ParentID)
		putExtra(f, rec)
		switch {
		case f.err != nil:
			return f.err
		case before != text(rec, "type") && (before == "ec2" || text(rec, "type") == "ec2"):
			return fault.New(fault.Invalid, "The type of a credential cannot change to or from ec2.")
		}
		return owns(c, rec.OwnerID, "update_credential")
	})
	if err != nil {
		return err
	}
	return k.answerCredential(c, http.StatusOK, made)
}

func (k *dialect) deleteCredential(c *api.Context) error {
	rec, err := k.credentialFor(c, "delete_credential")
	if err != nil {
		return err
	}
	if err := k.id.DeleteRecord(c.R.Context(), identity.Credentials, rec.ID); err != nil {
		return err
	}
	return c.Empty(http.StatusNoContent)
}

// ec2Blob is what a credential of type ec2 holds.
type ec2Blob struct {
	Access string `json:"access"`
	Secret string `json:"secret"`
}

func (k *dialect) showEC2(c *api.Context, rec *model.IdentityRecord) (map[string]any, error) {
	text, err := k.id.Secret(rec)
	if err != nil {
		return nil, err
	}
	var b ec2Blob
	if err := json.Unmarshal([]byte(text), &b); err != nil {
		return nil, err
	}
	return map[string]any{"access": b.Access, "secret": b.Secret, "user_id": rec.OwnerID, "tenant_id": rec.ParentID, "trust_id": nil,
		"links": self(c, "users", rec.OwnerID, "credentials", "OS-EC2", b.Access)}, nil
}

func (k *dialect) listEC2(c *api.Context) error {
	user := c.Param("user")
	if err := owns(c, user, "ec2_list_credentials"); err != nil {
		return err
	}
	if _, err := identity.GetUser(c.Snapshot(), user); err != nil {
		return err
	}
	var rows []map[string]any
	for rec := range store.IdentityRecords.List(c.Snapshot(), "owner", user) {
		if rec.Collection != identity.Credentials || text(rec, "type") != "ec2" {
			continue
		}
		v, err := k.showEC2(c, rec)
		if err != nil {
			return err
		}
		rows = append(rows, v)
	}
	return list(c, "credentials", rows)
}

func (k *dialect) createEC2(c *api.Context) error {
	user := c.Param("user")
	if err := owns(c, user, "ec2_create_credential"); err != nil {
		return err
	}
	var body map[string]any
	if err := c.Decode(&body); err != nil {
		return err
	}
	f := newFields(body)
	project := ""
	if f.must("tenant_id", &project); f.err != nil {
		return f.err
	}
	if err := k.undelegated(c, "ec2_create_credential"); err != nil {
		return err
	}
	// The credential logs in on that project, so its user must have a role there.
	if _, err := identity.GetProject(c.Snapshot(), project); err != nil {
		return err
	}
	if len(identity.EffectiveRoles(c.Snapshot(), user, identity.Scope{Kind: identity.ProjectScope, ID: project})) == 0 {
		return denied("ec2_create_credential")
	}
	blob, err := json.Marshal(ec2Blob{Access: model.NewHexID(), Secret: model.NewHexID() + model.NewHexID()})
	if err != nil {
		return err
	}
	rec, err := k.id.CreateRecord(c.R.Context(), &model.IdentityRecord{Collection: identity.Credentials, OwnerID: user, ParentID: project, Enabled: true,
		Body: map[string]any{"type": "ec2"}}, string(blob))
	if err != nil {
		return err
	}
	v, err := k.showEC2(c, rec)
	if err != nil {
		return err
	}
	return one(c, http.StatusCreated, "credential", v)
}

func (k *dialect) ec2For(c *api.Context, action string) (*model.IdentityRecord, error) {
	if err := owns(c, c.Param("user"), action); err != nil {
		return nil, err
	}
	rec, err := identity.EC2Credential(c.Snapshot(), c.Param("access"))
	if err != nil || rec.OwnerID != c.Param("user") {
		return nil, fault.New(fault.NotFound, "Could not find credential: %s.", c.Param("access"))
	}
	return rec, nil
}

func (k *dialect) getEC2(c *api.Context) error {
	rec, err := k.ec2For(c, "ec2_get_credential")
	if err != nil {
		return err
	}
	v, err := k.showEC2(c, rec)
	if err != nil {
		return err
	}
	return one(c, http.StatusOK, "credential", v)
}

func (k *dialect) deleteEC2(c *api.Context) error {
	rec, err := k.ec2For(c, "ec2_delete_credential")
	if err != nil {
		return err
	}
	if err := k.id.DeleteRecord(c.R.Context(), identity.Credentials, rec.ID); err != nil {
		return err
	}
	return c.Empty(http.StatusNoContent)
}

// signed reads the credentials of a request that a service hands on, which only services
// and administrators may: who learns a signature could otherwise turn it into a token.
func (k *dialect) signed(c *api.Context) (*fields, error) {
	if !c.Caller.CloudAdmin && !c.Caller.Has(identity.ServiceRole) {
		return nil, denied("validate_signature")
	}
	var body map[string]any
	if err := c.Decode(&body); err != nil {
		return nil, err
	}
	noun := "credentials"
	if _, old := body["ec2Credentials"]; old {
		noun = "ec2Credentials"
	}
	return object(body, noun)
}

// texts1 gives an object of strings.
func texts1(f *fields, key string) map[string]string {
	v, ok := f.get(key)
	if !ok || v == nil {
		return nil
	}
	m, isObject := v.(map[string]any)
	if !isObject {
		f.fail(wrongType(key, v, "object"))
		return nil
	}
	out := make(map[string]string, len(m))
	for name, v := range m {
		s, isText := v.(string)
		if !isText {
			f.fail(wrongType(key, v, "string"))
		}
		out[name] = s
	}
	return out
}

func (k *dialect) ec2Token(c *api.Context) error {
	f, err := k.signed(c)
	if err != nil {
		return err
	}
	var q identity.EC2Request
	f.must("access", &q.Access)
	f.must("signature", &q.Signature)
	f.text("host", &q.Host)
	f.text("verb", &q.Verb)
	f.text("path", &q.Path)
	f.text("body_hash", &q.BodyHash)
	q.Params, q.Headers = texts1(f, "params"), texts1(f, "headers")
	if f.err != nil {
		return f.err
	}
	text, t, err := k.id.IssueEC2(c.R.Context(), q)
	if err != nil {
		return err
	}
	return k.answerToken(c, http.StatusOK, text, t)
}

func (k *dialect) s3Token(c *api.Context) error {
	f, err := k.signed(c)
	if err != nil {
		return err
	}
	var access, signature, toSign string
	f.must("access", &access)
	f.must("signature", &signature)
	f.must("token", &toSign)
	if f.err != nil {
		return f.err
	}
	raw, err := base64.StdEncoding.DecodeString(toSign)
	if err != nil {
		if raw, err = base64.URLEncoding.DecodeString(toSign); err != nil {
			return fault.Wrap(fault.Invalid, err, "Invalid input for field 'token': it is not base64")
		}
	}
	text, t, err := k.id.IssueS3(c.R.Context(), access, signature, raw)
	if err != nil {
		return err
	}
	return k.answerToken(c, http.StatusOK, text, t)
}
