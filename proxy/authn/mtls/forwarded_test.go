package mtls

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/engine/setting"
	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/certs/certstest"
)

const client = "spiffe://example.org/ns/shop/sa/cart"

// edge is a proxy in front and the authorities behind it.
type edge struct {
	clients *certstest.CA
	proxy   *x509.Certificate
	caFile  string
}

func newEdge(t *testing.T) *edge {
	t.Helper()
	e := &edge{clients: certstest.NewCA(t, "clients"), caFile: filepath.Join(t.TempDir(), "clients.pem")}
	e.proxy = certstest.NewCA(t, "mesh").Issue(t, "edge", uris(t, "spiffe://example.org/ns/edge/sa/envoy")).Leaf
	certstest.Write(t, e.caFile, e.clients.PEM())
	return e
}

func (e *edge) open(t *testing.T, header, caFile string) *Authenticator {
	t.Helper()
	a, err := New("edge", Config{
		AllowedSANs: []string{"spiffe://example.org/ns/*/sa/**"},
		Forwarded:   &Forwarded{Header: header, From: []string{"spiffe://example.org/ns/edge/**"}, ClientCAFile: caFile},
	})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// from is a request that the proxy passed on with these headers.
func (e *edge) from(headers ...authz.Header) *authn.Request {
	return &authn.Request{TLS: verified(e.proxy), Trusted: true, Headers: headers, Now: time.Now()}
}

func xfcc(value string) authz.Header {
	return authz.Header{Name: "x-forwarded-client-cert", Value: value}
}

// escaped is PEM as Envoy escapes it.
func escaped(chain ...[]byte) string {
	var out []byte
	for _, der := range chain {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return strings.ReplaceAll(url.QueryEscape(string(out)), "+", "%20")
}

func hash(c tls.Certificate) string {
	sum := sha256.Sum256(c.Leaf.Raw)
	return hex.EncodeToString(sum[:])
}

func sequence(der []byte) string { return ":" + base64.StdEncoding.EncodeToString(der) + ":" }

// TestForwardedCertificate is the table of headers with client_ca_file: the certificate
// counts, and nothing that is said about it.
func TestForwardedCertificate(t *testing.T) {
	e := newEdge(t)
	good := e.clients.Issue(t, "cart", uris(t, client))
	below := e.clients.Intermediate(t, "team").Issue(t, "cart", uris(t, client))
	other := e.clients.Issue(t, "web", uris(t, "spiffe://example.org/ns/shop/sa/web"))
	stranger := certstest.NewCA(t, "clients").Issue(t, "cart", uris(t, client))
	expired := e.clients.Issue(t, "cart", func(c *x509.Certificate) {
		uris(t, client)(c)
		c.NotAfter = time.Now().Add(-time.Minute)
	})
	server := e.clients.Issue(t, "cart", func(c *x509.Certificate) {
		uris(t, client)(c)
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	})
	barred := e.clients.Issue(t, "cart", uris(t, "spiffe://elsewhere.example/ns/shop/sa/cart"))
	der := good.Certificate[0]
	cert := `Cert="` + escaped(der) + `"`
	for _, tt := range []struct {
		name, value string
		in          bool
	}{
		{"Envoy's", "By=spiffe://example.org/ns/edge/sa/envoy;Hash=" + hash(good) + ";" + cert + `;Subject="CN=cart";URI=` + client, true},
		{"certificate alone", cert, true},
		{"chain alone", `Chain="` + escaped(below.Certificate...) + `"`, true},
		{"certificate and chain", `Cert="` + escaped(below.Certificate[0]) + `";Chain="` + escaped(below.Certificate...) + `"`, true},
		{"keys in another case", strings.Replace(cert, "Cert", "cERT", 1), true},
		{"plus signs as they are", `Cert="` + strings.ReplaceAll(escaped(der), "%2B", "+") + `"`, true},
		{"the certificate's names count", cert + ";URI=spiffe://example.org/ns/shop/sa/admin;DNS=admin.example", true},

		{"names without a certificate", "Hash=" + hash(good) + ";URI=" + client, false},
		{"intermediate is missing", `Cert="` + escaped(below.Certificate[0]) + `"`, false},
		{"another authority of that name", `Cert="` + escaped(stranger.Certificate[0]) + `"`, false},
		{"expired", `Cert="` + escaped(expired.Certificate[0]) + `"`, false},
		{"for servers only", `Cert="` + escaped(server.Certificate[0]) + `"`, false},
		{"name that may not enter", `Cert="` + escaped(barred.Certificate[0]) + `"`, false},
		{"hash of another", "Hash=" + hash(other) + ";" + cert, false},
		{"certificate and chain of two clients", cert + `;Chain="` + escaped(other.Certificate...) + `"`, false},
		{"two certificates in Cert", `Cert="` + escaped(der, other.Certificate[0]) + `"`, false},
		{"two of Cert", cert + ";" + cert, false},
		{"two elements", cert + "," + cert, false},
		{"the client's own element before", "URI=" + client + "," + cert, false},
		{"an element after", cert + ",URI=" + client, false},
		{"empty element after", cert + ",", false},
		{"empty", "", false},
		{"not key and value", "x", false},
		{"unknown key", cert + ";Role=admin", false},
		{"space before a key", cert + "; URI=" + client, false},
		{"pair that is empty", cert + ";", false},
		{"quote not closed", strings.TrimSuffix(cert, `"`), false},
		{"text after a quote", cert + "x;URI=a", false},
		{"quote within a value", `URI=a"b";` + cert, false},
		{"quote hides an element", cert + `;Subject="CN=a\"` + "," + cert, false},
		{"escape at the end", cert + `;Subject="CN=a\`, false},
		{"unknown escape", cert + `;Subject="CN=\n"`, false},
		{"equals sign without quotes", "URI=a=b;" + cert, false},
		{"percent sign alone", `Cert="%"`, false},
		{"private key", `Cert="` + url.QueryEscape("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n") + `"`, false},
		{"text before the certificate", `Cert="x` + escaped(der) + `"`, false},
		{"text after the certificate", `Cert="` + escaped(der) + `x"`, false},
		{"garbage", `Cert="%00%01"`, false},
		{"too many", `Chain="` + escaped(slices.Repeat([][]byte{der}, 11)...) + `"`, false},
	} {
		a := e.open(t, "xfcc", e.caFile)
		for range 2 { // the second answer may come from what was kept
			id, err := a.Authenticate(t.Context(), e.from(xfcc(tt.value)))
			switch {
			case tt.in && err != nil:
				t.Errorf("%s: %v", tt.name, err)
			case tt.in && (id.Subject != client || id.Kind != "mtls" || id.Claims["forwarded_by"] != "spiffe://example.org/ns/edge/sa/envoy" || id.ExpiresAt.IsZero()):
				t.Errorf("%s: identity is %+v", tt.name, id)
			case !tt.in && !errors.Is(err, authn.ErrInvalid):
				t.Errorf("%s: %v, %v; want ErrInvalid", tt.name, id, err)
			}
		}
	}
}

// TestForwardedRFC9440 is the table of Client-Cert and Client-Cert-Chain.
func TestForwardedRFC9440(t *testing.T) {
	e := newEdge(t)
	good := e.clients.Issue(t, "cart", uris(t, client))
	below := e.clients.Intermediate(t, "team").Issue(t, "cart", uris(t, client))
	stranger := certstest.NewCA(t, "clients").Issue(t, "cart", uris(t, client))
	der := good.Certificate[0]
	cert := func(v string) authz.Header { return authz.Header{Name: "client-cert", Value: v} }
	chain := func(v string) authz.Header { return authz.Header{Name: "client-cert-chain", Value: v} }
	a := e.open(t, "rfc9440", e.caFile)
	for name, tt := range map[string]struct {
		headers []authz.Header
		want    error
	}{
		"good":                             {[]authz.Header{cert(sequence(der))}, nil},
		"with its chain":                   {[]authz.Header{cert(sequence(below.Certificate[0])), chain(sequence(below.Certificate[1]))}, nil},
		"chain of two":                     {[]authz.Header{cert(sequence(below.Certificate[0])), chain(sequence(der) + ", " + sequence(below.Certificate[1]))}, nil},
		"chain on two lines":               {[]authz.Header{cert(sequence(below.Certificate[0])), chain(sequence(der)), chain(sequence(below.Certificate[1]))}, nil},
		"none":                             {nil, authn.ErrNotMine},
		"Envoy's header":                   {[]authz.Header{xfcc(`Cert="` + escaped(der) + `"`)}, authn.ErrNotMine},
		"intermediate is missing":          {[]authz.Header{cert(sequence(below.Certificate[0]))}, authn.ErrInvalid},
		"another authority":                {[]authz.Header{cert(sequence(stranger.Certificate[0]))}, authn.ErrInvalid},
		"two headers":                      {[]authz.Header{cert(sequence(der)), cert(sequence(der))}, authn.ErrInvalid},
		"two in one":                       {[]authz.Header{cert(sequence(der) + ", " + sequence(der))}, authn.ErrInvalid},
		"a parameter":                      {[]authz.Header{cert(sequence(der) + ";a=b")}, authn.ErrInvalid},
		"without colons":                   {[]authz.Header{cert(base64.StdEncoding.EncodeToString(der))}, authn.ErrInvalid},
		"one colon":                        {[]authz.Header{cert(":")}, authn.ErrInvalid},
		"empty sequence":                   {[]authz.Header{cert("::")}, authn.ErrInvalid},
		"empty":                            {[]authz.Header{cert("")}, authn.ErrInvalid},
		"base64url":                        {[]authz.Header{cert(":" + base64.URLEncoding.EncodeToString(append(slices.Clone(der), 0xff, 0xff, 0xff)) + ":")}, authn.ErrInvalid},
		"bytes after the certificate":      {[]authz.Header{cert(sequence(append(slices.Clone(der), 0)))}, authn.ErrInvalid},
		"PEM":                              {[]authz.Header{cert(sequence([]byte("-----BEGIN CERTIFICATE-----")))}, authn.ErrInvalid},
		"chain without a certificate":      {[]authz.Header{chain(sequence(der))}, authn.ErrInvalid},
		"garbage in the chain":             {[]authz.Header{cert(sequence(der)), chain("x")}, authn.ErrInvalid},
		"empty member of the chain":        {[]authz.Header{cert(sequence(der)), chain(sequence(der) + ",")}, authn.ErrInvalid},
		"too many certificates of a chain": {[]authz.Header{cert(sequence(der)), chain(strings.Repeat(sequence(der)+", ", 11) + sequence(der))}, authn.ErrInvalid},
	} {
		id, err := a.Authenticate(t.Context(), e.from(tt.headers...))
		if !errors.Is(err, tt.want) || tt.want == nil && (err != nil || id.Subject != client || id.Claims["sha256"] == "") {
			t.Errorf("%s: %v, %v; want %v", name, id, err, tt.want)
		}
	}
}

// TestForwardedWord: without client_ca_file the proxy's word counts, for names alone.
func TestForwardedWord(t *testing.T) {
	e := newEdge(t)
	a := e.open(t, "xfcc", "")
	sum := strings.Repeat("ab", 32)
	for value, in := range map[string]bool{
		"URI=" + client: true,
		"By=spiffe://example.org/ns/edge/sa/envoy;Hash=" + sum + `;Subject="CN=a,O=b";URI=` + client: true,
		`URI="` + client + `"`:                              true,
		"URI=;URI=" + client:                                true,
		"URI=spiffe://elsewhere.example/ns/shop/sa/cart":    false,
		"URI=" + client + ";URI=spiffe://example.org/other": false, // an SVID has one
		"URI=" + client + "/../admin":                       false,
		"URI=%zz":                                           false,
		"DNS=cart.example":                                  false,
		`Subject="CN=cart"`:                                 false,
		"Hash=" + sum:                                       false,
		"Hash=ab;URI=" + client:                             false,
		"By=" + client:                                      false,
		"URI=" + client + ",URI=" + client:                  false,
	} {
		id, err := a.Authenticate(t.Context(), e.from(xfcc(value)))
		if in && (err != nil || id.Subject != client) || !in && !errors.Is(err, authn.ErrInvalid) {
			t.Errorf("%s: %v, %v; want in %v", value, id, err, in)
		}
	}
}

// TestWhoForwards: nobody speaks for clients but a proxy that is listed, has shown a
// certificate, and has a name in from.
func TestWhoForwards(t *testing.T) {
	e := newEdge(t)
	a := e.open(t, "xfcc", "")
	mesh := certstest.NewCA(t, "mesh")
	peer := mesh.Issue(t, "peer", uris(t, "spiffe://example.org/ns/shop/sa/web")).Leaf
	old := mesh.Issue(t, "edge", func(c *x509.Certificate) {
		uris(t, "spiffe://example.org/ns/edge/sa/envoy")(c)
		c.NotAfter = time.Now().Add(-time.Minute)
	}).Leaf
	odd := mesh.Issue(t, "edge", uris(t, "spiffe://example.org/ns/edge/sa/envoy", "spiffe://example.org/ns/edge/sa/b")).Leaf
	for name, change := range map[string]func(*authn.Request){
		"a client that is no proxy":           func(r *authn.Request) { r.Trusted = false },
		"a proxy without TLS":                 func(r *authn.Request) { r.TLS = nil },
		"a proxy without a certificate":       func(r *authn.Request) { r.TLS = &tls.ConnectionState{} },
		"a certificate that was not verified": func(r *authn.Request) { r.TLS.VerifiedChains = nil },
		"another holder of a certificate":     func(r *authn.Request) { r.TLS = verified(peer) },
		"a proxy whose certificate expired":   func(r *authn.Request) { r.TLS = verified(old) },
		"a proxy with two SPIFFE IDs":         func(r *authn.Request) { r.TLS = verified(odd) },
		"two headers":                         func(r *authn.Request) { r.Headers = append(r.Headers, r.Headers[0]) },
	} {
		r := e.from(xfcc("URI=" + client))
		if _, err := a.Authenticate(t.Context(), r); err != nil {
			t.Fatal(err) // and it is kept, for the proxy only
		}
		change(r)
		if id, err := a.Authenticate(t.Context(), r); !errors.Is(err, authn.ErrInvalid) {
			t.Errorf("%s: %v, %v; want ErrInvalid", name, id, err)
		}
		if got := a.Vouches()(r); got != (name == "two headers") {
			t.Errorf("%s: the peer is believed: %v", name, got)
		}
	}
	if own, err := New("mesh", Config{AllowedSANs: []string{"**"}}); err != nil || own.Vouches() != nil {
		t.Errorf("an authenticator that reads no headers believes proxies: %v", err)
	}
	// The proxy's own certificate is of an allowed name, and not the client's.
	if id, err := a.Authenticate(t.Context(), e.from()); !errors.Is(err, authn.ErrNotMine) {
		t.Errorf("a client without a certificate behind the proxy: %v, %v; want ErrNotMine", id, err)
	}
}

// TestForwardedChainEnds: what was verified counts no longer than each certificate of the
// chain, not only the client's.
func TestForwardedChainEnds(t *testing.T) {
	e := newEdge(t)
	long := func(c *x509.Certificate) { c.NotAfter = time.Now().AddDate(0, 0, 7) }
	e.proxy = certstest.NewCA(t, "mesh").Issue(t, "edge", func(c *x509.Certificate) {
		uris(t, "spiffe://example.org/ns/edge/sa/envoy")(c)
		long(c)
	}).Leaf
	cart := e.clients.Issue(t, "cart", func(c *x509.Certificate) {
		uris(t, client)(c)
		long(c)
	})
	a, end := e.open(t, "xfcc", e.caFile), e.clients.Certificate.NotAfter
	r := e.from(xfcc(`Cert="` + escaped(cart.Certificate[0]) + `"`))
	r.Now = end.Add(-time.Minute)
	if _, err := a.Authenticate(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	r.Now = end.Add(time.Minute)
	if id, err := a.Authenticate(t.Context(), r); err == nil {
		t.Errorf("%+v got in with what was verified before the end", id)
	}
}

// TestForwardedReload: authorities are replaced, and what they verified ends with them.
func TestForwardedReload(t *testing.T) {
	e := newEdge(t)
	a := e.open(t, "xfcc", e.caFile)
	r := e.from(xfcc(`Cert="` + escaped(e.clients.Issue(t, "cart", uris(t, client)).Certificate[0]) + `"`))
	for range 2 {
		if _, err := a.Authenticate(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	certstest.Write(t, e.caFile, []byte("broken"))
	if err := a.Reload(t.Context()); err == nil {
		t.Error("Reload of a broken file returned no error")
	}
	if _, err := a.Authenticate(t.Context(), r); err != nil {
		t.Error(err)
	}
	certstest.Write(t, e.caFile, certstest.NewCA(t, "clients").PEM())
	if err := a.Reload(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := a.Authenticate(t.Context(), r); !errors.Is(err, authn.ErrInvalid) {
		t.Errorf("with other authorities: %v", err)
	}
	r.Now = r.Now.Add(48 * time.Hour)
	if _, err := a.Authenticate(t.Context(), r); !errors.Is(err, authn.ErrInvalid) {
		t.Errorf("after its end: %v", err)
	}
	if !slices.Equal(a.Files(), []string{e.caFile}) {
		t.Errorf("files are %q", a.Files())
	}
}

func TestValidateForwarded(t *testing.T) {
	sans := []string{"**"}
	for name, tt := range map[string]struct {
		config Config
		key    string
	}{
		"no header":                  {Config{AllowedSANs: sans, Forwarded: &Forwarded{From: sans}}, "forwarded.header"},
		"nobody forwards":            {Config{AllowedSANs: sans, Forwarded: &Forwarded{Header: "xfcc"}}, "forwarded.from"},
		"bad pattern":                {Config{AllowedSANs: sans, Forwarded: &Forwarded{Header: "xfcc", From: []string{"*"}}}, "forwarded.from"},
		"RFC 9440 without authority": {Config{AllowedSANs: sans, Forwarded: &Forwarded{Header: "rfc9440", From: sans}}, "forwarded.client_ca_file"},
		"subjects by word":           {Config{AllowedSubjects: []string{"a"}, Forwarded: &Forwarded{Header: "xfcc", From: sans}}, "allowed_subjects"},
	} {
		if p := setting.Problems(tt.config.Validate()); len(p) != 1 || p[0].Key != tt.key {
			t.Errorf("%s: problems are %v, want one of %s", name, p, tt.key)
		}
	}
	if _, err := New("edge", Config{AllowedSANs: sans, Forwarded: &Forwarded{Header: "xfcc", From: sans, ClientCAFile: "missing"}}); err == nil {
		t.Error("New returned no error although client_ca_file is missing")
	}
}

func FuzzXFCC(f *testing.F) {
	f.Add(`By=spiffe://a/b;Hash=00;Subject="CN=\"a\"";URI=spiffe://a/c;DNS=x`)
	f.Add(`Cert="%2D",Cert=""`)
	f.Fuzz(func(t *testing.T, text string) {
		e, err := parseXFCC(text)
		if err != nil {
			return
		}
		for key, values := range e {
			for _, v := range values {
				if !strings.Contains(text, v) && !strings.Contains(text, `\`) {
					t.Errorf("%q: %s is %q, which is not in the header", text, key, v)
				}
			}
		}
		_, _ = readXFCC(text, false) // must not panic
		_, _ = readXFCC(text, true)
	})
}
