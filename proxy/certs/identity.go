package certs

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"

	"github.com/sallyport/sallyport/engine/authz"
)

// TLSOf describes a connection for the input document; nil without TLS.
func TLSOf(cs *tls.ConnectionState) *authz.TLS {
	if cs == nil {
		return nil
	}
	return &authz.TLS{
		Version:           tls.VersionName(cs.Version),
		Cipher:            tls.CipherSuiteName(cs.CipherSuite),
		ServerName:        cs.ServerName,
		ClientCertificate: CertificateOf(cs),
	}
}

// CertificateOf describes the client's certificate; nil if it presented none, or
// none that was verified in the handshake.
func CertificateOf(cs *tls.ConnectionState) *authz.Certificate {
	leaf := VerifiedLeaf(cs)
	if leaf == nil {
		return nil
	}
	fingerprint := sha256.Sum256(leaf.Raw)
	c := &authz.Certificate{
		Subject:   leaf.Subject.String(),
		Issuer:    leaf.Issuer.String(),
		Serial:    leaf.SerialNumber.Text(16),
		SHA256:    hex.EncodeToString(fingerprint[:]),
		DNSNames:  leaf.DNSNames,
		Emails:    leaf.EmailAddresses,
		NotBefore: leaf.NotBefore,
		NotAfter:  leaf.NotAfter,
	}
	for _, u := range leaf.URIs {
		c.URIs = append(c.URIs, u.String())
	}
	if id, err := SPIFFEID(leaf); err == nil {
		c.SPIFFEID = id
	}
	return c
}

// VerifiedLeaf returns the client's certificate if the handshake verified it.
func VerifiedLeaf(cs *tls.ConnectionState) *x509.Certificate {
	if cs == nil || len(cs.VerifiedChains) == 0 || len(cs.VerifiedChains[0]) == 0 {
		return nil
	}
	return cs.VerifiedChains[0][0]
}
