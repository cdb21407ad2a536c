package identitytoken

import (
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/sallyport/sallyport/engine/setting"
)

// Config says what the gateway's own tokens are like and where their keys are.
type Config struct {
	// Issuer is the iss claim: what upstreams know this gateway by.
	Issuer string `yaml:"issuer" jsonschema:"required"`
	// Header carries the token. What clients send under this name is dropped on every route.
	Header string `yaml:"header"`
	// Lifetime is how long a token is valid, and never longer than the identity that it stands for. The same one is shown for half of that time.
	Lifetime time.Duration `yaml:"lifetime"`
	// Claims are names of claims of the identity that the token repeats.
	Claims []string `yaml:"claims"`
	// KeyFile holds private keys in PEM, of P-256 or Ed25519: the first signs, all are published. Replicas share it, and it is watched. Without it a process makes its own keys, which no other replica knows.
	KeyFile string `yaml:"key_file" sallyport:"path"`
	// Algorithm of keys that the gateway makes itself: ES256 or EdDSA.
	Algorithm string `yaml:"algorithm" jsonschema:"enum=ES256,enum=EdDSA"`
	// RotateInterval is how long a key that the gateway made itself signs.
	RotateInterval time.Duration `yaml:"rotate_interval"`
	// PublishAhead is how long a new key is in the key set before it signs, and how long upstreams may keep the key set.
	PublishAhead time.Duration `yaml:"publish_ahead"`
	// JWKSPath is where every listener serves the key set.
	JWKSPath string `yaml:"jwks_path"`
}

// Default returns the settings of a Config that leaves them out.
func Default() Config {
	return Config{
		Header: "x-identity-token", Lifetime: time.Minute, Algorithm: es256, RotateInterval: 24 * time.Hour,
		PublishAhead: 5 * time.Minute, JWKSPath: "/.well-known/sallyport/jwks.json",
	}
}

// filled returns c with the default for each setting whose zero value means nothing.
func (c Config) filled() Config {
	d := Default()
	if c.Header == "" {
		c.Header = d.Header
	}
	if c.Lifetime == 0 {
		c.Lifetime = d.Lifetime
	}
	if c.Algorithm == "" {
		c.Algorithm = d.Algorithm
	}
	if c.RotateInterval == 0 {
		c.RotateInterval = d.RotateInterval
	}
	if c.PublishAhead == 0 {
		c.PublishAhead = d.PublishAhead
	}
	if c.JWKSPath == "" {
		c.JWKSPath = d.JWKSPath
	}
	c.Header = strings.ToLower(c.Header)
	return c
}

// HeaderName returns the header that carries the token, in lower case.
func (c Config) HeaderName() string { return c.filled().Header }

// ownClaims are those that the token has of itself.
func ownClaims() []string {
	return []string{"iss", "sub", "aud", "exp", "iat", "nbf", "jti", "scope", "authenticator", "idp", "cnf"}
}

// taken are headers that frame a message, end at the next hop, carry credentials, or are
// the gateway's for something else.
func taken() []string {
	return []string{
		"authorization", "connection", "content-length", "cookie", "expect", "forwarded", "host", "http2-settings", "keep-alive", "proxy-authenticate",
		"proxy-authorization", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "x-request-id",
	}
}

// Validate reports everything wrong with c.
func (c Config) Validate() error {
	c = c.filled()
	var errs []error
	problem := func(key, format string, args ...any) { errs = append(errs, setting.Problemf(key, format, args...)) }
	if c.Issuer == "" {
		problem("issuer", "is missing: it is what upstreams know the gateway by")
	}
	if strings.Trim(c.Header, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" || slices.Contains(taken(), c.Header) || strings.HasPrefix(c.Header, "x-forwarded-") {
		problem("header", "%q is not the name of a header of its own", c.Header)
	}
	if c.Lifetime < 10*time.Second || c.Lifetime > time.Hour {
		problem("lifetime", "must be between 10s and 1h")
	}
	if c.Algorithm != es256 && c.Algorithm != edDSA {
		problem("algorithm", "%q is not known; use ES256 or EdDSA", c.Algorithm)
	}
	if c.PublishAhead < time.Second || c.PublishAhead > 24*time.Hour {
		problem("publish_ahead", "must be between 1s and 24h")
	}
	if c.RotateInterval < 2*c.PublishAhead {
		problem("rotate_interval", "must be at least twice publish_ahead: the next key is published meanwhile")
	}
	if !strings.HasPrefix(c.JWKSPath, "/") || strings.ContainsAny(c.JWKSPath, "?#%;\\ {}*") || strings.Contains(c.JWKSPath, "//") || strings.Contains(c.JWKSPath, "/.") && !strings.HasPrefix(c.JWKSPath, "/.well-known/") {
		problem("jwks_path", "%q is not a plain path such as /.well-known/sallyport/jwks.json", c.JWKSPath)
	}
	for _, name := range c.Claims {
		if name == "" || slices.Contains(ownClaims(), name) {
			problem("claims", "%q is a claim that the token has of itself", name)
		}
	}
	return errors.Join(errs...)
}
