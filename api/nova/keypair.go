package nova

import (
	"cmp"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"yakumo/api"
	"yakumo/compute"
	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

func (d *dialect) keyPairRoutes(route adder) {
	// Keys belong to users, but a token without a project is not enough, as with all of Nova.
	route(http.MethodGet, "/os-keypairs", api.Reader, 1, d.listKeyPairs)
	route(http.MethodPost, "/os-keypairs", api.Member, 1, d.createKeyPair)
	route(http.MethodGet, "/os-keypairs/{name}", api.Reader, 1, d.showKeyPair)
	route(http.MethodDelete, "/os-keypairs/{name}", api.Member, 1, d.deleteKeyPair)
}

// keyOwner gives whose keys the request is about: the caller's, or those of user_id.
func keyOwner(c *api.Context, asked string) (string, error) {
	if asked == "" || asked == c.Caller.UserID {
		return c.Caller.UserID, nil
	}
	if !c.Caller.CloudAdmin {
		return "", fault.New(fault.Forbidden, "Policy doesn't allow os_compute_api:os-keypairs to be performed.")
	}
	if strings.ContainsAny(asked, "/,") {
		return "", badRequest("Invalid input for query parameters user_id. Value: %s. It is no user's id.", api.Clip(asked))
	}
	return asked, nil
}

func ownerOfQuery(c *api.Context) (string, error) {
	asked := ""
	if at(c, 10) {
		asked = c.Query().Get("user_id")
	}
	return keyOwner(c, asked)
}

func keyPairOf(c *api.Context, k *model.KeyPair) object {
	o := object{"name": k.Name, "public_key": k.PublicKey, "fingerprint": k.Fingerprint}
	if at(c, 2) {
		o["type"] = k.Type
	}
	return o
}

func (d *dialect) listKeyPairs(c *api.Context) error {
	if err := unknownQuery(c, 75, "user_id", "limit", "marker"); err != nil {
		return err
	}
	user, err := ownerOfQuery(c)
	if err != nil {
		return err
	}
	pg := api.Page{}
	if at(c, 35) {
		if pg, err = page(c.Query()); err != nil {
			return err
		}
	}
	rows := slices.SortedFunc(store.KeyPairs.List(c.Snapshot(), "user", user), func(a, b *model.KeyPair) int { return cmp.Compare(a.Name, b.Name) })
	rows, more, err := api.Cut(rows, pg, func(k *model.KeyPair) string { return k.Name })
	if err != nil {
		return badRequest("marker [%s] not found", api.Clip(pg.Marker))
	}
	out := make([]object, 0, len(rows))
	for _, k := range rows {
		out = append(out, object{"keypair": keyPairOf(c, k)})
	}
	body := object{"keypairs": out}
	if more && len(rows) > 0 {
		body["keypairs_links"] = next(c, "/os-keypairs", rows[len(rows)-1].Name, pg.Limit)
	}
	return c.JSON(http.StatusOK, body)
}

func (d *dialect) showKeyPair(c *api.Context) error {
	user, err := ownerOfQuery(c)
	if err != nil {
		return err
	}
	k, err := compute.GetKeyPair(c.Snapshot(), user, safeName(c.Param("name")))
	if err != nil {
		return err
	}
	o := keyPairOf(c, k)
	o["user_id"], o["id"], o["deleted"], o["created_at"] = k.UserID, k.ID, false, micros(k.CreatedAt)
	o["deleted_at"], o["updated_at"] = nil, nil
	return c.JSON(http.StatusOK, object{"keypair": o})
}

func safeName(s string) string { return strings.ReplaceAll(s, "/", "\x00") }

var (
	keyNameRE  = regexp.MustCompile(`^[a-zA-Z0-9 _-]+$`)
	keyName92  = regexp.MustCompile(`^[a-zA-Z0-9 @._-]+$`)
	keyTypeErr = "Key pairs of the type x509 are not offered by this cloud."
)

func (d *dialect) createKeyPair(c *api.Context) error {
	names := keyNameRE
	if at(c, 92) {
		names = keyName92
	}
	m := members{"name": matching(names, 1, 255), "public_key": text(1, 65535)}
	required := []string{"name"}
	if at(c, 2) {
		m["type"] = oneOf("ssh", "x509")
	} else {
		m["type"] = oneOf("ssh")
	}
	if at(c, 10) {
		m["user_id"] = text(1, 255)
	}
	if at(c, 92) {
		required = append(required, "public_key")
	}
	body, err := decode(c, exactly(members{"keypair": exactly(m, required...)}, "keypair"))
	if err != nil {
		return err
	}
	o := body["keypair"].(object)
	if str(o, "type") == "x509" {
		return badRequest("%s", keyTypeErr)
	}
	user, err := keyOwner(c, str(o, "user_id"))
	if err != nil {
		return err
	}
	name, public, private := strings.TrimSpace(str(o, "name")), strings.TrimSpace(str(o, "public_key")), ""
	if name == "" {
		return wrong("name", "", "'' is too short")
	}
	if public == "" {
		if public, private, err = compute.GenerateKey(compute.RSA); err != nil {
			return err
		}
	}
	var k *model.KeyPair
	if _, err := c.Store().Update(c.R.Context(), func(tx *store.Tx) (err error) {
		k, err = d.c.CreateKeyPair(tx, scope(c), user, name, public)
		return err
	}); err != nil {
		return err
	}
	out := keyPairOf(c, k)
	out["user_id"] = k.UserID
	if private != "" {
		out["private_key"] = private
	}
	status := http.StatusOK
	if at(c, 2) {
		status = http.StatusCreated
	}
	return c.JSON(status, object{"keypair": out})
}

func (d *dialect) deleteKeyPair(c *api.Context) error {
	user, err := ownerOfQuery(c)
	if err != nil {
		return err
	}
	if _, err := c.Store().Update(c.R.Context(), func(tx *store.Tx) error {
		return d.c.DeleteKeyPair(tx, user, safeName(c.Param("name")))
	}); err != nil {
		return err
	}
	if at(c, 2) {
		return c.Empty(http.StatusNoContent)
	}
	return c.Empty(http.StatusAccepted)
}
