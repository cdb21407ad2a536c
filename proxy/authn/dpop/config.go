package dpop

import (
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/sallyport/sallyport/engine/setting"
	"github.com/sallyport/sallyport/proxy/redis"
)

// Config is what proofs of possession must be like. Tokens that are bound to a key
// need a proof whatever it says.
type Config struct {
	// Required refuses tokens that are not bound to a key, which are good for
	// whoever has them.
	Required bool `yaml:"required"`
	// Nonce makes clients put a nonce of the gateway into each proof, so that none
	// can be made in advance (RFC 9449 section 9). Each process has nonces of its
	// own: with several replicas, a client must stay at one.
	Nonce bool `yaml:"nonce"`
	// Window is how old a proof may be, beside the leeway of the authenticator, at
	// most 10m; 60s by default.
	Window time.Duration `yaml:"window"`
	// ReplayEntries is how many proofs are remembered, so that none counts twice;
	// 100000 by default. When so many come within window and twice the leeway,
	// further ones get 503.
	ReplayEntries int `yaml:"replay_entries"`
	// ReplayEntriesPerKey is how many of them may be of one key; 10000 by default.
	// When so many come by one key within window and twice the leeway, its further
	// ones get 429, and those of others notice nothing.
	ReplayEntriesPerKey int `yaml:"replay_entries_per_key"`
	// ReplayRedis is where replicas tell each other which proofs they accepted, so that
	// none counts at two of them. While it cannot be asked, requests with proofs get
	// 503. Without it, each replica remembers its own.
	ReplayRedis *redis.Config `yaml:"replay_redis"`
	// Algorithms are the signature algorithms of proofs, none of them symmetric;
	// ES256, ES384, EdDSA, PS256 and RS256 by default.
	Algorithms []string `yaml:"algorithms"`
}

const maxWindow = 10 * time.Minute

// Default returns the settings of a Config that leaves them out.
func Default() Config {
	return Config{
		Window: time.Minute, ReplayEntries: 100_000, ReplayEntriesPerKey: 10_000,
		Algorithms: []string{"ES256", "ES384", "EdDSA", "PS256", "RS256"},
	}
}

// Filled returns c with the default for each setting whose zero value means nothing.
func (c Config) Filled() Config {
	d := Default()
	if c.Window == 0 {
		c.Window = d.Window
	}
	if c.ReplayEntries == 0 {
		c.ReplayEntries = d.ReplayEntries
	}
	if c.ReplayEntriesPerKey == 0 {
		c.ReplayEntriesPerKey = d.ReplayEntriesPerKey
	}
	if c.Algorithms == nil {
		c.Algorithms = d.Algorithms
	}
	return c
}

// asymmetric are the algorithms that a proof can be signed with (RFC 9449 section
// 4.3): everybody knows the key that it is checked with.
func asymmetric() []string {
	return []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
}

// Validate reports everything wrong with c.
func (c Config) Validate() error {
	c = c.Filled()
	var errs []error
	if c.Window < time.Second || c.Window > maxWindow {
		errs = append(errs, setting.Problemf("window", "%s is not between 1s and %s", c.Window, maxWindow))
	}
	if c.ReplayEntries < 1 || c.ReplayEntries > 1<<24 {
		errs = append(errs, setting.Problemf("replay_entries", "%d is not between 1 and %d", c.ReplayEntries, 1<<24))
	}
	if c.ReplayEntriesPerKey < 1 || c.ReplayEntriesPerKey > 1<<24 {
		errs = append(errs, setting.Problemf("replay_entries_per_key", "%d is not between 1 and %d", c.ReplayEntriesPerKey, 1<<24))
	}
	if len(c.Algorithms) == 0 {
		errs = append(errs, setting.Problemf("algorithms", "is empty: no proof could be accepted"))
	}
	for _, name := range c.Algorithms {
		if !slices.Contains(asymmetric(), name) {
			errs = append(errs, setting.Problemf("algorithms", "%q is not one of %s", name, strings.Join(asymmetric(), ", ")))
		}
	}
	return errors.Join(append(errs, setting.Under("replay_redis", c.ReplayRedis.Validate()))...)
}
