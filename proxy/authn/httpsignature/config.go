package httpsignature

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sallyport/sallyport/engine/setting"
	"github.com/sallyport/sallyport/proxy/authn/fetch"
	"github.com/sallyport/sallyport/proxy/authn/limit"
	"github.com/sallyport/sallyport/proxy/redis"
)

// Config says whose signatures count, and what they must hold.
type Config struct {
	// Consumers are who may sign, each with keys of its own.
	Consumers []Consumer `yaml:"consumers" jsonschema:"required"`
	// Components are what a signature must cover: derived components (RFC 9421 section 2.2)
	// and names of header fields. By default @method, @authority, @path and @query, of
	// which @target-uri covers the last three. A body needs content-digest besides.
	Components []string `yaml:"components"`
	// Label is the label of the signature that is looked at; by default all are, and all
	// must be good and of one consumer.
	Label string `yaml:"label"`
	// Tag is the tag that a signature must have, such as web-bot-auth; signatures with
	// another or without one are not looked at. By default, those with a tag are not: it
	// says that they were made for something else.
	Tag string `yaml:"tag"`
	// MaxSignatures is how many signatures a request may have, at most 16.
	MaxSignatures int `yaml:"max_signatures"`
	// MaxAge is how long after its creation a signature is good, at most 24h, also where it
	// expires later.
	MaxAge time.Duration `yaml:"max_age"`
	// Leeway is how far the clocks of signers may be off, at most 60s.
	Leeway time.Duration `yaml:"leeway"`
	// Nonce is how a signature is kept from counting twice.
	Nonce Nonce `yaml:"nonce"`
	// InsecureUnsignedBody takes bodies that the signature does not cover. Whoever is
	// between signer and gateway can replace them.
	InsecureUnsignedBody bool `yaml:"insecure_unsigned_body"`
	// InsecureUnverifiedBody forwards bodies longer than policy.max_body_bytes whose
	// digest is signed and cannot be compared before they are forwarded; otherwise they get
	// 413. The upstream has to compare it.
	InsecureUnverifiedBody bool `yaml:"insecure_unverified_body"`
	// VerificationLimit bounds the work that a client causes with forged signatures.
	VerificationLimit limit.Config `yaml:"verification_limit"`
	// Realm is the realm of the WWW-Authenticate challenge (RFC 9110 section 11.5).
	Realm string `yaml:"realm"`
}

// Consumer is somebody who signs requests.
type Consumer struct {
	// Subject is who it is: input.identity.subject.
	Subject string `yaml:"subject" jsonschema:"required"`
	// Scopes are its scopes: input.identity.scopes, and what require of a route looks at.
	Scopes []string `yaml:"scopes"`
	// Claims are any JSON values, such as groups: input.identity.claims.
	Claims map[string]any `yaml:"claims"`
	// Keys are what it signs with.
	Keys []Key `yaml:"keys" jsonschema:"required"`
}

// Key is one key, or a set of keys. Exactly one of public_key_file, secret_file,
// jwks_file and jwks_url is set; the files are watched.
type Key struct {
	// KeyID is the keyid parameter of signatures by this key. The keys of a set have
	// their kid or their thumbprint (RFC 7638).
	KeyID string `yaml:"key_id"`
	// Algorithm is the one signature algorithm of the key (RFC 9421 section 3.3); by default
	// what its type says: ed25519, ecdsa-p256-sha256, ecdsa-p384-sha384, rsa-pss-sha512 or
	// hmac-sha256. rsa-v1_5-sha256 must be named, also for the RSA keys of a set.
	Algorithm string `yaml:"algorithm" jsonschema:"enum=ed25519,enum=ecdsa-p256-sha256,enum=ecdsa-p384-sha384,enum=rsa-pss-sha512,enum=rsa-v1_5-sha256,enum=hmac-sha256"`
	// PublicKeyFile holds a public key in PEM (PKIX).
	PublicKeyFile string `yaml:"public_key_file" sallyport:"path"`
	// SecretFile holds a shared secret of at least 32 bytes; a line end at its end is none
	// of it. Whoever reads it can sign.
	SecretFile string `yaml:"secret_file" sallyport:"path"`
	// SecretEncoding is how the secret is written: text, whose characters are the secret, or
	// base64 (RFC 4648 section 4). By default text.
	SecretEncoding string `yaml:"secret_encoding" jsonschema:"enum=text,enum=base64"`
	// JWKSFile holds a JWK or a JWK set of public keys (RFC 7517).
	JWKSFile string `yaml:"jwks_file" sallyport:"path"`
	// JWKSURL is where a JWK set is fetched.
	JWKSURL string `yaml:"jwks_url"`
	// RefreshInterval is the time between two fetches of jwks_url; 5m by default.
	RefreshInterval time.Duration `yaml:"refresh_interval"`
	// CAFile holds the PEM certificates that the server of jwks_url is verified with
	// instead of the system's.
	CAFile string `yaml:"ca_file" sallyport:"path"`
	// InsecureHTTP allows http:// in jwks_url to hosts other than loopback. Whoever controls
	// the network can then sign as this consumer.
	InsecureHTTP bool `yaml:"insecure_http"`
}

