package session

import (
	"errors"
	"strings"
	"time"

	"golang.org/x/net/publicsuffix"

	"github.com/sallyport/sallyport/engine/setting"
	"github.com/sallyport/sallyport/proxy/redis"
)

// Config is how sessions are kept.
type Config struct {
	// KeysFiles are files with 32 bytes each in base64 or hexadecimal digits, as
	// openssl rand -base64 32 writes them. The first seals new sessions, each opens
	// what it sealed: to exchange a key, put the new one first and take the old one
	// away a lifetime later. Without any, a key is generated at the start: sessions
	// end with the process, and replicas do not know each other's.
	KeysFiles []string `yaml:"keys_files" sallyport:"path"`
	// Lifetime is how long after its login a session ends, however much it is used. A
	// longer one than before is for sessions to come.
	Lifetime time.Duration `yaml:"lifetime"`
	// IdleTimeout is how long after its last use a session ends. The use is noted ten
	// times within it, so a session may end that much earlier.
	IdleTimeout time.Duration `yaml:"idle_timeout"`
	// CookieDomain lets hosts below a domain share a login: example.com. Browsers send
	// the cookies to all of these hosts: whoever controls one can use the sessions of its
	// visitors, and give a visitor one of another user.
	CookieDomain string `yaml:"cookie_domain"`
	// Redis keeps sessions in Redis in place of the browser's cookies, which then have
	// an identifier only. Replicas share them, and what one ends is ended for all.
	// While Redis cannot be reached, those who have a session get 503.
	Redis *redis.Config `yaml:"redis"`
}

// Open makes the store that c describes for the authenticator called name.
func Open(name string, c Config, keys *Keys, deps Deps) (Store, error) {
	if c.Redis != nil {
		return NewShared(name, c, keys, deps)
	}
	return NewBrowser(name, c, keys, deps), nil
}

// Default returns the settings of a Config that leaves them out.
func Default() Config {
	return Config{Lifetime: 12 * time.Hour, IdleTimeout: time.Hour}
}

// Filled returns c with the default for each setting whose zero value means nothing.
func (c Config) Filled() Config {
	d := Default()
	if c.Lifetime == 0 {
		c.Lifetime = d.Lifetime
	}
	if c.IdleTimeout == 0 {
		c.IdleTimeout = d.IdleTimeout
	}
	return c
}

func (c Config) limits() limits { return limits{c.Lifetime, c.IdleTimeout} }

// Insecure returns what weakens the gateway, by key, and what it means.
func (c *Config) Insecure() map[string]string {
	out := map[string]string{}
	if len(c.KeysFiles) == 0 && c.Redis == nil {
		out["keys_files"] = "none are given, so sessions end with this process and other replicas do not know them"
	}
	if c.CookieDomain != "" {
		out["cookie_domain"] = "whoever controls a host below " + c.CookieDomain + " can use its visitors' sessions, and give them another user's"
	}
	return out
}

// Validate reports everything wrong with c.
func (c Config) Validate() error {
	c = c.Filled()
	var errs []error
	if len(c.KeysFiles) > 8 {
		errs = append(errs, setting.Problemf("keys_files", "lists %d files; at most 8 keys are kept", len(c.KeysFiles)))
	}
	if c.Lifetime < time.Minute || c.Lifetime > 30*24*time.Hour {
		errs = append(errs, setting.Problemf("lifetime", "%s is not between 1m and 720h", c.Lifetime))
	}
	if c.IdleTimeout < 10*time.Second || c.IdleTimeout > 30*24*time.Hour {
		errs = append(errs, setting.Problemf("idle_timeout", "%s is not between 10s and 720h", c.IdleTimeout))
	}
	switch d := c.CookieDomain; {
	case d == "":
	case !IsDomain(d):
		errs = append(errs, setting.Problemf("cookie_domain", "%q is not a domain with at least two labels, such as example.com", d))
	case public(d):
		errs = append(errs, setting.Problemf("cookie_domain", "%q is a public suffix: browsers keep no cookie for all of its sites, so that no login would end", d))
	}
	if c.Redis != nil && len(c.KeysFiles) == 0 {
		errs = append(errs, setting.Problemf("keys_files", "is missing: without a common key replicas cannot read each other's sessions"))
	}
	return errors.Join(append(errs, setting.Under("redis", c.Redis.Validate()))...)
}

// public reports whether anybody can have a site below d (publicsuffix.org).
func public(d string) bool {
	suffix, _ := publicsuffix.PublicSuffix(strings.ToLower(d))
	return suffix == strings.ToLower(d)
}

// IsDomain reports whether d is a domain with at least two labels. An address is none.
func IsDomain(d string) bool {
	labels := strings.Split(d, ".")
	if len(labels) < 2 || len(d) > 253 {
		return false
	}
	for _, l := range labels {
		if l == "" || strings.Trim(strings.ToLower(l), "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			return false
		}
	}
	return strings.Trim(labels[len(labels)-1], "0123456789") != "" // an address has no subdomains
}
