package mtls

import (
	"errors"
	"slices"

	"github.com/sallyport/sallyport/engine/setting"
	"github.com/sallyport/sallyport/proxy/certs"
)

// Config says which of the certificates that the listener's authorities issued
// may enter.
type Config struct {
	// AllowedSANs are patterns for the subject alternative names, one of which
	// must match: URIs ("spiffe://example.org/ns/*/sa/**": * is one path segment,
	// ** any rest), DNS names ("*.mesh.example": * is one label) and mail
	// addresses ("*@example.com"). "**" alone is every certificate.
	AllowedSANs []string `yaml:"allowed_sans"`
	// AllowedSubjects are distinguished names in RFC 2253 form or common names,
	// compared exactly, for certificates without alternative names.
	AllowedSubjects []string `yaml:"allowed_subjects"`
	// AllowedSubjectPatterns are subjects with wildcards: "CN=*,OU=payments,O=Acme" has these
	// attributes, each once, in any order and no others; with ",**" at the end, others too.
	// A pattern without = is one of the common name alone. * alone is every value, and in
	// a value one or more letters, digits, - and _; a backslash takes the meaning away.
	AllowedSubjectPatterns []string `yaml:"allowed_subject_patterns"`
	// TrustDomain lets in X.509-SVIDs of this SPIFFE trust domain alone: exactly one URI,
	// which is an ID of the domain, in a certificate for digital signatures that signs no
	// others. Without allowed_sans every ID of the domain may enter.
	TrustDomain string `yaml:"trust_domain"`
	// TrustBundleFile holds the authorities of the trust domain, PEM or a SPIFFE trust
	// bundle (JSON), with which the certificate is verified again: an authority that the
	// listener trusts for another domain cannot speak for this one. It is watched, and counts
	// for open connections too.
	TrustBundleFile string `yaml:"trust_bundle_file" sallyport:"path"`
	// Forwarded takes the client's certificate from a header that a proxy in front of
	// the gateway sets. The connection's own certificate, which is the proxy's, is then
	// never taken for the client's.
	Forwarded *Forwarded `yaml:"forwarded"`
}

// Forwarded says whose word counts for a client's certificate. The proxy must be in
// trusted_proxies of the listener and show a certificate of its own.
type Forwarded struct {
	// Header is xfcc (X-Forwarded-Client-Cert as Envoy sends it) or rfc9440 (Client-Cert
	// and Client-Cert-Chain). Have the proxy replace it, never append to what a client
	// sent: more than one certificate is refused.
	Header string `yaml:"header"`
	// From are patterns, as in allowed_sans, one of which the proxy's own certificate
	// must match: other holders of a certificate cannot speak for clients.
	From []string `yaml:"from"`
	// ClientCAFile holds the PEM certificates of the authorities that the forwarded
	// certificate is verified with again; it is then needed in full (Cert or Chain of
	// xfcc). Without it, with xfcc only, URI and DNS count as the proxy reports them.
	ClientCAFile string `yaml:"client_ca_file" sallyport:"path"`
}

// Values of forwarded.header.
const (
	headerXFCC    = "xfcc"
	headerRFC9440 = "rfc9440"
)

// Validate reports everything wrong with c.
func (c Config) Validate() error {
	_, err := c.parse()
	return errors.Join(err, c.validateForwarded(), c.validateSVID())
}

func (c Config) validateSVID() error {
	var errs []error
	if c.TrustDomain != "" && !certs.ValidTrustDomain(c.TrustDomain) {
		errs = append(errs, setting.Problemf("trust_domain", "%q is not the name of a trust domain such as example.org, without spiffe://", c.TrustDomain))
	}
	if c.TrustBundleFile != "" && c.TrustDomain == "" {
		errs = append(errs, setting.Problemf("trust_bundle_file", "needs trust_domain: it says whose authorities these are"))
	}
	for key, list := range c.subjects() {
		if c.TrustDomain != "" && len(list) > 0 {
			errs = append(errs, setting.Problemf(key, "has no effect with trust_domain: the name of an SVID is its SPIFFE ID"))
		}
	}
	switch {
	case c.Forwarded == nil:
	case c.TrustBundleFile != "":
		errs = append(errs, setting.Problemf("trust_bundle_file", "has no effect on forwarded certificates; forwarded.client_ca_file can be a trust bundle too"))
	case c.TrustDomain != "" && c.Forwarded.ClientCAFile == "":
		errs = append(errs, setting.Problemf("trust_domain", "needs forwarded.client_ca_file: an SVID is a whole certificate"))
	}
	return errors.Join(errs...)
}

func (c Config) validateForwarded() error {
	f := c.Forwarded
	if f == nil {
		return nil
	}
	var errs []error
	switch {
	case f.Header != headerXFCC && f.Header != headerRFC9440:
		errs = append(errs, setting.Problemf("forwarded.header", "%q is not xfcc or rfc9440", f.Header))
	case f.Header == headerRFC9440 && f.ClientCAFile == "":
		errs = append(errs, setting.Problemf("forwarded.client_ca_file", "is missing: the header holds the certificate, and nothing says which are good"))
	}
	if len(f.From) == 0 {
		errs = append(errs, setting.Problemf("forwarded.from", "is missing: name the proxies whose word counts, by their certificates' names"))
	}
	for key, list := range c.subjects() {
		if len(list) > 0 && f.ClientCAFile == "" {
			errs = append(errs, setting.Problemf(key, "needs forwarded.client_ca_file: a subject is taken from a whole certificate only"))
		}
	}
	_, err := parsePatterns("forwarded.from", f.From)
	return errors.Join(append(errs, err)...)
}

func (c Config) parse() ([]pattern, error) {
	var errs []error
	patterns, err := parsePatterns("allowed_sans", c.AllowedSANs)
	if err != nil {
		errs = append(errs, err)
	}
	switch {
	case len(c.AllowedSANs)+len(c.AllowedSubjects)+len(c.AllowedSubjectPatterns) > 0:
	case c.TrustDomain != "":
		patterns = []pattern{{anything: true}}
	default:
		errs = append(errs, setting.Problemf("allowed_sans", `is missing; "**" is every certificate that the listener's authorities issued`))
	}
	if slices.Contains(c.AllowedSubjects, "") {
		errs = append(errs, setting.Problemf("allowed_subjects", "contains an empty value"))
	}
	_, err = c.parseSubjects()
	return patterns, errors.Join(append(errs, err)...)
}

// subjects are the keys that name subjects.
func (c Config) subjects() map[string][]string {
	return map[string][]string{"allowed_subjects": c.AllowedSubjects, "allowed_subject_patterns": c.AllowedSubjectPatterns}
}

func (c Config) parseSubjects() (patterns []subjectPattern, err error) {
	var errs []error
	for _, text := range c.AllowedSubjectPatterns {
		p, err := parseSubjectPattern(text)
		if err != nil {
			errs = append(errs, setting.Problemf("allowed_subject_patterns", "%q %w", text, err))
		}
		patterns = append(patterns, p)
	}
	return patterns, errors.Join(errs...)
}

func parsePatterns(key string, texts []string) (patterns []pattern, err error) {
	var errs []error
	for _, text := range texts {
		p, err := parsePattern(text)
		if err != nil {
			errs = append(errs, setting.Problemf(key, "%q %w", text, err))
			continue
		}
		patterns = append(patterns, p)
	}
	return patterns, errors.Join(errs...)
}
