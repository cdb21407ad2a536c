package keyring

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/metric"
	"golang.org/x/time/rate"

	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/jose"
)

const (
	// A token whose key is unknown may cause a fetch, because the issuer may have
	// a new key: three at once and then one per interval, whatever is sent.
	demandBurst    = 3
	demandInterval = 10 * time.Second
	// unknownFor is how long a kid that a fetch did not bring causes no further one.
	unknownFor = 10 * time.Second
	maxUnknown = 1024
	maxKid     = 256 // bytes; longer ones are not remembered
	// demandWait bounds how long a request waits for a fetch.
	demandWait = 2 * time.Second
)

// Source says whose keys they are and where they are had.
type Source struct {
	// Issuer is whose keys they are. Without File and URL its metadata say where the set is
	// (OpenID Connect Discovery 1.0 section 4).
	Issuer string
	// File holds a key set, or a single key.
	File string
	URL  string
	// CAFile has the PEM certificates that the server is verified with instead of the
	// system's.
	CAFile string
	// TokenFile has a bearer token for a URL that is not public.
	TokenFile string
	// InsecureHTTP allows metadata to name an http:// URL.
	InsecureHTTP bool
	// Secrets allows shared secrets in File.
	Secrets bool
	// TrustBundle says that it is the bundle of a SPIFFE trust domain.
	TrustBundle bool
	// RefreshInterval is the time between two fetches.
	RefreshInterval time.Duration
}

// same reports whether the keys of s and o come from the same place.
func (s Source) same(o Source) bool {
	s.RefreshInterval = o.RefreshInterval
	return s == o
}

// Deps is what a Ring uses of the process. The zero value logs and counts nothing.
type Deps struct {
	Logger *slog.Logger
	Meter  metric.Meter
	Now    func() time.Time // the clock of fetches
}

// Ring holds the newest good key set of an issuer and gets newer ones: in intervals, with
// backoff while the issuer is down, and on demand of a token with an unknown key. One
// goroutine, in Run, does all that while serving. It is safe for concurrent use.
type Ring struct {
	source  Source
	load    func(context.Context) ([]byte, error)
	fetcher *fetcher // nil for a file, which is not worth asking again
	now     func() time.Time
	logger  *slog.Logger
	fetches func(ctx context.Context, outcome string)

	current  atomic.Pointer[jose.KeySet]
	fetching sync.Mutex    // held during a fetch
	wake     chan struct{} // asks run for a fetch before its time

	mu       sync.Mutex
	demand   *rate.Limiter
	unknown  map[string]time.Time // kid: until when it causes no fetch
	inflight chan struct{}        // closed when the fetch that is going on ends; nil if none
	next     chan struct{}        // closed when the fetch after that ends; non-nil once asked for
	failures int                  // since the last good fetch
	lastErr  error
	fetched  time.Time // last good fetch
}

// New makes the ring of the authenticator that the configuration calls name. It reads a
// file, and an unreadable one is an error; it fetches nothing: that is for Prime and Run.
func New(name string, s Source, deps Deps) (*Ring, error) {
	fetches, err := newFetchCounter(deps.Meter, name)
	if err != nil {
		return nil, err
	}
	r := &Ring{
		source: s, now: deps.Now, logger: deps.Logger, fetches: fetches,
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
	r.logger = r.logger.With(slog.String("authenticator", name), slog.String("issuer", s.Issuer))
	if s.File != "" {
		r.load = func(context.Context) ([]byte, error) { return loadFile(s.File) }
		return r, r.refresh(context.Background())
	}
	if r.fetcher, err = newFetcher(s); err != nil {
		return nil, err
	}
	r.load = r.fetcher.load
	return r, nil
}

// Verify returns the key that signed t by one of the algorithms allowed. The error is
// authn.ErrInvalid or authn.ErrUnavailable.
func (r *Ring) Verify(ctx context.Context, t *jose.JWS, allowed map[string]jose.Algorithm) (*jose.Key, error) {
	if _, ok := allowed[t.Algorithm]; !ok {
		return nil, fmt.Errorf("%w: algorithm %.64q is not accepted", authn.ErrInvalid, t.Algorithm)
	}
	k, err := r.try(t, allowed)
	if !errors.Is(err, jose.ErrUnknownKey) {
		return k, err
	}
	asked, waiting := r.await(ctx, t.KeyID)
	k, err = r.try(t, allowed)
	switch {
	case !errors.Is(err, jose.ErrUnknownKey):
	case waiting != nil:
		return nil, fmt.Errorf("%w: %w: kid %.64q: %w", authn.ErrUnavailable, jose.ErrUnknownKey, t.KeyID, waiting)
	case asked:
		r.remember(t.KeyID)
	}
	return k, err
}

func (r *Ring) try(t *jose.JWS, allowed map[string]jose.Algorithm) (*jose.Key, error) {
	set := r.current.Load()
	if set == nil {
		return nil, fmt.Errorf("%w: %w: there is no key set yet: %w", authn.ErrUnavailable, jose.ErrUnknownKey, r.lastError())
	}
	k, err := set.Verify(t, allowed)
	switch {
	case err == nil:
		return k, nil
	case errors.Is(err, jose.ErrUnknownKey) && r.lastError() != nil:
		// It may be a new key, and we cannot know.
		return nil, fmt.Errorf("%w: %w: kid %.64q: %w", authn.ErrUnavailable, err, t.KeyID, r.lastError())
	}
	return nil, fmt.Errorf("%w: kid %.64q: %w", authn.ErrInvalid, t.KeyID, err)
}

func (r *Ring) lastError() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lastErr == nil && r.current.Load() == nil {
		return errors.New("it was not fetched so far")
	}
	return r.lastErr
}