// Nonce says what the nonce parameter is for.
type Nonce struct {
	// Required refuses signatures without a nonce. A nonce that comes is looked at in any
	// case: the same key cannot use it twice.
	Required bool `yaml:"required"`
	// ReplayEntries is how many nonces are remembered until their signatures are too old;
	// when so many come within max_age and twice the leeway, further ones get 503. Each
	// process remembers its own.
	ReplayEntries int `yaml:"replay_entries"`
	// ReplayEntriesPerKey is how many of them may be of one key; by default, as many as
	// there are. When so many come by one key within max_age and twice the leeway, its
	// further ones get 429, and those of others notice nothing.
	ReplayEntriesPerKey int `yaml:"replay_entries_per_key"`
	// ReplayRedis is where replicas tell each other which nonces they saw, so that none
	// counts at two of them. While it cannot be asked, signatures with a nonce get 503.
	ReplayRedis *redis.Config `yaml:"replay_redis"`
}

const (
	maxAge        = 24 * time.Hour
	maxLeeway     = time.Minute
	maxSignatures = 16
	maxSources    = 16
	minSecret     = 32 // bytes: as long as the hash (RFC 2104 section 3)
)

// Default returns the settings of a Config that leaves them out.
func Default() Config {
	return Config{
		Components:    []string{"@method", "@authority", "@path", "@query"},
		MaxSignatures: 4, MaxAge: 5 * time.Minute, Leeway: 30 * time.Second,
		Nonce:             Nonce{ReplayEntries: 100_000},
		VerificationLimit: limit.Default(), Realm: "sallyport",
	}
}

// filled returns c with the default for each setting whose zero value means nothing.
func (c Config) filled() Config {
	d := Default()
	if c.Components == nil {
		c.Components = d.Components
	}
	if c.MaxSignatures == 0 {
		c.MaxSignatures = d.MaxSignatures
	}
	if c.MaxAge == 0 {
		c.MaxAge = d.MaxAge
	}
	if c.Nonce.ReplayEntries == 0 {
		c.Nonce.ReplayEntries = d.Nonce.ReplayEntries
	}
	if c.Realm == "" {
		c.Realm = d.Realm
	}
	c.VerificationLimit = c.VerificationLimit.Filled(d.VerificationLimit)
	return c
}

// Insecure returns what weakens the gateway, by key, and what it means.
func (c *Config) Insecure() map[string]string {
	out := map[string]string{}
	if c.InsecureUnsignedBody {
		out["insecure_unsigned_body"] = "whoever is between signer and gateway can replace bodies"
	}
	if c.InsecureUnverifiedBody {
		out["insecure_unverified_body"] = "long bodies are forwarded although nobody compared them with their signed digest"
	}
	for _, part := range Default().Components {
		if !covers(c.filled().Components, part) {
			out["components"] = "signatures need not cover " + part + ": one that was seen is good for other requests, too"
			break
		}
	}
	for i := range c.Consumers {
		for j, k := range c.Consumers[i].Keys {
			if k.InsecureHTTP {
				out[fmt.Sprintf("consumers[%d].keys[%d].insecure_http", i, j)] = "whoever controls the network can sign as " + c.Consumers[i].Subject
			}
		}
	}
	return out
}

