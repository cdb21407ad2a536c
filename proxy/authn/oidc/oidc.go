package oidc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/engine/meter"
	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/jwt"
	"github.com/sallyport/sallyport/proxy/session"
)

// Deps is what an Authenticator uses of the process. The zero value logs and counts
// nothing.
type Deps struct {
	Logger  *slog.Logger
	Metrics *meter.Registry
	Now     func() time.Time // nil: time.Now; requests are judged by their own time
}

// Authenticator has people log in at one provider. It is safe for concurrent use.
type Authenticator struct {
	name     string
	config   Config
	origins  *origins
	internal map[string]location // as newInternal made it
	provider *provider
	verifier *jwt.Verifier
	client   *client
	keys     *session.Keys
	store    session.Store
	flows    *session.Cookies
	look     atomic.Pointer[look]
	logger   *slog.Logger
	count    counters
}

// New makes an authenticator that the configuration calls name. It reads the files of
// c, and an unreadable one is an error; it asks nobody: that is for Prime and Run.
func New(name string, c Config, deps Deps) (*Authenticator, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if c = c.filled(); c.DisplayName == "" {
		c.DisplayName = name
	}
	if deps.Logger == nil {
		deps.Logger = slog.New(slog.DiscardHandler)
	}
	if deps.Now == nil {
		deps.Now = time.Now
	}
	domain := "" // for the cookie of a login, which comes back to its own host
	if c.RedirectOrigin != "" {
		domain = c.Session.CookieDomain
	}
	a := &Authenticator{
		name: name, config: c, origins: newOrigins(c), internal: newInternal(c), flows: session.NewCookies("login-"+name, domain), count: newCounters(deps.Metrics, name),
		logger: deps.Logger.With(slog.String("authenticator", name), slog.String("issuer", c.Issuer)),
	}
	l, err := newLook(c.Pages)
	if err != nil {
		return nil, err
	}
	a.look.Store(l)
	if a.keys, err = session.NewKeys(c.Session.KeysFiles); err != nil {
		return nil, err
	}
	if a.store, err = session.Open(name, c.Session, a.keys, session.Deps{Logger: a.logger, Now: deps.Now, Ended: a.release}); err != nil {
		return nil, err
	}
	if a.provider, err = newProvider(c, deps.Now); err != nil {
		return nil, err
	}
	if a.client, err = newClient(c, a.provider, deps.Now); err != nil {
		return nil, err
	}
	a.verifier, err = jwt.NewVerifier(name, c.source(), jwt.Deps{Logger: deps.Logger, Now: deps.Now})
	return a, err
}

// errNoSession is "not mine" without an allocation: most requests that get here come
// without a session.
var errNoSession = fmt.Errorf("%w: no session", authn.ErrNotMine)

// Authenticate returns the identity of the request's session. An access token that
// has ended is renewed first.
func (a *Authenticator) Authenticate(ctx context.Context, r *authn.Request) (*authz.Identity, error) {
	seen := a.seen(r)
	defer r.Take(seen)
	return a.authenticate(ctx, seen)
}

func (a *Authenticator) authenticate(ctx context.Context, r *authn.Request) (*authz.Identity, error) {
	s, err := a.load(ctx, r)
	switch {
	case errors.Is(err, session.ErrNone):
		return nil, errNoSession
	case err != nil:
		return nil, fmt.Errorf("%w: session: %w", authn.ErrUnavailable, err)
	case foreign(r):
		return nil, fmt.Errorf("%w: another site had the browser send the request", errNoSession)
	}
	if s.RefreshToken != "" && ended(s, r.Now) {
		next, err := a.store.Renew(ctx, r, s, a.renew)
		switch {
		case errors.Is(err, session.ErrNone):
			return nil, errNoSession
		case errors.Is(err, session.ErrUnreachable):
			return nil, fmt.Errorf("%w: session: %w", authn.ErrUnavailable, err)
		case err != nil:
			a.count.unavailable.Add(1) // the session goes on until it ends, without an access token
		default:
			s = next
		}
	} else if err := a.store.Touch(ctx, r, s); err != nil {
		return nil, fmt.Errorf("%w: session: %w", authn.ErrUnavailable, err)
	}
	if !ended(s, r.Now) {
		r.Token = s.AccessToken
	}
	r.IDToken = s.IDToken
	return s.Identity(a.identity), nil
}

// load returns the session of a request that this provider gave this client. One from
// before the configuration named another is over: its tokens are for nobody here, and
// the provider that came after must not be shown them.
func (a *Authenticator) load(ctx context.Context, r *authn.Request) (*session.Session, error) {
	s, err := a.store.Load(ctx, r)
	if err == nil && s.Identity(a.identity) == nil {
		return nil, fmt.Errorf("%w: it is of another provider or client", session.ErrNone)
	}
	return s, err
}

// own reports whether a session is of this provider and this client.
func (a *Authenticator) own(s *session.Session) bool {
	return s.Issuer == a.config.Issuer && a.checkAudience(s.Claims) == nil
}

// early is how long before its end an access token is renewed: it is still to be
// used by the upstream.
const early = 10 * time.Second

func ended(s *session.Session, now time.Time) bool {
	return s.AccessEnds != 0 && now.Add(early).Unix() >= s.AccessEnds
}

