package compute

import (
	"crypto/ed25519"
	"crypto/md5"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	mrand "math/rand/v2"
	"strings"

	"golang.org/x/crypto/ssh"

	"yakumo/fault"
	"yakumo/model"
	"yakumo/store"
)

// KeyType is an algorithm of a key that is made here.
type KeyType string

// The algorithms.
const (
	RSA     KeyType = "rsa" // 2048 bits, as Nova makes
	Ed25519 KeyType = "ed25519"
)

// GenerateKey makes a key: the public half as a line of authorized_keys, the private half
// in PEM (PKCS #1 for RSA, as Nova writes it; else OpenSSH's form). The private half is
// nowhere kept.
func GenerateKey(t KeyType) (public, private string, err error) {
	var pub, priv any
	switch t {
	case Ed25519:
		pub, priv, err = ed25519.GenerateKey(rand.Reader)
	default:
		var k *rsa.PrivateKey
		if k, err = rsa.GenerateKey(rand.Reader, 2048); err == nil {
			pub, priv = &k.PublicKey, k
		}
	}
	if err != nil {
		return "", "", fmt.Errorf("make a key: %w", err)
	}
	sp, err := ssh.NewPublicKey(pub)
	if err != nil {
		return "", "", fmt.Errorf("make a key: %w", err)
	}
	var block *pem.Block
	if k, ok := priv.(*rsa.PrivateKey); ok {
		block = &pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(k)}
	} else if block, err = ssh.MarshalPrivateKey(priv, ""); err != nil {
		return "", "", fmt.Errorf("make a key: %w", err)
	}
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(sp))) + " Generated-by-Nova", string(pem.EncodeToMemory(block)), nil
}

// Fingerprint gives the MD5 of a public key with colons, as Nova prints it. It reports
// fault.Invalid for what is no line of authorized_keys.
func Fingerprint(public string) (string, error) {
	k, _, _, rest, err := ssh.ParseAuthorizedKey([]byte(public))
	if err != nil || len(strings.TrimSpace(string(rest))) > 0 {
		return "", fault.New(fault.Invalid, "Keypair data is invalid: failed to generate fingerprint")
	}
	sum := md5.Sum(k.Marshal())
	out := make([]string, len(sum))
	for i, b := range sum {
		out[i] = fmt.Sprintf("%02x", b)
	}
	return strings.Join(out, ":"), nil
}

// CreateKeyPair keeps a public key under a name that is unique per user.
//
// Errors: fault.Invalid for a key that is none, fault.Conflict where the name is taken,
// fault.OverQuota.
func (c *Compute) CreateKeyPair(tx *store.Tx, sc Scope, user model.ID, name, public string) (*model.KeyPair, error) {
	print, err := Fingerprint(public)
	if err != nil {
		return nil, err
	}
	k := &model.KeyPair{
		ID: 1 + mrand.Int64N(1<<31-1), UserID: user, Name: name, Type: "ssh", PublicKey: public, Fingerprint: print, CreatedAt: c.now(),
	}
	if _, taken := store.KeyPairs.Get(tx, k.Key()); taken {
		return nil, fault.New(fault.Conflict, "Key pair '%s' already exists.", name)
	}
	if limit := c.Quota(tx, sc.ProjectID)[QuotaKeyPairs]; limit >= 0 && store.KeyPairs.Count(tx, "user", user) >= limit {
		return nil, fault.New(fault.OverQuota, "Quota exceeded, too many key pairs.")
	}
	mark := "quota,keypair," + user
	tx.Mark(mark)
	tx.Guard(mark)
	return k, store.KeyPairs.Put(tx, k)
}

// GetKeyPair gives a user's key pair.
func GetKeyPair(r store.Reader, user model.ID, name string) (*model.KeyPair, error) {
	k, ok := store.KeyPairs.Get(r, (&model.KeyPair{UserID: user, Name: name}).Key())
	if !ok {
		return nil, fault.New(fault.NotFound, "Keypair %s not found for user %s", name, user)
	}
	return k, nil
}

// DeleteKeyPair removes a user's key pair. Servers keep the key that they were made with.
func (c *Compute) DeleteKeyPair(tx *store.Tx, user model.ID, name string) error {
	k, err := GetKeyPair(tx, user, name)
	if err != nil {
		return err
	}
	return store.KeyPairs.Delete(tx, k.Key())
}
