// Package ratelimit takes the tokens of the rate limits that policies ask for. It owns
// the buckets of the process, their arithmetic, which is exact, and the bound on how
// many there are.
//
// A bucket is known by key, rate and burst and by nothing else: requests of all routes,
// listeners and policies share it. It does not judge: the policy says what is limited,
// and who judges says when a token is due and what is answered without one. It is no
// limit of bad credentials, which package limit is.
package ratelimit

import (
	"errors"
	"fmt"
	"time"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/engine/meter"
	"github.com/sallyport/sallyport/engine/setting"
)

// Why a request does not pass.
var (
	// ErrLimited: its bucket is empty. 429.
	ErrLimited = errors.New("rate limit of the policy is used up")
	// ErrFull: there is no room for its bucket, and so it cannot be counted. 503.
	ErrFull = errors.New("all of rate_limits.max_keys are in use")
)

// LimitedError is an ErrLimited with what the client is told.
type LimitedError struct{ Left }

func (e *LimitedError) Error() string {
	return fmt.Sprintf("%v; there is a token in %s", ErrLimited, e.Next.Round(time.Millisecond))
}

// Unwrap returns ErrLimited.
func (e *LimitedError) Unwrap() error { return ErrLimited }

// Left is what a bucket has after it was asked for a token.
type Left struct {
	Quota     int           // tokens that it holds
	Window    int64         // seconds in which they are earned anew, rounded up
	Remaining int           // whole tokens
	Next      time.Duration // until there is one more
}

// Config bounds the rate limits that policies ask for with rate_limit.
type Config struct {
	// MaxKeys is how many keys are counted at once, each with its rate and burst. One
	// takes about 200 bytes and the key itself, and is forgotten when all of its tokens
	// are back. While all are in use, requests with a further key get 503.
	MaxKeys int `yaml:"max_keys"`
}

// maxMaxKeys are about 4 GB.
const maxMaxKeys = 1 << 24

// Default returns the settings of a file that says nothing.
func Default() Config { return Config{MaxKeys: 100_000} }

// Validate reports everything wrong with c.
func (c Config) Validate() error {
	if c.MaxKeys < 1 || c.MaxKeys > maxMaxKeys {
		return setting.Problemf("max_keys", "%d is not between 1 and %d", c.MaxKeys, maxMaxKeys)
	}
	return nil
}

// Limiter takes tokens. It is safe for concurrent use.
type Limiter struct {
	config  Config
	buckets *table

	passed, limited, full, keys *meter.Count
}

// New returns a limiter whose buckets are all full.
func New(c Config, metrics *meter.Registry) *Limiter {
	outcomes := metrics.Counter("sallyport.rate_limits", "{request}",
		"Allowed requests whose decision has a rate_limit, by outcome: passed, limited (429) or full (503: no room for a further key).")
	of := func(outcome string) *meter.Count { return outcomes.With(meter.String("outcome", outcome)) }
	return &Limiter{
		config: c, buckets: newTable(), passed: of("passed"), limited: of("limited"), full: of("full"),
		keys: metrics.UpDownCounter("sallyport.rate_limits.keys", "{key}", "Keys of rate limits in memory.").With(),
	}
}

// Inherit takes over the buckets of prev, the limiter of the configuration before: a
// reload gives nobody tokens. Call it before the first use.
func (l *Limiter) Inherit(prev *Limiter) { l.buckets = prev.buckets }

// Take takes a token. Without one the error is a *LimitedError, or ErrFull if there
// is no room for the bucket.
func (l *Limiter) Take(key string, b authz.Bucket, now time.Time) (Left, error) {
	left, ok, change := l.buckets.take(key, b, now, l.config.MaxKeys)
	if change != 0 {
		l.keys.Add(int64(change))
	}
	switch {
	case left.Quota == 0:
		l.full.Add(1)
		return left, ErrFull
	case !ok:
		l.limited.Add(1)
		return left, &LimitedError{left}
	}
	l.passed.Add(1)
	return left, nil
}

// Free lets every request pass, for tools that judge requests which nobody sent.
type Free struct{}

// Take takes nothing.
func (Free) Take(key string, b authz.Bucket, _ time.Time) (Left, error) {
	full := bucket{identity: identity{key, b}}
	return Left{Quota: int(b.Burst), Window: full.window(), Remaining: int(b.Burst)}, nil
}
