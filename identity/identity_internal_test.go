package identity

import (
	"crypto/hmac"
	"crypto/sha256"
)

func mac32(key, b []byte) []byte {
	m := hmac.New(sha256.New, key)
	m.Write(b)
	return m.Sum(nil)
}
