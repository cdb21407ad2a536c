package splittoken

import (
	"errors"
	"strings"
	"time"

	"github.com/sallyport/sallyport/engine/setting"
	"github.com/sallyport/sallyport/proxy/authn/fetch"
	"github.com/sallyport/sallyport/proxy/authn/limit"
	"github.com/sallyport/sallyport/proxy/redis"
)

// Config is the store of the headers and payloads of split tokens: a URL or Redis.
type Config struct {
	// URL is where a record is fetched with GET; {hash} in it stands for the SHA-256
	// hash of the token in lower-case hexadecimal digits. The answer is the header and
	// the payload as they stand in the JWT, with the dot between them, or 404.
	URL string `yaml:"url"`
	// BearerTokenFile holds a token that the gateway shows the server of url.
	BearerTokenFile string `yaml:"bearer_token_file" sallyport:"path"`
	// CAFile holds the PEM certificates that the server of url is verified with instead
	// of the system's.
	CAFile string `yaml:"ca_file" sallyport:"path"`
	// CertFile holds the PEM certificate that the gateway shows the server of url.
	CertFile string `yaml:"cert_file" sallyport:"path"`
	// KeyFile holds the PEM private key of cert_file.
	KeyFile string `yaml:"key_file" sallyport:"path"`
	// InsecureHTTP allows http:// to hosts other than loopback. Whoever controls the
	// network can then read the claims of tokens.
	InsecureHTTP bool `yaml:"insecure_http"`
	// Redis is the store in place of url: a record is the string under prefix and hash.
	Redis *RedisConfig `yaml:"redis"`

	// MaxAge is how long a record counts at most, and so how long a token can still be
	// used whose record was deleted; 0s looks at each request. No record counts longer
	// than its token.
	MaxAge time.Duration `yaml:"max_age"`
	// RefusedMaxAge is how long a token that is not stored, or that was refused, is
	// refused unasked.
	RefusedMaxAge time.Duration `yaml:"refused_max_age"`
	// Timeout bounds one look-up, the wait for its turn included.
	Timeout time.Duration `yaml:"timeout"`
	// MaxConcurrent is how many look-ups may be under way at once.
	MaxConcurrent int `yaml:"max_concurrent"`
	// LookupLimit bounds the look-ups that a client causes with tokens that are
	// refused.
	LookupLimit limit.Config `yaml:"lookup_limit"`
}

// RedisConfig is a Redis server with records.
type RedisConfig struct {
	redis.Server `yaml:",inline"`
	// Prefix begins every key, and the hash ends it.
	Prefix string `yaml:"prefix"`
}

// Default returns the settings of a Config that leaves them out.
func Default() Config {
	return Config{
		MaxAge:        time.Minute,
		RefusedMaxAge: 5 * time.Second,
		Timeout:       time.Second,
		MaxConcurrent: 64,
		LookupLimit:   limit.DefaultQuestions(),
	}
}

// Filled returns c with the default for each setting whose zero value means nothing.
func (c Config) Filled() Config {
	d := Default()
	if c.Timeout == 0 {
		c.Timeout = d.Timeout
	}
	if c.MaxConcurrent == 0 {
		c.MaxConcurrent = d.MaxConcurrent
	}
	c.LookupLimit = c.LookupLimit.Filled(d.LookupLimit)
	return c
}

// Validate reports everything wrong with c. A nil one is right.
func (c *Config) Validate() error {
	if c == nil {
		return nil
	}
	f := c.Filled()
	return errors.Join(f.validateSource(), f.validateLimits())
}

func (c Config) validateSource() error {
	switch {
	case c.URL == "" && c.Redis == nil:
		return setting.Problemf("url", "is missing: it is where headers and payloads are stored; or give redis")
	case c.Redis == nil:
		return c.validateURL()
	}
	var errs []error
	for key, given := range map[string]bool{
		"url": c.URL != "", "bearer_token_file": c.BearerTokenFile != "", "ca_file": c.CAFile != "", "cert_file": c.CertFile != "",
		"key_file": c.KeyFile != "", "insecure_http": c.InsecureHTTP,
	} {
		if given {
			errs = append(errs, setting.Problemf(key, "is not used together with redis"))
		}
	}
	return errors.Join(append(errs, setting.Under("redis", c.Redis.Validate()))...)
}

func (c Config) validateURL() error {
	errs := []error{setting.Under("url", fetch.CheckURL(strings.ReplaceAll(c.URL, placeholder, "0"), c.InsecureHTTP))}
	if !strings.Contains(c.URL, placeholder) {
		errs = append(errs, setting.Problemf("url", "has no %s, which stands for the hash of the token", placeholder))
	}
	if (c.CertFile == "") != (c.KeyFile == "") {
		errs = append(errs, setting.Problemf("key_file", "and cert_file go together"))
	}
	return errors.Join(errs...)
}

func (c Config) validateLimits() error {
	return errors.Join(
		setting.Between("max_age", c.MaxAge, 0, time.Hour),
		setting.Between("refused_max_age", c.RefusedMaxAge, 0, time.Minute),
		setting.Between("timeout", c.Timeout, 10*time.Millisecond, 30*time.Second),
		setting.Between("max_concurrent", c.MaxConcurrent, 1, 1<<16),
		setting.Under("lookup_limit", c.LookupLimit.Validate()),
	)
}
