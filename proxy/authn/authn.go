// Package authn establishes who sends a request. It owns the chain: the order in
// which a route's authenticators look at a request and how their answers become
// one identity or one refusal. Each mechanism is a package below this one.
//
// It does not decide what an identity may do; that is policy.
package authn

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"strings"
	"time"

	"github.com/sallyport/sallyport/engine/authz"
)

// What an authenticator answers when it does not return an identity.
var (
	// ErrNotMine: the request carries no credential of this kind; ask the next.
	ErrNotMine = errors.New("no credential of this kind")
	// ErrInvalid: there is a credential of this kind and it is bad. 401; the
	// chain stops, so that a bad token never falls through to anonymous.
	ErrInvalid = errors.New("credential is invalid")
	// ErrUnavailable: the credential cannot be checked now. 503, never open.
	ErrUnavailable = errors.New("credential cannot be verified now")
	// ErrForeign: there is a credential of this kind, but another authenticator
	// has to judge it: a bearer token of another issuer, an opaque one. It is an
	// ErrNotMine, so the next is asked; a chain in which nobody else establishes
	// an identity answers ErrInvalid and never falls through to anonymous.
	ErrForeign = fmt.Errorf("%w: it belongs to another authenticator", ErrNotMine)
)

// ErrTooMany says that the client has sent so many credentials, as a rule bad ones,
// that no more of its are looked at for a while. 429; the chain stops.
var ErrTooMany = errors.New("client sent too many credentials")

// Limited is what a client can send too much of.
type Limited string

// The limits that clients run into, as RateLimit fields call them.
const (
	BadCredentials Limited = "credentials" // by one client
	Proofs         Limited = "proofs"      // DPoP proofs with one key
)

// TooManyError is an ErrTooMany with what the client is told.
type TooManyError struct {
	Of         Limited
	RetryAfter time.Duration // until the next credential is looked at
	Quota      int           // how many may come at once
	Window     time.Duration // in which the quota is earned again
}

func (e *TooManyError) Error() string {
	return fmt.Sprintf("%v; the next is looked at in %s", ErrTooMany, e.RetryAfter.Round(time.Millisecond))
}

// Unwrap returns ErrTooMany.
func (e *TooManyError) Unwrap() error { return ErrTooMany }

// ErrNoCredential is what a chain answers when no authenticator found a
// credential of its kind. 401 with a challenge that names no error.
var ErrNoCredential = errors.New("request carries no credential")

// ErrInsufficientScope says that the identity lacks a scope that the route
// requires. 403 with a challenge that names the scopes (RFC 6750 section 3.1).
var ErrInsufficientScope = errors.New("a required scope is missing")

// What is wrong with a token, beside ErrInvalid or ErrForeign, as far as clients
// may be told: an operator can put it into error responses.
var (
	ErrMalformed   = errors.New("malformed")
	ErrSignature   = errors.New("signature does not match")
	ErrAudience    = errors.New("token is for audience")
	ErrExpired     = errors.New("expired")
	ErrIssuer      = errors.New("issuer")
	ErrNotYetValid = errors.New("not valid yet")
)

// BodyError is what an authenticator answers when the client did not deliver the body
// that its credential is about, or one too long to be looked at. Err has the class of the
// answer, such as authz.ErrBodyTooLarge. The chain stops.
type BodyError struct{ Err error }

func (e *BodyError) Error() string { return "body cannot be verified: " + e.Err.Error() }

// Unwrap returns the cause.
func (e *BodyError) Unwrap() error { return e.Err }

