package mtls

import (
	"errors"
	"slices"

	"github.com/sallyport/sallyport/engine/setting"
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
}

// Validate reports everything wrong with c.
func (c Config) Validate() error {
	_, err := c.parse()
	return err
}

func (c Config) parse() ([]pattern, error) {
	var errs []error
	var patterns []pattern
	for _, text := range c.AllowedSANs {
		p, err := parsePattern(text)
		if err != nil {
			errs = append(errs, setting.Problemf("allowed_sans", "%q %w", text, err))
			continue
		}
		patterns = append(patterns, p)
	}
	if len(c.AllowedSANs)+len(c.AllowedSubjects) == 0 {
		errs = append(errs, setting.Problemf("allowed_sans", `is missing; "**" is every certificate that the listener's authorities issued`))
	}
	if slices.Contains(c.AllowedSubjects, "") {
		errs = append(errs, setting.Problemf("allowed_subjects", "contains an empty value"))
	}
	return patterns, errors.Join(errs...)
}
