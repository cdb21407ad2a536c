// Package clientcredentials authenticates machines that cannot get a token by
// themselves: a caller sends its client identifier and secret in two headers, the
// gateway gets an access token for them at the provider (RFC 6749 section 4.4), and
// that token, verified like any other, says who the caller is. It owns the reading of
// the headers, the question, how long an answer counts, and how many questions may be
// under way.
//
// It exists for callers of gateways that did this before. Who can ask the provider
// itself should: a secret that goes to the gateway with every request is worth more to
// a thief than a token that ends.
//
// It verifies nothing of a token: that is for package jwt. The gateway's own tokens
// for upstreams are those of package grant.
package clientcredentials

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"go.opentelemetry.io/otel/metric"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/asking"
	"github.com/sallyport/sallyport/proxy/authn/jwt"
	"github.com/sallyport/sallyport/proxy/authn/limit"
	"github.com/sallyport/sallyport/proxy/authn/tokencache"
)

// Kind is the key of this mechanism in the configuration.
const Kind = "client_credentials"

// Deps is what an Authenticator uses of the process. The zero value logs and counts
// nothing.
type Deps struct {
	Logger *slog.Logger
	Meter  metric.Meter
}

// Authenticator accepts the clients that one provider knows. It is safe for concurrent
// use.
type Authenticator struct {
	config   Config
	provider *provider
	tokens   *jwt.Authenticator
	flights  asking.Flights[string]
	limiter  *limit.Limiter
	salt     [sha256.Size]byte

	// Both are keyed by a hash of the credentials. Those that were refused are kept
	// apart: a stranger can make as many as it likes, and pushes out nothing but others
	// of its own.
	good *tokencache.Cache[string]
	bad  *tokencache.Cache[struct{}]
}

// What was refused is small, and kept for seconds.
const (
	maxRefused      = 16384
	maxRefusedBytes = 8 << 20
)

// New makes an authenticator that the configuration calls name. It reads the files of
// c, and an unreadable one is an error; it asks nobody.
func New(name string, c Config, deps Deps) (*Authenticator, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	c = c.filled()
	a := &Authenticator{
		config: c, good: tokencache.New[string](c.CacheSize, maxTokens(c.CacheSize)),
		bad: tokencache.New[struct{}](maxRefused, maxRefusedBytes),
	}
	_, _ = rand.Read(a.salt[:]) // never fails
	var err error
	if a.limiter, err = limit.New(c.QuestionLimit); err != nil {
		return nil, err
	}
	if a.provider, err = newProvider(name, c); err != nil {
		return nil, err
	}
	a.tokens, err = jwt.NewCarried(name, c.tokens(), jwt.Use{Kind: Kind}, jwt.Deps{Logger: deps.Logger, Meter: deps.Meter})
	return a, err
}

// maxTokens bounds the bytes of a cache of so many tokens. Real ones have about 1 KiB.
func maxTokens(entries int) int { return max(4<<20, 4<<10*entries) }

var (
	errTwice   = fmt.Errorf("%w: the client identifier or the secret stands twice", authn.ErrInvalid)
	errHalf    = fmt.Errorf("%w: the client identifier or the secret is missing", authn.ErrInvalid)
	errForm    = fmt.Errorf("%w: the client identifier or the secret is too long, or has characters that none has (RFC 6749 appendix A)", authn.ErrInvalid)
	errRefused = fmt.Errorf("%w: these credentials were refused a moment ago", authn.ErrInvalid)
)

// credentials are what a caller sent. They go to the provider and nowhere else.
type credentials struct{ id, secret string }

// Authenticate returns the identity of the token that the provider gives the client
// in the headers. Clients that had one a moment ago cost a look into the cache.
func (a *Authenticator) Authenticate(ctx context.Context, r *authn.Request) (*authz.Identity, error) {
	c, err := a.find(r)
	if err != nil {
		return nil, err
	}
	key := a.hash(c)
	token, had := a.good.Get(key, r.Now)
	if had {
		// Its key may have been taken back since: then the provider is asked again.
		if id, err := a.accept(ctx, token, r); !errors.Is(err, authn.ErrInvalid) {
			return id, err
		}
	}
	if token, err = a.obtain(ctx, key, c, token, r); err != nil {
		return nil, err
	}
	return a.accept(ctx, token, r)
}

// accept returns what the token says. It is verified on each request, for which jwt
// has a cache.
func (a *Authenticator) accept(ctx context.Context, token string, r *authn.Request) (*authz.Identity, error) {
	id, err := a.tokens.AuthenticateToken(ctx, token, r)
	if err != nil {
		return nil, fmt.Errorf("the provider's token: %w", err)
	}
	r.Token = token
	return id, nil
}

// find returns the one client of the request. Of two, the log and the provider could
// each mean another.
func (a *Authenticator) find(r *authn.Request) (c credentials, err error) {
	ids, secrets := 0, 0
	for i := range r.Headers {
		switch h := &r.Headers[i]; h.Name {
		case a.config.ClientIDHeader:
			c.id, ids = h.Value, ids+1
		case a.config.ClientSecretHeader:
			c.secret, secrets = h.Value, secrets+1
		}
	}
	switch {
	case ids == 0 && secrets == 0:
		return c, authn.ErrNotMine
	case ids > 1 || secrets > 1:
		return c, errTwice
	case c.id == "" || c.secret == "":
		return c, errHalf
	case !printable(c.id, maxID) || !printable(c.secret, maxSecret):
		return c, errForm
	}
	return c, nil
}

