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
	pool  *x509.CertPool
	trust [sha256.Size]byte // of the authorities and revocation lists
	crls  *revocations      // nil: there are no lists to look into
	ocsp  *statuses         // nil: no responder is asked
	now   func() time.Time
}

func loadClients(c Config, now func() time.Time) (*clients, error) {
	authorities, caData, err := loadAuthorities(c.ClientCAFile)
	if err != nil {
		return nil, err
	}
	cl := &clients{pool: x509.NewCertPool(), now: now}
	for _, a := range authorities {
		cl.pool.AddCert(a)
	}
	digest := sha256.New()
	digest.Write(caData)
	if len(c.CRLFiles) > 0 {
		var lists [][]byte
		if cl.crls, lists, err = loadRevocations(c.CRLFiles, authorities); err != nil {
			return nil, err
		}
		for _, l := range lists {
			digest.Write(l)
		}
	}
	cl.trust = [sha256.Size]byte(digest.Sum(nil))
	return cl, nil
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

// outdated returns what outdated lists there are.
func (c *clients) outdated(now time.Time) []error {
	if c.crls == nil {
		return nil
	}
	return c.crls.outdated(now)
}
