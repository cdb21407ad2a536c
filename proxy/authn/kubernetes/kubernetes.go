package kubernetes

import (
	"context"
	"errors"
	"fmt"
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

// Deps is what an Authenticator uses of the process. The zero value counts nothing.
type Deps struct {
	Meter metric.Meter
}

// Authenticator accepts the service account tokens of one cluster. It is safe for
// concurrent use.
type Authenticator struct {
	name    string
	config  Config
	server  *server
	asked   func(ctx context.Context, review, outcome string)
	limiter *limit.Limiter

	tokenFlights  asking.Flights[*entry]
	accessFlights asking.Flights[*authz.Identity]

	// Tokens that were refused, and those of others, are kept apart from the good
	// ones: a stranger can make as many as it likes, and pushes out nothing but others
	// of its own.
	good    *tokencache.Cache[*entry]
	access  *tokencache.Cache[*authz.Identity]
	refused *tokencache.Cache[struct{}]
	foreign *tokencache.Cache[struct{}]
}

// entry is what was found out about a good token.
type entry struct {
	identity *authz.Identity
	user     user
	until    time.Time
}

const (
	bytesPerToken = 8 << 10 // of memory, for each token that cache_size has room for
	maxStrange    = 16384
	strangeBytes  = 16 << 20
	foreignMaxAge = time.Hour // a token keeps its issuer; this only frees the memory
)

// New makes an authenticator that the configuration calls name. It reads the files of
// c, and an unreadable one is an error; it asks nobody.
func New(name string, c Config, deps Deps) (*Authenticator, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	a := &Authenticator{
		name: name, config: c,
		good:    tokencache.New[*entry](c.CacheSize, c.CacheSize*bytesPerToken),
		access:  tokencache.New[*authz.Identity](c.CacheSize, c.CacheSize*bytesPerToken),
		refused: tokencache.New[struct{}](maxStrange, strangeBytes),
		foreign: tokencache.New[struct{}](maxStrange, strangeBytes),
	}
	var err error
	if a.limiter, err = limit.New(c.QuestionLimit.Filled(limit.DefaultQuestions())); err != nil {
		return nil, err
	}
	if a.asked, err = newCounter(deps.Meter, name); err != nil {
		return nil, err
	}
	a.server, err = newServer(c)
	return a, err
}

var errStillRefused = fmt.Errorf("%w: it was refused a moment ago", authn.ErrInvalid)

// Authenticate returns the identity of the bearer token in the Authorization header.
// Tokens that were asked about before cost a look into the cache.
func (a *Authenticator) Authenticate(ctx context.Context, r *authn.Request) (*authz.Identity, error) {
	token, err := jwt.Bearer(r.Authorization)
	if err != nil {
		return nil, err
	}
	e, ok := a.good.Get(token, r.Now)
	if !ok {
		if e, err = a.identify(ctx, token, r); err != nil {
			return nil, err
		}
	}
	r.Token = token
	if a.config.AccessReview == nil {
		return e.identity, nil
	}
	return a.withAccess(ctx, e, token, r)
}

// identify finds out about a token that is not in the cache. Each of those who wait for
// an answer pays if it is a no.
func (a *Authenticator) identify(ctx context.Context, token string, r *authn.Request) (*entry, error) {
	client, now := r.Client, r.Now // the question may outlive the request
	if _, known := a.foreign.Get(token, now); known {
		return nil, errNotOurs
	}
	if _, known := a.refused.Get(token, now); known {
		return nil, errStillRefused
	}
	p, err := a.peek(token, now)
	if err != nil {
		if errors.Is(err, errNotOurs) {
			a.foreign.Put(token, struct{}{}, 0, now.Add(foreignMaxAge))
		}
		return nil, err
	}
	if err := a.limiter.Allow(client, now); err != nil {
		return nil, err
	}
	token = strings.Clone(token) // it may belong to a connection's buffer
	e, err := a.tokenFlights.Ask(ctx, token, a.config.Timeout, func(ctx context.Context) (*entry, error) {
		e, err := a.ask(ctx, token, p, now)
		a.asked(ctx, "token", outcomeOf(err))
		return e, err
	})
	if errors.Is(err, authn.ErrInvalid) {
		a.limiter.Charge(client, now)
	}
	return e, err
}

// ask asks about a token and keeps the answer.
func (a *Authenticator) ask(ctx context.Context, token string, p *peeked, now time.Time) (*entry, error) {
	s, err := a.reviewToken(ctx, token)
	var id *authz.Identity
	if err == nil {
		id, err = a.identityOf(s, p.expires)
	}
	switch {
	case errors.Is(err, authn.ErrInvalid):
		a.refused.Put(token, struct{}{}, 0, now.Add(a.config.RefusedMaxAge))
		return nil, err
	case err != nil:
		return nil, fmt.Errorf("%w: ask %s about a token: %w", authn.ErrUnavailable, a.config.APIServer, err)
	}
	e := &entry{identity: id, user: s.User, until: now.Add(a.config.CacheMaxAge)}
	if !p.expires.IsZero() {
		e.until = earlier(e.until, p.expires)
	}
	if now.Before(e.until) {
		a.good.Put(token, e, sizeOf(&e.user), e.until)
	}
	return e, nil
}

// sizeOf is how many bytes an answer takes, about.
func sizeOf(u *user) int {
	n := 1024 + 4*len(u.Name)
	for _, g := range u.Groups {
		n += 2 * len(g)
	}
	for k, values := range u.Extra {
		n += len(k) + len(strings.Join(values, ""))
	}
	return n
}

// Challenge returns the Bearer challenge of RFC 6750 section 3.
func (a *Authenticator) Challenge(err error) string {
	return authn.BearerChallenge(a.config.Realm, err)
}
