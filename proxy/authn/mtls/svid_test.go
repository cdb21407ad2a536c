package mtls

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/sallyport/sallyport/engine/setting"
	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/certs/certstest"
)

const cart = "spiffe://example.org/ns/shop/sa/cart"

// through is the state after a handshake that some other authority's chain let through.
func through(c tls.Certificate) *tls.ConnectionState {
	cs := verified(c.Leaf)
	for _, der := range c.Certificate[1:] {
		if parsed, err := x509.ParseCertificate(der); err == nil {
			cs.PeerCertificates = append(cs.PeerCertificates, parsed)
		}
	}
	return cs
}

// TestSVID is the table of what an X.509-SVID must be like.
func TestSVID(t *testing.T) {
	ours, federated := certstest.NewCA(t, "example.org"), certstest.NewCA(t, "example.com")
	file := filepath.Join(t.TempDir(), "bundle.json")
	certstest.Write(t, file, certstest.TrustBundle(t, ours))
	a, err := New("mesh", Config{TrustDomain: "example.org", TrustBundleFile: file})
	if err != nil {
		t.Fatal(err)
	}
	both := func(changes ...func(*x509.Certificate)) func(*x509.Certificate) {
		return func(c *x509.Certificate) {
			for _, change := range changes {
				change(c)
			}
		}
	}
	for _, tt := range []struct {
		name string
		ca   *certstest.CA
		leaf func(*x509.Certificate)
		in   bool
	}{
		{"SVID", ours, uris(t, cart), true},
		{"of an intermediate", ours.Intermediate(t, "cluster"), uris(t, cart), true},
		{"with a DNS name beside the ID", ours, both(uris(t, cart), dns("cart.shop")), true},
		{"no URI", ours, dns("cart.shop"), false},
		{"a URI that is no SPIFFE ID", ours, uris(t, "https://example.org/cart"), false},
		{"two URIs", ours, uris(t, cart, "https://example.org/cart"), false},
		{"two IDs", ours, uris(t, cart, cart), false},
		{"wrong trust domain", ours, uris(t, "spiffe://example.com/ns/shop/sa/cart"), false},
		{"longer trust domain", ours, uris(t, "spiffe://example.org.evil/sa"), false},
		{"malformed ID", ours, uris(t, "spiffe://example.org/a/../b"), false},
		{"CA leaf", ours, both(uris(t, cart), func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true }), false},
		{"leaf that can sign certificates", ours, both(uris(t, cart), func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCertSign }), false},
		{"leaf that can sign lists", ours, both(uris(t, cart), func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCRLSign }), false},
		{"no digital signature", ours, both(uris(t, cart), func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment }), false},
		{"no key usage", ours, both(uris(t, cart), func(c *x509.Certificate) { c.KeyUsage = 0 }), false},
		{"our ID by another domain's authority", federated, uris(t, cart), false},
		{"another domain's own", federated, uris(t, "spiffe://example.com/a"), false},
	} {
		c := tt.ca.Issue(t, "cart", tt.leaf)
		id, err := a.Authenticate(t.Context(), &authn.Request{TLS: through(c), Now: time.Now()})
		switch {
		case tt.in && (err != nil || id.Subject != cart || id.Kind != Kind):
			t.Errorf("%s: %+v, %v", tt.name, id, err)
		case !tt.in && !errors.Is(err, authn.ErrInvalid):
			t.Errorf("%s: %+v, %v; want ErrInvalid", tt.name, id, err)
		}
	}
}

// TestSVIDAllowed: of the domain's IDs those that the patterns name.
func TestSVIDAllowed(t *testing.T) {
	a, err := New("mesh", Config{TrustDomain: "example.org", AllowedSANs: []string{"spiffe://example.org/ns/shop/**", "spiffe://example.com/**"}})
	if err != nil {
		t.Fatal(err)
	}
	ca := certstest.NewCA(t, "CA")
	for id, in := range map[string]bool{cart: true, "spiffe://example.org/ns/bank/sa/cart": false, "spiffe://example.com/ns/shop/sa/cart": false} {
		if _, err := a.Authenticate(t.Context(), &authn.Request{TLS: verified(ca.Issue(t, "x", uris(t, id)).Leaf), Now: time.Now()}); (err == nil) != in {
			t.Errorf("%s: %v", id, err)
		}
	}
}

