package signedheader

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/sallyport/sallyport/engine/setting"
	"github.com/sallyport/sallyport/proxy/authn/jwt"
)

// preset is what a provider documents of its header.
type preset struct {
	header string // with the signed identity
	// unsigned are the headers that the provider sets beside it. Nothing tells whether
	// it was the provider, so nobody gets them.
	unsigned           []string
	required, optional []string // keys of Config
	check              func(Config) error
	// jwt are the settings of what is a JWT like any other; nil for aws_alb.
	jwt func(Config) (jwt.Config, jwt.Use)
}

func presets() map[string]preset {
	return map[string]preset{
		"aws_alb": {
			header:   "x-amzn-oidc-data",
			unsigned: []string{"x-amzn-oidc-identity", "x-amzn-oidc-accesstoken"},
			required: []string{"signers"}, optional: []string{"client_ids"},
			check: checkSigners,
		},
		"google_iap": {
			header:   "x-goog-iap-jwt-assertion",
			unsigned: []string{"x-goog-authenticated-user-email", "x-goog-authenticated-user-id"},
			required: []string{"audiences"}, optional: []string{"required_claims"},
			check: checkProjects, jwt: googleIAP,
		},
		"cloudflare_access": {
			header:   "cf-access-jwt-assertion",
			unsigned: []string{"cf-access-authenticated-user-email"},
			required: []string{"audiences", "team"}, optional: []string{"required_claims"},
			check: checkTeam, jwt: cloudflareAccess,
		},
		"azure": {
			header: "x-ms-token-aad-id-token",
			unsigned: []string{
				"x-ms-client-principal", "x-ms-client-principal-id", "x-ms-client-principal-name", "x-ms-client-principal-idp",
				"x-ms-token-aad-access-token", "x-ms-token-aad-refresh-token", "x-ms-token-aad-expires-on",
				"x-ms-token-google-access-token", "x-ms-token-google-refresh-token", "x-ms-token-google-expires-on",
				"x-ms-token-facebook-access-token", "x-ms-token-facebook-expires-on",
				"x-ms-token-twitter-access-token", "x-ms-token-twitter-access-token-secret",
			},
			required: []string{"audiences", "tenant"}, optional: []string{"required_claims"},
			check: checkTenant, jwt: azure,
		},
		"custom": {
			required: []string{"audiences", "header", "issuer"}, optional: []string{"algorithms", "required_claims"},
			check: checkCustom, jwt: custom,
		},
	}
}

// common are the settings of Config that all JWTs share.
func (c Config) common(issuer, keys string, algorithms ...string) jwt.Config {
	out := jwt.Default()
	out.Issuer, out.JWKSURL, out.Audiences, out.RequiredClaims = issuer, keys, c.Audiences, c.RequiredClaims
	out.CAFile, out.InsecureHTTP, out.CacheSize, out.VerificationLimit = c.CAFile, c.InsecureHTTP, c.CacheSize, c.VerificationLimit
	out.Leeway = leeway
	if len(algorithms) > 0 {
		out.Algorithms = algorithms
	}
	if c.KeysURL != "" {
		out.JWKSURL = c.KeysURL
	}
	return out
}

// iapLifetime is from iat to exp at most: 10 minutes and twice the skew of 30 s
// (Google, "Securing your app with signed headers").
const iapLifetime = 11 * time.Minute

func googleIAP(c Config) (jwt.Config, jwt.Use) {
	return c.common("https://cloud.google.com/iap", "https://www.gstatic.com/iap/verify/public_key-jwk", "ES256"), jwt.Use{
		Kind: Kind,
		Check: func(claims map[string]any, _ time.Time) error {
			issued, err := jwt.Date(claims, "iat")
			if err != nil {
				return err
			}
			expires, err := jwt.Date(claims, "exp")
			if err != nil {
				return err
			}
			if expires.Sub(issued) > iapLifetime {
				return fmt.Errorf("is good for %s, IAP makes none for more than %s", expires.Sub(issued), iapLifetime)
			}
			return nil
		},
	}
}

var project = regexp.MustCompile(`^/projects/[0-9]+/[A-Za-z0-9._/-]+$`)

func checkProjects(c Config) error {
	for _, a := range c.Audiences {
		if a != "" && !project.MatchString(a) {
			return setting.Problemf("audiences", "%q is not of the form /projects/NUMBER/global/backendServices/ID; copy it from the IAP page, \"Get JWT audience code\"", a)
		}
	}
	return nil
}

// cloudflareAccess: "Validate JWTs" of the Cloudflare One documentation.
func cloudflareAccess(c Config) (jwt.Config, jwt.Use) {
	issuer := "https://" + c.Team + ".cloudflareaccess.com"
	return c.common(issuer, issuer+"/cdn-cgi/access/certs", "RS256"), jwt.Use{Kind: Kind}
}

var label = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?$`)

func checkTeam(c Config) error {
	if c.Team != "" && !label.MatchString(c.Team) {
		return setting.Problemf("team", "%q is not the name before .cloudflareaccess.com", c.Team)
	}
	return nil
}

// azure is the ID token that App Service passes on with its token store on. It is
// one of the Microsoft identity platform like any other, of version 2.0.
func azure(c Config) (jwt.Config, jwt.Use) {
	return c.common("https://login.microsoftonline.com/"+c.Tenant+"/v2.0", "https://login.microsoftonline.com/"+c.Tenant+"/discovery/v2.0/keys", "RS256"),
		jwt.Use{Kind: Kind, IDTokens: true}
}

var tenantID = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

func checkTenant(c Config) error {
	if c.Tenant != "" && !tenantID.MatchString(c.Tenant) {
		return setting.Problemf("tenant", "%q is not the ID of a tenant, such as 11111111-2222-3333-4444-555555555555: under common or a domain, tokens of other tenants would look alike", c.Tenant)
	}
	return nil
}

func custom(c Config) (jwt.Config, jwt.Use) {
	return c.common(c.Issuer, "", c.Algorithms...), jwt.Use{Kind: Kind}
}

// checkCustom also asks the kind jwt, whose keys have the same names but one.
func checkCustom(c Config) error {
	var errs []error
	for _, p := range presets() {
		if slices.Contains(p.unsigned, c.Header) {
			errs = append(errs, setting.Problemf("header", "%s is not signed: whoever reaches the gateway past the proxy writes what he likes into it", c.Header))
		}
	}
	if c.Header == "authorization" || c.Header == "cookie" || c.Header == "host" || strings.HasPrefix(c.Header, "x-forwarded-") ||
		strings.ContainsFunc(c.Header, func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '_' }) {
		errs = append(errs, setting.Problemf("header", "%q is not the name of a header of its own", c.Header))
	}
	inner, _ := custom(c)
	for _, p := range setting.Problems(inner.Validate()) {
		if p.Key == "issuer" || p.Key == "algorithms" || strings.HasPrefix(p.Key, "required_claims") {
			errs = append(errs, p)
		}
	}
	return errors.Join(errs...)
}
