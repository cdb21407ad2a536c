package certs

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"strings"
)

const (
	maxSPIFFEID    = 2048
	maxTrustDomain = 255
)

// ErrNoSPIFFEID says that the certificate does not claim to be an SVID.
var ErrNoSPIFFEID = errors.New("certificate has no SPIFFE ID")

// SPIFFEID returns the SPIFFE ID of a certificate that is an X.509-SVID (SPIFFE
// X509-SVID section 2 to 4): exactly one URI SAN, which is the ID, in a leaf that
// cannot sign certificates. ErrNoSPIFFEID means that the certificate has no
// spiffe URI at all; any other error, that it has and is malformed.
func SPIFFEID(c *x509.Certificate) (string, error) {
	if !claimsSPIFFE(c) {
		return "", ErrNoSPIFFEID
	}
	if len(c.URIs) != 1 {
		return "", fmt.Errorf("certificate has %d URIs, an SVID has one", len(c.URIs))
	}
	if c.IsCA || c.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) != 0 {
		return "", errors.New("certificate with a SPIFFE ID can sign certificates")
	}
	id := c.URIs[0].String()
	if err := checkSPIFFEID(c.URIs[0], id); err != nil {
		return "", fmt.Errorf("SPIFFE ID %q: %w", id, err)
	}
	return id, nil
}

// TrustDomain returns the trust domain of a SPIFFE ID as text, such as the subject of a
// JWT-SVID. An ID has one spelling: what url.Parse would fold is malformed.
func TrustDomain(id string) (string, error) {
	u, err := url.Parse(id)
	if err != nil || !strings.HasPrefix(id, "spiffe://") || u.String() != id {
		return "", fmt.Errorf("%.128q is not a SPIFFE ID", id)
	}
	if err := checkSPIFFEID(u, id); err != nil {
		return "", fmt.Errorf("SPIFFE ID %.128q: %w", id, err)
	}
	return u.Host, nil
}

// ValidTrustDomain reports whether name is the name of a trust domain (SPIFFE-ID section 2.1).
func ValidTrustDomain(name string) bool {
	return name != "" && len(name) <= maxTrustDomain && !strings.ContainsFunc(name, notTrustDomain)
}

func claimsSPIFFE(c *x509.Certificate) bool {
	for _, u := range c.URIs {
		if strings.EqualFold(u.Scheme, "spiffe") {
			return true
		}
	}
	return false
}

// checkSPIFFEID checks the form (SPIFFE-ID section 2).
func checkSPIFFEID(u *url.URL, id string) error {
	switch {
	case len(id) > maxSPIFFEID:
		return fmt.Errorf("is longer than %d bytes", maxSPIFFEID)
	case u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || u.Opaque != "" || strings.HasSuffix(id, "#"):
		return errors.New("has more than a trust domain and a path")
	case u.Host == "" || len(u.Host) > maxTrustDomain || strings.ContainsFunc(u.Host, notTrustDomain):
		return errors.New("trust domain is malformed")
	}
	path, ok := strings.CutPrefix(strings.TrimPrefix(id, "spiffe://"), u.Host)
	if !ok {
		return errors.New("is malformed")
	}
	return checkSPIFFEPath(path)
}

func checkSPIFFEPath(path string) error {
	if path == "" {
		return nil
	}
	rest, ok := strings.CutPrefix(path, "/")
	if !ok {
		return errors.New("path does not begin with a slash")
	}
	for segment := range strings.SplitSeq(rest, "/") {
		if segment == "" || segment == "." || segment == ".." || strings.ContainsFunc(segment, notSegment) {
			return fmt.Errorf("path segment %q is malformed", segment)
		}
	}
	return nil
}

func notTrustDomain(r rune) bool {
	return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '.' && r != '-' && r != '_'
}

func notSegment(r rune) bool { return notTrustDomain(r) && (r < 'A' || r > 'Z') }
