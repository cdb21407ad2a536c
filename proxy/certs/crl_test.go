package certs_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"testing"
	"time"

	"github.com/sallyport/sallyport/proxy/certs"
	"github.com/sallyport/sallyport/proxy/certs/certstest"
)

// TestListsThatAreRefused: a list that says less than it seems to is no list.
func TestListsThatAreRefused(t *testing.T) {
	s := newSite(t)
	delta := pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 27}, Critical: true, Value: []byte{2, 1, 1}}
	block, _ := pem.Decode(s.clients.RevocationList(t, time.Now().Add(time.Hour)))
	tampered := append([]byte{}, block.Bytes...)
	tampered[len(tampered)-1] ^= 1
	for name, data := range map[string][]byte{
		"delta list": s.clients.SignRevocationList(t, func(l *x509.RevocationList) { l.ExtraExtensions = []pkix.Extension{delta} }),
		"signature":  pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: tampered}),
		"other PEM":  s.clients.PEM(),
		"empty":      {},
		"cut off":    append(s.clients.RevocationList(t, time.Now().Add(time.Hour)), s.clients.RevocationList(t, time.Now())[:100]...),
	} {
		s.withCRL(t, data)
		if _, err := certs.New(s.config, certs.Deps{}); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	s.withCRL(t, block.Bytes)
	if _, err := certs.New(s.config, certs.Deps{}); err != nil {
		t.Errorf("DER: %v", err)
	}
}

// TestListNotYetGood: a list of the future says nothing about today.
func TestListNotYetGood(t *testing.T) {
	s := newSite(t)
	s.withCRL(t, s.clients.RevocationList(t, time.Now().Add(26*time.Hour)))
	if _, err := handshake(t, s.open(t).TLS(), s.client(s.clients.Issue(t, "alice", nil))); err == nil {
		t.Error("alice got in on a list that begins in an hour")
	}
}

// TestNewestListCounts: of two lists of one authority the later one is true.
func TestNewestListCounts(t *testing.T) {
	s := newSite(t)
	alice := s.clients.Issue(t, "alice", nil)
	older := s.clients.RevocationList(t, time.Now().Add(time.Hour))
	newer := s.clients.RevocationList(t, time.Now().Add(2*time.Hour), alice)
	for _, both := range [][]byte{append(append([]byte{}, older...), newer...), append(append([]byte{}, newer...), older...)} {
		s.withCRL(t, both)
		if _, err := handshake(t, s.open(t).TLS(), s.client(alice)); err == nil {
			t.Error("alice got in, whom the newer list revokes")
		}
	}
}

// TestEachAuthorityItsList: without a list an authority's clients are refused,
// and a namesake's list does not help.
func TestEachAuthorityItsList(t *testing.T) {
	s := newSite(t)
	second := certstest.NewCA(t, "client CA") // a namesake with another key
	certstest.Write(t, s.config.ClientCAFile, append(s.clients.PEM(), second.PEM()...))
	s.withCRL(t, s.clients.RevocationList(t, time.Now().Add(time.Hour)))
	store := s.open(t)
	if _, err := handshake(t, store.TLS(), s.client(s.clients.Issue(t, "alice", nil))); err != nil {
		t.Errorf("alice: %v", err)
	}
	if _, err := handshake(t, store.TLS(), s.client(second.Issue(t, "bob", nil))); err == nil {
		t.Error("bob got in, whose authority has no list")
	}
}
