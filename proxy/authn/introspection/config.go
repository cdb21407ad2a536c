package introspection

import (
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/sallyport/sallyport/engine/setting"
	"github.com/sallyport/sallyport/proxy/authn/dpop"
	"github.com/sallyport/sallyport/proxy/authn/fetch"
	"github.com/sallyport/sallyport/proxy/authn/jwt"
	"github.com/sallyport/sallyport/proxy/authn/limit"
)

// Kind is the key of this mechanism in the configuration.
const Kind = "introspection"

// What the provider is asked to answer with.
const (
	formatJSON   = "json"
	formatSigned = "introspection_jwt"
	formatJWT    = "jwt"
)

// How the gateway says who it is.
const (
	authBasic  = "client_secret_basic"
	authPost   = "client_secret_post"
	authKey    = "private_key_jwt"
	authBearer = "bearer"
	authTLS    = "tls_client_auth"
)

// Config is one provider that is asked about tokens.
type Config struct {
	// URL is the provider's introspection endpoint.
	URL string `yaml:"url"`
	// ClientID is the gateway's name at the provider.
	ClientID string `yaml:"client_id"`
	// ClientSecretFile holds the gateway's secret at the provider. Line breaks at
	// its end do not count.
	ClientSecretFile string `yaml:"client_secret_file" sallyport:"path"`
	// ClientKeyFile holds the PEM private key that the gateway signs with to say who
	// it is (RFC 7523): RSA, P-256, P-384, P-521 or Ed25519.
	ClientKeyFile string `yaml:"client_key_file" sallyport:"path"`
	// BearerTokenFile holds a token that the gateway shows the provider in place of
	// a client id and a secret.
	BearerTokenFile string `yaml:"bearer_token_file" sallyport:"path"`
	// ClientAuth is client_secret_basic, client_secret_post, private_key_jwt, bearer
	// or tls_client_auth; by default the one that fits the file that is given,
	// client_secret_basic for a secret.
	ClientAuth string `yaml:"client_auth"`
	// CAFile holds the PEM certificates that the provider is verified with instead
	// of the system's.
	CAFile string `yaml:"ca_file" sallyport:"path"`
	// CertFile holds the PEM certificate that the gateway shows the provider (RFC
	// 8705 section 2).
	CertFile string `yaml:"cert_file" sallyport:"path"`
	// KeyFile holds the PEM private key of cert_file.
	KeyFile string `yaml:"key_file" sallyport:"path"`
	// InsecureHTTP allows http:// to hosts other than loopback. Whoever controls the
	// network can then read the tokens and sign in as anybody.
	InsecureHTTP bool `yaml:"insecure_http"`

	// Format is what the provider is asked to answer with: json (RFC 7662),
	// introspection_jwt (the same, signed: RFC 9701) or jwt (the access token as a
	// JWT, as with phantom tokens). A JWT is verified with the issuer's keys, and
	// stands for the caller in place of the token.
	Format string `yaml:"format"`
	// Issuer must be the iss of each answer, if it is set. The formats with a JWT
	// need it: with neither jwks_url nor jwks_file its key set is discovered.
	Issuer string `yaml:"issuer"`
	// JWKSURL is where the issuer's key set is fetched, for formats with a JWT.
	JWKSURL string `yaml:"jwks_url"`
	// JWKSFile is a file with the issuer's key set, for formats with a JWT.
	JWKSFile string `yaml:"jwks_file" sallyport:"path"`
	// Algorithms are the signature algorithms accepted in formats with a JWT; RS256,
	// PS256, ES256 and EdDSA by default.
	Algorithms []string `yaml:"algorithms"`
	// Audiences are the values one of which must be in aud, if any is listed.
	Audiences []string `yaml:"audiences"`
	// TokenTypes are the token_type values accepted, whatever their case; "" is an
	// answer without one. A token that shows itself to be a refresh or ID token is
	// refused whatever its type, and one of type DPoP that is bound to no key.
	TokenTypes []string `yaml:"token_types"`
	// AllTokens asks about JWTs as well. Without it they are left to other
	// authenticators.
	AllTokens bool `yaml:"all_tokens"`
	// Leeway is how far the provider's clock may be off, at most 60s.
	Leeway time.Duration `yaml:"leeway"`

	// MaxAge is how long an answer counts at most, and so how long a revoked token
	// can still be used; 0s asks about each request. No answer counts longer than
	// its token.
	MaxAge time.Duration `yaml:"max_age"`
	// InactiveMaxAge is how long a token that was refused is refused unasked.
	InactiveMaxAge time.Duration `yaml:"inactive_max_age"`
	// CacheSize is the number of tokens kept; as many bytes of them as cache_bytes.
	CacheSize int `yaml:"cache_size"`
	// CacheBytes bounds the memory of the tokens kept, about.
	CacheBytes setting.Size `yaml:"cache_bytes"`

	// Timeout bounds one question, the wait for its turn included.
	Timeout time.Duration `yaml:"timeout"`
	// MaxConcurrent is how many questions may be under way at once. Others wait for
	// max_wait and then get 503.
	MaxConcurrent int `yaml:"max_concurrent"`
	// MaxWait is how long a question waits for its turn.
	MaxWait time.Duration `yaml:"max_wait"`
	// QuestionLimit bounds the questions that a client causes with tokens that are
	// refused.
	QuestionLimit limit.Config `yaml:"question_limit"`
	// DPoP is what proofs of possession must be like, which tokens that are bound to
	// a key come with (RFC 9449).
	DPoP dpop.Config `yaml:"dpop"`
	// Realm is the realm of the WWW-Authenticate challenge (RFC 9110 section 11.5).
	Realm string `yaml:"realm"`
}

