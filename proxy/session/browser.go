package session

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/sallyport/sallyport/proxy/authn"
)

const (
	maxRevoked = 1 << 18
	maxOnce    = 1 << 16
	maxKnown   = 1 << 16
	maxOpened  = 4096
)

// Deps is what a store uses of the process.
type Deps struct {
	Logger *slog.Logger
	Now    func() time.Time // nil: time.Now; requests are judged by their own time
	// Ended is handed the sessions that Revoke ended, as far as the store has them and
	// the browser has not: what they hold is nobody's from then on. Each is handed out
	// once. nil: nobody wants to know.
	Ended func(context.Context, []*Session)
}

func (d Deps) filled() Deps {
	if d.Logger == nil {
		d.Logger = slog.New(slog.DiscardHandler)
	}
	if d.Now == nil {
		d.Now = time.Now
	}
	if d.Ended == nil {
		d.Ended = func(context.Context, []*Session) {}
	}
	return d
}

// Browser is a Store that keeps sessions sealed in the browser's own cookies. What
// ended before its time is remembered in this process alone: replicas do not learn of
// it, and neither does the next process.
type Browser struct {
	name    string
	keys    *Keys
	cookies *Cookies
	limits  limits
	now     func() time.Time
	memory  *memory
	opened  *opened
}

// memory is what a Browser store keeps beside the cookies.
type memory struct {
	revoked, seen, known *ledger
	flights              *flights
}

// NewBrowser makes the store of the authenticator called name.
func NewBrowser(name string, c Config, keys *Keys, deps Deps) *Browser {
	deps = deps.filled()
	return &Browser{
		name: name, keys: keys, cookies: NewCookies(name, c.CookieDomain), limits: c.limits(), now: deps.Now,
		memory: &memory{
			revoked: newLedger(maxRevoked), seen: newLedger(maxOnce), known: newLedger(maxKnown), flights: newFlights(deps.Now),
		},
		opened: newOpened(),
	}
}

// Adopt takes over what prev, the store of this name in the configuration before,
// remembers: what ended stays ended over a reload.
func (b *Browser) Adopt(prev *Browser) { b.memory = prev.memory }

func (b *Browser) purpose() string { return "session " + b.name }

// Load implements Store.
func (b *Browser) Load(_ context.Context, r *authn.Request) (*Session, error) {
	value := b.cookies.Read(r)
	if value == "" {
		return nil, ErrNone
	}
	s, err := b.open(value)
	if err != nil {
		return nil, err
	}
	return s, b.check(s, r.Now)
}

func (b *Browser) open(value string) (*Session, error) {
	keys := b.keys.current.Load()
	if s := b.opened.get(keys, value); s != nil {
		return s, nil
	}
	sealed, err := base64.RawURLEncoding.Strict().DecodeString(value)
	if err != nil {
		return nil, fmt.Errorf("%w: cookie: %w", ErrNone, err)
	}
	text, err := b.keys.Open(b.purpose(), sealed)
	if err != nil {
		return nil, fmt.Errorf("%w: cookie: %w", ErrNone, err)
	}
	s, err := decode(text)
	if err == nil {
		b.opened.put(keys, value, s)
	}
	return s, err
}

// check refuses sessions that have ended.
func (b *Browser) check(s *Session, now time.Time) error {
	switch {
	case s.Provider != b.name:
		return fmt.Errorf("%w: it is of %q", ErrNone, s.Provider)
	case !b.limits.alive(s, now):
		return fmt.Errorf("%w: it has ended", ErrNone)
	case b.memory.revoked.covers(time.UnixMilli(s.Created), s.revocations()...):
		return fmt.Errorf("%w: it was ended", ErrNone)
	}
	if s.SID != "" && !b.memory.known.has(sidDigest(s.Issuer, s.SID)) {
		b.know(s, now)
	}
	return nil
}

func (b *Browser) know(s *Session, now time.Time) {
	b.memory.known.note(sidDigest(s.Issuer, s.SID), time.UnixMilli(s.Created), now.Add(b.limits.lifetime), now)
}

// revocations are the notes that end the session.
func (s *Session) revocations() []digest {
	keys := []digest{digestOf("id", s.ID), digestOf("sub", s.Issuer, s.Subject)}
	if s.SID != "" {
		keys = append(keys, sidDigest(s.Issuer, s.SID))
	}
	return keys
}

func sidDigest(issuer, sid string) digest { return digestOf("sid", issuer, sid) }

