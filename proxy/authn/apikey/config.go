package apikey

import (
	"errors"
	"strings"

	"github.com/sallyport/sallyport/engine/setting"
	"github.com/sallyport/sallyport/proxy/authn/limit"
)

// Config says where a key travels and which keys there are.
type Config struct {
	// Header is the header that carries the key. Another authenticator of the
	// same route should not read the same one: an unknown key ends the search.
	Header string `yaml:"header"`
	// File lists the keys, each by its SHA-256; sallyport key new makes an entry.
	// It is watched, and a broken one leaves the keys that were read last in force.
	File string `yaml:"file" sallyport:"path"`
	// InsecureQueryParameter also takes the key from this parameter of the query.
	// URLs stand in logs and histories, and the upstream and the policy see them.
	InsecureQueryParameter string `yaml:"insecure_query_parameter"`
	// VerificationLimit bounds the unknown keys that a client can try.
	VerificationLimit limit.Config `yaml:"verification_limit"`
	// Realm is the realm of the WWW-Authenticate challenge (RFC 9110 section 11.5).
	Realm string `yaml:"realm"`
}

// Default returns the settings of a Config that leaves them out.
func Default() Config {
	return Config{Header: "x-api-key", VerificationLimit: limit.Default(), Realm: "sallyport"}
}

func (c Config) filled() Config {
	d := Default()
	if c.Header == "" {
		c.Header = d.Header
	}
	if c.Realm == "" {
		c.Realm = d.Realm
	}
	c.Header = strings.ToLower(c.Header)
	c.VerificationLimit = c.VerificationLimit.Filled(d.VerificationLimit)
	return c
}

// Insecure returns what weakens the gateway, by key, and what it means.
func (c *Config) Insecure() map[string]string {
	if c.InsecureQueryParameter != "" {
		return map[string]string{"insecure_query_parameter": "keys stand in the URL: whoever reads an access log or a history, and every upstream and policy, has them"}
	}
	return nil
}

// Validate reports everything wrong with c.
func (c Config) Validate() error {
	c = c.filled()
	errs := []error{setting.Under("verification_limit", c.VerificationLimit.Validate())}
	if c.File == "" {
		errs = append(errs, setting.Problemf("file", "is missing: it lists the keys; sallyport key new makes one"))
	}
	switch {
	case strings.ContainsFunc(c.Header, notToken):
		errs = append(errs, setting.Problemf("header", "%q is not the name of a header", c.Header))
	case notForKeys(c.Header):
		errs = append(errs, setting.Problemf("header", "%q belongs to other mechanisms; name one of its own, such as x-api-key", c.Header))
	}
	if strings.ContainsFunc(c.InsecureQueryParameter, notToken) {
		errs = append(errs, setting.Problemf("insecure_query_parameter", "%q has characters that are encoded in a query", c.InsecureQueryParameter))
	}
	if strings.ContainsFunc(c.Realm, func(r rune) bool { return r < ' ' || r > '~' || r == '"' || r == '\\' }) {
		errs = append(errs, setting.Problemf("realm", "%q has characters that do not stand in a quoted string of a header", c.Realm))
	}
	return errors.Join(errs...)
}

// notForKeys names headers that have a meaning of their own.
func notForKeys(name string) bool {
	switch name {
	case "authorization", "proxy-authorization", "cookie", "host", "connection", "content-length", "transfer-encoding":
		return true
	}
	return strings.HasPrefix(name, "x-forwarded-")
}

// notToken reports what does not stand in a token that is also plain in a query
// (RFC 9110 section 5.6.2, RFC 3986 section 2.3).
func notToken(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_' && r != '.'
}
