// Package anonymous gives an identity to requests that need none. It stands last
// in a chain and lets the policy, rather than the front, decide what a stranger
// may do.
//
// It does not rescue a request whose credential is bad: the chain stops before.
package anonymous

import (
	"context"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/authn"
)

// Kind is the key of this mechanism in the configuration.
const Kind = "anonymous"

// Config is empty: there is nothing to set.
type Config struct{}

// Validate finds nothing wrong.
func (Config) Validate() error { return nil }

// Authenticator answers every request with one identity.
type Authenticator struct{ identity *authz.Identity }

// New makes an authenticator that the configuration calls name.
func New(name string, _ Config) *Authenticator {
	return &Authenticator{identity: &authz.Identity{Authenticator: name, Kind: Kind}}
}

// Authenticate returns an identity that is not authenticated and has no subject.
func (a *Authenticator) Authenticate(context.Context, *authn.Request) (*authz.Identity, error) {
	return a.identity, nil
}
