package ec2

import (
	"cmp"
	"encoding/base64"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"yakumo/api"
	"yakumo/compute"
	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

func (d *dialect) keyOperations(add adder) {
	add("CreateKeyPair", api.Member, d.createKeyPair, "KeyName", "KeyType", "KeyFormat")
	add("ImportKeyPair", api.Member, d.importKeyPair, "KeyName", "PublicKeyMaterial")
	add("DescribeKeyPairs", api.Reader, d.describeKeyPairs, "KeyName", "KeyPairId", "Filter", "IncludePublicKey")
	add("DeleteKeyPair", api.Member, d.deleteKeyPair, "KeyName", "KeyPairId")
}

// keyErrors are EC2's codes for what package compute answers about a key pair.
var keyErrors = recoding{fault.Invalid: "InvalidKey.Format", fault.Conflict: "InvalidKeyPair.Duplicate", fault.NotFound: "InvalidKeyPair.NotFound", fault.OverQuota: "KeyPairLimitExceeded"}

// keyPairID makes an id of a key pair's number: it has no UUID.
func keyPairID(k *model.KeyPair) string { return fmt.Sprintf("%s-%0*x", keyID, digits, k.ID) }

type shownKey struct {
	ID          string `xml:"keyPairId"`
	Name        string `xml:"keyName"`
	Fingerprint string `xml:"keyFingerprint"`
	Type        string `xml:"keyType,omitempty"`
	Public      string `xml:"publicKey,omitempty"`
	Created     string `xml:"createTime,omitempty"`
	Private     string `xml:"keyMaterial,omitempty"`
}

// keyNameRE are Nova's names of key pairs.
var keyNameRE = regexp.MustCompile(`^[a-zA-Z0-9 @._-]{1,255}$`)

func (q *request) keyName() (string, error) {
	name, err := q.must("KeyName")
	if err == nil && !keyNameRE.MatchString(name) {
		err = badValue("Value (%s) for parameter KeyName is invalid. It has at most 255 letters, digits, spaces and of @._-", api.Clip(name))
	}
	return name, err
}

// algorithm gives what EC2 calls the kind of a key.
func algorithm(k *model.KeyPair) string {
	kind, _, _ := strings.Cut(k.PublicKey, " ")
	return strings.TrimPrefix(kind, "ssh-")
}

func (d *dialect) addKeyPair(q *request, name, public string) (*model.KeyPair, error) {
	var k *model.KeyPair
	return k, q.update(func(tx *store.Tx) (err error) {
		k, err = d.c.CreateKeyPair(tx, q.scope(), q.Caller.UserID, name, public)
		return keyErrors.of(err)
	})
}

func (d *dialect) createKeyPair(q *request) (any, error) {
	name, err := q.keyName()
	if err != nil {
		return nil, err
	}
	kind := compute.KeyType(cmp.Or(q.str("KeyType"), string(compute.RSA)))
	switch {
	case kind != compute.RSA && kind != compute.Ed25519:
		return nil, badValue("Value (%s) for parameter KeyType is invalid. It is rsa or ed25519.", api.Clip(string(kind)))
	case q.str("KeyFormat") != "" && q.str("KeyFormat") != "pem":
		return nil, badValue("Value (%s) for parameter KeyFormat is invalid. Keys are made in the form pem.", api.Clip(q.str("KeyFormat")))
	}
	public, private, err := compute.GenerateKey(kind)
	if err != nil {
		return nil, err
	}
	k, err := d.addKeyPair(q, name, public)
	if err != nil {
		return nil, err
	}
	return shownKey{ID: keyPairID(k), Name: k.Name, Fingerprint: k.Fingerprint, Private: private}, nil
}

func (d *dialect) importKeyPair(q *request) (any, error) {
	name, err := q.keyName()
	if err != nil {
		return nil, err
	}
	material, err := q.must("PublicKeyMaterial")
	if err != nil {
		return nil, err
	}
	public, err := base64.StdEncoding.DecodeString(material)
	if err != nil {
		return nil, fault.Coded(fault.Invalid, "InvalidKey.Format", "Key is not in valid OpenSSH public key format")
	}
	k, err := d.addKeyPair(q, name, strings.TrimSpace(string(public)))
	if err != nil {
		return nil, err
	}
	return shownKey{ID: keyPairID(k), Name: k.Name, Fingerprint: k.Fingerprint}, nil
}

func (d *dialect) describeKeyPairs(q *request) (any, error) {
	filters, err := q.filters("key-name", "key-pair-id", "fingerprint")
	if err != nil {
		return nil, err
	}
	var all []*model.KeyPair
	for k := range store.KeyPairs.List(q.Snapshot(), "user", q.Caller.UserID) {
		all = append(all, k)
	}
	names, ids := q.strs("KeyName"), q.strs("KeyPairId")
	for _, name := range names {
		if !slices.ContainsFunc(all, func(k *model.KeyPair) bool { return k.Name == name }) {
			return nil, keyID.none(name)
		}
	}
	for _, id := range ids {
		if !slices.ContainsFunc(all, func(k *model.KeyPair) bool { return keyPairID(k) == id }) {
			return nil, keyID.none(id)
		}
	}
	slices.SortFunc(all, func(a, b *model.KeyPair) int { return cmp.Compare(a.Name, b.Name) })
	var body struct {
		Keys set[shownKey] `xml:"keySet"`
	}
	for _, k := range all {
		x := shownKey{ID: keyPairID(k), Name: k.Name, Fingerprint: k.Fingerprint, Type: algorithm(k), Created: stamp(k.CreatedAt)}
		if q.flag("IncludePublicKey") {
			x.Public = k.PublicKey
		}
		if (len(names)+len(ids) == 0 || slices.Contains(names, x.Name) || slices.Contains(ids, x.ID)) && passes(filters, func(name string) []string {
			return []string{map[string]string{"key-name": x.Name, "key-pair-id": x.ID, "fingerprint": x.Fingerprint}[name]}
		}) {
			body.Keys.Items = append(body.Keys.Items, x)
		}
	}
	return body, nil
}

// deleteKeyPair removes a key pair; one that is not there is success, as there.
func (d *dialect) deleteKeyPair(q *request) (any, error) {
	name, id := q.str("KeyName"), q.str("KeyPairId")
	if name == "" && id == "" {
		return nil, missing("KeyName")
	}
	var body struct {
		Return bool   `xml:"return"`
		ID     string `xml:"keyPairId,omitempty"`
	}
	body.Return = true
	return body, q.update(func(tx *store.Tx) error {
		for k := range store.KeyPairs.List(tx, "user", q.Caller.UserID) {
			if (name == "" || k.Name == name) && (id == "" || keyPairID(k) == id) {
				body.ID = keyPairID(k)
				return keyErrors.of(d.c.DeleteKeyPair(tx, q.Caller.UserID, k.Name))
			}
		}
		return nil
	})
}
