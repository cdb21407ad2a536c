package clientcredentials

import (
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/sallyport/sallyport/engine/setting"
	"github.com/sallyport/sallyport/proxy/authn/fetch"
	"github.com/sallyport/sallyport/proxy/authn/introspection"
	"github.com/sallyport/sallyport/proxy/authn/jwt"
	"github.com/sallyport/sallyport/proxy/authn/limit"
)

// How the caller's secret is sent to the provider (RFC 6749 section 2.3.1).
const (
	authBasic = "client_secret_basic"
	authPost  = "client_secret_post"
)

// Config is one provider whose clients may call.
type Config struct {
	// Issuer is the iss claim of the tokens that the provider gives, compared exactly.
	// Its metadata is read from there (OpenID Connect Discovery 1.0 section 4).
	Issuer string `yaml:"issuer"`
	// TokenURL is the provider's token endpoint; by default the one in its metadata.
	TokenURL string `yaml:"token_url"`
	// ClientIDHeader is the header in which callers send their client identifier.
	ClientIDHeader string `yaml:"client_id_header"`
	// ClientSecretHeader is the header in which callers send their secret. None of the
	// headers is ever forwarded.
	ClientSecretHeader string `yaml:"client_secret_header"`
	// ClientAssertionHeader is a header in which callers send, in place of a secret, a
	// JWT that they signed with their key or their secret: the provider gets it as client
	// assertion (RFC 7523 section 2.2), and verifies it. Without it there is none.
	ClientAssertionHeader string `yaml:"client_assertion_header"`
	// ClientAuth is how the provider gets the secret: client_secret_basic or
	// client_secret_post (RFC 6749 section 2.3.1).
	ClientAuth string `yaml:"client_auth" jsonschema:"enum=client_secret_basic,enum=client_secret_post"`
	// Scopes are asked for; what is granted is in the token.
	Scopes []string `yaml:"scopes"`
	// Parameters are further ones of the question, such as audience or resource, by
	// which some providers tell which service a token is for.
	Parameters map[string]string `yaml:"parameters"`

	// Introspection asks the provider about all the tokens (RFC 7662), for those that say
	// nothing by themselves. Its audiences are audiences unless it has its own. The keys
	// for signed tokens, from jwks_url to scope_claims, go without it.
	Introspection *introspection.Config `yaml:"introspection"`

	// Audiences are the values one of which must be in the aud claim of the token.
	Audiences []string `yaml:"audiences"`
	// JWKSURL is where the issuer's key set is fetched; discovered by default.
	JWKSURL string `yaml:"jwks_url"`
	// JWKSFile is a file with the issuer's key set.
	JWKSFile string `yaml:"jwks_file" sallyport:"path"`
	// Algorithms are the signature algorithms accepted; RS256, PS256, ES256 and EdDSA by
	// default.
	Algorithms []string `yaml:"algorithms"`
	// TokenTypes are the typ headers accepted; "" is a token without one. By default
	// at+jwt, JWT and "".
	TokenTypes []string `yaml:"token_types"`
	// RequiredClaims are claims that must be there with one of the values listed.
	RequiredClaims map[string][]string `yaml:"required_claims"`
	// ScopeClaims are the claims that hold the scopes of a token; scope and scp by
	// default.
	ScopeClaims []string `yaml:"scope_claims"`
	// Leeway is how far the issuer's clock may be off, at most 60s.
	Leeway time.Duration `yaml:"leeway"`
	// CAFile holds the PEM certificates that the provider is verified with instead of
	// the system's.
	CAFile string `yaml:"ca_file" sallyport:"path"`
	// InsecureHTTP allows http:// to hosts other than loopback. Whoever controls the
	// network then has the secrets of all callers, and can sign in as anybody.
	InsecureHTTP bool `yaml:"insecure_http"`

	// MaxAge is how long a token is used at most without asking again, and so how long
	// a secret that the provider took back still works; 0s asks for each request. No
	// token is used past its end.
	MaxAge time.Duration `yaml:"max_age"`
	// RefusedMaxAge is how long credentials that were refused are refused unasked.
	RefusedMaxAge time.Duration `yaml:"refused_max_age"`
	// CacheSize is the number of clients, or of their assertions, whose tokens are kept.
	CacheSize int `yaml:"cache_size"`
	// Timeout bounds one question, the wait for its turn included.
	Timeout time.Duration `yaml:"timeout"`
	// MaxConcurrent is how many questions may be under way at once. Others wait for
	// max_wait and then get 503.
	MaxConcurrent int `yaml:"max_concurrent"`
	// MaxWait is how long a question waits for its turn.
	MaxWait time.Duration `yaml:"max_wait"`
	// QuestionLimit bounds the questions that a client causes with credentials that are
	// refused.
	QuestionLimit limit.Config `yaml:"question_limit"`
	// Realm is the realm of the WWW-Authenticate challenge (RFC 9110 section 11.5).
	Realm string `yaml:"realm"`
}