// TestSVIDRotation: the bundle counts as it is now, on connections that are open too.
func TestSVIDRotation(t *testing.T) {
	first, second := certstest.NewCA(t, "first"), certstest.NewCA(t, "second")
	file := filepath.Join(t.TempDir(), "bundle")
	put := func(data []byte) { certstest.Write(t, file, data) }
	put(first.PEM())
	a, err := New("mesh", Config{TrustDomain: "example.org", TrustBundleFile: file})
	if err != nil {
		t.Fatal(err)
	}
	if files := a.Files(); len(files) != 1 || files[0] != file {
		t.Errorf("watches %v", files)
	}
	old, fresh := through(first.Issue(t, "x", uris(t, cart))), through(second.Issue(t, "x", uris(t, cart)))
	see := func(what string, oldIn, freshIn bool) {
		t.Helper()
		for range 2 { // remembered or not
			_, errOld := a.Authenticate(t.Context(), &authn.Request{TLS: old, Now: time.Now()})
			_, errFresh := a.Authenticate(t.Context(), &authn.Request{TLS: fresh, Now: time.Now()})
			if (errOld == nil) != oldIn || (errFresh == nil) != freshIn {
				t.Errorf("%s: old %v, new %v", what, errOld, errFresh)
			}
		}
	}
	see("first", true, false)
	put(certstest.TrustBundle(t, first, second))
	if err := a.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	see("both", true, true)
	put(certstest.TrustBundle(t, second))
	if err := a.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	see("second", false, true)
	put([]byte("junk"))
	if err := a.Reload(t.Context()); err == nil {
		t.Error("junk was taken")
	}
	see("the last good one", false, true)
	if _, err := New("mesh", Config{TrustDomain: "example.org", TrustBundleFile: file}); err == nil {
		t.Error("junk was taken at the start")
	}
}

// TestSVIDChainEnds: an identity holds no longer than the chain that vouches for it.
func TestSVIDChainEnds(t *testing.T) {
	root := certstest.NewCA(t, "root")
	file := filepath.Join(t.TempDir(), "bundle.pem")
	certstest.Write(t, file, root.PEM())
	a, err := New("mesh", Config{TrustDomain: "example.org", TrustBundleFile: file})
	if err != nil {
		t.Fatal(err)
	}
	c := through(root.Issue(t, "x", func(c *x509.Certificate) {
		uris(t, cart)(c)
		c.NotAfter = root.Certificate.NotAfter.Add(time.Hour)
	}))
	for now, in := range map[time.Time]bool{time.Now(): true, root.Certificate.NotAfter.Add(time.Minute): false} {
		if _, err := a.Authenticate(t.Context(), &authn.Request{TLS: c, Now: time.Now()}); err != nil { // remembered from here
			t.Fatal(err)
		}
		if _, err := a.Authenticate(t.Context(), &authn.Request{TLS: c, Now: now}); (err == nil) != in {
			t.Errorf("at %s: %v", now, err)
		}
	}
}

func TestSVIDConfig(t *testing.T) {
	for _, tt := range []struct {
		key    string
		config Config
	}{
		{"trust_domain", Config{TrustDomain: "spiffe://example.org"}},
		{"trust_bundle_file", Config{TrustBundleFile: "x", AllowedSANs: []string{"**"}}},
		{"allowed_subjects", Config{TrustDomain: "example.org", AllowedSubjects: []string{"CN=a"}}},
		{"trust_domain", Config{TrustDomain: "example.org", Forwarded: &Forwarded{Header: "xfcc", From: []string{"**"}}}},
		{"trust_bundle_file", Config{TrustDomain: "example.org", TrustBundleFile: "x", Forwarded: &Forwarded{Header: "xfcc", From: []string{"**"}, ClientCAFile: "y"}}},
	} {
		if problems := setting.Problems(tt.config.Validate()); len(problems) != 1 || problems[0].Key != tt.key {
			t.Errorf("%s: problems are %v", tt.key, problems)
		}
	}
	if err := (Config{TrustDomain: "example.org"}).Validate(); err != nil {
		t.Error(err)
	}
}