const (
	maxID     = 512  // bytes
	maxSecret = 2048 // bytes
)

// printable reports whether text is made of VSCHAR (RFC 6749 appendices A.1 and A.2).
func printable(text string, most int) bool {
	return len(text) <= most && !strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' })
}

// hash stands for credentials in memory. It is keyed, so that what a dump of the
// process shows of it cannot be tried out against lists of secrets without the key.
func (a *Authenticator) hash(c credentials) string {
	mac := hmac.New(sha256.New, a.salt[:])
	text := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(c.id)+len(c.secret)), uint32(len(c.id))) //nolint:gosec // at most maxID
	mac.Write(append(append(text, c.id...), c.secret...))
	return string(mac.Sum(nil))
}

// obtain gets a token for credentials that have none, once for all who wait for it.
// Each of them pays if the credentials are refused. Stale is the token that is not
// good any more.
func (a *Authenticator) obtain(ctx context.Context, key string, c credentials, stale string, r *authn.Request) (string, error) {
	if _, refused := a.bad.Get(key, r.Now); refused {
		return "", errRefused
	}
	if err := a.limiter.Allow(r.Client, r.Now); err != nil {
		return "", err
	}
	// What belongs to the connection's buffer does not outlive the request; the question
	// may.
	own := credentials{strings.Clone(c.id), strings.Clone(c.secret)}
	asker := authn.Request{Client: strings.Clone(r.Client), Now: r.Now}
	token, err := a.flights.Ask(ctx, key, a.config.Timeout, func(ctx context.Context) (string, error) {
		return a.ask(ctx, key, own, stale, &asker)
	})
	if errors.Is(err, authn.ErrInvalid) {
		a.limiter.Charge(r.Client, r.Now)
	}
	return token, err
}

// ask asks the provider, verifies what it gives and keeps it.
func (a *Authenticator) ask(ctx context.Context, key string, c credentials, stale string, r *authn.Request) (string, error) {
	if token, had := a.good.Get(key, r.Now); had && token != stale { // since we looked
		return token, nil
	}
	got, err := a.provider.ask(ctx, c)
	var id *authz.Identity
	if err == nil {
		id, err = a.accept(ctx, got.token, r)
	}
	switch {
	case errors.Is(err, authn.ErrInvalid):
		a.bad.Put(key, struct{}{}, 0, r.Now.Add(a.config.RefusedMaxAge))
		return "", err
	case errors.Is(err, authn.ErrUnavailable), errors.Is(err, authn.ErrTooMany):
		return "", err
	case err != nil:
		return "", fmt.Errorf("%w: get a token: %w", authn.ErrUnavailable, err)
	}
	a.keep(key, got, id.ExpiresAt, r.Now)
	return got.token, nil
}

// keep remembers a token until shortly before its end, and for max_age at most: a
// secret that the provider took back is good for no longer.
func (a *Authenticator) keep(key string, got *granted, end, now time.Time) {
	if got.life > 0 && now.Add(got.life).Before(end) {
		end = now.Add(got.life)
	}
	until := end.Add(-margin(end.Sub(now)))
	if most := now.Add(a.config.MaxAge); most.Before(until) {
		until = most
	}
	if now.Before(until) {
		a.good.Put(key, got.token, len(got.token), until)
	}
}

// margin is how long before its end a token is not used any more: it has a way to go
// to the upstream, and clocks differ.
func margin(life time.Duration) time.Duration { return min(life/10, 30*time.Second) }

// CredentialHeaders returns the two headers.
func (a *Authenticator) CredentialHeaders() []string {
	return []string{a.config.ClientIDHeader, a.config.ClientSecretHeader}
}

// AssertedHeaders returns the two headers, which are never taken: whatever a route
// forwards, no upstream has business with a secret that gets tokens for every service.
func (a *Authenticator) AssertedHeaders() []string { return a.CredentialHeaders() }

// Challenge names the scheme and where the credentials belong. There is no registered
// scheme for them, and a 401 must have a challenge (RFC 9110 section 15.5.2).
func (a *Authenticator) Challenge(err error) string {
	if errors.Is(err, authn.ErrInsufficientScope) {
		return ""
	}
	return `ClientCredentials realm="` + a.config.Realm + `", id="` + a.config.ClientIDHeader + `", secret="` + a.config.ClientSecretHeader + `"`
}

// Run keeps the key set fresh until ctx ends, and returns nil then.
func (a *Authenticator) Run(ctx context.Context) error {
	defer a.provider.client.Close()
	return a.tokens.Run(ctx)
}

// Prime fetches the key set and asks where the token endpoint is. An error is no
// reason not to start: until the provider is there, its clients get
// authn.ErrUnavailable.
func (a *Authenticator) Prime(ctx context.Context) error {
	_, err := a.provider.endpoint(ctx)
	return errors.Join(err, a.tokens.Prime(ctx))
}

// Files returns the files that Reload reads.
func (a *Authenticator) Files() []string {
	if a.config.CAFile != "" && a.config.JWKSFile != "" {
		return []string{a.config.CAFile, a.config.JWKSFile}
	}
	return a.tokens.Files()
}

// Reload reads the files again. What could not be read stays as it was.
func (a *Authenticator) Reload(ctx context.Context) error {
	return errors.Join(a.provider.client.Reload(), a.tokens.Reload(ctx))
}