// identity is what the policy sees of a session; nil if it is not ours.
func (a *Authenticator) identity(s *session.Session) *authz.Identity {
	if !a.own(s) {
		return nil
	}
	id := &authz.Identity{
		Authenticated: true, Authenticator: a.name, Kind: Kind, Subject: s.Subject, Issuer: s.Issuer, Claims: s.Claims,
		Scopes: s.Scopes, ExpiresAt: s.Ends(a.config.Session.Lifetime),
	}
	id.Audiences, _ = jwt.Strings(s.Claims, "aud") // it was checked at the login
	return id
}

// Challenge returns the challenge for those who cannot be redirected.
func (a *Authenticator) Challenge(err error) string { return authn.BearerChallenge("sallyport", err) }

// Endpoints implements authn.Server.
func (a *Authenticator) Endpoints() []authn.Endpoint {
	serve := []server{a.callback, a.login, a.logout, a.frontChannel, a.backChannel}
	out := make([]authn.Endpoint, len(serve))
	for i, path := range a.paths() {
		out[i] = authn.Endpoint{Path: path, Hosts: a.config.hosts(), Serve: a.asSeen(serve[i])}
		if path == a.config.BackChannelLogoutPath {
			out[i].Hosts = nil // the provider may know the gateway by another name
		}
	}
	if c := a.config.SharedSignals; c != nil {
		out = append(out, authn.Endpoint{Path: c.Path, Serve: a.securityEvents})
	}
	return out
}

func (a *Authenticator) paths() []string {
	c := &a.config
	return []string{c.RedirectPath, c.LoginPath, c.LogoutPath, c.FrontChannelLogoutPath, c.BackChannelLogoutPath}
}

// Run keeps metadata and key set fresh until ctx ends, and returns nil then.
func (a *Authenticator) Run(ctx context.Context) error {
	defer a.provider.client.Close()
	if s, ok := a.store.(*session.Shared); ok {
		defer s.Retire()
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { a.provider.run(ctx); return nil })
	g.Go(func() error { return a.verifier.Run(ctx) })
	return g.Wait()
}

// Prime asks the provider for its metadata and keys.
func (a *Authenticator) Prime(ctx context.Context) error {
	_, err := a.provider.metadata(ctx)
	return errors.Join(err, a.verifier.Prime(ctx))
}

// Files returns the files that Reload reads.
func (a *Authenticator) Files() []string {
	return slices.Concat(a.keys.Files(), a.storeFiles(), a.provider.client.Files(), a.client.files(), a.config.Pages.files())
}

func (a *Authenticator) storeFiles() []string {
	if s, ok := a.store.(*session.Shared); ok {
		return s.Files()
	}
	return nil
}

// Reload reads the files again. On error what was read before stays.
func (a *Authenticator) Reload(ctx context.Context) error {
	err := errors.Join(a.keys.Reload(), a.client.reload())
	if l, failed := newLook(a.config.Pages); failed == nil {
		a.look.Store(l)
	} else {
		err = errors.Join(err, failed)
	}
	if s, ok := a.store.(*session.Shared); ok {
		err = errors.Join(err, s.Reload())
	}
	if a.config.CAFile != "" || a.config.CertFile != "" {
		err = errors.Join(err, a.provider.client.Reload())
	}
	if a.config.CAFile != "" {
		err = errors.Join(err, a.verifier.Reload(ctx))
	}
	return err
}

// Inherit takes over what prev, the authenticator of this name in the configuration
// before, keeps in memory: a reload neither ends sessions nor brings back ended ones.
func (a *Authenticator) Inherit(prev *Authenticator) {
	a.keys.Adopt(prev.keys)
	next, ok := a.store.(*session.Browser)
	if old, was := prev.store.(*session.Browser); ok && was {
		next.Adopt(old)
	}
	if a.config.Issuer == prev.config.Issuer && a.config.CAFile == prev.config.CAFile && a.provider.aliases == prev.provider.aliases &&
		a.config.InsecureHTTP == prev.config.InsecureHTTP {
		a.provider.current.CompareAndSwap(nil, prev.provider.current.Load())
	}
}

// counters count what becomes of logins.
type counters struct {
	begun, done, refused, unavailable, renewed, ended, loggedOut *meter.Count
	revoked, unsupported, unrevoked                              *meter.Count
}

func newCounters(r *meter.Registry, name string) counters {
	if r == nil {
		r = meter.New()
	}
	logins := r.Counter("sallyport.logins", "{login}",
		"Logins by authenticator and outcome: begun, done, refused; sessions renewed, ended when renewal was refused, left as they are while the provider is unavailable, logged out.")
	of := func(outcome string) *meter.Count {
		return logins.With(meter.String("authenticator", name), meter.String("outcome", outcome))
	}
	revocations := r.Counter("sallyport.token.revocations", "{token}",
		"Tokens of sessions that ended by a logout, by authenticator and outcome: done when the provider revoked them, unsupported when it does not revoke such access tokens, failed.")
	revocation := func(outcome string) *meter.Count {
		return revocations.With(meter.String("authenticator", name), meter.String("outcome", outcome))
	}
	return counters{
		revoked: revocation("done"), unsupported: revocation("unsupported"), unrevoked: revocation("failed"),
		begun: of("begun"), done: of("done"), refused: of("refused"), unavailable: of("unavailable"), renewed: of("renewed"),
		ended: of("ended"), loggedOut: of("logged_out"),
	}
}