// await waits for a fetch on behalf of a token with an unknown kid, if one may
// be had, and reports whether one ended. On error one is still going on, and it may
// bring kid; without a fetch there is no error, or made-up kids that use up what may be
// fetched would make everybody unsure.
func (r *Ring) await(ctx context.Context, kid string) (bool, error) {
	round := r.ask(kid)
	if round == nil {
		return false, nil
	}
	timeout := time.NewTimer(demandWait)
	defer timeout.Stop()
	select {
	case <-round:
		return true, nil
	case <-timeout.C:
		return false, fmt.Errorf("the fetch of the key set has not ended after %s", demandWait)
	case <-ctx.Done():
		return false, context.Cause(ctx)
	}
}

// ask returns what is closed when a fetch ended that may bring kid; nil if none
// is to be made for it.
func (r *Ring) ask(kid string) <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	switch {
	case r.fetcher == nil:
		return nil
	case r.current.Load() == nil:
		return r.inflight // the first one; between two attempts there is none to wait for
	case now.Before(r.unknown[kid]):
		return nil
	case r.next != nil:
		return r.next
	case r.inflight != nil:
		return r.inflight
	case !r.demand.AllowN(now, 1):
		return nil
	}
	r.next = make(chan struct{})
	select {
	case r.wake <- struct{}{}:
	default:
	}
	return r.next
}

// remember keeps that a fetch did not bring kid.
func (r *Ring) remember(kid string) {
	if len(kid) > maxKid {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.unknown) >= maxUnknown {
		clear(r.unknown)
	}
	r.unknown[kid] = r.now().Add(unknownFor)
}

// refresh gets the key set once. On error the old one stays.
func (r *Ring) refresh(ctx context.Context) error {
	r.fetching.Lock()
	defer r.fetching.Unlock()
	return r.fetch(ctx)
}

// Prime gets the key set once, if there is none, also when somebody else is at it. An
// error is no reason not to start: until the keys are there, Verify is
// authn.ErrUnavailable.
func (r *Ring) Prime(ctx context.Context) error {
	r.fetching.Lock()
	defer r.fetching.Unlock()
	if r.current.Load() != nil {
		return nil
	}
	return r.fetch(ctx)
}

func (r *Ring) fetch(ctx context.Context) error {
	done := r.begin()
	data, err := r.load(ctx)
	var set *jose.KeySet
	switch {
	case err != nil:
	case r.source.TrustBundle:
		set, err = jose.ParseTrustBundle(data)
	default:
		set, err = jose.ParseKeySet(data, r.source.Secrets && r.fetcher == nil)
	}
	switch {
	case err == nil:
		r.install(ctx, set)
	case r.source.File != "":
		err = fmt.Errorf("%s: %w", r.source.File, err)
	}
	r.end(ctx, done, err)
	return err
}

func (r *Ring) begin() chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	done := r.next
	if done == nil {
		done = make(chan struct{})
	}
	r.inflight, r.next = done, nil
	return done
}

func (r *Ring) end(ctx context.Context, done chan struct{}, err error) {
	r.mu.Lock()
	r.inflight, r.lastErr = nil, err
	if err == nil {
		r.failures, r.fetched = 0, r.now()
	} else {
		r.failures++
	}
	r.mu.Unlock()
	close(done)
	if err == nil {
		r.fetches(ctx, "ok")
		return
	}
	r.fetches(ctx, "error")
	if ctx.Err() == nil {
		r.logger.WarnContext(ctx, "key set was not renewed", slog.Any("error", err), slog.Bool("have_keys", r.current.Load() != nil))
	}
}

// install makes set the current one and ends the keys that it no longer has.
func (r *Ring) install(ctx context.Context, set *jose.KeySet) {
	prev := r.current.Load()
	gone := set.Succeed(prev)
	r.current.Store(set)
	for _, k := range gone {
		k.Retire()
	}
	if prev == nil || len(gone) > 0 || set.Len() != prev.Len() {
		r.logger.InfoContext(ctx, "key set is in force", slog.Int("keys", set.Len()),
			slog.Int("removed", len(gone)), slog.Any("ignored", set.Ignored))
	}
}
