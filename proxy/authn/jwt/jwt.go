package jwt

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"go.opentelemetry.io/otel/metric"
	"golang.org/x/time/rate"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/authn"
)

// Deps is what an Authenticator uses of the process. The zero value logs and
// counts nothing.
type Deps struct {
	Logger *slog.Logger
	Meter  metric.Meter
	Now    func() time.Time // the clock of fetches; tokens are judged by Request.Now
}

// Authenticator accepts the tokens of one issuer. It is safe for concurrent use.
type Authenticator struct {
	config  Config
	rules   *rules
	allowed map[string]algorithm
	cache   *cache
	foreign *foreign
	flights *flights
	limiter *limiter
	keys    *keyring
	fetcher *fetcher // nil with jwks_file

	verified func(ctx context.Context, outcome string) // counts signatures checked
}

// New makes an authenticator that the configuration calls name. It reads the
// files of c, and an unreadable one is an error; it fetches nothing: that is for
// Prime and Run.
func New(name string, c Config, deps Deps) (*Authenticator, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	c = c.filled()
	a := &Authenticator{
		config: c, rules: newRules(name, c), cache: newCache(c.CacheSize), foreign: &foreign{},
		flights: newFlights(), allowed: make(map[string]algorithm, len(c.Algorithms)),
	}
	for _, alg := range c.Algorithms {
		a.allowed[alg], _ = algorithmOf(alg)
	}
	var err error
	if a.limiter, err = newLimiter(c.VerificationLimit); err != nil {
		return nil, err
	}
	if a.verified, err = newVerificationCounter(deps.Meter, name); err != nil {
		return nil, err
	}
	if a.keys, err = newKeyring(name, c, deps); err != nil {
		return nil, err
	}
	if c.JWKSFile != "" {
		a.keys.load = func(context.Context) ([]byte, error) { return loadFile(c.JWKSFile) }
		if err := a.keys.refresh(context.Background()); err != nil {
			return nil, err
		}
		return a, nil
	}
	if a.fetcher, err = newFetcher(c); err != nil {
		return nil, err
	}
	a.keys.load = a.fetcher.load
	return a, nil
}

func newKeyring(name string, c Config, deps Deps) (*keyring, error) {
	fetches, err := newFetchCounter(deps.Meter, name)
	if err != nil {
		return nil, err
	}
	r := &keyring{
		secrets: c.JWKSFile != "", remote: c.JWKSFile == "", interval: c.RefreshInterval,
		now: deps.Now, logger: deps.Logger, fetches: fetches,
		wake:    make(chan struct{}, 1),
		demand:  rate.NewLimiter(rate.Every(demandInterval), demandBurst),
		unknown: make(map[string]time.Time),
	}
	if r.now == nil {
		r.now = time.Now
	}
	if r.logger == nil {
		r.logger = slog.New(slog.DiscardHandler)
	}
	r.logger = r.logger.With(slog.String("authenticator", name), slog.String("issuer", c.Issuer))
	return r, nil
}

// Authenticate returns the identity of the bearer token in the Authorization
// header. Tokens that it has accepted before cost a look into the cache.
func (a *Authenticator) Authenticate(ctx context.Context, r *authn.Request) (*authz.Identity, error) {
	token, err := bearer(r.Authorization)
	if err != nil {
		return nil, err
	}
	h := a.cache.hash(token)
	e := a.cache.get(token, h, r.Now)
	switch {
	case e != nil:
	case a.foreign.has(token, h):
		return nil, errForeignAgain
	default:
		e, err = a.flights.do(ctx, token, r.Now, func() (*entry, error) {
			if e := a.cache.get(token, h, r.Now); e != nil { // since we looked
				return e, nil
			}
			return a.verify(ctx, token, r.Client, r.Now)
		})
		if err != nil {
			return nil, err
		}
	}
	if err := checkBinding(e.bound, r.TLS); err != nil {
		return nil, err
	}
	r.Token = token
	return e.identity, nil
}

var errNoToken = fmt.Errorf("%w: the Bearer scheme comes without a token", authn.ErrInvalid)

// bearer returns the token of an Authorization value (RFC 6750 section 2.1). The
// scheme is case-insensitive, and nothing is taken for a token without it.
func bearer(authorization string) (string, error) {
	scheme, token, _ := strings.Cut(authorization, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", authn.ErrNotMine
	}
	if token = strings.TrimLeft(token, " "); token == "" {
		return "", errNoToken
	}
	return token, nil
}

// verify checks a token from the beginning and keeps the result. What costs
// little comes first: a token that is refused for its claims, as an expired one
// is, has no signature checked.
func (a *Authenticator) verify(ctx context.Context, token, client string, now time.Time) (*entry, error) {
	t, claims, err := a.read(token)
	if err != nil {
		return nil, err
	}
	id, err := a.rules.check(t, claims, now)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", authn.ErrInvalid, err)
	}
	bound, err := bindingOf(claims)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", authn.ErrInvalid, err)
	}
	k, err := a.vouch(ctx, t, client, now)
	if err != nil {
		return nil, err
	}
	e := &entry{token: token, until: id.ExpiresAt.Add(a.rules.leeway), key: k, identity: id, bound: bound}
	a.cache.put(e)
	return e, nil
}

// verifySignature returns the key that signed t. Nothing that t says is true
// before.
func (a *Authenticator) verifySignature(ctx context.Context, t *compact, client string, now time.Time) (*key, error) {
	if err := a.limiter.allow(client, now); err != nil {
		a.verified(ctx, outcomeLimited)
		return nil, err
	}
	k, err := a.keys.verify(ctx, t, a.allowed)
	switch {
	case errors.Is(err, errSignature):
		a.limiter.charge(client, now)
		a.verified(ctx, outcomeFailed)
		return nil, err
	case err != nil:
		return nil, err
	}
	a.verified(ctx, outcomeVerified)
	return k, nil
}

// read takes the token apart and sees whether it is of our issuer. The issuer is
// the token's own word at this point: it chooses the keys that must confirm it.
func (a *Authenticator) read(token string) (*compact, map[string]any, error) {
	t, err := parseCompact(token)
	switch {
	case errors.Is(err, errForm):
		return nil, nil, fmt.Errorf("%w: %w: %w", authn.ErrForeign, authn.ErrMalformed, err)
	case err != nil:
		return nil, nil, fmt.Errorf("%w: %w: %w", authn.ErrInvalid, authn.ErrMalformed, err)
	}
	claims, err := decodeObject(t.payload)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w: claims: %w", authn.ErrInvalid, authn.ErrMalformed, err)
	}
	iss, ok := claims["iss"].(string)
	switch {
	case !ok:
		return nil, nil, fmt.Errorf("%w: iss is missing or not a string", authn.ErrInvalid)
	case iss != a.rules.issuer:
		a.foreign.add(token, a.cache.hash(token))
		return nil, nil, fmt.Errorf("%w: %w %.64q", authn.ErrForeign, authn.ErrIssuer, iss)
	}
	return t, claims, nil
}

// Challenge returns the Bearer challenge of RFC 6750 section 3.
func (a *Authenticator) Challenge(err error) string {
	return authn.BearerChallenge(a.config.Realm, err)
}
