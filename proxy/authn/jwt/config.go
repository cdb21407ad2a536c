package jwt

import (
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/sallyport/sallyport/engine/setting"
	"github.com/sallyport/sallyport/proxy/authn/dpop"
	"github.com/sallyport/sallyport/proxy/authn/fetch"
	"github.com/sallyport/sallyport/proxy/authn/jose"
	"github.com/sallyport/sallyport/proxy/authn/keyring"
	"github.com/sallyport/sallyport/proxy/authn/limit"
	"github.com/sallyport/sallyport/proxy/authn/splittoken"
)

// Kind is the key of this mechanism in the configuration.
const Kind = "jwt"

// Config is what one issuer's tokens must be like.
type Config struct {
	// Issuer is the iss claim of the tokens, compared exactly. With neither
	// jwks_url nor jwks_file it is also where the key set is discovered
	// (OpenID Connect Discovery 1.0 section 4).
	Issuer string `yaml:"issuer"`
	// TrustDomain makes the tokens JWT-SVIDs of this SPIFFE trust domain, whose trust bundle
	// is in jwks_file or at jwks_url: sub is a SPIFFE ID of the domain, the keys are those
	// for jwt-svid, algorithms are of the families RS, ES and PS, typ is JWT, JOSE or absent,
	// and iss is looked at only if issuer is set.
	TrustDomain string `yaml:"trust_domain"`
	// Audiences are the values one of which must be in the aud claim.
	Audiences []string `yaml:"audiences"`
	// JWKSURL is where the issuer's key set is fetched.
	JWKSURL string `yaml:"jwks_url"`
	// JWKSFile is a file with the issuer's key set. Only a file may hold a
	// symmetric key.
	JWKSFile string `yaml:"jwks_file" sallyport:"path"`
	// JWKSTokenFile holds a bearer token for the server of jwks_url, for key sets that
	// are not public, such as those of Kubernetes. It is read before each fetch.
	JWKSTokenFile string `yaml:"jwks_token_file" sallyport:"path"`
	// CAFile holds the PEM certificates that the issuer's server is verified
	// with instead of the system's.
	CAFile string `yaml:"ca_file" sallyport:"path"`
	// Algorithms are the signature algorithms accepted; RS256, PS256, ES256 and
	// EdDSA by default. HS256, HS384 and HS512 need jwks_file.
	Algorithms []string `yaml:"algorithms"`
	// TokenTypes are the typ headers accepted; "" is a token without one. By
	// default at+jwt, JWT and "". A token that shows itself to be an ID token or
	// a logout token is refused whatever its typ.
	TokenTypes []string `yaml:"token_types"`
	// AcceptIDTokens also takes tokens whose claims show them to be ID tokens, for
	// issuers that have no access tokens for APIs, as Google, or none but ID tokens,
	// as dex. Whoever logs in at a client in audiences can then call the API with the
	// ID token of that login.
	AcceptIDTokens bool `yaml:"accept_id_tokens"`
	// Leeway is how far the issuer's clock may be off, at most 60s.
	Leeway time.Duration `yaml:"leeway"`
	// RequiredClaims are claims that must be there with one of the values
	// listed: a string, number or boolean that equals one, or an array that
	// contains one.
	RequiredClaims map[string][]string `yaml:"required_claims"`
	// ScopeClaims are the claims that hold the scopes of a token: a string with
	// spaces between them, or an array of strings. By default scope (RFC 9068) and
	// scp; some providers have permissions. An element with a space is no scope, but
	// in scope and scp several.
	ScopeClaims []string `yaml:"scope_claims"`
	// InsecureHTTP allows http:// to hosts other than loopback. Whoever controls
	// the network can then replace the key set and sign in as anybody.
	InsecureHTTP bool `yaml:"insecure_http"`
	// InsecureAllowUnsigned accepts tokens with the algorithm "none", too. Issuer,
	// audience and times must hold as ever, but anybody can write such a token.
	InsecureAllowUnsigned bool `yaml:"insecure_allow_unsigned"`
	// InsecureOptionalClaims are those of iss, aud and exp that unsigned tokens may lack;
	// what they have must hold. Signed tokens lack nothing. Needs insecure_allow_unsigned.
	InsecureOptionalClaims []string `yaml:"insecure_optional_claims"`
	// RefreshInterval is the time between two fetches of the key set; a key that
	// the issuer removed is refused after that time.
	RefreshInterval time.Duration `yaml:"refresh_interval"`
	// CacheSize is the number of verified tokens kept; as many bytes of them as
	// cache_bytes. As many tokens of other issuers are known again, in 16 bytes each.
	CacheSize int `yaml:"cache_size"`
	// CacheBytes bounds the memory of the tokens kept, about, with what the policy and
	// the decision log make of them. A usual token takes about 10 KiB.
	CacheBytes setting.Size `yaml:"cache_bytes"`
	// VerificationLimit bounds the work that a client causes with forged tokens.
	VerificationLimit limit.Config `yaml:"verification_limit"`
	// DecryptionKeysFiles hold the private keys that the issuer encrypts tokens for:
	// PEM, a JWK or a JWK set. The signed token inside is verified like any other.
	DecryptionKeysFiles []string `yaml:"decryption_keys_files" sallyport:"path"`
	// DPoP is what proofs of possession must be like, which tokens that are bound to
	// a key come with (RFC 9449).
	DPoP dpop.Config `yaml:"dpop"`
	// SplitToken has clients carry the signature of a JWT alone, and says where the
	// header and the payload are stored (the split token pattern). What is joined is
	// verified like any other JWT and stands for the caller in place of the signature.
	SplitToken *splittoken.Config `yaml:"split_token"`
	// Realm is the realm of the WWW-Authenticate challenge (RFC 9110 section 11.5).
	Realm string `yaml:"realm"`
}

