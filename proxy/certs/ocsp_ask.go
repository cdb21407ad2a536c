package certs

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"slices"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/sallyport/sallyport/proxy/authn/fetch"
)

// maxOCSP bounds an answer in bytes. What responders send, their certificate included,
// stays under 4 KiB.
const maxOCSP = 64 << 10

// asker asks responders.
type asker struct {
	client *fetch.Client
	url    string // who is asked; empty: whom the certificate names
	slots  chan struct{}
	now    func() time.Time
}

func newAsker(url string, calls int, now func() time.Time) (*asker, error) {
	client, err := fetch.New(fetch.Config{Whose: "OCSP responder", Connections: calls})
	return &asker{client: client, url: url, slots: make(chan struct{}, calls), now: now}, err
}

// ask gets an answer that can be relied on.
func (s *asker) ask(ctx context.Context, leaf, issuer *x509.Certificate) (*ocsp.Response, error) {
	to := s.url
	if to == "" {
		if len(leaf.OCSPServer) == 0 {
			return nil, errors.New("the certificate names no OCSP responder, and responder_url none for it")
		}
		to = leaf.OCSPServer[0]
	}
	question, err := ocsp.CreateRequest(leaf, issuer, nil)
	if err != nil {
		return nil, err
	}
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	case <-ctx.Done():
		return nil, errors.New("too many questions to OCSP responders are under way")
	}
	data, err := s.post(ctx, to, question)
	if err != nil {
		return nil, err
	}
	r, err := readOCSP(data, leaf, issuer, s.now())
	if err != nil {
		return nil, fmt.Errorf("answer of %s: %w", to, err)
	}
	return r, nil
}

// readOCSP reads an answer about leaf that can be relied on at now, whoever brought it.
func readOCSP(data []byte, leaf, issuer *x509.Certificate, now time.Time) (*ocsp.Response, error) {
	if len(data) > maxOCSP {
		return nil, fmt.Errorf("larger than %d bytes", maxOCSP)
	}
	r, err := ocsp.ParseResponseForCert(data, leaf, issuer)
	if err != nil {
		return nil, err
	}
	if err := checkSubject(r, issuer); err != nil {
		return nil, err
	}
	return r, checkOCSP(r, issuer, now)
}

// certID says which certificate a statement is about (RFC 6960 section 4.1.1).
type certID struct {
	HashAlgorithm pkix.AlgorithmIdentifier
	NameHash      []byte
	KeyHash       []byte
	SerialNumber  *big.Int
}

// statements are the ResponseData of RFC 6960 section 4.2.1, of which only the certificates
// that they are about are looked at here.
type statements struct {
	Version    int `asn1:"optional,default:0,explicit,tag:0"`
	Responder  asn1.RawValue
	ProducedAt asn1.RawValue
	Responses  []struct {
		CertID     certID
		Status     asn1.RawValue
		ThisUpdate asn1.RawValue
		NextUpdate asn1.RawValue   `asn1:"explicit,tag:0,optional"`
		Extensions []asn1.RawValue `asn1:"explicit,tag:1,optional"`
	}
	Extensions []asn1.RawValue `asn1:"explicit,tag:1,optional"`
}

// checkSubject checks that what r says is about a certificate of issuer (RFC 6960 section
// 3.2). Parsing compares serial numbers alone, and a responder that answers for several
// authorities says of each what is true of the numbers that it gave out.
func checkSubject(r *ocsp.Response, issuer *x509.Certificate) error {
	var all statements
	if _, err := asn1.Unmarshal(r.TBSResponseData, &all); err != nil {
		return err
	}
	for i := range all.Responses {
		if id := &all.Responses[i].CertID; id.SerialNumber.Cmp(r.SerialNumber) == 0 { // the first is what parsing took, too
			return id.checkIssuer(r.IssuerHash, issuer)
		}
	}
	return errors.New("about another certificate")
}

func (id *certID) checkIssuer(h crypto.Hash, issuer *x509.Certificate) error {
	var info struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}
	if _, err := asn1.Unmarshal(issuer.RawSubjectPublicKeyInfo, &info); err != nil {
		return err
	}
	if !h.Available() {
		return fmt.Errorf("names the issuer by its %s, which is not known here", h)
	}
	for _, part := range []struct{ got, of []byte }{{id.NameHash, issuer.RawSubject}, {id.KeyHash, info.Key.RightAlign()}} {
		sum := h.New()
		sum.Write(part.of)
		if !bytes.Equal(part.got, sum.Sum(nil)) {
			return fmt.Errorf("about certificate %x of another authority than %q", id.SerialNumber, issuer.Subject)
		}
	}
	return nil
}

// post sends a question (RFC 6960 appendix A.1).
func (s *asker) post(ctx context.Context, to string, question []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to, bytes.NewReader(question))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/ocsp-request")
	req.Header.Set("Accept", "application/ocsp-response")
	resp, err := s.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close() //nolint:errcheck // nothing is written; a read error shows below
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answered %s", to, resp.Status)
	}
	return fetch.Read(resp.Body, maxOCSP, "answer of "+to)
}

// checkOCSP checks what parsing did not: that who signed may, and that the answer is of
// today. A certificate of the same authority is not enough to sign: each client has one
// (RFC 6960 section 4.2.2.2).
func checkOCSP(r *ocsp.Response, issuer *x509.Certificate, now time.Time) error {
	if c := r.Certificate; c != nil && !bytes.Equal(c.RawSubjectPublicKeyInfo, issuer.RawSubjectPublicKeyInfo) {
		switch {
		case !slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageOCSPSigning):
			return fmt.Errorf("signed with the certificate of %q, which is not one for OCSP", c.Subject)
		case now.Before(c.NotBefore) || now.After(c.NotAfter):
			return fmt.Errorf("signed with the certificate of %q, which is good from %s to %s", c.Subject,
				c.NotBefore.Format(time.RFC3339), c.NotAfter.Format(time.RFC3339))
		}
	}
	switch {
	case r.ThisUpdate.After(now.Add(ocspSkew)):
		return fmt.Errorf("made in the future: %s", r.ThisUpdate.Format(time.RFC3339))
	case !r.NextUpdate.IsZero() && now.After(r.NextUpdate):
		return fmt.Errorf("out of date since %s", r.NextUpdate.Format(time.RFC3339))
	case r.NextUpdate.IsZero() && now.After(r.ThisUpdate.Add(ocspSkew)):
		return fmt.Errorf("without nextUpdate, and from %s", r.ThisUpdate.Format(time.RFC3339))
	}
	return nil
}
