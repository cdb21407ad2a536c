package oidc

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"os"
)

// loadAssertionSigner returns what signs the assertions of private_key_jwt: the key,
// named by its kid, by the thumbprint of a certificate, or by both. A certificate that is
// not the key's is an error: the provider would answer that it does not know us.
func loadAssertionSigner(c Config) (*signer, error) {
	if c.ClientCertificateFile == "" {
		all, err := loadSigners("client key", c.ClientKeyFile, "JWT", c.ClientKeyID)
		if err != nil {
			return nil, err
		}
		return all[0], nil
	}
	key, err := loadPrivate("client key", c.ClientKeyFile)
	if err != nil {
		return nil, err
	}
	certificate, err := loadCertificate(c.ClientCertificateFile)
	if err != nil {
		return nil, err
	}
	if !belongs(certificate, key) {
		return nil, fmt.Errorf("client certificate: the key in %s is not that of the certificate in %s", c.ClientKeyFile, c.ClientCertificateFile)
	}
	head := map[string]string{"typ": "JWT", "x5t#S256": thumbprint(certificate)}
	if c.ClientKeyID != "" {
		head["kid"] = c.ClientKeyID
	}
	all, err := newSignersOf(key, head)
	if err != nil {
		return nil, fmt.Errorf("client key of %s: %w", c.ClientKeyFile, err)
	}
	return all[len(all)-1], nil // of an RSA key PS256, which Entra ID wants with this thumbprint
}

// loadCertificate returns the first certificate of a PEM file, the others of which are
// those of its authorities.
func loadCertificate(file string) (*x509.Certificate, error) {
	data, err := os.ReadFile(file) //nolint:gosec // the operator names the file
	if err != nil {
		return nil, fmt.Errorf("read client certificate: %w", err)
	}
	for {
		block, rest := pem.Decode(data)
		if block == nil {
			return nil, fmt.Errorf("client certificate: %s holds no PEM certificate", file)
		}
		if block.Type != "CERTIFICATE" {
			data = rest
			continue
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("client certificate of %s: %w", file, err)
		}
		return certificate, nil
	}
}

// belongs reports whether key is the private half of what certificate certifies.
func belongs(certificate *x509.Certificate, key any) bool {
	private, ok := key.(crypto.Signer)
	if !ok {
		return false
	}
	public, ok := private.Public().(interface{ Equal(x crypto.PublicKey) bool })
	return ok && public.Equal(certificate.PublicKey)
}

// thumbprint is that of RFC 7515 section 4.1.8. The one of SHA-1 (section 4.1.7) is never
// sent.
func thumbprint(certificate *x509.Certificate) string {
	sum := sha256.Sum256(certificate.Raw)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}
