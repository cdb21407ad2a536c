package certs

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"
)

// revocations are the newest revocation lists of the authorities (RFC 5280
// section 5).
type revocations struct {
	lists map[authority]*list
	// issuers says who issued the authorities that are not self-signed and whose
	// issuer is known too, by the hash of their certificates: one key can have several,
	// of different issuers. Trusted or not, they can be revoked.
	issuers map[[sha256.Size]byte]*x509.Certificate
}

// authority identifies who issues, by name and key: a renewed authority keeps
// its lists, one that only has the same name does not get them.
type authority [sha256.Size]byte

func authorityOf(c *x509.Certificate) authority {
	return sha256.Sum256(bytes.Join([][]byte{c.RawSubject, c.RawSubjectPublicKeyInfo}, []byte{0}))
}

type list struct {
	issuer               string
	thisUpdate, nextDate time.Time
	revoked              map[string]bool // serial numbers, big-endian
}

// current reports why l cannot be relied on at now; nil if it can.
func (l *list) current(now time.Time) error {
	if now.Before(l.thisUpdate) || now.After(l.nextDate) {
		return fmt.Errorf("revocation list of %q is good from %s to %s", l.issuer,
			l.thisUpdate.Format(time.RFC3339), l.nextDate.Format(time.RFC3339))
	}
	return nil
}

func loadRevocations(files []string, authorities []*x509.Certificate) (*revocations, [][]byte, error) {
	r := &revocations{lists: make(map[authority]*list), issuers: issuersAmong(authorities)}
	var raw [][]byte
	for _, name := range files {
		data, err := os.ReadFile(name) //nolint:gosec // the operator names the file
		if err != nil {
			return nil, nil, fmt.Errorf("read revocation list: %w", err)
		}
		if err := r.add(data, authorities); err != nil {
			return nil, nil, fmt.Errorf("read revocation list %s: %w", name, err)
		}
		raw = append(raw, data)
	}
	return r, raw, nil
}

func issuersAmong(authorities []*x509.Certificate) map[[sha256.Size]byte]*x509.Certificate {
	issuers := make(map[[sha256.Size]byte]*x509.Certificate)
	for _, a := range authorities {
		for _, b := range authorities {
			if authorityOf(a) != authorityOf(b) && bytes.Equal(a.RawIssuer, b.RawSubject) && a.CheckSignatureFrom(b) == nil {
				issuers[sha256.Sum256(a.Raw)] = b
			}
		}
	}
	return issuers
}

// add takes the lists of one file, PEM or DER.
func (r *revocations) add(data []byte, authorities []*x509.Certificate) error {
	block, rest := pem.Decode(data)
	if block == nil {
		return r.addDER(data, authorities)
	}
	for block != nil {
		if block.Type != "X509 CRL" {
			return fmt.Errorf("holds a PEM block %q", block.Type)
		}
		if err := r.addDER(block.Bytes, authorities); err != nil {
			return err
		}
		block, rest = pem.Decode(rest)
	}
	return checkRest(rest)
}

func (r *revocations) addDER(der []byte, authorities []*x509.Certificate) error {
	crl, err := x509.ParseRevocationList(der)
	if err != nil {
		return err
	}
	if err := checkScope(crl); err != nil {
		return err
	}
	signed := false
	for _, a := range authorities {
		if !bytes.Equal(a.RawSubject, crl.RawIssuer) || crl.CheckSignatureFrom(a) != nil {
			continue
		}
		signed = true
		old := r.lists[authorityOf(a)]
		if old == nil || old.thisUpdate.Before(crl.ThisUpdate) {
			r.lists[authorityOf(a)] = newList(crl)
		}
	}
	if !signed {
		return fmt.Errorf("list of %q is signed by no certificate of client_ca_file", crl.Issuer)
	}
	return nil
}

// checkScope refuses lists that speak for a part of the authority's certificates
// only, or in a way not understood here: a critical extension such as that of
// delta lists and of distribution points (RFC 5280 section 5.2). A list without
// nextUpdate needs no look here: it is never current.
func checkScope(crl *x509.RevocationList) error {
	for _, e := range crl.Extensions {
		if e.Critical {
			return fmt.Errorf("list of %q has the critical extension %s", crl.Issuer, e.Id)
		}
	}
	return nil
}

func newList(crl *x509.RevocationList) *list {
	l := &list{
		issuer: crl.Issuer.String(), thisUpdate: crl.ThisUpdate, nextDate: crl.NextUpdate,
		revoked: make(map[string]bool, len(crl.RevokedCertificateEntries)),
	}
	for _, e := range crl.RevokedCertificateEntries {
		l.revoked[string(e.SerialNumber.Bytes())] = true
	}
	return l
}

// check accepts a client one of whose chains is free of revoked certificates.
func (r *revocations) check(chains [][]*x509.Certificate, now time.Time) error {
	var errs []error
	for _, chain := range chains {
		err := r.checkChain(chain, now)
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// checkChain looks up every certificate in its issuer's list, but a root.
func (r *revocations) checkChain(chain []*x509.Certificate, now time.Time) error {
	chain = r.upward(chain)
	for i, cert := range chain[:len(chain)-1] {
		if err := r.checkOne(cert, chain[i+1], now); err != nil {
			return err
		}
	}
	return nil
}

// upward returns chain with the issuers above the authority at which it ends, as far as
// they are known: verification stops at the first that is trusted.
func (r *revocations) upward(chain []*x509.Certificate) []*x509.Certificate {
	chain = slices.Clone(chain)
	for {
		issuer := r.issuers[sha256.Sum256(chain[len(chain)-1].Raw)]
		if issuer == nil || slices.ContainsFunc(chain, issuer.Equal) { // authorities can certify each other
			return chain
		}
		chain = append(chain, issuer)
	}
}

func (r *revocations) checkOne(cert, issuer *x509.Certificate, now time.Time) error {
	l := r.lists[authorityOf(issuer)]
	if l == nil {
		return fmt.Errorf("%w: there is no revocation list of %q", ErrStatusUnknown, issuer.Subject)
	}
	if err := l.current(now); err != nil {
		return fmt.Errorf("%w: %w", ErrStatusUnknown, err)
	}
	if l.revoked[string(cert.SerialNumber.Bytes())] {
		return fmt.Errorf("%w: %x of %q is in the list", ErrRevoked, cert.SerialNumber, l.issuer)
	}
	return nil
}

func (r *revocations) outdated(now time.Time) []error {
	var errs []error
	for _, l := range r.lists {
		if err := l.current(now); err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}
