package certs

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"
)

// fuzzCA is the same in each of the fuzzer's processes, but for its own signature.
func fuzzCA(f *testing.F, serial int64, seed byte) (*x509.Certificate, *ecdsa.PrivateKey) {
	f.Helper()
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), bytes.Repeat([]byte{seed}, 32))
	if err != nil {
		f.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Unix(1_700_000_000, 0), NotAfter: time.Unix(2_000_000_000, 0),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		f.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		f.Fatal(err)
	}
	return c, key
}

// FuzzOCSP: no answer panics, which clients can staple to their certificates, and one that
// is taken is about the certificate, of today, and signed.
func FuzzOCSP(f *testing.F) {
	issuer, key := fuzzCA(f, 1, 7)
	leaf := &x509.Certificate{SerialNumber: big.NewInt(42)}
	now := time.Unix(1_800_000_000, 0)
	for _, r := range []ocsp.Response{
		{Status: ocsp.Good, SerialNumber: leaf.SerialNumber, ThisUpdate: now, NextUpdate: now.Add(time.Hour)},
		{Status: ocsp.Revoked, SerialNumber: leaf.SerialNumber, ThisUpdate: now, RevokedAt: now, IssuerHash: crypto.SHA256},
		{Status: ocsp.Good, SerialNumber: big.NewInt(7), ThisUpdate: now},
		{Status: ocsp.Good, SerialNumber: leaf.SerialNumber, ThisUpdate: now, NextUpdate: now.Add(time.Hour), Certificate: issuer},
	} {
		der, err := ocsp.CreateResponse(issuer, issuer, r, key)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(der)
	}
	f.Add(ocsp.TryLaterErrorResponse)
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := readOCSP(data, leaf, issuer, now)
		if err != nil {
			return
		}
		if r.SerialNumber.Cmp(leaf.SerialNumber) != 0 || r.ThisUpdate.After(now.Add(ocspSkew)) || !r.NextUpdate.IsZero() && r.NextUpdate.Before(now) {
			t.Errorf("accepted %+v", r)
		}
		by := issuer
		if r.Certificate != nil {
			by = r.Certificate
		}
		if err := r.CheckSignatureFrom(by); err != nil {
			t.Errorf("accepted %x: %v", data, err)
		}
	})
}
