package authn

import (
	"context"
	"errors"
	"fmt"

	"go.opentelemetry.io/otel/metric"

	"github.com/sallyport/sallyport/engine/authz"
)

// Named is an authenticator with its name in the configuration.
type Named struct {
	Name          string
	Authenticator Authenticator
}

// Chain is the authenticators of a route in the order in which they are asked.
// It is immutable and safe for concurrent use.
type Chain struct {
	links   []link
	missing counter
}

type link struct {
	Named
	outcomes outcomes
}

// New makes a chain. The meter counts what each authenticator answered; nil
// counts nothing.
func New(links []Named, meter metric.Meter) (*Chain, error) {
	count, err := newAuthentications(meter)
	if err != nil {
		return nil, err
	}
	c := &Chain{links: make([]link, len(links)), missing: count.of("", "missing")}
	for i, l := range links {
		if l.Authenticator == nil {
			return nil, fmt.Errorf("authenticator %q of a chain is nil", l.Name)
		}
		c.links[i] = link{Named: l, outcomes: count.outcomesOf(l.Name)}
	}
	return c, nil
}

// Authenticate returns the identity that the first authenticator with a
// credential of its kind established. The error is ErrNoCredential, ErrInvalid
// or ErrUnavailable, wrapped with the operator's detail. An error that is none
// of the sentinels counts as ErrUnavailable: what is not understood closes.
func (c *Chain) Authenticate(ctx context.Context, r *Request) (*authz.Identity, error) {
	var foreign *link // the first that found a credential for somebody else
	var why error
	for i := range c.links {
		l := &c.links[i]
		id, err := l.Authenticator.Authenticate(ctx, r)
		switch {
		case err == nil && id == nil:
			return nil, l.refuse(ctx, errors.New("authenticator returned no identity"))
		case err == nil && foreign != nil && !id.Authenticated:
			// Somebody presented a credential: it is not to be ignored.
		case err == nil:
			l.outcomes.accepted.add(ctx)
			return id, nil
		case errors.Is(err, ErrForeign):
			if foreign == nil {
				foreign, why = l, err
			}
		case errors.Is(err, ErrNotMine):
		case errors.As(err, new(*Answer)):
			l.outcomes.answered.add(ctx)
			return nil, err
		default:
			return nil, l.refuse(ctx, err)
		}
	}
	if foreign != nil {
		foreign.outcomes.rejected.add(ctx)
		return nil, &refusal{by: foreign, class: ErrInvalid, err: why}
	}
	c.missing.add(ctx)
	return nil, ErrNoCredential
}

func (l *link) refuse(ctx context.Context, err error) *refusal {
	if errors.Is(err, ErrInvalid) && !errors.Is(err, ErrUnavailable) {
		l.outcomes.rejected.add(ctx)
		return &refusal{by: l, class: ErrInvalid, err: err}
	}
	l.outcomes.unavailable.add(ctx)
	return &refusal{by: l, class: ErrUnavailable, err: err}
}

// refusal is the answer of the authenticator that ended the walk. It is its
// class and nothing else to errors.Is, so that the cause's own sentinels (a
// foreign token is also "not mine") do not leak into the mapping to a status.
type refusal struct {
	by    *link
	class error
	err   error
}

func (r *refusal) Error() string { return "authenticator " + r.by.Name + ": " + r.err.Error() }

func (r *refusal) Unwrap() error { return r.class }
