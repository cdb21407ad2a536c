package signedheader

import (
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/sallyport/sallyport/engine/setting"
	"github.com/sallyport/sallyport/proxy/authn/fetch"
	"github.com/sallyport/sallyport/proxy/authn/limit"
)

// Config says which proxy in front signs identities, and for whom.
type Config struct {
	// Preset is the proxy: aws_alb, google_iap, cloudflare_access, azure, or custom for
	// a JWT in any header.
	Preset string `yaml:"preset" jsonschema:"required,enum=aws_alb,enum=google_iap,enum=cloudflare_access,enum=azure,enum=custom"`
	// Audiences are whom the proxy must sign for, one of them. google_iap:
	// /projects/NUMBER/global/backendServices/ID or /projects/NUMBER/apps/ID;
	// cloudflare_access: the application's AUD tag; azure: its client ID. Not for aws_alb.
	Audiences []string `yaml:"audiences"`
	// Signers are the ARNs of the load balancers that may sign, for aws_alb. Anybody
	// with an account at AWS has a load balancer that signs with the same keys.
	Signers []string `yaml:"signers"`
	// ClientIDs are the OIDC clients that the load balancer may have logged the user in
	// for, one of them; for aws_alb. Empty is every one.
	ClientIDs []string `yaml:"client_ids"`
	// Team is the name of the Cloudflare Zero Trust team, TEAM.cloudflareaccess.com.
	Team string `yaml:"team"`
	// Tenant is the ID of the Entra tenant, for azure.
	Tenant string `yaml:"tenant"`
	// Header is the header with the JWT, for custom.
	Header string `yaml:"header"`
	// Issuer is the iss claim of the JWT, for custom. Without keys_url it is also where
	// the key set is discovered.
	Issuer string `yaml:"issuer"`
	// Algorithms are the signature algorithms accepted, for custom; by default those of
	// the kind jwt.
	Algorithms []string `yaml:"algorithms"`
	// KeysURL is where the keys are fetched instead of where the provider publishes them,
	// for private endpoints: a key set, or for aws_alb the URL to which /KID is added.
	KeysURL string `yaml:"keys_url"`
	// CAFile holds the PEM certificates that the server of the keys is verified with
	// instead of the system's.
	CAFile string `yaml:"ca_file" sallyport:"path"`
	// InsecureHTTP allows http:// to hosts other than loopback. Whoever controls the
	// network can then replace the keys and sign in as anybody.
	InsecureHTTP bool `yaml:"insecure_http"`
	// RequiredClaims are claims that must be there with one of the values listed; not
	// for aws_alb, whose claims are for the policy.
	RequiredClaims map[string][]string `yaml:"required_claims"`
	// CacheSize is the number of verified headers kept.
	CacheSize int `yaml:"cache_size"`
	// VerificationLimit bounds the work that a client causes with forged headers.
	// Without trusted_proxies, all clients of the proxy in front are one.
	VerificationLimit limit.Config `yaml:"verification_limit"`
}

// leeway is how far the clocks of proxy and gateway may be apart. Google names 30 s.
const leeway = 30 * time.Second

// Default returns the settings of a Config that leaves them out.
func Default() Config {
	return Config{CacheSize: 65536, VerificationLimit: limit.Default()}
}

func (c Config) filled() Config {
	if c.CacheSize == 0 {
		c.CacheSize = Default().CacheSize
	}
	c.VerificationLimit = c.VerificationLimit.Filled(limit.Default())
	c.Header = strings.ToLower(c.Header)
	return c
}

// Insecure returns what weakens the gateway, by key, and what it means.
func (c *Config) Insecure() map[string]string {
	if c.InsecureHTTP {
		return map[string]string{"insecure_http": "whoever controls the network can sign in as anybody"}
	}
	return nil
}

// Validate reports everything wrong with c.
func (c Config) Validate() error {
	c = c.filled()
	p, ok := presets()[c.Preset]
	if !ok {
		return setting.Problemf("preset", "%q is not one of aws_alb, google_iap, cloudflare_access, azure, custom", c.Preset)
	}
	errs := []error{setting.Under("verification_limit", c.VerificationLimit.Validate()), c.validateKeys(p)}
	if c.KeysURL != "" {
		errs = append(errs, setting.Under("keys_url", fetch.CheckURL(c.KeysURL, c.InsecureHTTP)))
	}
	if c.CacheSize < 1 || c.CacheSize > 1<<24 {
		errs = append(errs, setting.Problemf("cache_size", "%d is not between 1 and %d", c.CacheSize, 1<<24))
	}
	if p.check != nil {
		errs = append(errs, p.check(c))
	}
	return errors.Join(errs...)
}

// validateKeys refuses keys of other presets: what is not looked at must not look as
// if it protected something.
func (c Config) validateKeys(p preset) error {
	var errs []error
	for key, set := range map[string]bool{
		"audiences": len(c.Audiences) > 0, "signers": len(c.Signers) > 0, "client_ids": len(c.ClientIDs) > 0,
		"team": c.Team != "", "tenant": c.Tenant != "", "header": c.Header != "", "issuer": c.Issuer != "",
		"algorithms": len(c.Algorithms) > 0, "required_claims": len(c.RequiredClaims) > 0,
	} {
		required, optional := slices.Contains(p.required, key), slices.Contains(p.optional, key)
		switch {
		case required && !set:
			errs = append(errs, setting.Problemf(key, "is missing: %s needs it, because %s", c.Preset, reasons()[key]))
		case set && !required && !optional:
			errs = append(errs, setting.Problemf(key, "has no meaning for %s", c.Preset))
		}
	}
	for _, list := range []struct {
		key    string
		values []string
	}{{"audiences", c.Audiences}, {"signers", c.Signers}, {"client_ids", c.ClientIDs}} {
		if slices.Contains(list.values, "") {
			errs = append(errs, setting.Problemf(list.key, "contains an empty value"))
		}
	}
	return errors.Join(errs...)
}

func reasons() map[string]string {
	return map[string]string{
		"audiences": "what the proxy signed for another application must not enter here",
		"signers":   "load balancers of other accounts sign with the same keys",
		"team":      "it says whose keys count",
		"tenant":    "it says whose keys count",
		"header":    "the JWT is looked for there",
		"issuer":    "it says whose keys count",
	}
}