// Request is what authenticators may look at, and what they leave for whoever
// asked. It is valid during the call only.
type Request struct {
	// Authorization is the value of the one Authorization header; empty when
	// there was none. The front has refused requests with two.
	Authorization string
	// Headers are those that the sender may send, with lower-case names.
	Headers []authz.Header
	// TLS is the state of the client's connection, nil without TLS.
	TLS *tls.ConnectionState
	// Now is the time to judge expiry by.
	Now time.Time

	// ID is the request's id, for logs and error pages.
	ID string
	// Method, Scheme, Host, Path and RawQuery are those that the client used, as
	// far as trusted proxies report them (X-Forwarded-Proto, X-Forwarded-Host): Host
	// may have a port, and Path is not rewritten yet.
	Method, Scheme, Host, Path, RawQuery string
	// Client is the address of the client as the listener judges it, empty if it
	// is not known. It counts against limits and is no credential.
	Client string
	// Trusted says that the peer of the connection is listed as a proxy that may
	// report what it saw of the client.
	Trusted bool
	// Body is the request body, nil if there is none. Only who answers the request
	// itself, or must have it to verify a signature, reads it.
	Body authz.Body

	// Token is left by the authenticator that accepts: the access token that stands
	// for the caller, for what is derived from it on the way to the upstream.
	Token string
	// IDToken is left by the authenticator of a login: the ID token, which upstreams may
	// be shown and which stands for nobody.
	IDToken string
	// Response are fields that every response to this request gets in addition,
	// whatever becomes of it: a renewed session's cookie, a nonce.
	Response []authz.Header

	spentHeaders, spentCookies []string

	hashed string // what Hash was last called with
	hash   uint64
}

// seed is drawn once for all authenticators of the process, so that what one of them
// has hashed the next need not hash again. It never changes and never leaves.
var seed = maphash.MakeSeed()

// Hash returns a hash of a credential, by which authenticators find what they know
// about it. It only finds the place: whoever uses it compares the text.
func Hash(credential string) uint64 { return maphash.String(seed, credential) }

// Hash is Hash of a credential that this request carries. It is computed once, however
// many of a chain ask for it.
func (r *Request) Hash(credential string) uint64 {
	if r.hashed != credential || credential == "" { // the same text at the same place compares at once
		r.hashed, r.hash = credential, Hash(credential)
	}
	return r.hash
}

// Spend says that a header, by its lower-case name, carried the credential. It
// ends at the gateway unless the route forwards credentials.
func (r *Request) Spend(header string) { r.spentHeaders = append(r.spentHeaders, header) }

// SpendCookie is Spend for one cookie. It is never forwarded: a session of the
// gateway is good for nothing behind it but for being stolen.
func (r *Request) SpendCookie(name string) { r.spentCookies = append(r.spentCookies, name) }

// OwnCookie reports whether a cookie of that name is the gateway's: a session or a
// login under way. Browsers send them with every request to the host, also on routes
// that look at none, and no upstream ever gets one.
func OwnCookie(name string) bool {
	return strings.HasPrefix(name, "__Host-sallyport-") || strings.HasPrefix(name, "__Secure-sallyport-") ||
		strings.HasPrefix(name, "sallyport-insecure-")
}

// WithoutCookies returns a Cookie header without the cookies of these names and the
// gateway's own (RFC 6265 section 4.2.1), empty if no other is left.
func WithoutCookies(value string, names []string) string {
	if len(names) == 0 && !strings.Contains(value, "sallyport-") {
		return value
	}
	var kept []string
	for pair := range strings.SplitSeq(value, ";") {
		pair = strings.Trim(pair, " \t")
		name, _, _ := strings.Cut(pair, "=")
		if name = strings.Trim(name, " \t"); pair != "" && !slices.Contains(names, name) && !OwnCookie(name) {
			kept = append(kept, pair)
		}
	}
	return strings.Join(kept, "; ")
}

// Spent returns what Spend and SpendCookie were called with.
func (r *Request) Spent() (headers, cookies []string) { return r.spentHeaders, r.spentCookies }

// At returns a copy of the request as if it had come to another scheme and host. What
// is left on the copy is for Take.
func (r *Request) At(scheme, host string) *Request {
	c := *r
	c.Scheme, c.Host = scheme, host
	return &c
}

// Take leaves on r what was left on a copy that At made of it. With r itself it changes
// nothing.
func (r *Request) Take(c *Request) {
	scheme, host := r.Scheme, r.Host
	*r = *c
	r.Scheme, r.Host = scheme, host
}

