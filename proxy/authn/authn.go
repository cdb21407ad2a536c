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

// ErrNoCredential is what a chain answers when no authenticator found a
// credential of its kind. 401 with a challenge that names no error.
var ErrNoCredential = errors.New("request carries no credential")

// Request is what authenticators may look at. It is valid during the call only.
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
	// ErrInvalid or ErrUnavailable (wrapped, with the detail for the log).
	Authenticate(ctx context.Context, r *Request) (*authz.Identity, error)
}

// Challenger is an authenticator that can say how to authenticate.
type Challenger interface {
	// Challenge returns a WWW-Authenticate value for err, which is nil when the
	// request had no credential (RFC 9110 section 11.6.1, RFC 6750 section 3).
	Challenge(err error) string
}
