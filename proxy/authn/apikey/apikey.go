// Package apikey authenticates requests by API keys: random strings that a client
// sends in a header. It owns the file of keys and the look-up of one.
//
// The file holds the SHA-256 of each key and not the key: who reads it cannot use
// it. A plain hash is enough because keys are random: of 128 bits and more, nobody
// tries them all, however fast the hash is. The slow hashes that passwords need
// would only let anybody who sends nonsense keep the gateway busy. So that nobody
// puts a password there after all, what is too short for 128 bits is refused.
//
// It does not hand out keys to clients, and does not count what they use.
package apikey

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/limit"
)

// Kind is the key of this mechanism in the configuration.
const Kind = "api_key"

// Authenticator accepts the keys of one file. It is safe for concurrent use.
type Authenticator struct {
	name    string
	config  Config
	limiter *limit.Limiter
	keys    atomic.Pointer[keys]
}

// New makes an authenticator that the configuration calls name, with the keys that
// its file holds now.
func New(name string, c Config) (*Authenticator, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	a := &Authenticator{name: name, config: c.filled()}
	var err error
	if a.limiter, err = limit.New(a.config.VerificationLimit); err != nil {
		return nil, err
	}
	return a, a.Reload(context.Background())
}

// Authenticate returns the identity of the key in the request.
func (a *Authenticator) Authenticate(_ context.Context, r *authn.Request) (*authz.Identity, error) {
	text, err := a.find(r)
	if err != nil {
		return nil, err
	}
	if len(text) < minKey || len(text) > maxKey {
		return nil, fmt.Errorf("%w: API key has %d characters, a key has %d to %d", authn.ErrInvalid, len(text), minKey, maxKey)
	}
	var buf [maxKey]byte
	k := (*a.keys.Load())[sha256.Sum256(buf[:copy(buf[:], text)])]
	if k == nil {
		if err := a.limiter.Allow(r.Client, r.Now); err != nil {
			return nil, err
		}
		a.limiter.Charge(r.Client, r.Now)
		return nil, errUnknown
	}
	if err := k.checkTime(r.Now); err != nil {
		return nil, err
	}
	return k.identity, nil
}

var (
	errUnknown = fmt.Errorf("%w: API key is unknown", authn.ErrInvalid)
	errTwice   = fmt.Errorf("%w: request has more than one API key", authn.ErrInvalid)
)

// find returns the one key of the request. Of two, the policy, the log and the
// upstream could each believe another.
func (a *Authenticator) find(r *authn.Request) (string, error) {
	text, found := "", 0
	for i := range r.Headers {
		if r.Headers[i].Name == a.config.Header {
			text, found = r.Headers[i].Value, found+1
		}
	}
	if found > 0 {
		r.Spend(a.config.Header)
	}
	if name := a.config.InsecureQueryParameter; name != "" {
		for pair := range strings.SplitSeq(r.RawQuery, "&") {
			if k, v, _ := strings.Cut(pair, "="); k == name {
				text, found = v, found+1
			}
		}
	}
	switch found {
	case 0:
		return "", authn.ErrNotMine
	case 1:
		return text, nil
	}
	return "", errTwice
}

// checkTime looks at the validity on each request: nothing else ends a key.
func (k *key) checkTime(now time.Time) error {
	switch until := k.identity.ExpiresAt; {
	case now.Before(k.notBefore):
		return fmt.Errorf("%w: API key %v is good from %s on", authn.ErrInvalid, k.identity.Claims[claimID], k.notBefore.UTC().Format(time.RFC3339))
	case !until.IsZero() && !now.Before(until):
		return fmt.Errorf("%w: API key %v expired at %s", authn.ErrInvalid, k.identity.Claims[claimID], until.UTC().Format(time.RFC3339))
	}
	return nil
}

// CredentialHeaders returns the header of the keys.
func (a *Authenticator) CredentialHeaders() []string { return []string{a.config.Header} }

// Files returns the file that Reload reads.
func (a *Authenticator) Files() []string { return []string{a.config.File} }

// Reload reads the file again. On error the keys that were read before stay.
func (a *Authenticator) Reload(context.Context) error {
	set, err := load(a.name, a.config.File)
	if err != nil {
		return err
	}
	a.keys.Store(&set)
	return nil
}

// Challenge names the scheme and where the key belongs. There is no registered
// scheme for API keys, and a 401 must have a challenge (RFC 9110 section 15.5.2).
// Bearer would send clients looking for an authorization server, so the scheme is
// Key, as Kong answers.
func (a *Authenticator) Challenge(err error) string {
	if errors.Is(err, authn.ErrInsufficientScope) {
		return ""
	}
	return `Key realm="` + a.config.Realm + `", header="` + a.config.Header + `"`
}
