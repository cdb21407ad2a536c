package introspection

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"go.opentelemetry.io/otel/metric"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/engine/meter"
	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/asking"
	"github.com/sallyport/sallyport/proxy/authn/dpop"
	"github.com/sallyport/sallyport/proxy/authn/jose"
	"github.com/sallyport/sallyport/proxy/authn/jwt"
	"github.com/sallyport/sallyport/proxy/authn/limit"
	"github.com/sallyport/sallyport/proxy/authn/tokencache"
)

// Deps is what an Authenticator uses of the process. The zero value logs and counts
// nothing.
type Deps struct {
	Logger  *slog.Logger
	Meter   metric.Meter
	Metrics *meter.Registry
}

// Authenticator accepts the tokens that one provider calls active. It is safe for
// concurrent use.
type Authenticator struct {
	name     string
	config   Config
	use      Use
	provider *provider
	reader   reader
	flights  asking.Flights[*entry]
	limiter  *limit.Limiter
	asked    questions
	// possession is what tokens that are bound ask of their senders.
	possession *jwt.Possession

	// Tokens that were refused are kept apart: a stranger can make as many as it
	// likes, and pushes out nothing but others of its own.
	good *tokencache.Cache[*entry]
	bad  *tokencache.Cache[error] // why
}

// entry is what was found out about a good token.
type entry struct {
	identity *authz.Identity
	bound    jwt.Binding
	token    string // that stands for the caller; empty: the one presented
}

// The tokens that were refused are many and small, and kept for seconds.
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
		name: name, config: c, reader: reader{config: c}, asked: newQuestions(name, deps.Metrics),
		good: tokencache.New[*entry](c.CacheSize, int(c.CacheBytes)),
		bad:  tokencache.New[error](maxRefused, maxRefusedBytes),
	}
	var err error
	if a.limiter, err = limit.New(c.QuestionLimit); err != nil {
		return nil, err
	}
	if a.possession, err = newPossession(name, c, deps); err != nil {
		return nil, err
	}
	if a.provider, err = newProvider(name, c); err != nil {
		return nil, err
	}
	if c.Format == formatJSON {
		return a, nil
	}
	a.reader.verifier, err = jwt.NewVerifier(name, c.source(), jwt.Deps{Logger: deps.Logger, Meter: deps.Meter})
	return a, err
}

// newPossession makes the rule for bound tokens. A forged proof costs no question, so
// that a client has as many as of forged signatures elsewhere, and a client whose
// questions are limited still proves what is in the cache.
func newPossession(name string, c Config, deps Deps) (*jwt.Possession, error) {
	forged := limit.Default()
	if c.QuestionLimit.Failures.Unlimited() {
		forged.Failures = c.QuestionLimit.Failures
	}
	l, err := limit.New(forged)
	if err != nil {
		return nil, err
	}
	proofs, err := dpop.New(c.DPoP, c.Leeway, dpop.Deps{Name: name, Metrics: deps.Metrics})
	if err != nil {
		return nil, fmt.Errorf("dpop: %w", err)
	}
	return &jwt.Possession{Realm: c.Realm, Proofs: proofs, Limiter: l}, nil
}

var (
	errForeign = fmt.Errorf("%w: a JWT; all_tokens would ask about it", authn.ErrForeign)
	errForm    = fmt.Errorf("%w: not the form of a bearer token (RFC 6750 section 2.1), or longer than %d bytes", authn.ErrInvalid, jose.MaxToken)
)

// Authenticate returns the identity of the token in the Authorization header. Tokens
// that were asked about before cost a look into the cache, and those that are bound to
// a key the check of a proof (RFC 9449 section 6.2).
func (a *Authenticator) Authenticate(ctx context.Context, r *authn.Request) (*authz.Identity, error) {
	token, proven, err := jwt.Credential(r.Authorization)
	if err != nil {
		return nil, err
	}
	if !a.config.AllTokens && jose.Compact(token) {
		return nil, jwt.Proven(errForeign, proven)
	}
	id, err := a.accept(ctx, token, proven, r)
	if err != nil {
		return nil, jwt.Proven(err, proven)
	}
	return id, nil
}

