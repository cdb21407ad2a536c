// Package session keeps who is logged in: what a login established, sealed so that
// only the gateway can read or change it, in the browser's cookies or in a store that
// replicas share. It owns the keys, the form of the cookies, the limits of a session's
// life, and the list of those that ended before their time.
//
// It does not log anybody in: that is for the mechanism whose sessions these are.
package session

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/authn"
)

// What a Store answers when there is no session to hand out.
var (
	// ErrNone: the request has no session that counts: none at all, one that ended,
	// one that nobody here sealed.
	ErrNone = errors.New("no session")
	// ErrTooLarge: the session does not fit into cookies.
	ErrTooLarge = errors.New("session is too large for cookies; keep sessions in Redis, or ask for fewer claims")
)

// Session is what a login established. It is immutable once stored: a change is a
// copy.
type Session struct {
	// ID is random and new at each login. It never leaves the gateway unsealed.
	ID string `json:"id"`
	// Provider is the authenticator that logged the subject in.
	Provider string `json:"provider"`
	Issuer   string `json:"iss"`
	Subject  string `json:"sub"`
	// SID is what the provider calls its session (OpenID Connect Front-Channel
	// Logout 1.0 section 3), empty if it does not say.
	SID string `json:"sid,omitempty"`
	// Claims are those of the ID token, and of the userinfo endpoint if it is asked.
	Claims map[string]any `json:"claims,omitempty"`
	Scopes []string       `json:"scopes,omitempty"`

	IDToken      string `json:"id_token,omitempty"`
	AccessToken  string `json:"access_token,omitempty"`
	RefreshToken string `json:"refresh_token,omitempty"`
	// AccessEnds is when the access token ends, in Unix seconds; 0: not known.
	AccessEnds int64 `json:"access_ends,omitempty"`

	Created int64 `json:"created"` // Unix milliseconds
	Used    int64 `json:"used"`    // Unix milliseconds, a little behind
	// Lifetime is how many milliseconds it was to live at the most when it was created;
	// 0: not known. What ends sessions is remembered for that long.
	Lifetime int64 `json:"lifetime,omitempty"`

	identity atomic.Pointer[authz.Identity]
	sealed   string // as Redis has it
}

// Identity returns what build makes of the session, which it keeps unless it is nil.
func (s *Session) Identity(build func(*Session) *authz.Identity) *authz.Identity {
	if id := s.identity.Load(); id != nil {
		return id
	}
	id := build(s)
	if id != nil {
		s.identity.Store(id)
	}
	return id
}

// Copy returns a session with the values of s, to change.
func (s *Session) Copy() *Session {
	return &Session{
		ID: s.ID, Provider: s.Provider, Issuer: s.Issuer, Subject: s.Subject, SID: s.SID, Claims: s.Claims, Scopes: s.Scopes,
		IDToken: s.IDToken, AccessToken: s.AccessToken, RefreshToken: s.RefreshToken, AccessEnds: s.AccessEnds,
		Created: s.Created, Used: s.Used, Lifetime: s.Lifetime,
	}
}

// Ends returns when the session ends however much it is used, where sessions live for
// lifetime now. One never lives longer than it was to when it was created.
func (s *Session) Ends(lifetime time.Duration) time.Time {
	return time.UnixMilli(limits{lifetime: lifetime}.end(s))
}

// Store keeps sessions. Where it takes a request it reads the request's cookies and
// leaves the fields of the response that change them. Errors that are not named are
// those of a store that cannot be reached; they are authn.ErrUnavailable.
type Store interface {
	// Load returns the session of a request, or ErrNone.
	Load(ctx context.Context, r *authn.Request) (*Session, error)
	// Create keeps the session of a login, under an identifier that nobody knew
	// before, and tells the browser. It replaces the session that the browser has.
	Create(ctx context.Context, r *authn.Request, s *Session) error
	// Touch notes that the session is in use, now and then.
	Touch(ctx context.Context, r *authn.Request, s *Session) error
	// Renew has do make a renewed session of s, once however many requests ask at the
	// same time, and keeps it. ErrNone: the session has ended meanwhile. The error of
	// do is handed on; if it is ErrNone, the session ends.
	Renew(ctx context.Context, r *authn.Request, s *Session, do func(context.Context, *Session) (*Session, error)) (*Session, error)
	// End ends the session and has the browser forget it; nil: only that.
	End(ctx context.Context, r *authn.Request, s *Session) error
	// Revoke ends the sessions of an issuer that have the sid, or with an empty sid
	// those of the subject, that exist now.
	Revoke(ctx context.Context, issuer, sid, subject string) error
	// RevokeKnown is Revoke by sid for somebody who proves nothing: it changes
	// nothing unless a session with that sid is known.
	RevokeKnown(ctx context.Context, issuer, sid string) error
	// Once reports whether key is new. It is remembered for a time given; what was
	// made at a moment before that which is still remembered is not new.
	Once(ctx context.Context, key string, made time.Time, keep time.Duration) (bool, error)
	// Seen reports whether Once would find that key is not new, and notes nothing.
	Seen(ctx context.Context, key string, made time.Time) (bool, error)
}

// NewID returns 256 random bits as text.
func NewID() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// limits are how long a session may live.
type limits struct{ lifetime, idle time.Duration }

// alive reports whether the session has neither passed its lifetime nor been left
// unused for too long.
func (l limits) alive(s *Session, now time.Time) bool {
	ms := now.UnixMilli()
	return ms < l.end(s) && ms < s.Used+l.idle.Milliseconds() &&
		s.Created <= ms+maxSkew.Milliseconds() // replicas' clocks differ a little
}

// end is when the session has passed its lifetime, in Unix milliseconds.
func (l limits) end(s *Session) int64 {
	lifetime := l.lifetime.Milliseconds()
	if s.Lifetime > 0 {
		lifetime = min(lifetime, s.Lifetime)
	}
	return s.Created + lifetime
}

// maxSkew is how far the clocks of two replicas may be apart.
const maxSkew = time.Minute

// stale reports whether the time of last use is to be noted again. A note on every
// request would be a cookie on every response.
func (l limits) stale(s *Session, now time.Time) bool {
	return now.UnixMilli()-s.Used >= l.idle.Milliseconds()/touches
}

// touches is how many times at most within the idle time the use is noted.
const touches = 10

// remaining is how long the session lives if nobody uses it any more.
func (l limits) remaining(s *Session, now time.Time) time.Duration {
	end := min(l.end(s), s.Used+l.idle.Milliseconds())
	return time.Duration(end-now.UnixMilli()) * time.Millisecond
}

func encode(s *Session) ([]byte, error) {
	return json.Marshal(s) //nolint:gosec // what is made here is sealed before it leaves
}

func decode(data []byte) (*Session, error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	s := &Session{}
	if err := dec.Decode(s); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNone, err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) || s.ID == "" {
		return nil, fmt.Errorf("%w: it is not whole", ErrNone)
	}
	return s, nil
}