// Default returns the settings of a Config that leaves them out.
func Default() Config {
	return Config{
		Format:         formatJSON,
		TokenTypes:     []string{"Bearer", dpop.Scheme, ""},
		Leeway:         30 * time.Second,
		MaxAge:         time.Minute,
		InactiveMaxAge: 5 * time.Second,
		CacheSize:      65536,
		CacheBytes:     64 << 20,
		Timeout:        2 * time.Second,
		MaxConcurrent:  64,
		MaxWait:        100 * time.Millisecond,
		QuestionLimit:  limit.DefaultQuestions(),
		DPoP:           dpop.Default(),
		Realm:          "sallyport",
	}
}

// filled returns c with the default for each setting whose zero value means nothing.
func (c Config) filled() Config {
	d := Default()
	for to, value := range map[*string]string{&c.Format: d.Format, &c.Realm: d.Realm, &c.ClientAuth: c.fitting()} {
		if *to == "" {
			*to = value
		}
	}
	for to, value := range map[*int]int{&c.CacheSize: d.CacheSize, &c.MaxConcurrent: d.MaxConcurrent} {
		if *to == 0 {
			*to = value
		}
	}
	if c.TokenTypes == nil {
		c.TokenTypes = d.TokenTypes
	}
	if c.CacheBytes == 0 {
		c.CacheBytes = d.CacheBytes
	}
	if c.Timeout == 0 {
		c.Timeout = d.Timeout
	}
	c.QuestionLimit = c.QuestionLimit.Filled(d.QuestionLimit)
	c.DPoP = c.DPoP.Filled()
	return c
}

// fitting returns the way to authenticate that fits the files given.
func (c *Config) fitting() string {
	switch {
	case c.ClientSecretFile != "":
		return authBasic
	case c.ClientKeyFile != "":
		return authKey
	case c.BearerTokenFile != "":
		return authBearer
	case c.CertFile != "":
		return authTLS
	}
	return ""
}

// Insecure returns what weakens the gateway, by key, and what it means.
func (c *Config) Insecure() map[string]string {
	if c.InsecureHTTP {
		return map[string]string{"insecure_http": "whoever controls the network can read tokens and sign in as anybody"}
	}
	return nil
}

// source is where the keys of the formats with a JWT come from.
func (c *Config) source() jwt.Source {
	return jwt.Source{
		Issuer: c.Issuer, JWKSURL: c.JWKSURL, JWKSFile: c.JWKSFile, CAFile: c.sourceCA(),
		Algorithms: c.Algorithms, InsecureHTTP: c.InsecureHTTP,
	}
}

// sourceCA returns what the server of the key set is verified with.
func (c *Config) sourceCA() string {
	if c.JWKSFile != "" {
		return ""
	}
	return c.CAFile
}

// Validate reports everything wrong with c.
func (c Config) Validate() error {
	c = c.filled()
	var errs []error
	if c.URL == "" {
		errs = append(errs, setting.Problemf("url", "is missing: it is the introspection endpoint in the provider's metadata"))
	} else {
		errs = append(errs, setting.Under("url", fetch.CheckURL(c.URL, c.InsecureHTTP)))
	}
	return errors.Join(append(errs, c.validateClient(), c.validateAnswer(), c.validateLimits(), c.validateRealm(), setting.Under("dpop", c.DPoP.Validate()))...)
}

