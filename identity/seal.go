package identity

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
)

// sealVersion is the first byte of what is sealed with AES-256-GCM.
const sealVersion = 1

// sealer keeps secrets readable only with the cloud's master key.
type sealer struct{ aead cipher.AEAD }

func newSealer(master []byte) (*sealer, error) {
	if len(master) != 32 {
		return nil, fmt.Errorf("the master key has %d bytes, not 32", len(master))
	}
	key, err := hkdf.Key(sha256.New, master, nil, "yakumo identity seal 1", 32)
	if err != nil {
		return nil, fmt.Errorf("derive the sealing key: %w", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("make the sealing cipher: %w", err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("make the sealing cipher: %w", err)
	}
	return &sealer{aead}, nil
}

// close seals a secret. place names the row, so that a sealed secret cannot be moved to another.
func (s *sealer) close(place string, secret []byte) []byte {
	nonce := make([]byte, s.aead.NonceSize())
	rand.Read(nonce)
	out := append([]byte{sealVersion}, nonce...)
	return s.aead.Seal(out, nonce, secret, []byte(place))
}

var errSeal = errors.New("a sealed secret cannot be opened: it was damaged, or sealed under another master key")

func (s *sealer) open(place string, sealed []byte) ([]byte, error) {
	n := s.aead.NonceSize()
	if len(sealed) < 1+n || sealed[0] != sealVersion {
		return nil, errSeal
	}
	secret, err := s.aead.Open(nil, sealed[1:1+n], sealed[1+n:], []byte(place))
	if err != nil {
		return nil, errSeal
	}
	return secret, nil
}

func (s *sealer) closeText(place, secret string) string {
	return base64.StdEncoding.EncodeToString(s.close(place, []byte(secret)))
}

func (s *sealer) openText(place, sealed string) (string, error) {
	b, err := base64.StdEncoding.DecodeString(sealed)
	if err != nil {
		return "", errSeal
	}
	out, err := s.open(place, b)
	return string(out), err
}

// Seal encrypts a secret of another part under the master key. place names where it is kept.
func (i *Identity) Seal(place string, secret []byte) []byte { return i.seal.close(place, secret) }

// Unseal is Seal's inverse; it fails for another place or another master key.
func (i *Identity) Unseal(place string, sealed []byte) ([]byte, error) {
	return i.seal.open(place, sealed)
}
