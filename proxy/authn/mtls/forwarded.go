package mtls

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/tokencache"
	"github.com/sallyport/sallyport/proxy/certs"
)

const (
	forwardedKept  = 4096
	forwardedBytes = 32 << 20
	forwardedAge   = 10 * time.Minute
	maxForwarded   = 10 // certificates of one chain
)

// forwarded takes certificates from proxies.
type forwarded struct {
	config  Forwarded
	from    []pattern
	current atomic.Pointer[trust]
}

// trust is what the file held when it was last read, and what was verified with it.
type trust struct {
	roots *x509.CertPool // nil: the proxy's word counts
	known *tokencache.Cache[*authz.Identity]
}

// certificate is what a header says.
type certificate struct {
	leaf   *x509.Certificate
	others []*x509.Certificate
	sha256 string // as far as it is known, lower-case hexadecimal
}

func newForwarded(c Forwarded) (*forwarded, error) {
	f := &forwarded{config: c}
	var err error
	if f.from, err = parsePatterns("forwarded.from", c.From); err != nil {
		return nil, err
	}
	return f, f.reload()
}

func (f *forwarded) reload() error {
	t := &trust{known: tokencache.New[*authz.Identity](forwardedKept, forwardedBytes)}
	if f.config.ClientCAFile != "" {
		var err error
		if t.roots, err = certs.Authorities(f.config.ClientCAFile); err != nil {
			return err
		}
	}
	f.current.Store(t)
	return nil
}

// Files returns the files that Reload reads.
func (a *Authenticator) Files() []string {
	var files []string
	if a.config.TrustBundleFile != "" {
		files = append(files, a.config.TrustBundleFile)
	}
	if a.forwarded != nil && a.forwarded.config.ClientCAFile != "" {
		files = append(files, a.forwarded.config.ClientCAFile)
	}
	return files
}

// Reload reads the trust bundle, and the authorities of forwarded certificates, again.
// On error those before stay.
func (a *Authenticator) Reload(context.Context) error {
	if a.forwarded == nil {
		return a.readBundle()
	}
	return a.forwarded.reload()
}

// authenticateForwarded returns the identity of the certificate that a proxy forwards. A
// request without one is of a client that has shown none, and never the proxy's own.
func (a *Authenticator) authenticateForwarded(r *authn.Request) (*authz.Identity, error) {
	f := a.forwarded
	text, chain, err := f.headers(r)
	if err != nil {
		return nil, err
	}
	proxy, err := f.proxy(r)
	if err != nil {
		return nil, err
	}
	t := f.current.Load()
	key := proxy + "\x00" + chain + "\x00" + text
	if id, ok := t.known.Get(key, r.Now); ok {
		return id, nil
	}
	id, until, err := a.identifyForwarded(t, text, chain, r.Now)
	if err != nil {
		return nil, fmt.Errorf("%w: forwarded certificate: %w", authn.ErrInvalid, err)
	}
	id.Claims["forwarded_by"] = proxy
	t.known.Put(key, id, 2<<10, until)
	return id, nil
}

// headers returns the values of the header, and of the one for the chain.
func (f *forwarded) headers(r *authn.Request) (text, chain string, err error) {
	name := "x-forwarded-client-cert"
	if f.config.Header == headerRFC9440 {
		name = "client-cert"
	}
	found := 0
	for _, h := range r.Headers {
		switch {
		case h.Name == name:
			text = h.Value
			found++
		case h.Name == "client-cert-chain" && f.config.Header == headerRFC9440:
			if chain != "" {
				chain += ", " // RFC 9110 section 5.3
			}
			chain += h.Value
		}
	}
	switch {
	case found > 1:
		return "", "", fmt.Errorf("%w: %d headers %s", authn.ErrInvalid, found, name)
	case found == 0 && chain != "":
		return "", "", fmt.Errorf("%w: a chain without a certificate", authn.ErrInvalid)
	case found == 0:
		return "", "", authn.ErrNotMine
	}
	return text, chain, nil
}

// proxy returns the name of the proxy that forwards, if its word counts.
func (f *forwarded) proxy(r *authn.Request) (string, error) {
	if !r.Trusted {
		return "", fmt.Errorf("%w: a forwarded certificate from a peer that is not in trusted_proxies", authn.ErrInvalid)
	}
	leaf, err := leafOf(r.TLS)
	if err != nil {
		return "", fmt.Errorf("%w: a forwarded certificate from a proxy that has shown none of its own", authn.ErrInvalid)
	}
	if err := checkTime(leaf, r.Now); err != nil {
		return "", err
	}
	if _, err := certs.SPIFFEID(leaf); err != nil && !errors.Is(err, certs.ErrNoSPIFFEID) {
		return "", fmt.Errorf("%w: proxy: %w", authn.ErrInvalid, err)
	}
	for _, n := range namesOf(leaf) {
		if slices.ContainsFunc(f.from, func(p pattern) bool { return p.matches(n) }) {
			return n.value, nil
		}
	}
	if slices.ContainsFunc(f.from, func(p pattern) bool { return p.anything }) {
		return subjectOf(leaf), nil
	}
	return "", fmt.Errorf("%w: certificate of %q matches none of forwarded.from", authn.ErrInvalid, leaf.Subject)
}

// Vouches returns what reports whether the peer of a request is a proxy whose word counts;
// nil without forwarded.
func (a *Authenticator) Vouches() func(r *authn.Request) bool {
	if a.forwarded == nil {
		return nil
	}
	return func(r *authn.Request) bool {
		_, err := a.forwarded.proxy(r)
		return err == nil
	}
}

// identifyForwarded reads and verifies what the headers say, and says until when that
// holds: a while, and no longer than what it was verified with.
func (a *Authenticator) identifyForwarded(t *trust, text, chain string, now time.Time) (*authz.Identity, time.Time, error) {
	until := now.Add(forwardedAge)
	var c *certificate
	var err error
	if a.forwarded.config.Header == headerRFC9440 {
		c, err = readRFC9440(text, chain)
	} else {
		c, err = readXFCC(text, t.roots != nil)
	}
	if err != nil {
		return nil, until, err
	}
	if t.roots != nil {
		end, err := verify(c.leaf, c.others, t.roots, now)
		if err != nil {
			return nil, until, err
		}
		if end.Before(until) {
			until = end
		}
	}
	id, err := a.identify(c.leaf)
	if err != nil {
		return nil, until, err
	}
	if id.Subject == "" {
		return nil, until, errors.New("it has no name")
	}
	id.Claims = map[string]any{}
	if c.sha256 != "" {
		id.Claims["sha256"] = c.sha256
	}
	return id, until, nil
}

// newCertificate is a whole certificate with the rest of its chain.
func newCertificate(leaf *x509.Certificate, others []*x509.Certificate) *certificate {
	sum := sha256.Sum256(leaf.Raw)
	return &certificate{leaf: leaf, others: others, sha256: hex.EncodeToString(sum[:])}
}