// Create implements Store.
func (b *Browser) Create(ctx context.Context, r *authn.Request, s *Session) error {
	if old, err := b.Load(ctx, r); err == nil {
		b.forget(r.Now, old) // the browser's last one; a copy of it is good for nothing
	}
	s.ID = NewID()
	s.Created, s.Used, s.Lifetime = r.Now.UnixMilli(), r.Now.UnixMilli(), b.limits.lifetime.Milliseconds()
	if s.SID != "" {
		b.know(s, r.Now)
	}
	return b.write(r, s)
}

func (b *Browser) write(r *authn.Request, s *Session) error {
	err := b.seal(r, s)
	if errors.Is(err, ErrTooLarge) && s.IDToken != "" {
		s.IDToken = "" // it only spares a question at logout
		err = b.seal(r, s)
	}
	return err
}

func (b *Browser) seal(r *authn.Request, s *Session) error {
	text, err := encode(s)
	if err != nil {
		return err
	}
	sealed := base64.RawURLEncoding.EncodeToString(b.keys.Seal(b.purpose(), text))
	return b.cookies.Write(r, sealed, b.limits.remaining(s, r.Now))
}

// Touch implements Store.
func (b *Browser) Touch(_ context.Context, r *authn.Request, s *Session) error {
	if !b.limits.stale(s, r.Now) {
		return nil
	}
	used := s.Copy()
	used.Used = r.Now.UnixMilli()
	return b.write(r, used)
}

// Renew implements Store.
func (b *Browser) Renew(ctx context.Context, r *authn.Request, s *Session, do func(context.Context, *Session) (*Session, error)) (*Session, error) {
	next, err := b.memory.flights.do(ctx, digestOf("renew", s.ID, s.AccessToken, s.RefreshToken), func(ctx context.Context) (*Session, error) {
		return do(ctx, s)
	})
	if errors.Is(err, ErrNone) {
		b.forget(r.Now, s)
		b.cookies.Clear(r)
	}
	if err != nil {
		return nil, err
	}
	if err := b.check(next, r.Now); err != nil {
		return nil, err
	}
	next = next.Copy()
	next.Used = r.Now.UnixMilli()
	return next, b.write(r, next)
}

// End implements Store.
func (b *Browser) End(_ context.Context, r *authn.Request, s *Session) error {
	if s != nil {
		b.forget(r.Now, s)
	}
	b.cookies.Clear(r)
	return nil
}

// Revoke implements Store.
func (b *Browser) Revoke(_ context.Context, issuer, sid, subject string) error {
	key := digestOf("sub", issuer, subject)
	if sid != "" {
		key = sidDigest(issuer, sid)
	}
	b.revoke(b.now(), key)
	return nil
}

// forget ends one session. Nobody gets another one of its identifier, so that the note
// is for it also where a clock says that it began later than now.
func (b *Browser) forget(now time.Time, s *Session) {
	b.note(digestOf("id", s.ID), time.UnixMilli(max(now.UnixMilli(), s.Created)), now)
}

func (b *Browser) revoke(now time.Time, key digest) { b.note(key, now, now) }

func (b *Browser) note(key digest, at, now time.Time) {
	b.memory.revoked.note(key, at, now.Add(b.limits.lifetime+maxSkew), now)
}

// RevokeKnown implements Store. Whoever proves nothing cannot fill the list.
func (b *Browser) RevokeKnown(ctx context.Context, issuer, sid string) error {
	if !b.memory.known.has(sidDigest(issuer, sid)) {
		return nil
	}
	return b.Revoke(ctx, issuer, sid, "")
}

// Once implements Store.
func (b *Browser) Once(_ context.Context, key string, made time.Time, keep time.Duration) (bool, error) {
	now := b.now()
	return b.memory.seen.once(digestOf("once", key), made, now.Add(keep), now), nil
}

// Seen implements Store.
func (b *Browser) Seen(_ context.Context, key string, made time.Time) (bool, error) {
	return b.memory.seen.seen(digestOf("once", key), made), nil
}

// opened keeps sessions that were opened, by their sealed text: a browser sends the
// same one again and again. It is forgotten when the keys are exchanged.
type opened struct {
	mu   sync.RWMutex
	keys *[]sealKey
	all  map[string]*Session
}

func newOpened() *opened { return &opened{all: make(map[string]*Session)} }

func (o *opened) get(keys *[]sealKey, sealed string) *Session {
	o.mu.RLock()
	defer o.mu.RUnlock()
	if o.keys != keys {
		return nil
	}
	return o.all[sealed]
}

func (o *opened) put(keys *[]sealKey, sealed string, s *Session) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.keys != keys {
		clear(o.all)
		o.keys = keys
	}
	if len(o.all) >= maxOpened {
		for k := range o.all { // any of them, as the runtime picks
			delete(o.all, k)
			break
		}
	}
	o.all[sealed] = s
}
