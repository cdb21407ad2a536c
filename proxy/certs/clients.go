package certs

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

// clients verifies client certificates.
type clients struct {
	pool        *x509.CertPool
	authorities []*x509.Certificate // those of the pool
	files       *revocations        // the lists of the files
	filesTrust  [sha256.Size]byte   // of the authorities and the lists of the files

	crls    *revocations      // the lists that count; nil: there are none to look into
	trust   [sha256.Size]byte // of the authorities and the lists that count
	missing bool              // there is a URL that gave no list yet
	ocsp    *statuses         // nil: no responder is asked
	now     func() time.Time
}

func loadClients(c Config, now func() time.Time) (*clients, error) {
	authorities, caData, err := loadAuthorities(c.ClientCAFile)
	if err != nil {
		return nil, err
	}
	cl := &clients{pool: x509.NewCertPool(), authorities: authorities, now: now}
	for _, a := range authorities {
		cl.pool.AddCert(a)
	}
	digest := sha256.New()
	digest.Write(caData)
	if len(c.CRLFiles) > 0 || c.CRL.on() {
		var lists [][]byte
		if cl.files, lists, err = loadRevocations(c.CRLFiles, authorities); err != nil {
			return nil, err
		}
		for _, l := range lists {
			digest.Write(l)
		}
	}
	cl.filesTrust = [sha256.Size]byte(digest.Sum(nil))
	return cl.with(nil), nil
}

// with returns a copy that looks into the lists of f as well, which may be nil.
func (c *clients) with(f *fetchedLists) *clients {
	next := *c
	next.crls, next.trust, next.missing = c.files, c.filesTrust, false
	if f != nil {
		next.crls, next.missing = f.join(c.files, c.authorities)
		next.trust = f.mark(c.filesTrust)
	}
	return &next
}

// verifyConnection runs at the end of every handshake, also of a resumed one,
// after Go has verified the chain of a full one.
func (c *clients) verifyConnection(cs tls.ConnectionState) error {
	if len(cs.PeerCertificates) == 0 {
		return nil // whether that is allowed is ClientAuth's to say
	}
	if len(cs.VerifiedChains) == 0 {
		return errors.New("client certificate was not verified")
	}
	if cs.DidResume {
		if err := c.verifyAgain(cs.PeerCertificates); err != nil {
			return err
		}
	}
	if c.crls != nil {
		if err := c.crls.check(cs.VerifiedChains, c.now()); err != nil {
			return err
		}
	}
	if c.ocsp == nil {
		return nil
	}
	return c.ocsp.check(cs.VerifiedChains[0], cs.OCSPResponse)
}

// verifyAgain verifies a chain that an earlier handshake verified, with today's
// authorities and clock.
func (c *clients) verifyAgain(chain []*x509.Certificate) error {
	intermediates := x509.NewCertPool()
	for _, cert := range chain[1:] {
		intermediates.AddCert(cert)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{
		Roots: c.pool, Intermediates: intermediates, CurrentTime: c.now(),
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return fmt.Errorf("verify client certificate of a resumed session: %w", err)
	}
	return nil
}
