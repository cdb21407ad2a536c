package introspection

import (
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/engine/setting"
	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/jose/josetest"
	"github.com/sallyport/sallyport/proxy/certs/certstest"
)

func canceled(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// TestClientAuthentication: how the provider sees who asks.
func TestClientAuthentication(t *testing.T) {
	p := newIDP(t)
	p.says(answerOf(nil))
	file := func(text string) string {
		name := filepath.Join(t.TempDir(), "credential")
		certstest.Write(t, name, []byte(text))
		return name
	}
	for _, tt := range []struct {
		name          string
		change        func(*Config)
		authorization string
		form          map[string]string
	}{
		{"basic", func(c *Config) { c.ClientSecretFile = file("a b:c%+é\r\n") }, "Basic " + base64.StdEncoding.EncodeToString([]byte("gw:a+b%3Ac%25%2B%C3%A9")), nil},
		{"id with a colon", func(c *Config) { c.ClientID, c.ClientSecretFile = "urn:gw", file("s") }, "Basic " + base64.StdEncoding.EncodeToString([]byte("urn%3Agw:s")), nil},
		{"post", func(c *Config) { c.ClientAuth, c.ClientSecretFile = authPost, file("a b&c") }, "", map[string]string{"client_id": "gw", "client_secret": "a b&c"}},
		{"bearer", func(c *Config) { c.ClientID, c.ClientSecretFile, c.BearerTokenFile = "", "", file("tok.en") }, "Bearer tok.en", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := p.config(t)
			tt.change(&c)
			if _, err := present(t, start(t, c), "token"); err != nil {
				t.Fatal(err)
			}
			q := p.last.Load()
			if got := q.header.Get("Authorization"); got != tt.authorization {
				t.Errorf("Authorization %q, want %q", got, tt.authorization)
			}
			for _, name := range []string{"client_id", "client_secret", "client_assertion"} {
				if got := q.form.Get(name); got != tt.form[name] {
					t.Errorf("%s %q, want %q", name, got, tt.form[name])
				}
			}
		})
	}
}

// TestSignedClientAuthentication checks the assertion with the standard library.
func TestSignedClientAuthentication(t *testing.T) {
	p, s := newIDP(t), newSigner(t)
	der, err := x509.MarshalPKCS8PrivateKey(s.Private)
	if err != nil {
		t.Fatal(err)
	}
	c := p.config(t)
	c.ClientSecretFile, c.ClientKeyFile, c.MaxAge = "", filepath.Join(t.TempDir(), "key.pem"), 0
	certstest.Write(t, c.ClientKeyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	a := start(t, c)
	seen := map[string]bool{}
	for range 2 {
		if _, err := present(t, a, "token"); err != nil {
			t.Fatal(err)
		}
		form := p.last.Load().form
		if form.Get("client_id") != "gw" || form.Get("client_assertion_type") != "urn:ietf:params:oauth:client-assertion-type:jwt-bearer" {
			t.Errorf("form %v", form)
		}
		parts := strings.Split(form.Get("client_assertion"), ".")
		if len(parts) != 3 {
			t.Fatalf("assertion %q", form.Get("client_assertion"))
		}
		var raw [3][]byte
		for i, part := range parts {
			if raw[i], err = base64.RawURLEncoding.DecodeString(part); err != nil {
				t.Fatal(err)
			}
		}
		sum := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
		if len(raw[2]) != 64 || !ecdsa.Verify(&s.Private.(*ecdsa.PrivateKey).PublicKey, sum[:], new(big.Int).SetBytes(raw[2][:32]), new(big.Int).SetBytes(raw[2][32:])) {
			t.Error("the signature does not hold")
		}
		var claims struct {
			Iss, Sub, Aud, Jti string
			Iat, Exp           int64
		}
		if err := json.Unmarshal(raw[1], &claims); err != nil {
			t.Fatal(err)
		}
		if claims.Iss != "gw" || claims.Sub != "gw" || claims.Aud != c.URL || claims.Exp-claims.Iat != 60 || claims.Jti == "" || seen[claims.Jti] {
			t.Errorf("claims %+v, seen before %v", claims, seen)
		}
		seen[claims.Jti] = true
	}
}

// TestMutualTLS: the provider knows the gateway by its certificate, and the gateway
// the provider by its own authority (RFC 8705 section 2).
func TestMutualTLS(t *testing.T) {
	ca := certstest.NewCA(t, "provider CA")
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("client_id") != "gw" || r.TLS.PeerCertificates[0].Subject.CommonName != "gateway" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_, _ = io.WriteString(w, answerOf(nil))
	}))
	server.TLS = &tls.Config{
		Certificates: []tls.Certificate{ca.Issue(t, "idp", nil)}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.Pool(), MinVersion: tls.VersionTLS12,
	}
	server.StartTLS()
	defer server.Close()
	dir := t.TempDir()
	c := Default()
	c.URL, c.ClientID, c.CAFile = server.URL, "gw", filepath.Join(dir, "ca.pem")
	c.CertFile, c.KeyFile = filepath.Join(dir, "own.pem"), filepath.Join(dir, "own.key")
	certstest.Write(t, c.CAFile, ca.PEM())
	certstest.WritePair(t, ca.Issue(t, "gateway", nil), c.CertFile, c.KeyFile)
	a := start(t, c)
	if _, err := present(t, a, "token"); err != nil {
		t.Errorf("with the certificate: %v", err)
	}
	if want := []string{c.CAFile, c.CertFile, c.KeyFile}; !slices.Equal(slices.Sorted(slices.Values(want)), a.Files()) {
		t.Errorf("files are %q, want %q", a.Files(), want)
	}
	certstest.Write(t, c.CAFile, certstest.NewCA(t, "provider CA").PEM()) // the same name and another key
	if err := a.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := present(t, a, "another"); !errors.Is(err, authn.ErrUnavailable) {
		t.Errorf("a provider of another authority: %v, want ErrUnavailable", err)
	}
}

