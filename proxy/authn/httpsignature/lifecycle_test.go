package httpsignature

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport/sallyport/engine/setting"
	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/limit"
	"github.com/sallyport/sallyport/proxy/redis"
)

func write(t testing.TB, file string, data []byte) {
	t.Helper()
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// jwk is the public key of s, with more members.
func (s *signer) jwk(t testing.TB, more map[string]any) map[string]any {
	t.Helper()
	b64 := base64.RawURLEncoding.EncodeToString
	out := map[string]any{"kid": s.id}
	switch k := s.private.(type) {
	case ed25519.PrivateKey:
		out["kty"], out["crv"], out["x"] = "OKP", "Ed25519", b64(k.Public().(ed25519.PublicKey))
	case *ecdsa.PrivateKey:
		point, err := k.PublicKey.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		size := len(point) / 2
		out["kty"], out["crv"], out["x"], out["y"] = "EC", k.Params().Name, b64(point[1:1+size]), b64(point[1+size:])
	case *rsa.PrivateKey:
		out["kty"], out["n"], out["e"] = "RSA", b64(k.N.Bytes()), b64(big.NewInt(int64(k.E)).Bytes())
	}
	maps.Copy(out, more)
	return out
}

func jwks(t testing.TB, keys ...map[string]any) []byte {
	t.Helper()
	text, err := json.Marshal(map[string]any{"keys": keys})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func try(t *testing.T, a *Authenticator, s *signer, want error, says string) {
	t.Helper()
	id, err := a.Authenticate(t.Context(), s.request(t, "sig1", s.order()))
	if !errors.Is(err, want) || err != nil && !strings.Contains(err.Error(), says) {
		t.Errorf("%s: got %v, %v, want %v with %q", s.id, id, err, want, says)
	}
}

// TestReload: a key that was replaced is refused, and a broken file changes nothing.
func TestReload(t *testing.T) {
	one, two := newTestSigner(t, "k1", edwards), newTestSigner(t, "k1", ecdsaP256)
	set := filepath.Join(t.TempDir(), "set.json")
	three := newTestSigner(t, "k3", ecdsaP384)
	write(t, set, jwks(t, three.jwk(t, nil)))
	a := newTest(t, func(c *Config) {
		c.Consumers[0].Keys = append(c.Consumers[0].Keys, Key{JWKSFile: set})
	}, one)
	if files := a.Files(); len(files) != 2 || files[1] != set {
		t.Fatalf("files are %q", files)
	}
	try(t, a, one, nil, "")
	try(t, a, three, nil, "")
	file := a.Files()[0]
	write(t, file, two.pem(t))
	if err := a.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	try(t, a, one, authn.ErrSignature, "")
	try(t, a, two, nil, "")
	write(t, file, []byte("-----BEGIN"))
	write(t, set, []byte("{"))
	if err := a.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "is not PEM") || !strings.Contains(err.Error(), "set.json") {
		t.Errorf("broken files: %v", err)
	}
	try(t, a, two, nil, "")
	try(t, a, three, nil, "")
	write(t, set, jwks(t, two.jwk(t, nil)))
	if err := a.Reload(t.Context()); err == nil {
		t.Error("one broken file is not reported")
	}
	try(t, a, three, authn.ErrForeign, "")
}

// TestKeyFiles: what is no good key does not start.
func TestKeyFiles(t *testing.T) {
	p256, rsaKey := newTestSigner(t, "k1", ecdsaP256), newTestSigner(t, "k1", rsaPSS)
	small := "-----BEGIN PUBLIC KEY-----\nMFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBAKj34GkxFhD90vcNLYLInFEX6Ppy1tPf\n9Cnzj4p4WGeKLs1Pt8QuKUpRKfFLfRYC9AIKjbJTWit+CqvjWYzvQwECAwEAAQ==\n-----END PUBLIC KEY-----\n"
	for name, tt := range map[string]struct {
		text   string
		change func(*Key)
		says   string
	}{
		"RSA for v1_5":            {string(rsaKey.pem(t)), func(k *Key) { k.Algorithm = rsaPKCS1 }, ""},
		"other algorithm":         {string(p256.pem(t)), func(k *Key) { k.Algorithm = ecdsaP384 }, "no key for algorithm"},
		"RSA for ECDSA":           {string(rsaKey.pem(t)), func(k *Key) { k.Algorithm = ecdsaP256 }, "no key for algorithm"},
		"two keys":                {string(p256.pem(t)) + string(p256.pem(t)), nil, "more than one"},
		"private":                 {"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", nil, "openssl pkey -pubout"},
		"garbage":                 {"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", nil, "asn1"},
		"512 bits":                {small, nil, "512 bits"},
		"empty":                   {"", nil, "not PEM"},
		"too large":               {strings.Repeat("x", maxKeyFile+1), nil, "larger than"},
		"secret":                  {strings.Repeat("x", 32) + "\n", secretFile(""), ""},
		"short secret":            {strings.Repeat("x", 31) + "\n", secretFile(""), "31 bytes"},
		"binary secret":           {strings.Repeat("x", 32) + "\x00\n", secretFile("text"), "base64"},
		"base64 secret":           {strings.Repeat("A", 44) + "\r\n", secretFile("base64"), ""},
		"short secret in base64":  {strings.Repeat("A", 40), secretFile("base64"), "30 bytes"},
		"secret that is not that": {strings.Repeat("!", 44), secretFile("base64"), "not base64"},
	} {
		c := Default()
		k := Key{KeyID: "k1", PublicKeyFile: filepath.Join(t.TempDir(), "key")}
		write(t, k.PublicKeyFile, []byte(tt.text))
		if tt.change != nil {
			tt.change(&k)
		}
		c.Consumers = []Consumer{{Subject: "x", Keys: []Key{k}}}
		_, err := New("x", c, Deps{})
		if (err == nil) != (tt.says == "") || err != nil && (!strings.Contains(err.Error(), tt.says) || strings.Contains(err.Error(), "xxx")) {
			t.Errorf("%s: got %v, want %q", name, err, tt.says)
		}
	}
	c := Default()
	c.Consumers = []Consumer{{Subject: "x", Keys: []Key{{KeyID: "k1", PublicKeyFile: filepath.Join(t.TempDir(), "none")}}}}
	if _, err := New("x", c, Deps{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

func secretFile(encoding string) func(*Key) {
	return func(k *Key) { k.SecretFile, k.PublicKeyFile, k.SecretEncoding = k.PublicKeyFile, "", encoding }
}

// TestKeySets: the keys of a set have one algorithm each, whatever the set or the message
// says beside, and stay those of their consumer.
func TestKeySets(t *testing.T) {
	ed, p256, pss, pkcs := newTestSigner(t, "ed", edwards), newTestSigner(t, "p256", ecdsaP256), newTestSigner(t, "pss", rsaPSS), newTestSigner(t, "pkcs", rsaPKCS1)
	file := filepath.Join(t.TempDir(), "set.json")
	write(t, file, jwks(t, ed.jwk(t, nil), p256.jwk(t, map[string]any{"alg": "ES256"}), pss.jwk(t, map[string]any{"alg": "PS512"}), pkcs.jwk(t, map[string]any{"alg": "RS256"})))
	build := func(algorithm string) *Authenticator {
		return newTest(t, func(c *Config) {
			c.Consumers = []Consumer{{Subject: "x", Keys: []Key{{JWKSFile: file, Algorithm: algorithm}}}}
		})
	}
	for _, tt := range []struct {
		algorithm string
		s         *signer
		want      error
	}{
		{"", ed, nil},
		{"", p256, nil},
		{"", pss, nil},
		{"", pkcs, authn.ErrSignature},
		{rsaPSS, pss, nil},
		{rsaPSS, pkcs, authn.ErrSignature},
		{rsaPKCS1, pkcs, nil},
		{rsaPKCS1, pss, authn.ErrSignature},
		{rsaPKCS1, ed, nil},
		{"", &signer{"pkcs", rsaPSS, pkcs.private}, authn.ErrSignature}, // the set says RS256
	} {
		try(t, build(tt.algorithm), tt.s, tt.want, "")
	}
	write(t, file, jwks(t, map[string]any{"kty": "oct", "kid": "s", "k": base64.RawURLEncoding.EncodeToString(make([]byte, 32))}))
	c := Default()
	c.Consumers = []Consumer{{Subject: "x", Keys: []Key{{JWKSFile: file}}}}
	if _, err := New("x", c, Deps{}); err == nil || !strings.Contains(err.Error(), "shared secret") {
		t.Errorf("a set with a secret: %v", err)
	}
}

// TestSetsOfTwo: a consumer that publishes a key under the name of another's is still
// itself, and keeps nobody out.
func TestSetsOfTwo(t *testing.T) {
	mine, theirs := newTestSigner(t, "k1", edwards), newTestSigner(t, "k1", edwards)
	dir := t.TempDir()
	one, two := filepath.Join(dir, "one"), filepath.Join(dir, "two")
	write(t, one, jwks(t, mine.jwk(t, nil)))
	write(t, two, jwks(t, theirs.jwk(t, nil)))
	a := newTest(t, func(c *Config) {
		c.Consumers = []Consumer{{Subject: "one", Keys: []Key{{JWKSFile: one}}}, {Subject: "two", Keys: []Key{{JWKSFile: two}}}}
	})
	for subject, s := range map[string]*signer{"one": mine, "two": theirs} {
		id, err := a.Authenticate(t.Context(), s.request(t, "sig1", s.order()))
		if err != nil || id.Subject != subject {
			t.Errorf("%s: got %v, %v", subject, id, err)
		}
	}
}

// TestKeyOfTwo: a consumer that publishes another's public key as its own does not get
// that consumer's requests taken for its own. Nobody can tell whose they are.
func TestKeyOfTwo(t *testing.T) {
	victim := newTestSigner(t, "k1", edwards)
	set := filepath.Join(t.TempDir(), "set")
	write(t, set, jwks(t, victim.jwk(t, nil)))
	thief, owner := Consumer{Subject: "thief", Keys: []Key{{JWKSFile: set}}}, Consumer{Subject: "owner", Keys: []Key{{JWKSFile: set}}}
	for _, consumers := range [][]Consumer{{thief, owner}, {owner, thief}} {
		a := newTest(t, func(c *Config) { c.Consumers = consumers })
		if id, err := a.Authenticate(t.Context(), victim.request(t, "sig1", victim.order())); !errors.Is(err, authn.ErrInvalid) {
			t.Errorf("with %s first: got %v, %v, want ErrInvalid", consumers[0].Subject, id, err)
		}
	}
	a := newTest(t, func(c *Config) {
		c.Consumers = []Consumer{{Subject: "owner", Keys: []Key{{JWKSFile: set}, {JWKSFile: set}}}}
	})
	if id, err := a.Authenticate(t.Context(), victim.request(t, "sig1", victim.order())); err != nil || id.Subject != "owner" {
		t.Errorf("twice the key of one: %v, %v", id, err)
	}
}

// TestKeySetURL: keys come from a server, also new ones, and while it is down a
// signature by an unknown key is not decided.
func TestKeySetURL(t *testing.T) {
	one, two := newTestSigner(t, "k1", edwards), newTestSigner(t, "k2", edwards)
	var body atomic.Pointer[[]byte]
	publish := func(keys ...map[string]any) { text := jwks(t, keys...); body.Store(&text) }
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if text := body.Load(); text != nil {
			_, _ = w.Write(*text)
			return
		}
		w.WriteHeader(http.StatusInternalServerError)
		_, _ = io.WriteString(w, "down")
	}))
	t.Cleanup(server.Close)
	build := func() *Authenticator {
		return newTest(t, func(c *Config) { c.Consumers = []Consumer{{Subject: "x", Keys: []Key{{JWKSURL: server.URL}}}} })
	}
	a := build()
	if err := a.Prime(t.Context()); err == nil {
		t.Error("the server is down, and nobody says so")
	}
	try(t, a, one, authn.ErrUnavailable, "500")
	publish(one.jwk(t, nil))
	if err := a.Prime(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	try(t, a, one, nil, "")
	try(t, a, two, authn.ErrForeign, "")
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	body.Store(nil)
	next := build()
	next.Inherit(a)
	try(t, next, one, nil, "")
}

// TestRunLasts: also without anything to fetch, Run ends with its context and not before:
// the process would end with it.
func TestRunLasts(t *testing.T) {
	a := newTest(t, nil, newTestSigner(t, "k1", edwards))
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		ended := false
		go func() {
			_ = a.Run(ctx) // nil, as it is without a source
			ended = true
		}()
		synctest.Wait()
		if ended {
			t.Error("Run has ended")
		}
		stop()
		synctest.Wait()
		if !ended {
			t.Error("Run goes on")
		}
	})
}

