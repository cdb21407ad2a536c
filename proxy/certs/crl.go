package certs

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"slices"
	"time"
)

// revocations are the newest revocation lists of the authorities (RFC 5280
// section 5).
type revocations struct {
	lists map[authority]*list
	// held are the authorities that have a list in a file: soft is not for them.
	held map[authority]bool
	// soft is told why nobody knows whether a certificate is revoked that passes all the
	// same; nil: none does.
	soft func(error)
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

// list is immutable.
type list struct {
	issuer               string
	number               *big.Int // RFC 5280 section 5.2.3; nil without one
	thisUpdate, nextDate time.Time
	revoked              map[string]bool   // serial numbers, big-endian
	sum                  [sha256.Size]byte // of the signed list
}

// newer reports whether l was issued after o. Its number, which an authority that was set
// up anew begins again with, decides about lists of one second only.
func (l *list) newer(o *list) bool {
	if !l.thisUpdate.Equal(o.thisUpdate) {
		return l.thisUpdate.After(o.thisUpdate)
	}
	return l.number != nil && o.number != nil && l.number.Cmp(o.number) > 0
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
	r := &revocations{lists: make(map[authority]*list), held: make(map[authority]bool), issuers: issuersAmong(authorities)}
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
	for a := range r.lists {
		r.held[a] = true
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
		r.put(authorityOf(a), newList(crl))
	}
	if !signed {
		return fmt.Errorf("list of %q is signed by no certificate of client_ca_file", crl.Issuer)
	}
	return nil
}

// put keeps the newer list of an authority.
func (r *revocations) put(of authority, l *list) {
	if old := r.lists[of]; old == nil || l.newer(old) {
		r.lists[of] = l
	}
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
		issuer: crl.Issuer.String(), number: crl.Number, thisUpdate: crl.ThisUpdate, nextDate: crl.NextUpdate,
		revoked: make(map[string]bool, len(crl.RevokedCertificateEntries)), sum: sha256.Sum256(crl.Raw),
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

// checkOne looks up cert. What a list says of a certificate that was taken back is true
// for longer than the list is current.
func (r *revocations) checkOne(cert, issuer *x509.Certificate, now time.Time) error {
	of := authorityOf(issuer)
	l := r.lists[of]
	if l != nil && l.revoked[string(cert.SerialNumber.Bytes())] {
		return fmt.Errorf("%w: %x of %q is in the list", ErrRevoked, cert.SerialNumber, l.issuer)
	}
	err := fmt.Errorf("there is no revocation list of %q", issuer.Subject)
	if l != nil {
		err = l.current(now)
	}
	switch {
	case err == nil:
		return nil
	case r.passes(of):
		r.soft(err)
		return nil
	}
	return fmt.Errorf("%w: %w", ErrStatusUnknown, err)
}

// outdated says which lists are not current, by what becomes of the clients of their
// authorities.
func (r *revocations) outdated(now time.Time) (refused, passed []error) {
	for of, l := range r.lists {
		err := l.current(now)
		switch {
		case err == nil:
		case r.passes(of):
			passed = append(passed, err)
		default:
			refused = append(refused, err)
		}
	}
	return refused, passed
}

// passes reports whether the certificates of an authority pass while nobody knows whether
// they are revoked.
func (r *revocations) passes(of authority) bool { return r.soft != nil && !r.held[of] }
