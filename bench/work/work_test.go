package work_test

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/bench/work"
)

func publicKey(t *testing.T, w *work.Work) *rsa.PublicKey {
	t.Helper()
	raw, err := os.ReadFile(w.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(raw)
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return key.(*rsa.PublicKey)
}

func verify(t *testing.T, key *rsa.PublicKey, token string) error {
	t.Helper()
	last := strings.LastIndexByte(token, '.')
	sig, err := base64.RawURLEncoding.DecodeString(token[last+1:])
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(token[:last]))
	return rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], sig)
}

func TestTokensDifferAndVerify(t *testing.T) {
	w, err := work.New(t.TempDir(), 4, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	key, seen := publicKey(t, w), map[string]bool{}
	for _, token := range w.Tokens {
		if err := verify(t, key, token.Text); err != nil || seen[token.Text] {
			t.Errorf("token of %s: verify %v, seen before %v", token.Subject, err, seen[token.Text])
		}
		seen[token.Text] = true
	}
	requests, err := os.ReadFile(w.Requests)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(string(requests), "\n"); got != 4 {
		t.Errorf("%d requests, want 4", got)
	}
}

func TestCasesAreWhatTheySay(t *testing.T) {
	w, err := work.New(t.TempDir(), 1, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	cases, err := w.Cases(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	key := publicKey(t, w)
	for _, c := range cases {
		if c.Token == "" {
			continue
		}
		if err := verify(t, key, c.Token); (err != nil) != (c.Name == work.Forged) {
			t.Errorf("%s: verify: %v", c.Name, err)
		}
	}
}