func TestValidate(t *testing.T) {
	key := Key{KeyID: "k", PublicKeyFile: "f"}
	for name, tt := range map[string]struct {
		change func(*Config)
		keys   []string
	}{
		"as it is":               {func(*Config) {}, nil},
		"a field":                {func(c *Config) { c.Components = []string{"@target-uri", "x-tenant"} }, nil},
		"nobody":                 {func(c *Config) { c.Consumers = nil }, []string{"consumers"}},
		"no components":          {func(c *Config) { c.Components = []string{} }, []string{"components"}},
		"unknown component":      {func(c *Config) { c.Components = []string{"@status", "X-A", "signature", "", "@query-param"} }, []string{"components", "components", "components", "components", "components"}},
		"label":                  {func(c *Config) { c.Label = "Sig" }, []string{"label"}},
		"label with a digit":     {func(c *Config) { c.Label = "s1g-_.*" }, nil},
		"digit first":            {func(c *Config) { c.Label = "1" }, []string{"label"}},
		"tag":                    {func(c *Config) { c.Tag = "ä" }, []string{"tag"}},
		"realm":                  {func(c *Config) { c.Realm = `"` }, []string{"realm"}},
		"too many signatures":    {func(c *Config) { c.MaxSignatures = 17 }, []string{"max_signatures"}},
		"too old":                {func(c *Config) { c.MaxAge = 25 * time.Hour }, []string{"max_age"}},
		"no age":                 {func(c *Config) { c.MaxAge = -1 }, []string{"max_age"}},
		"leeway":                 {func(c *Config) { c.Leeway = 2 * time.Minute }, []string{"leeway"}},
		"nonces":                 {func(c *Config) { c.Nonce.ReplayEntries = -1 }, []string{"nonce.replay_entries"}},
		"share":                  {func(c *Config) { c.Nonce.ReplayEntriesPerKey = -1 }, []string{"nonce.replay_entries_per_key"}},
		"Redis":                  {func(c *Config) { c.Nonce.ReplayRedis = &redis.Config{} }, []string{"nonce.replay_redis.address"}},
		"limit":                  {func(c *Config) { c.VerificationLimit = limit.Config{Burst: -1} }, []string{"verification_limit.burst"}},
		"no subject, no keys":    {func(c *Config) { c.Consumers = []Consumer{{}} }, []string{"consumers[0].subject", "consumers[0].keys"}},
		"scope":                  {func(c *Config) { c.Consumers[0].Scopes = []string{"a b"} }, []string{"consumers[0].scopes"}},
		"our claim":              {func(c *Config) { c.Consumers[0].Claims = map[string]any{"key_id": "x"} }, []string{"consumers[0].claims.key_id"}},
		"claim that is no JSON":  {func(c *Config) { c.Consumers[0].Claims = map[string]any{"a": func() {}} }, []string{"consumers[0].claims"}},
		"keyid twice":            {func(c *Config) { c.Consumers = append(c.Consumers, Consumer{Subject: "y", Keys: []Key{key}}) }, []string{"consumers[1].keys[0].key_id"}},
		"no source":              {func(c *Config) { c.Consumers[0].Keys[0] = Key{KeyID: "k"} }, []string{"consumers[0].keys[0]"}},
		"two sources":            {func(c *Config) { c.Consumers[0].Keys[0].SecretFile = "s" }, []string{"consumers[0].keys[0]"}},
		"no keyid":               {func(c *Config) { c.Consumers[0].Keys[0].KeyID = "" }, []string{"consumers[0].keys[0].key_id"}},
		"keyid of a set":         {func(c *Config) { c.Consumers[0].Keys[0] = Key{KeyID: "k", JWKSFile: "f"} }, []string{"consumers[0].keys[0].key_id"}},
		"keyid":                  {func(c *Config) { c.Consumers[0].Keys[0].KeyID = "ä" }, []string{"consumers[0].keys[0].key_id"}},
		"algorithm":              {func(c *Config) { c.Consumers[0].Keys[0].Algorithm = "none" }, []string{"consumers[0].keys[0].algorithm"}},
		"HMAC with a public key": {func(c *Config) { c.Consumers[0].Keys[0].Algorithm = hmacSHA256 }, []string{"consumers[0].keys[0].algorithm"}},
		"secret for RSA":         {func(c *Config) { c.Consumers[0].Keys[0] = Key{KeyID: "k", SecretFile: "f", Algorithm: rsaPSS} }, []string{"consumers[0].keys[0].algorithm"}},
		"HMAC of a set":          {func(c *Config) { c.Consumers[0].Keys[0] = Key{JWKSFile: "f", Algorithm: hmacSHA256} }, []string{"consumers[0].keys[0].algorithm"}},
		"ECDSA of a set":         {func(c *Config) { c.Consumers[0].Keys[0] = Key{JWKSFile: "f", Algorithm: ecdsaP256} }, []string{"consumers[0].keys[0].algorithm"}},
		"encoding":               {func(c *Config) { c.Consumers[0].Keys[0].SecretEncoding = "text" }, []string{"consumers[0].keys[0].secret_encoding"}},
		"CA of a file":           {func(c *Config) { c.Consumers[0].Keys[0].CAFile = "f" }, []string{"consumers[0].keys[0]"}},
		"plain http":             {func(c *Config) { c.Consumers[0].Keys[0] = Key{JWKSURL: "http://keys.example"} }, []string{"consumers[0].keys[0].jwks_url"}},
		"too often":              {func(c *Config) { c.Consumers[0].Keys[0] = Key{JWKSURL: "https://keys.example", RefreshInterval: 1} }, []string{"consumers[0].keys[0].refresh_interval"}},
		"too many sets":          {func(c *Config) { c.Consumers[0].Keys = slices.Repeat([]Key{{JWKSFile: "f"}}, 17) }, []string{"consumers"}},
	} {
		c := Default()
		c.Consumers = []Consumer{{Subject: "x", Keys: []Key{key}}}
		tt.change(&c)
		var got []string
		for _, p := range setting.Problems(c.Validate()) {
			got = append(got, p.Key)
		}
		if !slices.Equal(got, tt.keys) {
			t.Errorf("%s: problems with %q, want %q: %v", name, got, tt.keys, c.Validate())
		}
	}
}

// TestInsecure: what weakens the gateway is said by its key.
func TestInsecure(t *testing.T) {
	c := Default()
	c.Consumers = []Consumer{{Subject: "x", Keys: []Key{{JWKSURL: "http://keys.example", InsecureHTTP: true}}}}
	c.InsecureUnsignedBody, c.InsecureUnverifiedBody, c.Components = true, true, []string{"@authority"}
	got := c.Insecure()
	for _, key := range []string{"insecure_unsigned_body", "insecure_unverified_body", "components", "consumers[0].keys[0].insecure_http"} {
		if got[key] == "" {
			t.Errorf("%s is not said", key)
		}
	}
	c = Default()
	c.Components = []string{"@method", "@target-uri"}
	if got := c.Insecure(); len(got) != 0 {
		t.Errorf("%v of a sound configuration", got)
	}
}
