package basic

import (
	"errors"
	"runtime"
	"strings"
	"time"

	"github.com/sallyport/sallyport/engine/setting"
	"github.com/sallyport/sallyport/proxy/authn/limit"
)

// Config says who may enter with a password.
type Config struct {
	// HtpasswdFile lists the users, one "name:hash" a line, as htpasswd -B writes
	// them: bcrypt only. It is watched, and a broken one leaves the users that were
	// read last in force.
	HtpasswdFile string `yaml:"htpasswd_file" sallyport:"path"`
	// CacheTTL is how long a password that was verified is not hashed again, at most
	// 1h. A user whose line changes is asked for the new password at once.
	CacheTTL time.Duration `yaml:"cache_ttl"`
	// CacheSize is the number of verified passwords kept.
	CacheSize int `yaml:"cache_size"`
	// Concurrency is how many passwords are hashed at once; 0 is half of the
	// processors, at least one. Requests wait for their turn for a second and then
	// get 503.
	Concurrency int `yaml:"concurrency"`
	// VerificationLimit bounds the wrong passwords that a client can try.
	VerificationLimit limit.Config `yaml:"verification_limit"`
	// Realm is what browsers show to the user (RFC 7617 section 2).
	Realm string `yaml:"realm"`
}

const maxCacheTTL = time.Hour

// Default returns the settings of a Config that leaves them out. A bcrypt hash
// takes a thousand times as long as a signature, and people do not mistype a
// hundred times a second.
func Default() Config {
	return Config{
		CacheTTL:  5 * time.Minute,
		CacheSize: 4096,
		VerificationLimit: limit.Config{
			Failures: setting.Rate(10.0 / 60),
			Burst:    20,
			Clients:  limit.Default().Clients,
		},
		Realm: "sallyport",
	}
}

func (c Config) filled() Config {
	d := Default()
	if c.CacheTTL == 0 {
		c.CacheTTL = d.CacheTTL
	}
	if c.CacheSize == 0 {
		c.CacheSize = d.CacheSize
	}
	if c.Concurrency == 0 {
		c.Concurrency = max(1, runtime.GOMAXPROCS(0)/2)
	}
	if c.Realm == "" {
		c.Realm = d.Realm
	}
	c.VerificationLimit = c.VerificationLimit.Filled(d.VerificationLimit)
	return c
}

// Validate reports everything wrong with c.
func (c Config) Validate() error {
	c = c.filled()
	errs := []error{setting.Under("verification_limit", c.VerificationLimit.Validate())}
	if c.HtpasswdFile == "" {
		errs = append(errs, setting.Problemf("htpasswd_file", "is missing: it lists the users; htpasswd -B -c FILE NAME makes one"))
	}
	if c.CacheTTL < time.Second || c.CacheTTL > maxCacheTTL {
		errs = append(errs, setting.Problemf("cache_ttl", "%s is not between 1s and %s", c.CacheTTL, maxCacheTTL))
	}
	if c.CacheSize < 1 || c.CacheSize > 1<<20 {
		errs = append(errs, setting.Problemf("cache_size", "%d is not between 1 and %d", c.CacheSize, 1<<20))
	}
	if c.Concurrency < 1 || c.Concurrency > 1024 {
		errs = append(errs, setting.Problemf("concurrency", "%d is not between 0 and 1024", c.Concurrency))
	}
	if strings.ContainsFunc(c.Realm, func(r rune) bool { return r < ' ' || r > '~' || r == '"' || r == '\\' }) {
		errs = append(errs, setting.Problemf("realm", "%q has characters that do not stand in a quoted string of a header", c.Realm))
	}
	return errors.Join(errs...)
}