// TestReload: the new secret counts, a broken file does not.
func TestReload(t *testing.T) {
	p := newIDP(t)
	c := p.config(t)
	c.ClientAuth, c.MaxAge = authPost, 0
	a := start(t, c)
	if !slices.Equal(a.Files(), []string{c.ClientSecretFile}) {
		t.Errorf("files are %q", a.Files())
	}
	shown := func() string {
		if _, err := present(t, a, "token"); err != nil {
			t.Fatal(err)
		}
		return p.last.Load().form.Get("client_secret")
	}
	if got := shown(); got != "s3cret" {
		t.Errorf("secret %q", got)
	}
	certstest.Write(t, c.ClientSecretFile, []byte("\n"))
	if err := a.Reload(t.Context()); err == nil {
		t.Error("Reload of an empty secret returned no error")
	}
	if got := shown(); got != "s3cret" {
		t.Errorf("after a broken file: secret %q", got)
	}
	certstest.Write(t, c.ClientSecretFile, []byte("next"))
	if err := a.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := shown(); got != "next" {
		t.Errorf("after the reload: secret %q", got)
	}
}

// TestBoundToACertificate: RFC 8705 section 3.2, also where the answer is cached.
func TestBoundToACertificate(t *testing.T) {
	ca := certstest.NewCA(t, "clients")
	mine, other := ca.Issue(t, "mine", nil), ca.Issue(t, "other", nil)
	sum := sha256.Sum256(mine.Leaf.Raw)
	p := newIDP(t)
	p.says(answerOf(map[string]any{"cnf": map[string]any{"x5t#S256": josetest.Base64(sum[:])}}))
	a := start(t, p.config(t))
	state := func(c tls.Certificate) *tls.ConnectionState {
		return &tls.ConnectionState{
			HandshakeComplete: true, PeerCertificates: []*x509.Certificate{c.Leaf}, VerifiedChains: [][]*x509.Certificate{{c.Leaf, ca.Certificate}},
		}
	}
	for _, tt := range []struct {
		name string
		tls  *tls.ConnectionState
		want error
	}{{"mine", state(mine), nil}, {"other", state(other), authn.ErrInvalid}, {"none", nil, authn.ErrInvalid}, {"mine again", state(mine), nil}} {
		r := request("token")
		r.TLS, r.Now = tt.tls, time.Now()
		p.says(answerOf(map[string]any{"cnf": map[string]any{"x5t#S256": josetest.Base64(sum[:])}, "exp": nil}))
		if _, err := a.Authenticate(t.Context(), r); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
	}
	if n := p.asked.Load(); n != 1 {
		t.Errorf("asked %d times, want once", n)
	}
}