// Validate reports everything wrong with c.
func (c Config) Validate() error {
	c = c.filled()
	errs := []error{c.validateComponents(), c.validateLimits(), c.validateConsumers()}
	if c.Label != "" && !isKey(c.Label) {
		errs = append(errs, setting.Problemf("label", "%q is not a label: lower-case letters, digits, _ - . and *", c.Label))
	}
	if strings.ContainsFunc(c.Tag, notPrintable) {
		errs = append(errs, setting.Problemf("tag", "%q has characters that a tag cannot have", c.Tag))
	}
	if strings.ContainsFunc(c.Realm, func(r rune) bool { return notPrintable(r) || r == '"' || r == '\\' }) {
		errs = append(errs, setting.Problemf("realm", "%q has characters that do not stand in a quoted string of a header", c.Realm))
	}
	return errors.Join(errs...)
}

func notPrintable(r rune) bool { return r < ' ' || r > '~' }

// isKey reports whether s is a key of a dictionary (RFC 9651 section 3.1.2).
func isKey(s string) bool {
	for i, r := range s {
		lower := r >= 'a' && r <= 'z' || r == '*'
		if !lower && (i == 0 || (r < '0' || r > '9') && r != '_' && r != '-' && r != '.') {
			return false
		}
	}
	return s != ""
}

func (c Config) validateComponents() error {
	var errs []error
	if len(c.Components) == 0 {
		errs = append(errs, setting.Problemf("components", "is empty: a signature that covers nothing is good for every request"))
	}
	for _, name := range c.Components {
		switch {
		case name == queryParam:
			errs = append(errs, setting.Problemf("components", "%s cannot be required; require @query, which covers all parameters", name))
		case strings.HasPrefix(name, "@") && !isDerived(name):
			errs = append(errs, setting.Problemf("components", "%q is not one of %s", name, strings.Join(derived(), ", ")))
		case !strings.HasPrefix(name, "@") && checkFieldName(name) != nil:
			errs = append(errs, setting.Problemf("components", "%q %w", name, checkFieldName(name)))
		}
	}
	return errors.Join(errs...)
}

func (c Config) validateLimits() error {
	errs := []error{setting.Under("verification_limit", c.VerificationLimit.Validate())}
	if c.MaxSignatures < 1 || c.MaxSignatures > maxSignatures {
		errs = append(errs, setting.Problemf("max_signatures", "%d is not between 1 and %d", c.MaxSignatures, maxSignatures))
	}
	if c.MaxAge < time.Second || c.MaxAge > maxAge {
		errs = append(errs, setting.Problemf("max_age", "%s is not between 1s and %s", c.MaxAge, maxAge))
	}
	if c.Leeway < 0 || c.Leeway > maxLeeway {
		errs = append(errs, setting.Problemf("leeway", "%s is not between 0s and %s", c.Leeway, maxLeeway))
	}
	if c.Nonce.ReplayEntries < 1 || c.Nonce.ReplayEntries > 1<<24 {
		errs = append(errs, setting.Problemf("nonce.replay_entries", "%d is not between 1 and %d", c.Nonce.ReplayEntries, 1<<24))
	}
	if n := c.Nonce.ReplayEntriesPerKey; n < 0 || n > 1<<24 {
		errs = append(errs, setting.Problemf("nonce.replay_entries_per_key", "%d is not between 1 and %d", n, 1<<24))
	}
	return errors.Join(append(errs, setting.Under("nonce.replay_redis", c.Nonce.ReplayRedis.Validate()))...)
}

func (c Config) validateConsumers() error {
	if len(c.Consumers) == 0 {
		return setting.Problemf("consumers", "is missing: it says who may sign, and with which keys")
	}
	var errs []error
	ids, sources := map[string]bool{}, 0
	for i := range c.Consumers {
		consumer := &c.Consumers[i]
		errs = append(errs, setting.Under(fmt.Sprintf("consumers[%d]", i), consumer.validate()))
		for j := range consumer.Keys {
			k := &consumer.Keys[j]
			if k.JWKSFile+k.JWKSURL != "" {
				sources++
			}
			if k.KeyID != "" && ids[k.KeyID] {
				errs = append(errs, setting.Problemf(fmt.Sprintf("consumers[%d].keys[%d].key_id", i, j), "%q stands twice: nobody could tell whose signature it is", k.KeyID))
			}
			ids[k.KeyID] = true
		}
	}
	if sources > maxSources {
		errs = append(errs, setting.Problemf("consumers", "have %d key sets; at most %d are looked through for a key", sources, maxSources))
	}
	return errors.Join(errs...)
}

