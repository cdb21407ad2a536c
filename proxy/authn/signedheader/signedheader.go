// Package signedheader authenticates requests by a header in which a proxy in front
// of the gateway, an ingress or a cloud's load balancer, signs who the user is. It
// owns what each provider documents of its header: the name, the issuer, the keys,
// what must be checked beside the signature.
//
// It exists so that "behind another ingress" does not mean to believe headers: the
// ones without signature that the same providers set are dropped, wherever they come
// from. JWTs are verified by package jwt; what AWS signs is not quite one and is
// taken apart here.
package signedheader

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"go.opentelemetry.io/otel/metric"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/jwt"
)

// Kind is the key of this mechanism in the configuration.
const Kind = "signed_header"

// Deps is what an Authenticator uses of the process. The zero value logs and counts
// nothing.
type Deps struct {
	Logger *slog.Logger
	Meter  metric.Meter
	Now    func() time.Time // the clock of fetches; headers are judged by Request.Now
}

// verifier checks the value of a header.
type verifier interface {
	AuthenticateToken(ctx context.Context, token string, r *authn.Request) (*authz.Identity, error)
	Run(ctx context.Context) error
	Prime(ctx context.Context) error
	Files() []string
	Reload(ctx context.Context) error
}

// Authenticator accepts what one proxy signs. It is safe for concurrent use.
type Authenticator struct {
	verifier
	header   string
	unsigned []string
}

// New makes an authenticator that the configuration calls name. It fetches nothing:
// that is for Prime and Run.
func New(name string, c Config, deps Deps) (*Authenticator, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	c = c.filled()
	p := presets()[c.Preset]
	a := &Authenticator{header: p.header, unsigned: p.unsigned}
	if a.header == "" {
		a.header = c.Header
	}
	var err error
	if p.jwt == nil {
		a.verifier, err = newALB(name, c, deps)
		return a, err
	}
	inner, use := p.jwt(c)
	a.verifier, err = jwt.NewCarried(name, inner, use, jwt.Deps{Logger: deps.Logger, Meter: deps.Meter, Now: deps.Now})
	return a, err
}

var errTwice = fmt.Errorf("%w: the signed header stands twice", authn.ErrInvalid)

// Authenticate returns the identity that the header signs.
func (a *Authenticator) Authenticate(ctx context.Context, r *authn.Request) (*authz.Identity, error) {
	value, found := "", 0
	for i := range r.Headers {
		if r.Headers[i].Name == a.header {
			value, found = r.Headers[i].Value, found+1
		}
	}
	if found == 0 {
		return nil, authn.ErrNotMine
	}
	r.Spend(a.header)
	if found > 1 {
		return nil, errTwice
	}
	return a.AuthenticateToken(ctx, value, r)
}

// AssertedHeaders returns the signed header: unverified, it is anybody's word.
func (a *Authenticator) AssertedHeaders() []string { return []string{a.header} }

// CredentialHeaders returns the signed header.
func (a *Authenticator) CredentialHeaders() []string { return []string{a.header} }

// UnsignedHeaders returns the headers that the proxy sets beside the signed one.
func (a *Authenticator) UnsignedHeaders() []string { return slices.Clone(a.unsigned) }

// Challenge names the scheme, which has no parameters but the realm: a 401 must carry
// a challenge (RFC 9110 section 15.5.2), and the client cannot answer it but by
// going through the proxy.
func (a *Authenticator) Challenge(error) string { return `SignedHeader realm="` + a.header + `"` }
