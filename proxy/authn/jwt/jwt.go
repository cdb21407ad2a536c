package jwt

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/metric"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/engine/meter"
	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/dpop"
	"github.com/sallyport/sallyport/proxy/authn/jose"
	"github.com/sallyport/sallyport/proxy/authn/keyring"
	"github.com/sallyport/sallyport/proxy/authn/limit"
)

// Deps is what an Authenticator uses of the process. The zero value logs and
// counts nothing.
type Deps struct {
	Logger  *slog.Logger
	Meter   metric.Meter
	Metrics *meter.Registry
	Now     func() time.Time // the clock of fetches; tokens are judged by Request.Now
}

// Authenticator accepts the tokens of one issuer. It is safe for concurrent use.
type Authenticator struct {
	config  Config
	rules   *rules
	allowed map[string]jose.Algorithm
	cache   *cache
	foreign *foreign
	flights *flights
	limiter *limit.Limiter
	keys    *keyring.Ring
	// possession is what tokens that are bound ask of their senders.
	possession *Possession
	openers    atomic.Pointer[[]*jose.DecryptionKey]
	split      *splitter // nil: clients have whole tokens

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
		config: c, rules: newRules(name, c), cache: newCache(c.CacheSize, int(c.CacheBytes)), foreign: newForeign(c.CacheSize),
		flights: newFlights(), allowed: make(map[string]jose.Algorithm, len(c.Algorithms)),
	}
	for _, alg := range c.Algorithms {
		a.allowed[alg], _ = jose.AlgorithmOf(alg)
	}
	err := a.loadOpeners()
	if err != nil {
		return nil, err
	}
	if a.limiter, err = limit.New(c.VerificationLimit); err != nil {
		return nil, err
	}
	proofs, err := dpop.New(c.DPoP, c.Leeway, dpop.Deps{Name: name, Metrics: deps.Metrics})
	if err != nil {
		return nil, fmt.Errorf("dpop: %w", err)
	}
	a.possession = &Possession{Realm: c.Realm, Proofs: proofs, Limiter: a.limiter}
	if a.split, err = newSplitter(c.SplitToken, a.allowed, newLookups(name, deps.Metrics)); err != nil {
		return nil, err
	}
	if a.verified, err = newVerificationCounter(deps.Meter, name); err != nil {
		return nil, err
	}
	if a.keys, err = keyring.New(name, c.source(), deps.keyring()); err != nil {
		return nil, err
	}
	return a, nil
}

func (d Deps) keyring() keyring.Deps {
	return keyring.Deps{Logger: d.Logger, Meter: d.Meter, Now: d.Now}
}

// Authenticate returns the identity of the token in the Authorization header.
// Tokens that it has accepted before cost a look into the cache, and those that
// are bound to a key the check of a proof.
func (a *Authenticator) Authenticate(ctx context.Context, r *authn.Request) (*authz.Identity, error) {
	token, proven, err := Credential(r.Authorization)
	if err != nil {
		return nil, err
	}
	e, err := a.accept(ctx, r, token)
	if err == nil {
		err = a.possession.Check(ctx, r, e.bound, token, proven)
	}
	if err != nil {
		return nil, Proven(err, proven)
	}
	if r.Token = e.joined; r.Token == "" {
		r.Token = token
	}
	return e.identity, nil
}

// accept returns what is known of a good token.
func (a *Authenticator) accept(ctx context.Context, r *authn.Request, token string) (*entry, error) {
	h := r.Hash(token)
	if a.foreign.has(token, h) { // before the cache, which has no such token and costs more to ask
		return nil, errForeignAgain
	}
	if e := a.cache.get(token, h, r.Now); e != nil {
		return e, nil
	}
	return a.flights.do(ctx, token, r.Now, func() (*entry, error) {
		if e := a.cache.get(token, h, r.Now); e != nil { // since we looked
			return e, nil
		}
		if openers := *a.openers.Load(); len(openers) > 0 && jose.IsJWE(token) {
			return a.unseal(ctx, token, openers, r)
		}
		if a.split.takes(token) {
			return a.complete(ctx, token, r)
		}
		return a.verify(ctx, presented{token: token, text: token}, r.Client, r.Now)
	})
}

