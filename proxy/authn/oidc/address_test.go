package oidc

import (
	"strings"
	"testing"
)

// TestReturnAddress: where a login may lead. Each refused row leads, or led in some
// gateway, somewhere else.
func TestReturnAddress(t *testing.T) {
	for _, good := range []string{
		"/", "/x", "/x/", "/x/y?z", "/v1/orders?a=b&c=%20d", "/a%20b", "/caf%C3%A9", "/x?next=https://app.example/", "/x?u=//y", "/x?u=%2F%2Fy",
		"/.well-known/x", "/...", "/a.b", "/x@y", "/x:y", "/x;y=z", "/~user", "/x?a=%5C",
	} {
		if got, ok := returnAddress(good); !ok || got != good {
			t.Errorf("%q is refused", good)
		}
	}
	bad := hostileAddresses()
	for _, row := range bad {
		if got, ok := returnAddress(row); ok {
			t.Errorf("%q leads to %q", row, got)
		}
	}
	if len(bad) < 60 {
		t.Errorf("%d rows", len(bad))
	}
}

// hostileAddresses lead, or led in some gateway, somewhere else.
func hostileAddresses() []string {
	return []string{
		"", "x", "evil.example", "https://evil.example", "http://evil.example/", "HTTPS://evil.example", "//evil.example", "///evil.example", "////evil.example",
		"/\\evil.example", "/\\/evil.example", "\\/evil.example", "\\\\evil.example", "/\\\\evil.example", "/x\\y", "/%5cevil.example", "/%5Cevil.example", "/x/%5c..",
		"/%2fevil.example", "/%2Fevil.example", "/%2f%2fevil.example", "/x%2fy", "/\tevil.example", "/\t/evil.example", "/%09/evil.example", "/%09evil.example",
		"/\n/evil.example", "/%0a/evil.example", "/%0d%0aSet-Cookie:x=y", "/\r\nSet-Cookie: x=y", "/x?a=%0d%0aSet-Cookie:%20x=y", "/x?a=%00", "/%00", "/x\x00",
		" /x", "/ /evil.example", "/%20/evil.example", "/%20evil.example", "/x y", "/\u00a0/evil.example", "/\u3000", "/\u2028x", "/é", "/x\x7f",
		"/.", "/..", "/./evil.example", "/../evil.example", "/..//evil.example", "/.//evil.example", "/x/../y", "/x/./y", "/x//y", "/x//", "/%2e%2e/x", "/%2e/x", "/.%2e/x",
		"/%252fevil.example", "/%255c", "/%25", "/%", "/%zz", "/x%2", "/x?%zz",
		"/x#y", "/#//evil.example", "/x?y#z", "javascript:alert(1)", "data:text/html,x", "/<script>", "/x\"y", "/x`y", "?x", "#x", "./x", "../x", "@evil.example", ":80",
		"http:/evil.example", "https:evil.example", "http:///evil.example", "//user@evil.example", "/" + strings.Repeat("x", maxReturn),
	}
}

func FuzzReturnAddress(f *testing.F) {
	for _, s := range []string{"/", "//x", "/%2f", "/x?y", "/\\x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		got, ok := returnAddress(raw)
		if ok && (got != raw || raw[0] != '/' || strings.HasPrefix(raw, "//") || strings.ContainsAny(raw, "\\\r\n\t #")) {
			t.Errorf("%q leads to %q", raw, got)
		}
	})
}

func TestConfigRefuses(t *testing.T) {
	good := Default()
	good.Issuer, good.ClientID = "https://idp.example", "web"
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*Config){
		"issuer: is missing":              func(c *Config) { c.Issuer = "" },
		"issuer: is http to a host":       func(c *Config) { c.Issuer = "http://idp.example" },
		"client_id: is missing":           func(c *Config) { c.ClientID = "" },
		"client_secret_file: is missing":  func(c *Config) { c.ClientAuth = authPost },
		"client_secret_file: is not used": func(c *Config) { c.ClientAuth, c.ClientSecretFile = authNone, "f" },
		"client_key_file: is missing":     func(c *Config) { c.ClientAuth = authKey },
		"client_key_file: is not used":    func(c *Config) { c.ClientAuth, c.ClientSecretFile, c.ClientKeyFile = authBasic, "f", "k" },
		"cert_file: is missing":           func(c *Config) { c.ClientAuth = authTLS },
		"cert_file: is not used":          func(c *Config) { c.ClientAuth, c.CertFile, c.KeyFile = authNone, "c", "k" },
		"key_file: and cert_file go":      func(c *Config) { c.CertFile = "c" },
		"client_auth: \"tls\"":            func(c *Config) { c.ClientAuth = "tls" },
		"authorization_parameters.state":  func(c *Config) { c.AuthorizationParameters = map[string]string{"state": "x"} },
		"scopes: \"a b\"":                 func(c *Config) { c.Scopes = []string{"a b"} },
		"redirect_path: \"x\"":            func(c *Config) { c.RedirectPath = "x" },
		"redirect_path: \"//x\"":          func(c *Config) { c.RedirectPath = "//x" },
		"logout_path: is the same":        func(c *Config) { c.LogoutPath = c.RedirectPath },
		"post_logout_redirect: must be":   func(c *Config) { c.PostLogoutRedirect = "evil" },
		"post_logout_redirect: \"//x\"":   func(c *Config) { c.PostLogoutRedirect = "//x" },
		"origins: \"https://a.example/\"": func(c *Config) { c.Origins = []string{"https://a.example/"} },
		"origins: \"http://a.example\"":   func(c *Config) { c.Origins = []string{"http://a.example"} },
		"origins: \"https://b.test\"":     func(c *Config) { c.Origins, c.Session.CookieDomain = []string{"https://b.test"}, "a.example" },
		"algorithms: HS256":               func(c *Config) { c.Algorithms = []string{"HS256"} },
		"leeway: 2m0s":                    func(c *Config) { c.Leeway = 120e9 },
		"request_object: needs":           func(c *Config) { c.RequestObject = true },
		"request_object_key_file: is not": func(c *Config) { c.RequestObjectKeyFile = "k" },
		"request_object_key_id: is not":   func(c *Config) { c.RequestObjectKeyID = "k" },
		"authorization_parameters.sub": func(c *Config) {
			c.RequestObject, c.RequestObjectKeyFile, c.AuthorizationParameters = true, "k", map[string]string{"sub": "x"}
		},
		"concurrent_logins: 6":                   func(c *Config) { c.ConcurrentLogins = 6 },
		"concurrent_logins: -1":                  func(c *Config) { c.ConcurrentLogins = -1 },
		"pushed_authorization_requests: \"yes\"": func(c *Config) { c.PushedAuthorizationRequests = "yes" },
		"session.lifetime":                       func(c *Config) { c.Session.Lifetime = 1 },
	} {
		c := good
		change(&c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
}
