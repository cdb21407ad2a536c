package oidc

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/proxy/authn/oidc/oidctest"
	"github.com/sallyport/sallyport/proxy/certs/certstest"
)

// TestMutualTLSWithProvider: a certified provider knows the gateway by its certificate,
// wherever the gateway speaks to it: pushed request, token, renewal, revocation.
func TestMutualTLSWithProvider(t *testing.T) {
	s := newCertifiedSite(t)
	ca, stranger := certstest.NewCA(t, "provider CA"), certstest.NewCA(t, "another CA")
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	named := func(host string) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.DNSNames = []string{host} }
	}
	certstest.WritePair(t, ca.Issue(t, "idp", nil), file("idp.pem"), file("idp.key"))
	certstest.WritePair(t, ca.Issue(t, "gateway", named("gateway.example")), file("own.pem"), file("own.key"))
	certstest.WritePair(t, ca.Issue(t, "other", named("other.example")), file("other.pem"), file("other.key"))
	certstest.WritePair(t, stranger.Issue(t, "gateway", named("gateway.example")), file("forged.pem"), file("forged.key"))
	certstest.Write(t, file("ca.pem"), ca.PEM())
	read := func(name string) string {
		data, err := os.ReadFile(file(name))
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	issuer := oidctest.StartLogin(t, s.URL, map[string]any{
		"tls":      map[string]string{"key": read("idp.key"), "cert": read("idp.pem"), "ca": string(ca.PEM())},
		"features": map[string]any{"pushedAuthorizationRequests": map[string]any{"enabled": true, "requirePushedAuthorizationRequests": true}},
		"clients": []any{map[string]any{
			"token_endpoint_auth_method": authTLS, "tls_client_auth_san_dns": "gateway.example",
		}},
	}).Issuer
	with := func(name string) func(*Config) {
		return func(c *Config) {
			c.ClientSecretFile, c.CAFile, c.CertFile, c.KeyFile = "", file("ca.pem"), file(name+".pem"), file(name+".key")
		}
	}
	a := s.use(issuer, with("own"))
	count := counted(a)
	v := s.visitor()
	trusting(t, v, ca)
	if at, _ := s.logIn(v); at.Status != 200 || at.Text != "hello alice" {
		t.Fatalf("%s answers %d: %s", at.URL, at.Status, at.Text)
	}
	held, err := a.store.Load(t.Context(), s.seen.Load())
	if err != nil {
		t.Fatal(err)
	}
	if held, err = a.ask(t.Context(), held); err != nil {
		t.Errorf("renewal: %v", err)
	}
	form := v.Get(s.URL + "/oauth2/logout")
	v.Submit(form, nil)
	if n := count("sallyport.token.revocations", "done"); n != 2 {
		t.Errorf("%d tokens were revoked", n)
	}
	if _, err := a.ask(t.Context(), held); err == nil {
		t.Error("the refresh token is good after the logout")
	}

	for _, name := range []string{"other", "forged"} {
		s.use(issuer, with(name))
		x := s.visitor()
		trusting(t, x, ca)
		if at, _ := s.logIn(x); at.Status != 503 || !strings.Contains(at.Text, "operator") {
			t.Errorf("with the certificate %s: %s answers %d: %s", name, at.URL, at.Status, at.Text)
		}
	}

	// A certificate that is exchanged counts from then on.
	a = s.use(issuer, func(c *Config) { with("own")(c); c.CertFile, c.KeyFile = file("other.pem"), file("other.key") })
	certstest.Write(t, file("other.pem"), []byte(read("own.pem")))
	certstest.Write(t, file("other.key"), []byte(read("own.key")))
	if err := a.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	x := s.visitor()
	trusting(t, x, ca)
	if at, _ := s.logIn(x); at.Status != 200 {
		t.Errorf("with the exchanged certificate %s answers %d: %s", at.URL, at.Status, at.Text)
	}
}

// trusting has a browser trust the provider too.
func trusting(t *testing.T, v *oidctest.Browser, ca *certstest.CA) {
	t.Helper()
	shown, ok := v.Client.Transport.(*http.Transport)
	if !ok {
		t.Fatalf("a transport %T", v.Client.Transport)
	}
	own := shown.Clone()
	own.TLSClientConfig = &tls.Config{RootCAs: shown.TLSClientConfig.RootCAs.Clone(), MinVersion: tls.VersionTLS12}
	if !own.TLSClientConfig.RootCAs.AppendCertsFromPEM(ca.PEM()) {
		t.Fatal("no certificate")
	}
	v.Client.Transport = own
	t.Cleanup(own.CloseIdleConnections)
}

// TestMutualTLSAliases: a provider may have addresses of its own for clients that show
// certificates (RFC 8705 section 5). Browsers are not sent there, and they are checked
// like all others.
func TestMutualTLSAliases(t *testing.T) {
	ca := certstest.NewCA(t, "CA")
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "own.pem"), filepath.Join(dir, "own.key")
	certstest.WritePair(t, ca.Issue(t, "gateway", nil), cert, key)
	shows := func(c *Config) { c.ClientSecretFile, c.CertFile, c.KeyFile = "", cert, key }
	aliases := func(s *setup) map[string]any {
		all := map[string]any{}
		for _, name := range []string{"authorization_endpoint", "token_endpoint", "userinfo_endpoint", "end_session_endpoint", pushEndpoint, revocationEndpoint} {
			all[name] = s.idp.URL + "/mtls/" + name
		}
		return all
	}
	for _, change := range []func(*Config){shows, nil} {
		s := newSetup(t, change)
		s.idp.set(func(f *fake) {
			f.metadata = map[string]any{pushEndpoint: s.idp.URL + "/par", revocationEndpoint: s.idp.URL + "/revoke", "mtls_endpoint_aliases": aliases(s)}
		})
		s.pass(metadataAge)
		m, err := s.a.provider.refresh(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		for name, got := range map[string]string{
			"token_endpoint": m.token, "userinfo_endpoint": m.userinfo, pushEndpoint: m.pushed, revocationEndpoint: m.revocation,
		} {
			if alias := got == s.idp.URL+"/mtls/"+name; alias != (change != nil) {
				t.Errorf("%s is %s", name, got)
			}
		}
		if m.authorization != s.idp.URL+"/authorize" || m.endSession != s.idp.URL+"/logout" {
			t.Errorf("browsers are sent to %s and %s", m.authorization, m.endSession)
		}
	}
	s := newSetup(t, shows)
	s.idp.set(func(f *fake) {
		f.metadata = map[string]any{"mtls_endpoint_aliases": map[string]any{"token_endpoint": "http://idp.example/token"}}
	})
	s.pass(metadataAge)
	if _, err := s.a.provider.refresh(t.Context(), 0); err == nil || !strings.Contains(err.Error(), "token_endpoint") {
		t.Errorf("an alias over http: %v", err)
	}
}