// accept returns the identity of a good token, which came with a proof or without.
func (a *Authenticator) accept(ctx context.Context, token string, proven bool, r *authn.Request) (*authz.Identity, error) {
	e, err := a.find(ctx, token, r)
	if err == nil {
		err = a.possession.Check(ctx, r, e.bound, token, proven)
	}
	if err != nil {
		return nil, err
	}
	if r.Token = e.token; r.Token == "" {
		r.Token = token
	}
	return e.identity, nil
}

// find returns what is known of a good token.
func (a *Authenticator) find(ctx context.Context, token string, r *authn.Request) (*entry, error) {
	if e, ok := a.good.Get(token, r.Now); ok {
		return e, nil
	}
	return a.introspect(ctx, token, r.Client, r.Now)
}

// introspect asks about a token that is not in the cache, once for all who wait for
// the answer. Each of them pays if the token is refused.
func (a *Authenticator) introspect(ctx context.Context, token, client string, now time.Time) (*entry, error) {
	if why, refused := a.bad.Get(token, now); refused {
		return nil, why
	}
	if !wellFormed(token) {
		return nil, errForm
	}
	if err := a.limiter.Allow(client, now); err != nil {
		return nil, err
	}
	token = strings.Clone(token) // it may belong to a connection's buffer, and the question may outlive the request
	e, err := a.flights.Ask(ctx, token, a.config.Timeout, func(ctx context.Context) (*entry, error) {
		err := authn.ErrUnavailable // of a panic
		defer func() { a.asked.of(err).Add(1) }()
		var e *entry
		e, err = a.answered(ctx, token, now)
		return e, err
	})
	if errors.Is(err, authn.ErrInvalid) {
		a.limiter.Charge(client, now)
	}
	return e, err
}

// answered asks and keeps the answer.
func (a *Authenticator) answered(ctx context.Context, token string, now time.Time) (*entry, error) {
	got, err := a.provider.ask(ctx, token)
	if err != nil {
		return nil, a.unavailable(err)
	}
	f, err := a.reader.read(ctx, got, now)
	var id *authz.Identity
	switch {
	case errors.Is(err, errInactive):
	case err != nil:
		return nil, a.unavailable(err)
	default:
		id, err = a.identityOf(f, now)
	}
	var bound jwt.Binding
	if err == nil {
		bound, err = bindingOf(f.members)
	}
	if err != nil {
		err = fmt.Errorf("%w: %w", authn.ErrInvalid, err)
		a.bad.Put(token, err, 0, now.Add(a.config.InactiveMaxAge))
		return nil, err
	}
	e := &entry{identity: id, bound: bound, token: f.token}
	a.keep(token, e, len(got.body), now)
	return e, nil
}

func (a *Authenticator) unavailable(err error) error {
	return fmt.Errorf("%w: ask %s: %w", authn.ErrUnavailable, a.config.URL, err)
}

// decoded is how many bytes a byte of JSON takes once it is decoded, about.
const decoded = 8

func (a *Authenticator) keep(token string, e *entry, size int, now time.Time) {
	until := now.Add(a.config.MaxAge)
	if end := e.identity.ExpiresAt; !end.IsZero() && end.Before(until) {
		until = end
	}
	if now.Before(until) {
		a.good.Put(token, e, decoded*size+len(e.token), until)
	}
}

// wellFormed reports whether token is a b64token (RFC 6750 section 2.1). What is none
// is not worth a question.
func wellFormed(token string) bool {
	text := strings.TrimRight(token, "=")
	if text == "" || len(token) > jose.MaxToken {
		return false
	}
	for i := range len(text) {
		c := text[i]
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && strings.IndexByte("-._~+/", c) < 0 {
			return false
		}
	}
	return true
}

// CredentialHeaders returns the header of proofs of possession, which are for the
// gateway alone, also beside another credential (authn.Carrier).
func (a *Authenticator) CredentialHeaders() []string { return []string{dpop.HeaderName} }

// Challenges returns the challenge of each scheme in which tokens may come.
func (a *Authenticator) Challenges(err error) []string { return a.possession.Challenges(err) }
