// Package clientcredentials authenticates machines that cannot get a token by
// themselves: a caller sends its client identifier and secret in two headers, or a JWT
// that it signed in one, the gateway gets an access token for them at the provider (RFC
// 6749 section 4.4), and that token, verified like any other, says who the caller is.
// It owns the reading of the headers, the question, how long an answer counts, and how
// many questions may be under way.
//
// It exists for callers of gateways that did this before. Who can ask the provider
// itself should: a secret that goes to the gateway with every request is worth more to
// a thief than a token that ends.
//
// It verifies nothing of a token: that is for package jwt, or for package introspection
// where the provider's tokens say nothing by themselves. The gateway's own tokens
// for upstreams are those of package grant.
package clientcredentials

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"go.opentelemetry.io/otel/metric"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/engine/meter"
	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/asking"
	"github.com/sallyport/sallyport/proxy/authn/introspection"
	"github.com/sallyport/sallyport/proxy/authn/jwt"
	"github.com/sallyport/sallyport/proxy/authn/limit"
	"github.com/sallyport/sallyport/proxy/authn/tokencache"
)

// Kind is the key of this mechanism in the configuration.
const Kind = "client_credentials"

// Deps is what an Authenticator uses of the process. The zero value logs and counts
// nothing.
type Deps struct {
	Logger  *slog.Logger
	Meter   metric.Meter
	Metrics *meter.Registry
}

// verifier says whom a token of the provider stands for.
type verifier interface {
	authn.Runner
	authn.Primer
	authn.Reloader
	// AuthenticateToken leaves in r.Token what stands for the caller, if that is not the
	// token.
	AuthenticateToken(ctx context.Context, token string, r *authn.Request) (*authz.Identity, error)
}

// Authenticator accepts the clients that one provider knows. It is safe for concurrent
// use.
type Authenticator struct {
	config   Config
	provider *provider
	tokens   verifier
	flights  asking.Flights[string]
	limiter  *limit.Limiter
	asked    questions
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
		config: c, asked: newQuestions(name, deps.Metrics), good: tokencache.New[string](c.CacheSize, maxTokens(c.CacheSize)),
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
	a.tokens, err = newVerifier(name, c, deps)
	return a, err
}

func newVerifier(name string, c Config, deps Deps) (verifier, error) {
	if c.Introspection != nil {
		return introspection.NewCarried(name, c.introspected(), introspection.Use{Kind: Kind, Issuer: c.Issuer}, introspection.Deps{Logger: deps.Logger, Meter: deps.Meter, Metrics: deps.Metrics})
	}
	return jwt.NewCarried(name, c.tokens(), jwt.Use{Kind: Kind}, jwt.Deps{Logger: deps.Logger, Meter: deps.Meter})
}

// maxTokens bounds the bytes of a cache of so many tokens. Real ones have about 1 KiB.
func maxTokens(entries int) int { return max(4<<20, 4<<10*entries) }

var (
	errRefused = fmt.Errorf("%w: these credentials were refused a moment ago", authn.ErrInvalid)
	errExpired = fmt.Errorf("%w: the assertion %w", authn.ErrInvalid, authn.ErrExpired)
)

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

// accept returns what the token says. It is verified on each request, for which both
// verifiers have a cache.
func (a *Authenticator) accept(ctx context.Context, token string, r *authn.Request) (*authz.Identity, error) {
	r.Token = ""
	id, err := a.tokens.AuthenticateToken(ctx, token, r)
	if err != nil {
		return nil, fmt.Errorf("the provider's token: %w", err)
	}
	if r.Token == "" {
		r.Token = token
	}
	return id, nil
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
	if end := c.end(); !end.IsZero() && !r.Now.Before(end.Add(a.config.Leeway)) {
		return "", errExpired
	}
	// What belongs to the connection's buffer does not outlive the request; the question
	// may.
	own := c.clone()
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
	got, end, err := a.counted(ctx, c, r)
	switch {
	case errors.Is(err, authn.ErrInvalid):
		a.bad.Put(key, struct{}{}, 0, r.Now.Add(a.config.RefusedMaxAge))
		return "", err
	case errors.Is(err, authn.ErrUnavailable), errors.Is(err, authn.ErrTooMany):
		return "", err
	case err != nil:
		return "", fmt.Errorf("%w: get a token: %w", authn.ErrUnavailable, err)
	}
	a.keep(key, c, got, end, r.Now)
	return got.token, nil
}

// counted is get, counted.
func (a *Authenticator) counted(ctx context.Context, c credentials, r *authn.Request) (got *granted, end time.Time, err error) {
	err = authn.ErrUnavailable // of a panic
	defer func() { a.asked.of(err).Add(1) }()
	return a.get(ctx, c, r)
}

// get gets a token for a client, and returns when it ends by its own word; zero if it
// does not say.
func (a *Authenticator) get(ctx context.Context, c credentials, r *authn.Request) (*granted, time.Time, error) {
	got, err := a.provider.ask(ctx, c)
	if err != nil {
		return nil, time.Time{}, err
	}
	id, err := a.accept(ctx, got.token, r)
	if err != nil {
		return nil, time.Time{}, err
	}
	return got, id.ExpiresAt, nil
}

// keep remembers a token until shortly before its end, and for max_age at most: a
// secret that the provider took back is good for no longer. An assertion is good until
// its own end, and one of which that is not known for one question.
func (a *Authenticator) keep(key string, c credentials, got *granted, end, now time.Time) {
	if end.IsZero() { // nobody says
		end = now.Add(a.config.MaxAge)
	}
	if got.life > 0 && now.Add(got.life).Before(end) {
		end = now.Add(got.life)
	}
	until := end.Add(-margin(end.Sub(now)))
	if most := now.Add(a.config.MaxAge); most.Before(until) {
		until = most
	}
	if own := c.end(); c.assertion != "" && own.Before(until) {
		until = own
	}
	if now.Before(until) {
		a.good.Put(key, got.token, len(got.token), until)
	}
}

// margin is how long before its end a token is not used any more: it has a way to go
// to the upstream, and clocks differ.
func margin(life time.Duration) time.Duration { return min(life/10, 30*time.Second) }

// CredentialHeaders returns the headers in which clients send what they have.
func (a *Authenticator) CredentialHeaders() []string {
	headers := []string{a.config.ClientIDHeader, a.config.ClientSecretHeader}
	if h := a.config.ClientAssertionHeader; h != "" {
		headers = append(headers, h)
	}
	return headers
}

// AssertedHeaders returns these headers, which are never taken: whatever a route
// forwards, no upstream has business with what gets tokens for every service.
func (a *Authenticator) AssertedHeaders() []string { return a.CredentialHeaders() }

// Challenge names the scheme and where the credentials belong. There is no registered
// scheme for them, and a 401 must have a challenge (RFC 9110 section 15.5.2).
func (a *Authenticator) Challenge(err error) string {
	if errors.Is(err, authn.ErrInsufficientScope) {
		return ""
	}
	challenge := `ClientCredentials realm="` + a.config.Realm + `", id="` + a.config.ClientIDHeader + `", secret="` + a.config.ClientSecretHeader + `"`
	if h := a.config.ClientAssertionHeader; h != "" {
		challenge += `, assertion="` + h + `"`
	}
	return challenge
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
	files := append(a.provider.client.Files(), a.tokens.Files()...)
	slices.Sort(files)
	return slices.Compact(files)
}

// Reload reads the files again. What could not be read stays as it was.
func (a *Authenticator) Reload(ctx context.Context) error {
	return errors.Join(a.provider.client.Reload(), a.tokens.Reload(ctx))
}
