package certs

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
)

// parseAuthorities reads PEM certificates, or the X.509 authorities of a SPIFFE trust
// bundle (SPIFFE Trust Domain and Bundle section 4), which is a JWK set.
func parseAuthorities(data []byte) ([]*x509.Certificate, error) {
	if text := bytes.TrimLeft(data, " \t\r\n"); len(text) > 0 && text[0] == '{' {
		return parseBundle(text)
	}
	return parseCertificates(data)
}

// parseBundle reads the entries for x509-svid, each of which has one authority in x5c.
// Others, such as those for jwt-svid, are ignored, as section 4.2.2 says.
func parseBundle(data []byte) ([]*x509.Certificate, error) {
	var doc struct {
		Keys []struct {
			Use string   `json:"use"`
			X5C [][]byte `json:"x5c"` // base64 DER, as RFC 7517 section 4.7 has it
		} `json:"keys"`
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		return nil, fmt.Errorf("trust bundle: %w", err)
	}
	var list []*x509.Certificate
	for i, k := range doc.Keys {
		if k.Use != "x509-svid" {
			continue
		}
		if len(k.X5C) != 1 {
			return nil, fmt.Errorf("trust bundle: key %d has %d certificates, want one", i, len(k.X5C))
		}
		cert, err := x509.ParseCertificate(k.X5C[0])
		switch {
		case err != nil:
			return nil, fmt.Errorf("trust bundle: key %d: %w", i, err)
		case !cert.IsCA:
			return nil, fmt.Errorf("trust bundle: certificate %q is not one of an authority", cert.Subject)
		}
		list = append(list, cert)
	}
	if len(list) == 0 {
		return nil, errors.New("trust bundle has no key for x509-svid")
	}
	return list, nil
}
