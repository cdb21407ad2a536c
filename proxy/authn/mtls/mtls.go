// Package mtls authenticates requests by the client certificate of their own
// TLS connection, or by one that a proxy which itself showed a certificate
// forwards in a header. It owns the choice of which verified certificates may
// enter, what their subject is called, and whose word counts for a forwarded one.
//
// It does not verify the chains and the revocation of connections: the handshake
// did, with what package certs holds. Only where a SPIFFE trust domain has authorities of
// its own does it verify the chain again, with these.
package mtls

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/certs"
)

// Kind is the key of this mechanism in the configuration.
const Kind = "mtls"

// Authenticator accepts client certificates by their names. It is safe for
// concurrent use.
type Authenticator struct {
	name     string
	config   Config
	patterns []pattern
	subjects map[string]bool
	about    []subjectPattern // subjects with wildcards
	current  atomic.Pointer[generation]

	forwarded *forwarded // nil: the connection's own certificate counts
}

// New makes an authenticator that the configuration calls name.
func New(name string, c Config) (*Authenticator, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	patterns, err := c.parse()
	if err != nil {
		return nil, err
	}
	a := &Authenticator{name: name, config: c, patterns: patterns, subjects: make(map[string]bool)}
	for _, s := range c.AllowedSubjects {
		a.subjects[s] = true
	}
	if a.about, err = c.parseSubjects(); err != nil {
		return nil, err
	}
	if err := a.readBundle(); err != nil {
		return nil, err
	}
	if c.Forwarded != nil {
		a.forwarded, err = newForwarded(*c.Forwarded)
	}
	return a, err
}

// Authenticate returns the identity of the connection's certificate, or of the
// forwarded one if it is configured so.
func (a *Authenticator) Authenticate(_ context.Context, r *authn.Request) (*authz.Identity, error) {
	if a.forwarded != nil {
		return a.authenticateForwarded(r)
	}
	leaf, err := leafOf(r.TLS)
	if err != nil {
		return nil, err
	}
	if err := checkTime(leaf, r.Now); err != nil {
		return nil, err
	}
	g := a.current.Load()
	if id := g.recent.get(leaf, r.Now); id != nil {
		return id, nil
	}
	id, until, err := a.identifyOn(g, leaf, r.TLS.PeerCertificates[1:], r.Now)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", authn.ErrInvalid, err)
	}
	g.recent.put(leaf, id, until)
	return id, nil
}

// leafOf returns the verified certificate of the client.
func leafOf(cs *tls.ConnectionState) (*x509.Certificate, error) {
	if cs == nil || len(cs.PeerCertificates) == 0 {
		return nil, authn.ErrNotMine
	}
	leaf := certs.VerifiedLeaf(cs)
	if leaf == nil {
		return nil, fmt.Errorf("%w: the handshake did not verify the client certificate", authn.ErrInvalid)
	}
	return leaf, nil
}

// checkTime looks at the validity again: a connection may outlive it.
func checkTime(leaf *x509.Certificate, now time.Time) error {
	if now.Before(leaf.NotBefore) || now.After(leaf.NotAfter) {
		return fmt.Errorf("%w: client certificate is good from %s to %s", authn.ErrInvalid,
			leaf.NotBefore.Format(time.RFC3339), leaf.NotAfter.Format(time.RFC3339))
	}
	return nil
}

// identify names the holder of leaf: by its SPIFFE ID, else by the alternative
// name that may enter, else by its common name.
func (a *Authenticator) identify(leaf *x509.Certificate) (*authz.Identity, error) {
	spiffe, err := certs.SPIFFEID(leaf)
	if err != nil && (a.config.TrustDomain != "" || !errors.Is(err, certs.ErrNoSPIFFEID)) {
		return nil, err
	}
	if a.config.TrustDomain != "" {
		if err := a.checkSVID(leaf, spiffe); err != nil {
			return nil, err
		}
	}
	name, ok := a.allowedName(leaf)
	if !ok {
		return nil, fmt.Errorf("certificate of %q has no name that may enter", leaf.Subject)
	}
	if spiffe != "" {
		name = spiffe
	}
	return &authz.Identity{
		Authenticated: true, Authenticator: a.name, Kind: Kind,
		Subject: name, Issuer: leaf.Issuer.String(), ExpiresAt: leaf.NotAfter,
	}, nil
}

// allowedName returns the first name of leaf that may enter.
func (a *Authenticator) allowedName(leaf *x509.Certificate) (string, bool) {
	names := namesOf(leaf)
	for _, n := range names {
		for _, p := range a.patterns {
			if p.matches(n) {
				return n.value, true
			}
		}
	}
	if a.subjects[leaf.Subject.String()] || a.subjects[leaf.Subject.CommonName] && leaf.Subject.CommonName != "" {
		return subjectOf(leaf), true
	}
	if slices.ContainsFunc(a.about, func(p subjectPattern) bool { return p.matches(leaf) }) {
		return subjectOf(leaf), true
	}
	for _, p := range a.patterns {
		if p.anything {
			return subjectOf(leaf), true
		}
	}
	return "", false
}

// subjectOf names a certificate without alternative names.
func subjectOf(leaf *x509.Certificate) string {
	if leaf.Subject.CommonName != "" {
		return leaf.Subject.CommonName
	}
	return leaf.Subject.String()
}

// Challenge names the scheme, which has no parameters but the realm: a 401 must
// carry a challenge (RFC 9110 section 15.5.2), and TLS has no registered one.
func (a *Authenticator) Challenge(error) string { return `ClientCertificate realm="tls"` }
