package grant

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sallyport/sallyport/engine/setting"
	"github.com/sallyport/sallyport/proxy/authn/fetch"
)

// Endpoint is whom the gateway asks for tokens, and as whom.
type Endpoint struct {
	// URL is the token endpoint (RFC 6749 section 3.2).
	URL string `yaml:"url" jsonschema:"required"`
	// ClientID is what the provider knows the gateway by.
	ClientID string `yaml:"client_id" jsonschema:"required"`
	// ClientSecretFile holds the gateway's secret. It is read again for each token that is asked for.
	ClientSecretFile string `yaml:"client_secret_file" sallyport:"path" jsonschema:"required"`
	// ClientAuthentication is how the secret is sent: client_secret_basic or client_secret_post (RFC 6749 section 2.3.1).
	ClientAuthentication string `yaml:"client_authentication" jsonschema:"enum=client_secret_basic,enum=client_secret_post"`
	// Parameters are further ones of the request, such as resource.
	Parameters map[string]string `yaml:"parameters"`
	// Timeout of one request.
	Timeout time.Duration `yaml:"timeout"`
	// CAFile holds the PEM certificates that the provider's server is verified with instead of the system's.
	CAFile string `yaml:"ca_file" sallyport:"path"`
	// InsecureHTTP allows http:// to hosts other than loopback. Whoever controls the network then has the secret and every token.
	InsecureHTTP bool `yaml:"insecure_http"`
}

const (
	basic = "client_secret_basic"
	post  = "client_secret_post"
)

func defaultEndpoint() Endpoint {
	return Endpoint{ClientAuthentication: basic, Timeout: 5 * time.Second}
}

func (e Endpoint) filled() Endpoint {
	d := defaultEndpoint()
	if e.ClientAuthentication == "" {
		e.ClientAuthentication = d.ClientAuthentication
	}
	if e.Timeout == 0 {
		e.Timeout = d.Timeout
	}
	return e
}

// Insecure returns what weakens the gateway, by key, and what it means.
func (e Endpoint) Insecure() map[string]string {
	if e.InsecureHTTP {
		return map[string]string{"insecure_http": "whoever controls the network has the gateway's secret and every token"}
	}
	return nil
}

// ownParameters are those that the gateway itself sends.
func ownParameters() []string {
	return []string{
		"grant_type", "client_id", "client_secret", "scope", "audience",
		"subject_token", "subject_token_type", "actor_token", "actor_token_type", "requested_token_type",
	}
}

func (e Endpoint) validate() []error {
	e = e.filled()
	var errs []error
	problem := func(key, format string, args ...any) { errs = append(errs, setting.Problemf(key, format, args...)) }
	if err := fetch.CheckURL(e.URL, e.InsecureHTTP); err != nil {
		problem("url", "%w", err)
	}
	if e.ClientID == "" {
		problem("client_id", "is missing")
	}
	if e.ClientSecretFile == "" {
		problem("client_secret_file", "is missing")
	} else if _, err := readSecret(e.ClientSecretFile); err != nil {
		problem("client_secret_file", "%w", err)
	}
	if e.ClientAuthentication != basic && e.ClientAuthentication != post {
		problem("client_authentication", "%q is not known; use %s or %s", e.ClientAuthentication, basic, post)
	}
	if e.Timeout < 0 || e.Timeout > time.Minute {
		problem("timeout", "must be between 0 and 1m")
	}
	for name := range e.Parameters {
		if slices.Contains(ownParameters(), name) {
			problem("parameters", "%s is not a further one: the gateway sends it itself", name)
		}
	}
	return errs
}

func checkScopes(scopes []string) (errs []error) {
	for i, s := range scopes {
		if s == "" || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '"' || r == '\\' }) {
			errs = append(errs, setting.Problemf(fmt.Sprintf("scopes[%d]", i), "%q is not one scope (RFC 6749 section 3.3)", s))
		}
	}
	return errs
}

// ExchangeConfig says how callers' tokens become tokens for upstreams (RFC 8693).
type ExchangeConfig struct {
	Endpoint `yaml:",inline"`
	// Audience is who the token is for unless a policy names another.
	Audience string `yaml:"audience"`
	// Audiences are further ones that a policy may name.
	Audiences []string `yaml:"audiences"`
	// Scopes are asked for unless a policy names others, as far as the caller has them. What is asked for is never more than the caller has, and a token with more than was asked for is refused. Where neither names any, what the token may do is the provider's to say.
	Scopes []string `yaml:"scopes"`
	// CacheSize is the number of tokens kept.
	CacheSize int `yaml:"cache_size"`
}

// DefaultExchange returns the settings of an ExchangeConfig that leaves them out.
func DefaultExchange() ExchangeConfig {
	return ExchangeConfig{Endpoint: defaultEndpoint(), CacheSize: 16384}
}

// Validate reports everything wrong with c.
func (c ExchangeConfig) Validate() error {
	errs := append(c.validate(), checkScopes(c.Scopes)...)
	if slices.Contains(c.Audiences, "") {
		errs = append(errs, setting.Problemf("audiences", "has an empty one"))
	}
	if c.CacheSize < 0 {
		errs = append(errs, setting.Problemf("cache_size", "must not be negative"))
	}
	return errors.Join(errs...)
}

// CredentialsConfig says how the gateway gets tokens of its own for upstreams (RFC
// 6749 section 4.4).
type CredentialsConfig struct {
	Endpoint `yaml:",inline"`
	// Audience is sent as audience, which some providers want.
	Audience string `yaml:"audience"`
	// Scopes are asked for.
	Scopes []string `yaml:"scopes"`
}

// DefaultCredentials returns the settings of a CredentialsConfig that leaves them out.
func DefaultCredentials() CredentialsConfig { return CredentialsConfig{Endpoint: defaultEndpoint()} }

// Validate reports everything wrong with c.
func (c CredentialsConfig) Validate() error {
	return errors.Join(append(c.validate(), checkScopes(c.Scopes)...)...)
}
