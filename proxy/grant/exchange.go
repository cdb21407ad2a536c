package grant

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/tokencache"
	"github.com/sallyport/sallyport/proxy/problem"
)

const (
	grantExchange = "urn:ietf:params:oauth:grant-type:token-exchange"
	typeAccess    = "urn:ietf:params:oauth:token-type:access_token"
	typeJWT       = "urn:ietf:params:oauth:token-type:jwt"

	// refusedFor is how long a refusal is remembered: a provider is not asked again
	// for each request of a caller who may not.
	refusedFor = 5 * time.Second
	maxCache   = 64 << 20 // bytes
)

// Exchanger exchanges callers' tokens (RFC 8693). It is safe for concurrent use.
type Exchanger struct {
	*asker
	config ExchangeConfig
	cache  *tokencache.Cache[outcome]
	flight singleflight.Group
}

type outcome struct {
	token string
	err   error // a refusal
}

// NewExchanger makes an exchanger. It reads the files of c and asks nobody. now is
// the clock; nil: time.Now.
func NewExchanger(c ExchangeConfig, deps Deps) (*Exchanger, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if c.CacheSize == 0 {
		c.CacheSize = DefaultExchange().CacheSize
	}
	a, err := newAsker(c.Endpoint, deps, exchanges)
	if err != nil {
		return nil, err
	}
	return &Exchanger{asker: a, config: c, cache: tokencache.New[outcome](c.CacheSize, maxCache)}, nil
}

// Token returns a token for the upstream in exchange for subject, which stands for
// id. By is what the policy obliges to, nil if the route alone asks for the
// exchange. A policy that asks for more than it may is a *authz.Fault.
func (x *Exchanger) Token(ctx context.Context, subject string, id *authz.Identity, by *authz.TokenExchange) (string, error) {
	if subject == "" || !id.Authenticated {
		return "", fmt.Errorf("the caller has no token to exchange: %w", authn.ErrNoCredential)
	}
	audience, scopes, err := x.bounds(id, by)
	if err != nil {
		return "", err
	}
	key := strings.Join([]string{subject, audience, strings.Join(scopes, " ")}, "\x00")
	if o, ok := x.cache.Get(key, x.now()); ok {
		return o.token, o.err
	}
	return x.share(ctx, key, func(ctx context.Context) (string, error) {
		if o, ok := x.cache.Get(key, x.now()); ok { // since we looked
			return o.token, o.err
		}
		return x.exchange(ctx, key, subject, audience, scopes, id)
	})
}

// share has all who ask for the same at a time wait for one answer. Who gives up
// does not take it from the others.
func (x *Exchanger) share(ctx context.Context, key string, get func(context.Context) (string, error)) (string, error) {
	done := x.flight.DoChan(key, func() (any, error) { return get(context.WithoutCancel(ctx)) })
	select {
	case r := <-done:
		token, _ := r.Val.(string)
		return token, r.Err
	case <-ctx.Done():
		return "", fmt.Errorf("exchange a token: %w", ctx.Err())
	}
}

// bounds returns what is asked for. It is never wider than what the caller has.
func (x *Exchanger) bounds(id *authz.Identity, by *authz.TokenExchange) (audience string, scopes []string, err error) {
	audience, scopes = x.config.Audience, slices.Clone(x.config.Scopes)
	held := func(s string) bool { return silent(id) || slices.Contains(id.Scopes, s) }
	if by != nil && by.Audience != "" && by.Audience != audience {
		if !slices.Contains(x.config.Audiences, by.Audience) {
			return "", nil, faultf("upstream.token_exchange.audience: %q is none of the exchange's audiences", by.Audience)
		}
		audience = by.Audience
	}
	if by != nil && by.Scope != "" {
		if scopes = strings.Fields(by.Scope); len(scopes) == 0 { // the provider would take it for its default
			return "", nil, faultf("upstream.token_exchange.scope: %q names no scope", by.Scope)
		}
		for _, s := range scopes {
			if !held(s) {
				return "", nil, faultf("upstream.token_exchange.scope: the caller does not have %q", s)
			}
		}
	} else if scopes = slices.DeleteFunc(scopes, func(s string) bool { return !held(s) }); len(scopes) == 0 && len(x.config.Scopes) > 0 {
		return "", nil, fmt.Errorf("none of %q to ask for: %w", x.config.Scopes, authn.ErrInsufficientScope)
	}
	slices.Sort(scopes)
	return audience, slices.Compact(scopes), nil
}

// silent reports whether nothing is known of the scopes of a caller's token, so that
// only the provider can tell. A token that says that it has none is not silent.
func silent(id *authz.Identity) bool {
	_, scope := id.Claims["scope"]
	_, scp := id.Claims["scp"]
	return len(id.Scopes) == 0 && !scope && !scp
}

func faultf(format string, args ...any) *authz.Fault {
	return &authz.Fault{Kind: authz.FaultUnsupported, Detail: fmt.Sprintf(format, args...)}
}

func (x *Exchanger) exchange(ctx context.Context, key, subject, audience string, scopes []string, id *authz.Identity) (string, error) {
	params := url.Values{
		"grant_type": {grantExchange}, "subject_token": {subject}, "subject_token_type": {typeAccess},
		"requested_token_type": {typeAccess},
	}
	if audience != "" {
		params.Set("audience", audience)
	}
	begin := x.now()
	g, err := x.ask(ctx, scopes, params)
	if err == nil {
		err = x.confirm(g, scopes)
	}
	x.count.of(err).Add(1)
	if err != nil {
		if errors.Is(err, problem.ErrTokenRefused) {
			x.cache.Put(key, outcome{err: err}, 256, begin.Add(refusedFor))
		}
		return "", err
	}
	until := g.until.Add(-margin(g.until.Sub(begin)))
	if !id.ExpiresAt.IsZero() && id.ExpiresAt.Before(until) {
		until = id.ExpiresAt
	}
	x.cache.Put(key, outcome{token: g.token}, len(g.token), until)
	return g.token, nil
}

// confirm refuses a token that is of another kind or wider than what was asked for.
func (x *Exchanger) confirm(g *granted, scopes []string) error {
	if g.kind != "" && g.kind != typeAccess && g.kind != typeJWT {
		return fmt.Errorf("exchange at %s: %w: it issued a token of type %.64q", x.endpoint.URL, problem.ErrNoToken, g.kind)
	}
	for _, s := range g.scopes {
		if len(scopes) > 0 && !slices.Contains(scopes, s) {
			return fmt.Errorf("exchange at %s: %w: it granted scope %.64q, which was not asked for", x.endpoint.URL, problem.ErrNoToken, s)
		}
	}
	return nil
}