// Default returns the settings of a Config that leaves them out.
func Default() Config {
	return Config{ //nolint:gosec // names of headers
		ClientIDHeader:     "x-sallyport-client-id",
		ClientSecretHeader: "x-sallyport-client-secret",
		ClientAuth:         authBasic,
		Leeway:             30 * time.Second,
		MaxAge:             5 * time.Minute,
		RefusedMaxAge:      5 * time.Second,
		CacheSize:          4096,
		Timeout:            5 * time.Second,
		MaxConcurrent:      32,
		MaxWait:            100 * time.Millisecond,
		// Each guess is a question to the provider, and each good one somebody's secret.
		QuestionLimit: limit.Config{Failures: 1, Burst: 20, Clients: 16384},
		Realm:         "sallyport",
	}
}

// filled returns c with the default for each setting whose zero value means nothing.
func (c Config) filled() Config {
	d := Default()
	for to, value := range map[*string]string{
		&c.ClientIDHeader: d.ClientIDHeader, &c.ClientSecretHeader: d.ClientSecretHeader, &c.ClientAuth: d.ClientAuth, &c.Realm: d.Realm,
	} {
		if *to == "" {
			*to = value
		}
	}
	for to, value := range map[*int]int{&c.CacheSize: d.CacheSize, &c.MaxConcurrent: d.MaxConcurrent} {
		if *to == 0 {
			*to = value
		}
	}
	if c.Timeout == 0 {
		c.Timeout = d.Timeout
	}
	for _, header := range []*string{&c.ClientIDHeader, &c.ClientSecretHeader, &c.ClientAssertionHeader} {
		*header = strings.ToLower(*header)
	}
	c.QuestionLimit = c.QuestionLimit.Filled(d.QuestionLimit)
	return c
}

// tokens are the rules for the tokens that the provider gives.
func (c *Config) tokens() jwt.Config {
	out := jwt.Default()
	out.Issuer, out.Audiences, out.JWKSURL, out.JWKSFile = c.Issuer, c.Audiences, c.JWKSURL, c.JWKSFile
	out.RequiredClaims, out.Leeway, out.InsecureHTTP = c.RequiredClaims, c.Leeway, c.InsecureHTTP
	out.CacheSize, out.Realm = c.CacheSize, c.Realm
	if c.JWKSFile == "" {
		out.CAFile = c.CAFile
	}
	for to, list := range map[*[]string][]string{&out.Algorithms: c.Algorithms, &out.TokenTypes: c.TokenTypes, &out.ScopeClaims: c.ScopeClaims} {
		if list != nil {
			*to = list
		}
	}
	return out
}

// introspected are the rules for tokens that the provider is asked about.
func (c *Config) introspected() introspection.Config {
	out := *c.Introspection
	if len(out.Audiences) == 0 {
		out.Audiences = c.Audiences
	}
	return out
}

// Insecure returns what weakens the gateway, by key, and what it means.
func (c *Config) Insecure() map[string]string {
	out := map[string]string{}
	if c.InsecureHTTP {
		out["insecure_http"] = "whoever controls the network has the secrets of all callers and can sign in as anybody"
	}
	if c.Introspection != nil {
		for key, means := range c.Introspection.Insecure() {
			out["introspection."+key] = means
		}
	}
	return out
}

// Validate reports everything wrong with c.
func (c Config) Validate() error {
	c = c.filled()
	return errors.Join(c.tokens().Validate(), c.validateHeaders(), c.validateQuestion(), c.validateIntrospection(), c.validateLimits())
}

