package mtls

import (
	"crypto/x509"
	"fmt"
	"time"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/certs"
)

// generation is what the trust bundle held when it was last read, and what was made of
// certificates with it.
type generation struct {
	roots  *x509.CertPool // nil: the handshake's word counts
	recent *recent
}

// readBundle takes the trust bundle as it is now. On error the one before stays.
func (a *Authenticator) readBundle() error {
	g := &generation{recent: newRecent()}
	if a.config.TrustBundleFile != "" {
		var err error
		if g.roots, err = certs.Authorities(a.config.TrustBundleFile); err != nil {
			return fmt.Errorf("trust_bundle_file: %w", err)
		}
	}
	a.current.Store(g)
	return nil
}

// identifyOn makes the identity of a connection's certificate, and says until when it
// holds: as long as everything that it was verified with.
func (a *Authenticator) identifyOn(g *generation, leaf *x509.Certificate, chain []*x509.Certificate, now time.Time) (*authz.Identity, time.Time, error) {
	until := leaf.NotAfter
	if g.roots != nil {
		var err error
		if until, err = verify(leaf, chain, g.roots, now); err != nil {
			return nil, time.Time{}, fmt.Errorf("trust bundle of %s: %w", a.config.TrustDomain, err)
		}
	}
	id, err := a.identify(leaf)
	return id, until, err
}

// verify returns when the first certificate of the chain of a client's certificate ends.
func verify(leaf *x509.Certificate, others []*x509.Certificate, roots *x509.CertPool, now time.Time) (end time.Time, err error) {
	intermediates := x509.NewCertPool()
	for _, c := range others {
		intermediates.AddCert(c)
	}
	chains, err := leaf.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: intermediates, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return end, err
	}
	end = leaf.NotAfter
	for _, c := range chains[0] {
		if c.NotAfter.Before(end) {
			end = c.NotAfter
		}
	}
	return end, nil
}

// checkSVID checks what package certs did not, which takes every certificate with a
// SPIFFE ID (SPIFFE X509-SVID sections 4.3 and 5.2).
func (a *Authenticator) checkSVID(leaf *x509.Certificate, id string) error {
	if leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0 {
		return fmt.Errorf("certificate of %q is not one for digital signatures", id)
	}
	domain, err := certs.TrustDomain(id)
	if err != nil {
		return err
	}
	if domain != a.config.TrustDomain {
		return fmt.Errorf("SPIFFE ID %q is not of trust domain %s", id, a.config.TrustDomain)
	}
	return nil
}
