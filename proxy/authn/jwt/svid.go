package jwt

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/sallyport/sallyport/engine/setting"
	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/jose"
	"github.com/sallyport/sallyport/proxy/certs"
)

// svidAlgorithms are those of SPIFFE JWT-SVID section 2.1.
func svidAlgorithms() []string {
	return []string{"RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512"}
}

// svidTypes are those of SPIFFE JWT-SVID section 2.3.
func svidTypes() []string { return []string{"JWT", "JOSE", ""} }

// filledSVID puts what JWT-SVIDs are in the place of the defaults d.
func (c Config) filledSVID(d Config) Config {
	if slices.Equal(c.Algorithms, d.Algorithms) {
		c.Algorithms = svidAlgorithms()
	}
	if slices.Equal(c.TokenTypes, d.TokenTypes) {
		c.TokenTypes = svidTypes()
	}
	return c
}

func (c Config) validateSVID() error {
	if c.TrustDomain == "" {
		return nil
	}
	var errs []error
	if !certs.ValidTrustDomain(c.TrustDomain) {
		errs = append(errs, setting.Problemf("trust_domain", "%q is not the name of a trust domain such as example.org, without spiffe://", c.TrustDomain))
	}
	if c.discovers() {
		errs = append(errs, setting.Problemf("trust_domain", "needs jwks_file or jwks_url: the trust bundle is not discovered"))
	}
	if c.InsecureAllowUnsigned {
		errs = append(errs, setting.Problemf("insecure_allow_unsigned", "cannot be set together with trust_domain: an SVID is signed"))
	}
	for _, name := range c.Algorithms {
		if _, known := jose.AlgorithmOf(name); known && !slices.Contains(svidAlgorithms(), name) {
			errs = append(errs, setting.Problemf("algorithms", "%s is not one of JWT-SVIDs: %s", name, strings.Join(svidAlgorithms(), ", ")))
		}
	}
	for _, typ := range c.TokenTypes {
		if !slices.ContainsFunc(svidTypes(), func(t string) bool { return jose.MediaType(t) == jose.MediaType(typ) }) {
			errs = append(errs, setting.Problemf("token_types", "%q is not one of JWT-SVIDs: JWT, JOSE or none", typ))
		}
	}
	return errors.Join(errs...)
}

// own sees whether a token is of our issuer, or of our trust domain, by its own word.
func (r *rules) own(t *jose.JWS, claims map[string]any) error {
	if r.trustDomain != "" {
		if err := r.ownSubject(claims); err != nil || !r.checkIssuer {
			return err
		}
	}
	iss, ok := claims["iss"].(string)
	switch {
	case r.mayLack(t, claims, "iss"):
		return nil
	case !ok:
		return fmt.Errorf("%w: iss is missing or not a string", authn.ErrInvalid)
	case iss != r.issuer:
		return fmt.Errorf("%w: %w %.64q", authn.ErrForeign, authn.ErrIssuer, iss)
	}
	return nil
}

// ownSubject checks the subject of an SVID. One that is not of our trust domain is
// another issuer's token.
func (r *rules) ownSubject(claims map[string]any) error {
	sub, _ := claims["sub"].(string)
	rest, ok := strings.CutPrefix(sub, "spiffe://"+r.trustDomain)
	if !ok || rest != "" && rest[0] != '/' {
		return fmt.Errorf("%w: %w: subject %.64q is not of trust domain %s", authn.ErrForeign, authn.ErrIssuer, sub, r.trustDomain)
	}
	if _, err := certs.TrustDomain(sub); err != nil {
		return fmt.Errorf("%w: %w", authn.ErrInvalid, err)
	}
	return nil
}
