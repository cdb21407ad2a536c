package jwt

import (
	"crypto/tls"
	"errors"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/jose/josetest"
	"github.com/sallyport/sallyport/proxy/certs/certstest"
)

// TestReloadFile: the new file counts, a broken one does not.
func TestReloadFile(t *testing.T) {
	first, second := josetest.New(t, "k1", "ES256"), josetest.New(t, "k2", "ES256")
	a := newFromFile(t, nil, first)
	run(t, a)
	if !slices.Equal(a.Files(), []string{a.config.JWKSFile}) {
		t.Errorf("files are %q", a.Files())
	}
	old, fresh := first.Sign(t, first.Header(), claims(testIssuer, nil)), second.Sign(t, second.Header(), claims(testIssuer, nil))
	if _, err := present(t, a, old); err != nil {
		t.Fatal(err)
	}
	if _, err := present(t, a, fresh); !errors.Is(err, authn.ErrInvalid) {
		t.Errorf("before: got %v, want ErrInvalid", err)
	}

	certstest.Write(t, a.config.JWKSFile, []byte("{broken"))
	if err := a.Reload(t.Context()); err == nil {
		t.Error("Reload of a broken file returned no error")
	}
	if _, err := present(t, a, first.Sign(t, first.Header(), claims(testIssuer, nil))); err != nil {
		t.Errorf("after a broken file: %v", err)
	}
	if a.Status().Err == nil {
		t.Error("the status does not show the error")
	}

	certstest.Write(t, a.config.JWKSFile, []byte(josetest.JWKS(t, second)))
	if err := a.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := present(t, a, fresh); err != nil {
		t.Errorf("the new key: %v", err)
	}
	if _, err := present(t, a, old); !errors.Is(err, authn.ErrInvalid) {
		t.Errorf("a cached token of the removed key: got %v, want ErrInvalid", err)
	}
}

// TestFilesThatStopTheStart: a listed file that cannot be read is an error.
func TestFilesThatStopTheStart(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing")
	broken := filepath.Join(t.TempDir(), "broken")
	certstest.Write(t, broken, []byte("junk"))
	for name, change := range map[string]func(*Config){
		"key set missing": func(c *Config) { c.JWKSFile = missing },
		"key set broken":  func(c *Config) { c.JWKSFile = broken },
		"CA missing":      func(c *Config) { c.CAFile = missing },
		"CA broken":       func(c *Config) { c.CAFile = broken },
	} {
		c := Default()
		c.Issuer, c.Audiences = testIssuer, []string{"orders-api"}
		change(&c)
		if _, err := New("corp", c, Deps{}); err == nil {
			t.Errorf("%s: New returned no error", name)
		}
	}
}

// TestPrivateCA: the issuer's server is verified, with ca_file as it is now.
func TestPrivateCA(t *testing.T) {
	key := josetest.New(t, "k1", "ES256")
	is := josetest.NewIssuer(t, key)
	ca := certstest.NewCA(t, "issuer CA")
	server := httptest.NewUnstartedServer(is.Config.Handler)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{ca.Issue(t, "idp", nil)}, MinVersion: tls.VersionTLS12}
	server.StartTLS()
	defer server.Close()
	c := configOf(is)
	c.JWKSURL, c.CAFile = server.URL+"/keys", filepath.Join(t.TempDir(), "ca.pem")
	certstest.Write(t, c.CAFile, certstest.NewCA(t, "issuer CA").PEM()) // the same name and another key
	a, err := New("corp", c, Deps{})
	if err != nil {
		t.Fatal(err)
	}
	defer finish(t, a)
	if err := a.Prime(t.Context()); err == nil {
		t.Error("the keys were taken from a server that is not verified")
	}
	certstest.Write(t, c.CAFile, ca.PEM())
	if err := a.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := a.Prime(t.Context()); err != nil {
		t.Errorf("with the right CA: %v", err)
	}
	if !slices.Equal(a.Files(), []string{c.CAFile}) {
		t.Errorf("files are %q", a.Files())
	}
}

// TestRunEnds: Run returns nil when its context ends, whatever it does.
func TestRunEnds(t *testing.T) {
	key := josetest.New(t, "k1", "ES256")
	is := josetest.NewIssuer(t, key)
	a := start(t, configOf(is)) // the cleanup waits for Run
	if !eventually(t, 5*time.Second, func() bool { return a.Status().Keys == 1 }) {
		t.Error("Run did not fetch the keys")
	}
	if a.Files() != nil {
		t.Errorf("files are %q", a.Files())
	}
	if err := a.Reload(t.Context()); err != nil {
		t.Errorf("Reload without files: %v", err)
	}
}

// TestInherit: a reload of the configuration while the issuer is down.
func TestInherit(t *testing.T) {
	key := josetest.New(t, "k1", "ES256")
	is := josetest.NewIssuer(t, key)
	prev := start(t, configOf(is))
	if err := prev.Prime(t.Context()); err != nil {
		t.Fatal(err)
	}
	is.Answer(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
	token := key.Sign(t, key.Header(), claims(is.URL, nil))
	for _, tt := range []struct {
		name   string
		change func(*Config)
		want   error
	}{
		{"a rule changed", func(c *Config) { c.Leeway = time.Second }, nil},
		{"stricter audience", func(c *Config) { c.Audiences = []string{"billing"} }, authn.ErrInvalid},
		{"other key set", func(c *Config) { c.JWKSURL += "?other" }, authn.ErrUnavailable},
		{"other issuer", func(c *Config) { c.Issuer = "https://other.example" }, authn.ErrForeign},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := configOf(is)
			tt.change(&c)
			a, err := New("corp", c, Deps{})
			if err != nil {
				t.Fatal(err)
			}
			a.Inherit(prev)
			if _, err := present(t, a, token); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if s := a.Status(); (s.Keys == 1) != (c.source() == configOf(is).source()) || (s.Keys == 1) == s.Fetched.IsZero() {
				t.Errorf("status is %+v", s)
			}
		})
	}
}