// validateIntrospection refuses rules that nobody would look at.
func (c Config) validateIntrospection() error {
	if c.Introspection == nil {
		return nil
	}
	errs := []error{setting.Under("introspection", c.introspected().Validate())}
	if c.Introspection.AllTokens {
		errs = append(errs, setting.Problemf("introspection.all_tokens", "is not used: the provider is asked about every token that it gave"))
	}
	for key, set := range map[string]bool{
		"jwks_url": c.JWKSURL != "", "jwks_file": c.JWKSFile != "", "algorithms": c.Algorithms != nil, "token_types": c.TokenTypes != nil,
		"required_claims": c.RequiredClaims != nil, "scope_claims": c.ScopeClaims != nil,
	} {
		if set {
			errs = append(errs, setting.Problemf(key, "is not used with introspection; what it cannot check is for the policy"))
		}
	}
	return errors.Join(errs...)
}

func (c Config) validateHeaders() error {
	var errs []error
	for key, name := range map[string]string{
		"client_id_header": c.ClientIDHeader, "client_secret_header": c.ClientSecretHeader, "client_assertion_header": c.ClientAssertionHeader,
	} {
		switch {
		case strings.ContainsFunc(name, notName):
			errs = append(errs, setting.Problemf(key, "%q is not the name of a header, in letters, digits and dashes", name))
		case reserved(name):
			errs = append(errs, setting.Problemf(key, "%q belongs to other mechanisms; name one of its own, such as %s", name, Default().ClientIDHeader))
		}
	}
	if c.ClientIDHeader == c.ClientSecretHeader {
		errs = append(errs, setting.Problemf("client_secret_header", "is the same as client_id_header"))
	}
	if h := c.ClientAssertionHeader; h != "" && (h == c.ClientIDHeader || h == c.ClientSecretHeader) {
		errs = append(errs, setting.Problemf("client_assertion_header", "is the same as client_id_header or client_secret_header"))
	}
	return errors.Join(errs...)
}

// reserved names headers that have a meaning of their own.
func reserved(name string) bool {
	return slices.Contains([]string{
		"authorization", "proxy-authorization", "cookie", "host", "connection", "content-length", "transfer-encoding", "dpop",
	}, name) || strings.HasPrefix(name, "x-forwarded-")
}

func notName(r rune) bool {
	return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-'
}

func (c Config) validateQuestion() error {
	var errs []error
	switch {
	case c.TokenURL != "":
		errs = append(errs, setting.Under("token_url", fetch.CheckURL(c.TokenURL, c.InsecureHTTP)))
	case c.Issuer != "" && c.JWKSURL+c.JWKSFile != "" && !strings.HasPrefix(strings.ToLower(c.Issuer), "http:"):
		// The rules for tokens look at the other issuers.
		errs = append(errs, setting.Under("issuer", fetch.CheckURL(c.Issuer, c.InsecureHTTP)))
	}
	if c.ClientAuth != authBasic && c.ClientAuth != authPost {
		errs = append(errs, setting.Problemf("client_auth", "%q is not client_secret_basic or client_secret_post", c.ClientAuth))
	}
	for _, s := range c.Scopes {
		if s == "" || strings.ContainsAny(s, " \t\r\n") {
			errs = append(errs, setting.Problemf("scopes", "%q is empty or has a space; list each scope by itself", s))
		}
	}
	for name := range c.Parameters {
		if slices.Contains([]string{"grant_type", "scope", "client_id", "client_secret", "client_assertion", "client_assertion_type", ""}, name) {
			errs = append(errs, setting.Problemf("parameters."+name, "is set by the gateway"))
		}
	}
	return errors.Join(errs...)
}

func (c Config) validateLimits() error {
	return errors.Join(
		setting.Between("max_age", c.MaxAge, 0, time.Hour),
		setting.Between("refused_max_age", c.RefusedMaxAge, 0, time.Minute),
		setting.Between("timeout", c.Timeout, 10*time.Millisecond, 30*time.Second),
		setting.Between("max_wait", c.MaxWait, 0, 30*time.Second),
		setting.Between("max_concurrent", c.MaxConcurrent, 1, 1<<16),
		setting.Under("question_limit", c.QuestionLimit.Validate()),
	)
}
