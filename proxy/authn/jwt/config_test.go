package jwt

import (
	"slices"
	"testing"
	"time"

	"github.com/sallyport/sallyport/engine/setting"
	"github.com/sallyport/sallyport/proxy/authn/limit"
)

func TestValidate(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*Config)
		keys   []string // of the problems
	}{
		{"discovery", func(*Config) {}, nil},
		{"loopback", func(c *Config) { c.Issuer, c.JWKSURL = "http://127.0.0.1:8081", "http://[::1]:1/keys" }, nil},
		{"localhost", func(c *Config) { c.Issuer = "http://localhost:8081" }, nil},
		{"issuer that is no URL, with a file", func(c *Config) { c.Issuer, c.JWKSFile = "corp", "keys.json" }, nil},
		{"issuer that is no URL", func(c *Config) { c.Issuer = "corp" }, []string{"issuer"}},
		{"plain HTTP issuer", func(c *Config) { c.Issuer = "http://idp.example" }, []string{"issuer"}},
		{"plain HTTP issuer, with a file", func(c *Config) { c.Issuer, c.JWKSFile = "http://idp.example", "keys.json" }, []string{"issuer"}},
		{"plain HTTP keys", func(c *Config) { c.JWKSURL = "http://idp.example/keys" }, []string{"jwks_url"}},
		{"plain HTTP, said so", func(c *Config) {
			c.Issuer, c.JWKSURL, c.InsecureHTTP = "http://idp.example", "http://idp.example/keys", true
		}, nil},
		{"loopback look-alike", func(c *Config) { c.JWKSURL = "http://127.0.0.1.evil.example/keys" }, []string{"jwks_url"}},
		{"other scheme", func(c *Config) { c.JWKSURL, c.InsecureHTTP = "file:///keys", true }, []string{"jwks_url"}},
		{"password in the URL", func(c *Config) { c.JWKSURL = "https://u:p@idp.example/keys" }, []string{"jwks_url"}},
		{"two sources", func(c *Config) { c.JWKSURL, c.JWKSFile = "https://idp.example/keys", "keys.json" }, []string{"jwks_file"}},
		{"CA without a fetch", func(c *Config) { c.JWKSFile, c.CAFile = "keys.json", "ca.pem" }, []string{"ca_file"}},
		{"token for a key set", func(c *Config) { c.JWKSURL, c.JWKSTokenFile = "https://idp.example/keys", "token" }, nil},
		{"token for a discovered address", func(c *Config) { c.JWKSTokenFile = "token" }, []string{"jwks_token_file"}},
		{"token in the clear", func(c *Config) {
			c.JWKSURL, c.JWKSTokenFile, c.InsecureHTTP = "http://idp.example/keys", "token", true
		}, []string{"jwks_token_file"}},
		{"no audience", func(c *Config) { c.Audiences = nil }, []string{"audiences"}},
		{"empty audience", func(c *Config) { c.Audiences = []string{""} }, []string{"audiences"}},
		{"alg none", func(c *Config) { c.Algorithms = []string{"none"} }, []string{"algorithms"}},
		{"alg unknown", func(c *Config) { c.Algorithms = []string{"RS256", "ES256K", "rs256"} }, []string{"algorithms", "algorithms"}},
		{"no alg", func(c *Config) { c.Algorithms = []string{} }, []string{"algorithms"}},
		{"HS256 from a URL", func(c *Config) { c.Algorithms = []string{"HS256"} }, []string{"algorithms"}},
		{"HS256 from a file", func(c *Config) { c.JWKSFile, c.Algorithms = "keys.json", []string{"HS256"} }, nil},
		{"leeway", func(c *Config) { c.Leeway = 61 * time.Second }, []string{"leeway"}},
		{"negative leeway", func(c *Config) { c.Leeway = -1 }, []string{"leeway"}},
		{"longest leeway", func(c *Config) { c.Leeway = time.Minute }, nil},
		{"claim without values", func(c *Config) { c.RequiredClaims = map[string][]string{"tenant": nil} }, []string{"required_claims.tenant"}},
		{"refresh", func(c *Config) { c.RefreshInterval = time.Millisecond }, []string{"refresh_interval"}},
		{"cache", func(c *Config) { c.CacheSize = -1 }, []string{"cache_size"}},
		{"verification limit", func(c *Config) { c.VerificationLimit = limit.Config{Failures: -1, Burst: -1, Clients: 1 << 25} }, []string{
			"verification_limit.failures", "verification_limit.burst", "verification_limit.clients",
		}},
		{"scope claims", func(c *Config) { c.ScopeClaims = []string{"scope", ""} }, []string{"scope_claims"}},
		{"types", func(c *Config) { c.TokenTypes = []string{} }, []string{"token_types"}},
		{"realm", func(c *Config) { c.Realm = `a"b` }, []string{"realm"}},
		{"all at once", func(c *Config) { *c = Config{Leeway: -1, Algorithms: []string{"none"}} }, []string{"issuer", "audiences", "algorithms", "leeway"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := Default()
			c.Issuer, c.Audiences = "https://idp.example", []string{"orders-api"}
			tt.change(&c)
			var keys []string
			for _, p := range setting.Problems(c.Validate()) {
				keys = append(keys, p.Key)
			}
			if !slices.Equal(keys, tt.keys) {
				t.Errorf("problems of %q, want of %q: %v", keys, tt.keys, c.Validate())
			}
			if _, err := New("corp", c, Deps{}); len(tt.keys) > 0 && err == nil {
				t.Error("New took it")
			}
		})
	}
}