// Answer is an error by which a mechanism answers a request itself: with a
// redirect to log in, or what its endpoint has to say. The chain stops.
type Answer struct {
	Status  int
	Headers []authz.Header // lower-case names; with content-type if there is a body
	Body    []byte
	Why     string // for the log
}

func (a *Answer) Error() string { return a.Why }

// Endpoint is a path that a mechanism serves itself, before any route: where a
// provider sends browsers back to, a logout, a key set.
type Endpoint struct {
	Hosts []string // lower case, without port; *.example.com: those below; empty: every host
	Path  string   // exact, as it is judged
	Serve func(ctx context.Context, r *Request) *Answer
}

// Server is an authenticator with endpoints of its own. They do not change.
type Server interface {
	Endpoints() []Endpoint
}

// Greeter is an authenticator by which a person can log in. A chain asks the first of
// its greeters when nobody found a credential and nobody does without one.
type Greeter interface {
	// Greet returns what to answer a request without credential with; nil if the
	// sender is not somebody at a browser. All are the chain's greeters in order.
	Greet(ctx context.Context, r *Request, all []Greeter) *Answer
}

// Stepper is an authenticator that can have a person authenticate again, as a policy
// demands (RFC 9470).
type Stepper interface {
	// StepUp returns what to answer with in place of the challenge c of a denial; nil
	// if the sender is not somebody at a browser. It established id.
	StepUp(ctx context.Context, r *Request, id *authz.Identity, c *authz.Challenge) *Answer
}

// Carrier is an authenticator whose credential travels in headers of its own, by
// lower-case name: a policy does not see them unless its route asks.
type Carrier interface {
	CredentialHeaders() []string
}

// Asserter is an authenticator of headers by which something in front says who the
// caller is. An upstream may believe them, so that one which the authenticator has
// not taken is never forwarded.
type Asserter interface {
	AssertedHeaders() []string
}

// Voucher is an authenticator that believes some proxies what they say of their clients'
// certificates.
type Voucher interface {
	// Vouches returns what reports whether the peer of a request is one of them; nil if
	// this one reads no such headers.
	Vouches() func(r *Request) bool
}

// Runner is an authenticator that works in the background. Run returns when ctx
// ends.
type Runner interface {
	Run(ctx context.Context) error
}

// Reloader is an authenticator with files that are watched. A broken file leaves
// what was read last in force and is an error.
type Reloader interface {
	Files() []string
	Reload(ctx context.Context) error
}

// Primer is an authenticator that has to fetch something before it can accept. A
// new configuration waits for it a moment before it takes over.
type Primer interface {
	Prime(ctx context.Context) error
}

// Header returns the value of the first header of a lower-case name, empty if
// there is none.
func (r *Request) Header(name string) string {
	for i := range r.Headers {
		if r.Headers[i].Name == name {
			return r.Headers[i].Value
		}
	}
	return ""
}

// Authenticator is one mechanism with one configuration.
type Authenticator interface {
	// Authenticate returns the identity, or an error that is ErrNotMine,
	// ErrInvalid, ErrUnavailable or ErrTooMany (wrapped, with the detail for the
	// log).
	Authenticate(ctx context.Context, r *Request) (*authz.Identity, error)
}

// Inviter is an authenticator that has more to say of how to authenticate than a
// challenge does: further fields of a 401, with lower-case names.
type Inviter interface {
	Invitation(r *Request) []authz.Header
}

// Challenger is an authenticator that can say how to authenticate.
type Challenger interface {
	// Challenge returns a WWW-Authenticate value for err, which is nil when the
	// request had no credential (RFC 9110 section 11.6.1, RFC 6750 section 3).
	Challenge(err error) string
}

// Multischeme is a Challenger of several authentication schemes. Err says what was
// wrong with the credential, and may be any that Authenticate returned.
type Multischeme interface {
	Challenges(err error) []string
}
