package judge

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"

	"github.com/sallyport/sallyport/engine/authz"
)

// DescribeTLS returns the input document's view of a connection. A front makes
// it once per connection. A client certificate appears only if it verified.
func DescribeTLS(state *tls.ConnectionState) *authz.TLS {
	if state == nil {
		return nil
	}
	out := &authz.TLS{
		Version: tls.VersionName(state.Version), Cipher: tls.CipherSuiteName(state.CipherSuite), ServerName: state.ServerName,
	}
	if len(state.VerifiedChains) > 0 && len(state.PeerCertificates) > 0 {
		out.ClientCertificate = describeCertificate(state.PeerCertificates[0])
	}
	return out
}

func describeCertificate(c *x509.Certificate) *authz.Certificate {
	sum := sha256.Sum256(c.Raw)
	out := &authz.Certificate{
		Subject: c.Subject.String(), Issuer: c.Issuer.String(), Serial: c.SerialNumber.Text(16),
		SHA256: hex.EncodeToString(sum[:]), DNSNames: c.DNSNames, Emails: c.EmailAddresses,
		NotBefore: c.NotBefore, NotAfter: c.NotAfter,
	}
	spiffe := 0
	for _, u := range c.URIs {
		out.URIs = append(out.URIs, u.String())
		if u.Scheme == "spiffe" {
			spiffe++
			out.SPIFFEID = u.String()
		}
	}
	if spiffe != 1 {
		out.SPIFFEID = "" // an SVID has exactly one (SPIFFE X.509-SVID section 2)
	}
	return out
}