const maxLeeway = 60 * time.Second

// A shard of the smallest cache holds the longest token.
const (
	minCacheBytes setting.Size = cacheShards * (decoded*jose.MaxToken + overhead)
	maxCacheBytes setting.Size = 1 << 40
)

// Default returns the settings of a Config that leaves them out.
func Default() Config {
	return Config{
		Algorithms:        []string{"RS256", "PS256", "ES256", "EdDSA"},
		TokenTypes:        []string{"at+jwt", "JWT", ""},
		ScopeClaims:       []string{"scope", "scp"},
		Leeway:            30 * time.Second,
		RefreshInterval:   5 * time.Minute,
		CacheSize:         65536,
		CacheBytes:        256 << 20,
		VerificationLimit: limit.Default(),
		DPoP:              dpop.Default(),
		Realm:             "sallyport",
	}
}

// filled returns c with the default for each setting whose zero value means nothing.
func (c Config) filled() Config {
	d := Default()
	if c.Algorithms == nil {
		c.Algorithms = d.Algorithms
	}
	if c.TokenTypes == nil {
		c.TokenTypes = d.TokenTypes
	}
	if c.TrustDomain != "" {
		c = c.filledSVID(d)
	}
	if c.ScopeClaims == nil {
		c.ScopeClaims = d.ScopeClaims
	}
	if c.RefreshInterval == 0 {
		c.RefreshInterval = d.RefreshInterval
	}
	if c.CacheSize == 0 {
		c.CacheSize = d.CacheSize
	}
	if c.CacheBytes == 0 {
		c.CacheBytes = d.CacheBytes
	}
	c.VerificationLimit = c.VerificationLimit.Filled(d.VerificationLimit)
	c.DPoP = c.DPoP.Filled()
	if c.Realm == "" {
		c.Realm = d.Realm
	}
	return c
}

// Insecure returns what weakens the gateway, by key, and what it means.
func (c *Config) Insecure() map[string]string {
	out := map[string]string{}
	if c.InsecureHTTP {
		out["insecure_http"] = "whoever controls the network can sign in as anybody"
	}
	if c.SplitToken != nil && c.SplitToken.InsecureHTTP {
		out["split_token.insecure_http"] = "whoever controls the network can read the claims of tokens"
	}
	if c.InsecureAllowUnsigned {
		out["insecure_allow_unsigned"] = "whoever can send a request can sign in as anybody"
	}
	if len(c.InsecureOptionalClaims) > 0 {
		out["insecure_optional_claims"] = "unsigned tokens may be without " + strings.Join(c.InsecureOptionalClaims, ", ") + ": they need not be for this API, and need not end"
	}
	return out
}

// Validate reports everything wrong with c.
func (c Config) Validate() error {
	c = c.filled()
	return errors.Join(
		c.validateIssuer(), c.validateSVID(), c.validateSource(), c.validateAudiences(), c.validateAlgorithms(),
		c.validateRequiredClaims(), c.validateOptionalClaims(), c.validateLimits(), c.validateRealm(),
		setting.Under("dpop", c.DPoP.Validate()), setting.Under("split_token", c.SplitToken.Validate()),
	)
}

func (c Config) validateIssuer() error {
	switch {
	case c.Issuer == "" && c.TrustDomain != "":
		return nil
	case c.Issuer == "":
		return setting.Problemf("issuer", "is missing: it chooses whose keys a token is checked with")
	case c.discovers():
		return setting.Under("issuer", fetch.CheckURL(c.Issuer, c.InsecureHTTP))
	case strings.HasPrefix(strings.ToLower(c.Issuer), "http:"):
		return setting.Under("issuer", fetch.CheckURL(c.Issuer, c.InsecureHTTP))
	}
	return nil
}

// source is where the key set is.
func (c Config) source() keyring.Source {
	return keyring.Source{
		Issuer: c.Issuer, File: c.JWKSFile, URL: c.JWKSURL, CAFile: c.CAFile, TokenFile: c.JWKSTokenFile,
		InsecureHTTP: c.InsecureHTTP, Secrets: true, TrustBundle: c.TrustDomain != "", RefreshInterval: c.RefreshInterval,
	}
}