func (c *Consumer) validate() error {
	var errs []error
	if c.Subject == "" {
		errs = append(errs, setting.Problemf("subject", "is missing: it says whose keys these are"))
	}
	if len(c.Keys) == 0 {
		errs = append(errs, setting.Problemf("keys", "is missing: without a key, nothing that this consumer signs can be verified"))
	}
	for _, s := range c.Scopes {
		if s == "" || strings.ContainsAny(s, " \t\n") {
			errs = append(errs, setting.Problemf("scopes", "%q is empty or has a space", s))
		}
	}
	for _, own := range ownClaims() {
		if _, set := c.Claims[own]; set {
			errs = append(errs, setting.Problemf("claims."+own, "is set by the gateway"))
		}
	}
	if _, err := json.Marshal(c.Claims); err != nil {
		errs = append(errs, setting.Problemf("claims", "are not JSON: %w", err))
	}
	for i := range c.Keys {
		errs = append(errs, setting.Under(fmt.Sprintf("keys[%d]", i), c.Keys[i].validate()))
	}
	return errors.Join(errs...)
}

func (k *Key) validate() error {
	var errs []error
	var set []string
	for _, f := range []struct{ key, value string }{
		{"public_key_file", k.PublicKeyFile}, {"secret_file", k.SecretFile}, {"jwks_file", k.JWKSFile}, {"jwks_url", k.JWKSURL},
	} {
		if f.value != "" {
			set = append(set, f.key)
		}
	}
	if len(set) != 1 {
		return setting.Problemf("", "has %d of public_key_file, secret_file, jwks_file and jwks_url; give exactly one", len(set))
	}
	isSet := set[0] == "jwks_file" || set[0] == "jwks_url"
	switch {
	case isSet && k.KeyID != "":
		errs = append(errs, setting.Problemf("key_id", "has no meaning for %s: its keys have a kid or a thumbprint", set[0]))
	case !isSet && k.KeyID == "":
		errs = append(errs, setting.Problemf("key_id", "is missing: it is how a signature names its key"))
	case strings.ContainsFunc(k.KeyID, notPrintable):
		errs = append(errs, setting.Problemf("key_id", "%q has characters that a keyid cannot have", k.KeyID))
	}
	errs = append(errs, k.validateAlgorithm(isSet))
	if k.SecretEncoding != "" && (set[0] != "secret_file" || k.SecretEncoding != "text" && k.SecretEncoding != "base64") {
		errs = append(errs, setting.Problemf("secret_encoding", "%q is not text or base64 of a secret_file", k.SecretEncoding))
	}
	if set[0] != "jwks_url" && (k.CAFile != "" || k.RefreshInterval != 0 || k.InsecureHTTP) {
		errs = append(errs, setting.Problemf("", "ca_file, refresh_interval and insecure_http are for jwks_url"))
	}
	if k.JWKSURL != "" {
		errs = append(errs, setting.Under("jwks_url", fetch.CheckURL(k.JWKSURL, k.InsecureHTTP)))
	}
	if k.RefreshInterval != 0 && (k.RefreshInterval < time.Second || k.RefreshInterval > 24*time.Hour) {
		errs = append(errs, setting.Problemf("refresh_interval", "%s is not between 1s and 24h", k.RefreshInterval))
	}
	return errors.Join(errs...)
}

// validateAlgorithm keeps secrets and public keys apart: a public key that was taken
// for a secret would be everybody's (RFC 9421 section 7.3.6).
func (k *Key) validateAlgorithm(isSet bool) error {
	switch {
	case k.Algorithm == "":
	case !slices.Contains(algorithms(), k.Algorithm):
		return setting.Problemf("algorithm", "%q is not one of %s", k.Algorithm, strings.Join(algorithms(), ", "))
	case (k.Algorithm == hmacSHA256) != (k.SecretFile != ""):
		return setting.Problemf("algorithm", "%s and secret_file belong together: a public key is no secret", hmacSHA256)
	case isSet && k.Algorithm != rsaPSS && k.Algorithm != rsaPKCS1:
		return setting.Problemf("algorithm", "of a set is that of its RSA keys, %s or %s; the others have but one", rsaPSS, rsaPKCS1)
	}
	return nil
}