// TestConfigRefused: each row is one change of a good configuration and the key that
// the problem names.
func TestConfigRefused(t *testing.T) {
	p := newIDP(t)
	for _, tt := range []struct {
		name, key string
		change    func(*Config)
	}{
		{"no url", "url", func(c *Config) { c.URL = "" }},
		{"http", "url", func(c *Config) { c.URL = "http://idp.example/introspect" }},
		{"password in the url", "url", func(c *Config) { c.URL = "https://gw:x@idp.example/" }},
		{"nothing to say who asks", "client_secret_file", func(c *Config) { c.ClientSecretFile = "" }},
		{"unknown way", "client_auth", func(c *Config) { c.ClientAuth = "none" }},
		{"post without secret", "client_secret_file", func(c *Config) { c.ClientSecretFile, c.ClientAuth = "", authPost }},
		{"key without key", "client_key_file", func(c *Config) { c.ClientSecretFile, c.ClientAuth = "", authKey }},
		{"TLS without certificate", "cert_file", func(c *Config) { c.ClientSecretFile, c.ClientAuth = "", authTLS }},
		{"two credentials", "bearer_token_file", func(c *Config) { c.BearerTokenFile = "x" }},
		{"certificate without key", "key_file", func(c *Config) { c.CertFile = "x" }},
		{"no client id", "client_id", func(c *Config) { c.ClientID = "" }},
		{"unknown format", "format", func(c *Config) { c.Format = "xml" }},
		{"signed without issuer", "issuer", func(c *Config) { c.Format = formatSigned }},
		{"JWT without issuer", "issuer", func(c *Config) { c.Format = formatJWT }},
		{"keys from two places", "jwks_file", func(c *Config) {
			c.Format, c.Issuer, c.JWKSURL, c.JWKSFile = formatJWT, issuer, "https://idp.example/keys", "x"
		}},
		{"keys without signature", "jwks_url", func(c *Config) { c.JWKSURL = "https://idp.example/keys" }},
		{"algorithms without signature", "algorithms", func(c *Config) { c.Algorithms = []string{"ES256"} }},
		{"shared secret", "algorithms", func(c *Config) { c.Format, c.Issuer, c.Algorithms = formatJWT, issuer, []string{"HS256"} }},
		{"empty audience", "audiences", func(c *Config) { c.Audiences = []string{""} }},
		{"signed for nobody", "audiences", func(c *Config) {
			c.Format, c.Issuer, c.ClientID, c.ClientSecretFile, c.BearerTokenFile = formatSigned, issuer, "", "", "x"
		}},
		{"no types", "token_types", func(c *Config) { c.TokenTypes = []string{} }},
		{"leeway", "leeway", func(c *Config) { c.Leeway = time.Hour }},
		{"max_age", "max_age", func(c *Config) { c.MaxAge = -1 }},
		{"max_age too long", "max_age", func(c *Config) { c.MaxAge = 2 * time.Hour }},
		{"inactive_max_age", "inactive_max_age", func(c *Config) { c.InactiveMaxAge = time.Hour }},
		{"timeout", "timeout", func(c *Config) { c.Timeout = time.Hour }},
		{"max_wait", "max_wait", func(c *Config) { c.MaxWait = -1 }},
		{"max_concurrent", "max_concurrent", func(c *Config) { c.MaxConcurrent = -1 }},
		{"cache_size", "cache_size", func(c *Config) { c.CacheSize = -1 }},
		{"cache_bytes", "cache_bytes", func(c *Config) { c.CacheBytes = 1 }},
		{"failures", "question_limit.failures", func(c *Config) { c.QuestionLimit.Failures = -1 }},
		{"burst", "question_limit.burst", func(c *Config) { c.QuestionLimit.Burst = -1 }},
		{"clients", "question_limit.clients", func(c *Config) { c.QuestionLimit.Clients = -1 }},
		{"realm", "realm", func(c *Config) { c.Realm = `a"b` }},
	} {
		c := p.config(t)
		tt.change(&c)
		problems := setting.Problems(c.Validate())
		if len(problems) != 1 || problems[0].Key != tt.key {
			t.Errorf("%s: problems %v, want one of %s", tt.name, problems, tt.key)
		}
		if _, err := New("opaque", c, Deps{}); err == nil {
			t.Errorf("%s: an authenticator was made", tt.name)
		}
	}
	c := p.config(t)
	c.InsecureHTTP, c.URL = true, "http://idp.example/introspect"
	if err := c.Validate(); err != nil || c.Insecure()["insecure_http"] == "" {
		t.Errorf("insecure_http: %v, warning %q", err, c.Insecure())
	}
	for name, change := range map[string]func(*Config){
		"secret is missing": func(c *Config) { c.ClientSecretFile += "x" },
		"CA is missing":     func(c *Config) { c.CAFile = c.ClientSecretFile + "x" },
		"CA is none":        func(c *Config) { c.CAFile = c.ClientSecretFile },
		"key is none":       func(c *Config) { c.ClientKeyFile, c.ClientSecretFile = c.ClientSecretFile, "" },
	} {
		c := p.config(t)
		change(&c)
		if _, err := New("opaque", c, Deps{}); err == nil {
			t.Errorf("%s: an authenticator was made", name)
		}
	}
	if _, err := New("opaque", Config{URL: p.URL, ClientID: "gw", ClientSecretFile: p.config(t).ClientSecretFile}, Deps{}); err != nil {
		t.Errorf("what the contract shows: %v", err)
	}
}