func (c Config) discovers() bool { return c.JWKSURL == "" && c.JWKSFile == "" }

func (c Config) validateSource() error {
	var errs []error
	if c.JWKSURL != "" {
		errs = append(errs, setting.Under("jwks_url", fetch.CheckURL(c.JWKSURL, c.InsecureHTTP)))
	}
	if c.JWKSURL != "" && c.JWKSFile != "" {
		errs = append(errs, setting.Problemf("jwks_file", "cannot be set together with jwks_url: key sets are never merged"))
	}
	if c.JWKSTokenFile != "" && c.JWKSURL == "" {
		errs = append(errs, setting.Problemf("jwks_token_file", "needs jwks_url: a token goes to an address that you wrote down, not to a discovered one"))
	}
	if c.JWKSTokenFile != "" && c.InsecureHTTP {
		errs = append(errs, setting.Problemf("jwks_token_file", "cannot be set together with insecure_http: whoever controls the network could take the token"))
	}
	if c.CAFile != "" && c.JWKSFile != "" {
		errs = append(errs, setting.Problemf("ca_file", "is not used with jwks_file: nothing is fetched"))
	}
	return errors.Join(errs...)
}

func (c Config) validateAudiences() error {
	if len(c.Audiences) == 0 {
		return setting.Problemf("audiences", "is missing: a token made for another service must not enter here")
	}
	if slices.Contains(c.Audiences, "") {
		return setting.Problemf("audiences", "contains an empty value")
	}
	return nil
}

func (c Config) validateAlgorithms() error {
	var errs []error
	if len(c.Algorithms) == 0 {
		errs = append(errs, setting.Problemf("algorithms", "is empty: no token could be accepted"))
	}
	for _, name := range c.Algorithms {
		alg, ok := jose.AlgorithmOf(name)
		switch {
		case name == unsignedAlgorithm:
			errs = append(errs, setting.Problemf("algorithms", "%q is no signature; insecure_allow_unsigned: true accepts tokens that anybody can write", name))
		case !ok:
			errs = append(errs, setting.Problemf("algorithms", "%q is not one of %s", name, strings.Join(jose.AlgorithmNames(), ", ")))
		case alg.Symmetric() && c.JWKSFile == "":
			errs = append(errs, setting.Problemf("algorithms", "%s needs jwks_file: a shared secret is never fetched", name))
		}
	}
	return errors.Join(errs...)
}

func (c Config) validateRequiredClaims() error {
	var errs []error
	for name, values := range c.RequiredClaims {
		if len(values) == 0 {
			errs = append(errs, setting.Problemf("required_claims."+name, "lists no value"))
		}
	}
	return errors.Join(errs...)
}

func (c Config) validateOptionalClaims() error {
	var errs []error
	for _, name := range c.InsecureOptionalClaims {
		if !slices.Contains([]string{"iss", "aud", "exp"}, name) {
			errs = append(errs, setting.Problemf("insecure_optional_claims", "%q is not one of iss, aud, exp", name))
		}
	}
	if len(c.InsecureOptionalClaims) > 0 && !c.InsecureAllowUnsigned {
		errs = append(errs, setting.Problemf("insecure_optional_claims", "needs insecure_allow_unsigned: signed tokens always have iss, aud and exp"))
	}
	return errors.Join(errs...)
}

func (c Config) validateLimits() error {
	errs := []error{setting.Under("verification_limit", c.VerificationLimit.Validate())}
	if c.Leeway < 0 || c.Leeway > maxLeeway {
		errs = append(errs, setting.Problemf("leeway", "%s is not between 0s and %s", c.Leeway, maxLeeway))
	}
	if c.RefreshInterval < time.Second || c.RefreshInterval > 24*time.Hour {
		errs = append(errs, setting.Problemf("refresh_interval", "%s is not between 1s and 24h", c.RefreshInterval))
	}
	if c.CacheSize < 1 || c.CacheSize > 1<<24 {
		errs = append(errs, setting.Problemf("cache_size", "%d is not between 1 and %d", c.CacheSize, 1<<24))
	}
	if c.CacheBytes < minCacheBytes || c.CacheBytes > maxCacheBytes {
		errs = append(errs, setting.Problemf("cache_bytes", "%s is not between %s and %s", c.CacheBytes, minCacheBytes, maxCacheBytes))
	}
	if slices.Contains(c.ScopeClaims, "") {
		errs = append(errs, setting.Problemf("scope_claims", "contains an empty name"))
	}
	if slices.Contains(c.TokenTypes, "none") || len(c.TokenTypes) == 0 {
		errs = append(errs, setting.Problemf("token_types", `must list media types such as at+jwt, and "" for tokens without one`))
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
