// Package limit bounds the checks of bad credentials that one client can cause. It
// owns what a client is, what it has left, and the settings of both, so that every
// mechanism whose checks cost something limits them in the same way.
//
// It does not know what a check is: a mechanism asks before it makes one and charges
// those that fail. It is no limit of requests.
package limit

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"

	"github.com/sallyport/sallyport/engine/setting"
	"github.com/sallyport/sallyport/proxy/authn"
)

// Config bounds the checks that one client can cause with bad credentials, such as
// tokens that the issuer did not sign. A client is an IPv4 address or an IPv6
// network of 64 bits, as the listener judges it: the peer, or what trusted_proxies
// report. Only bad credentials count, so that many users behind one address share
// nothing but the consequences of a forger among them: while a client is limited,
// its credentials that were verified before still pass, and others get 429.
type Config struct {
	// Failures is how many bad credentials a client can have checked in the long
	// run, such as 100/s; unlimited for no limit. Without trusted_proxies, all
	// clients of a load balancer are one.
	Failures setting.Rate `yaml:"failures"`
	// Burst is how many bad credentials a client can have checked at once.
	Burst int `yaml:"burst"`
	// Clients is how many clients with bad credentials are remembered; of more,
	// those that were not seen for longest are forgotten.
	Clients int `yaml:"clients"`
}

// Default returns the settings for checks as cheap as those of signatures.
func Default() Config { return Config{Failures: 100, Burst: 200, Clients: 16384} }

// DefaultQuestions returns the settings for checks that somebody else is asked to make.
func DefaultQuestions() Config { return Config{Failures: 20, Burst: 100, Clients: 16384} }

// Filled returns l with d's value for each setting that was left out.
func (l Config) Filled(d Config) Config {
	if l.Failures == 0 {
		l.Failures = d.Failures
	}
	if l.Burst == 0 {
		l.Burst = d.Burst
	}
	if l.Clients == 0 {
		l.Clients = d.Clients
	}
	return l
}

// Validate reports everything wrong with l.
func (l Config) Validate() error {
	var errs []error
	if l.Failures < 0 {
		errs = append(errs, setting.Problemf("failures", "is negative"))
	}
	if l.Burst < 1 || l.Burst > 1<<20 {
		errs = append(errs, setting.Problemf("burst", "%d is not between 1 and %d", l.Burst, 1<<20))
	}
	if l.Clients < 1 || l.Clients > 1<<24 {
		errs = append(errs, setting.Problemf("clients", "%d is not between 1 and %d", l.Clients, 1<<24))
	}
	return errors.Join(errs...)
}

// Limiter keeps what each client has left. A client is remembered from its first
// bad credential on, so that honest ones cost nothing and push nobody out. A nil one
// limits nobody. It is safe for concurrent use.
type Limiter struct {
	config  Config
	clients *lru.Cache[netip.Addr, *rate.Limiter]
}

// New returns nil, which limits nobody, for an unlimited rate.
func New(l Config) (*Limiter, error) {
	if l.Failures.Unlimited() {
		return nil, nil //nolint:nilnil // a nil limiter is one that limits nobody
	}
	clients, err := lru.New[netip.Addr, *rate.Limiter](l.Clients)
	if err != nil {
		return nil, fmt.Errorf("make room for %d clients: %w", l.Clients, err)
	}
	return &Limiter{config: l, clients: clients}, nil
}

// network is what a client is known by. Whoever has one IPv6 address has the 64
// bits behind it (RFC 6177). Those without an address, which the fronts never
// hand on, are one client.
func network(client string) netip.Addr {
	ip, err := netip.ParseAddr(client)
	if err != nil {
		return netip.Addr{}
	}
	if ip = ip.Unmap().WithZone(""); ip.Is6() {
		prefix, _ := ip.Prefix(64) // 64 is a length that IPv6 has
		return prefix.Addr()
	}
	return ip
}

// Allow returns an authn.TooManyError if client has had too many bad credentials.
// It takes nothing: what a good one costs is not charged.
func (l *Limiter) Allow(client string, now time.Time) error {
	if l == nil {
		return nil
	}
	b, ok := l.clients.Get(network(client))
	if !ok {
		return nil
	}
	left := b.TokensAt(now)
	if left >= 1 {
		return nil
	}
	wait := time.Duration((1 - left) / float64(l.config.Failures) * float64(time.Second))
	return &authn.TooManyError{
		Of: authn.BadCredentials, RetryAfter: wait, Quota: l.config.Burst,
		Window: time.Duration(math.Ceil(float64(l.config.Burst)/float64(l.config.Failures))) * time.Second,
	}
}

// Charge takes one bad credential from what client has left. Checks that went on
// at once can bring it below zero, and it has to earn that back.
func (l *Limiter) Charge(client string, now time.Time) {
	if l == nil {
		return
	}
	at := network(client)
	b, ok := l.clients.Get(at)
	if !ok {
		b = rate.NewLimiter(rate.Limit(l.config.Failures), l.config.Burst)
		if other, there, _ := l.clients.PeekOrAdd(at, b); there {
			b = other
		}
	}
	b.ReserveN(now, 1)
}
