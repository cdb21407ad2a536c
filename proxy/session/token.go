package session

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
)

// Token returns a text that only a gateway with these keys can make, for a form that
// nobody else may send (a token against cross-site request forgery).
func (k *Keys) Token(purpose, of string) string {
	return base64.RawURLEncoding.EncodeToString((*k.current.Load())[0].token(purpose, of))
}

// CheckToken reports whether token is one that Token returned, with any of the keys.
func (k *Keys) CheckToken(purpose, of, token string) bool {
	got, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil {
		return false
	}
	ok := false
	for _, key := range *k.current.Load() {
		ok = hmac.Equal(got, key.token(purpose, of)) || ok
	}
	return ok
}

func (k *sealKey) token(purpose, of string) []byte {
	h := hmac.New(sha256.New, k.mac)
	h.Write([]byte(purpose + "\x00" + of))
	return h.Sum(nil)
}
