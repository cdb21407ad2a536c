package work_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"os"
	"testing"
	"time"

	"github.com/sallyport/sallyport/bench/work"
)

func TestACrowdHasAValidTokenForEach(t *testing.T) {
	c, err := work.NewCrowd(t.TempDir(), 101, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(c.JWKS)
	if err != nil {
		t.Fatal(err)
	}
	var set struct {
		Keys []map[string]string `json:"keys"`
	}
	if err := json.Unmarshal(raw, &set); err != nil || len(set.Keys) != 1 || set.Keys[0]["alg"] != work.EdDSA {
		t.Fatalf("%s: %v", raw, err)
	}
	key, err := base64.RawURLEncoding.DecodeString(set.Keys[0]["x"])
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for i := range c.Len() {
		token := c.Token(i)
		last := bytes.LastIndexByte(token, '.')
		sig, err := base64.RawURLEncoding.DecodeString(string(token[last+1:]))
		if err != nil || !ed25519.Verify(key, token[:last], sig) {
			t.Errorf("token %d does not verify: %v", i, err)
		}
		seen[string(token)] = true
	}
	if len(seen) != 101 {
		t.Errorf("%d different tokens, want 101", len(seen))
	}
}

func TestACrowdOfNobody(t *testing.T) {
	if _, err := work.NewCrowd(t.TempDir(), 0, time.Now()); err == nil {
		t.Error("no error")
	}
}
