package certs

import (
	"crypto/tls"
	"errors"
	"fmt"
	"slices"

	"github.com/sallyport/sallyport/engine/setting"
)

// Config is the tls block of a listener.
type Config struct {
	// CertFile holds the PEM certificate of the server, followed by its
	// intermediates.
	CertFile string `yaml:"cert_file" sallyport:"path"`
	// KeyFile holds the PEM private key that belongs to it, not encrypted.
	KeyFile string `yaml:"key_file" sallyport:"path"`
	// ClientCAFile holds the certificates of the authorities that client certificates are
	// verified with: PEM, or a SPIFFE trust bundle (JSON). The system's are never used.
	ClientCAFile string `yaml:"client_ca_file" sallyport:"path"`
	// ClientAuth is none, optional (a client certificate is verified if there is
	// one) or required; by default required with client_ca_file and none without.
	ClientAuth string `yaml:"client_auth"`
	// MinVersion is the oldest TLS version that is spoken, 1.2 or 1.3; 1.2 by default.
	MinVersion string `yaml:"min_version"`
	// CRLFiles hold revocation lists, PEM or DER. With any, every authority that
	// issued a certificate of the client's chain must have a list that is current:
	// a client whose revocation is unknown is refused.
	CRLFiles []string `yaml:"crl_files" sallyport:"path"`
	// CRL fetches revocation lists, which count beside those of crl_files.
	CRL CRL `yaml:"crl"`
	// OCSP asks the responder of the client's authority whether its certificate is
	// revoked, in addition to crl_files and crl.
	OCSP OCSP `yaml:"ocsp"`
	// Staple shows clients the OCSP answer about the server's certificate with it.
	Staple Staple `yaml:"staple"`
	// Options are settings for some server names. Names that are not listed, and clients
	// that give none, have the settings above.
	Options []Options `yaml:"options"`
}

// Values of client_auth.
const (
	clientAuthNone     = "none"
	clientAuthOptional = "optional"
	clientAuthRequired = "required"
)

// Validate reports everything wrong with c. It reads no files.
func (c Config) Validate() error {
	var errs []error
	if c.CertFile == "" {
		errs = append(errs, setting.Problemf("cert_file", "is missing"))
	}
	if c.KeyFile == "" {
		errs = append(errs, setting.Problemf("key_file", "is missing"))
	}
	if _, ok := minVersion(c.MinVersion); !ok {
		errs = append(errs, setting.Problemf("min_version", "%q is neither 1.2 nor 1.3", c.MinVersion))
	}
	return errors.Join(append(errs, c.validateClients(), setting.Under("crl", c.CRL.validate()), setting.Under("ocsp", c.OCSP.validate()),
		setting.Under("staple", c.Staple.validate()), c.validateOptions())...)
}

func (c Config) validateClients() error {
	switch c.ClientAuth {
	case "", clientAuthNone, clientAuthOptional, clientAuthRequired:
	default:
		return setting.Problemf("client_auth", "%q is not none, optional or required", c.ClientAuth)
	}
	var errs []error
	verifies := c.ClientAuth == clientAuthOptional || c.ClientAuth == clientAuthRequired
	if verifies && c.ClientCAFile == "" {
		errs = append(errs, setting.Problemf("client_ca_file", "is missing: client_auth is %s and nothing says which certificates are good", c.ClientAuth))
	}
	if c.ClientAuth == clientAuthNone && c.ClientCAFile != "" {
		errs = append(errs, setting.Problemf("client_auth", "is none, so client_ca_file has no effect; remove one of them"))
	}
	if len(c.CRLFiles) > 0 && c.ClientCAFile == "" {
		errs = append(errs, setting.Problemf("crl_files", "has no effect without client_ca_file"))
	}
	if c.CRL.on() && c.ClientCAFile == "" {
		errs = append(errs, setting.Problemf("crl.urls", "has no effect without client_ca_file"))
	}
	if c.OCSP.on() && c.ClientCAFile == "" {
		errs = append(errs, setting.Problemf("ocsp.mode", "has no effect without client_ca_file"))
	}
	return errors.Join(errs...)
}

// Insecure returns the choices that weaken the listener, by key, and what they mean.
func (c Config) Insecure() map[string]string {
	out := map[string]string{}
	for i, one := range c.all() {
		at := ""
		if i > 0 {
			at = fmt.Sprintf("options[%d].", i-1)
		}
		if one.CRL.on() && one.CRL.Mode == crlSoft {
			out[at+"crl.mode"] = "whoever can keep the gateway from its revocation lists can go on to use a certificate that was taken back"
		}
		if one.OCSP.Mode == ocspSoft {
			out[at+"ocsp.mode"] = "whoever can keep the gateway from its responder can go on to use a certificate that was taken back"
		}
	}
	return out
}

// AsksForCertificates tells whether clients can show a certificate.
func (c Config) AsksForCertificates() bool {
	return slices.ContainsFunc(c.all(), func(one Config) bool { return one.clientAuth() != tls.NoClientCert })
}

func (c Config) clientAuth() tls.ClientAuthType {
	switch {
	case c.ClientAuth == clientAuthOptional:
		return tls.VerifyClientCertIfGiven
	case c.ClientCAFile != "":
		return tls.RequireAndVerifyClientCert
	}
	return tls.NoClientCert
}

func minVersion(s string) (uint16, bool) {
	switch s {
	case "", "1.2":
		return tls.VersionTLS12, true
	case "1.3":
		return tls.VersionTLS13, true
	}
	return 0, false
}