// validateClient checks that the gateway can say who it is, in one way: an endpoint
// that answers anybody would tell anybody which tokens are good (RFC 7662 section 2.1).
func (c Config) validateClient() error {
	var errs []error
	given := map[string]string{
		"client_secret_file": c.ClientSecretFile, "client_key_file": c.ClientKeyFile, "bearer_token_file": c.BearerTokenFile,
	}
	needs := map[string]string{
		authBasic: "client_secret_file", authPost: "client_secret_file", authKey: "client_key_file", authBearer: "bearer_token_file", authTLS: "",
	}
	need, known := needs[c.ClientAuth]
	switch {
	case c.ClientAuth == "":
		return setting.Problemf("client_secret_file", "is missing: the provider must know who asks; or give client_key_file, bearer_token_file or cert_file")
	case !known:
		return setting.Problemf("client_auth", "%q is not client_secret_basic, client_secret_post, private_key_jwt, bearer or tls_client_auth", c.ClientAuth)
	case need != "" && given[need] == "":
		errs = append(errs, setting.Problemf(need, "is missing: client_auth is %s", c.ClientAuth))
	case c.ClientAuth == authTLS && c.CertFile == "":
		errs = append(errs, setting.Problemf("cert_file", "is missing: client_auth is %s", c.ClientAuth))
	}
	for key, file := range given {
		if file != "" && key != need {
			errs = append(errs, setting.Problemf(key, "is not used: client_auth is %s", c.ClientAuth))
		}
	}
	if (c.CertFile == "") != (c.KeyFile == "") {
		errs = append(errs, setting.Problemf("key_file", "and cert_file go together"))
	}
	if c.ClientID == "" && c.ClientAuth != authBearer {
		errs = append(errs, setting.Problemf("client_id", "is missing: it is the gateway's name at the provider"))
	}
	return errors.Join(errs...)
}

func (c Config) validateAnswer() error {
	var errs []error
	switch c.Format {
	case formatJSON:
		for key, set := range map[string]bool{"jwks_url": c.JWKSURL != "", "jwks_file": c.JWKSFile != "", "algorithms": c.Algorithms != nil} {
			if set {
				errs = append(errs, setting.Problemf(key, "is not used: with format json nothing is signed"))
			}
		}
	case formatSigned, formatJWT:
		errs = append(errs, c.source().Validate())
	default:
		errs = append(errs, setting.Problemf("format", "%q is not json, introspection_jwt or jwt", c.Format))
	}
	if c.Format == formatSigned && c.ClientID == "" && len(c.Audiences) == 0 {
		errs = append(errs, setting.Problemf("audiences", "is missing: without client_id nothing says for whom an answer is"))
	}
	if slices.Contains(c.Audiences, "") {
		errs = append(errs, setting.Problemf("audiences", "contains an empty value"))
	}
	if len(c.TokenTypes) == 0 {
		errs = append(errs, setting.Problemf("token_types", `must list types such as Bearer, and "" for answers without one`))
	}
	return errors.Join(errs...)
}

func (c Config) validateLimits() error {
	errs := []error{
		setting.Between("leeway", c.Leeway, 0, time.Minute),
		setting.Between("max_age", c.MaxAge, 0, time.Hour),
		setting.Between("inactive_max_age", c.InactiveMaxAge, 0, time.Minute),
		setting.Between("timeout", c.Timeout, 10*time.Millisecond, 30*time.Second),
		setting.Between("max_wait", c.MaxWait, 0, 30*time.Second),
		setting.Between("cache_size", c.CacheSize, 1, 1<<24),
		setting.Between("max_concurrent", c.MaxConcurrent, 1, 1<<16),
		setting.Under("question_limit", c.QuestionLimit.Validate()),
	}
	if c.CacheBytes < 1<<20 {
		errs = append(errs, setting.Problemf("cache_bytes", "%s is less than 1MiB", c.CacheBytes))
	}
	return errors.Join(errs...)
}

func (c Config) validateRealm() error {
	bad := func(r rune) bool { return r < ' ' || r > '~' || r == '"' || r == '\\' }
	if strings.ContainsFunc(c.Realm, bad) {
		return setting.Problemf("realm", "%q has characters that do not stand in a quoted string of a header", c.Realm)
	}
	return nil
}