// unseal verifies the token inside an encrypted one. To decrypt costs as much as to
// verify, and everybody can encrypt: whatever is found bad counts.
func (a *Authenticator) unseal(ctx context.Context, token string, keys []*jose.DecryptionKey, r *authn.Request) (*entry, error) {
	s, err := jose.ParseJWE(token)
	if err != nil {
		return nil, fmt.Errorf("%w: %w: %w", authn.ErrInvalid, authn.ErrMalformed, err)
	}
	if err := a.limiter.Allow(r.Client, r.Now); err != nil {
		a.verified(ctx, outcomeLimited)
		return nil, err
	}
	inside, err := s.Open(keys)
	if err != nil { // another authenticator may have the key
		a.limiter.Charge(r.Client, r.Now)
		return nil, fmt.Errorf("%w: kid %.64q: %w", authn.ErrForeign, s.KeyID, err)
	}
	e, err := a.verify(ctx, presented{token: token, text: inside}, r.Client, r.Now)
	if (errors.Is(err, authn.ErrInvalid) || errors.Is(err, authn.ErrForeign)) && !errors.Is(err, authn.ErrSignature) { // that is charged already
		a.limiter.Charge(r.Client, r.Now)
	}
	return e, err
}

// presented is a token and the JWT that it stands for.
type presented struct {
	token  string // as the client sent it; what is found out is kept under it
	text   string // signed: token itself, what was encrypted in it, or what it is the signature of
	joined bool   // token is the signature of text
}

// verify checks a token from the beginning and keeps the result. What costs
// little comes first: a token that is refused for its claims, as an expired one
// is, has no signature checked.
func (a *Authenticator) verify(ctx context.Context, p presented, client string, now time.Time) (*entry, error) {
	t, claims, err := a.read(p.token, p.text)
	if err != nil {
		return nil, err
	}
	id, err := a.rules.check(t, claims, now)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", authn.ErrInvalid, err)
	}
	bound, err := BindingOf(claims)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", authn.ErrInvalid, err)
	}
	k, err := a.vouch(ctx, t, client, now)
	if err != nil {
		return nil, err
	}
	e := &entry{token: p.token, until: id.ExpiresAt.Add(a.rules.leeway), key: k, identity: id, bound: bound}
	if p.joined {
		e.joined = p.text
		if end := now.Add(a.split.config.MaxAge); end.Before(e.until) {
			e.until = end
		}
	}
	if !id.ExpiresAt.IsZero() { // else nothing says how long to keep it, and nothing was verified
		a.cache.put(e)
	}
	return e, nil
}

// verifySignature returns the key that signed t. Nothing that t says is true
// before.
func (a *Authenticator) verifySignature(ctx context.Context, t *jose.JWS, client string, now time.Time) (*jose.Key, error) {
	if err := a.limiter.Allow(client, now); err != nil {
		a.verified(ctx, outcomeLimited)
		return nil, err
	}
	k, err := a.keys.Verify(ctx, t, a.allowed)
	switch {
	case errors.Is(err, authn.ErrSignature):
		a.limiter.Charge(client, now)
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
func (a *Authenticator) read(token, text string) (*jose.JWS, map[string]any, error) {
	t, err := jose.ParseJWS(text)
	switch {
	case errors.Is(err, jose.ErrForm):
		return nil, nil, fmt.Errorf("%w: %w: %w", authn.ErrForeign, authn.ErrMalformed, err)
	case err != nil:
		return nil, nil, fmt.Errorf("%w: %w: %w", authn.ErrInvalid, authn.ErrMalformed, err)
	}
	claims, err := jose.Object(t.Payload)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w: claims: %w", authn.ErrInvalid, authn.ErrMalformed, err)
	}
	if err = a.rules.own(t, claims); errors.Is(err, authn.ErrForeign) {
		a.foreign.add(token, a.cache.hash(token))
	}
	if err != nil {
		return nil, nil, err
	}
	return t, claims, nil
}

// CredentialHeaders returns the header of proofs of possession, which are for the
// gateway alone, also beside another credential (authn.Carrier).
func (a *Authenticator) CredentialHeaders() []string { return []string{dpop.HeaderName} }

// Challenges returns the challenge of each scheme in which tokens may come; only
// that of the scheme that the credential came in names an error.
func (a *Authenticator) Challenges(err error) []string { return a.possession.Challenges(err) }

// Challenge returns the Bearer challenge of RFC 6750 section 3.
func (a *Authenticator) Challenge(err error) string {
	return authn.BearerChallenge(a.config.Realm, err)
}
