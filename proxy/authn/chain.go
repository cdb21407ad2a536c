package authn

import (
	"context"
	"errors"
	"fmt"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/engine/meter"
)

// Named is an authenticator with its name in the configuration.
type Named struct {
	Name          string
	Authenticator Authenticator
}

// Chain is the authenticators of a route in the order in which they are asked.
// It is immutable and safe for concurrent use.
type Chain struct {
	links    []link
	greeters []Greeter
	greeting *link // of the first greeter
	missing  *meter.Count
}

type link struct {
	Named
	outcomes outcomes
}

// New makes a chain. What each authenticator answered is counted in metrics; with
// nil, nobody sees it.
func New(links []Named, metrics *meter.Registry) (*Chain, error) {
	if metrics == nil {
		metrics = meter.New()
	}
	count := newAuthentications(metrics)
	c := &Chain{links: make([]link, len(links)), missing: count.of("", "missing")}
	for i, l := range links {
		if l.Authenticator == nil {
			return nil, fmt.Errorf("authenticator %q of a chain is nil", l.Name)
		}
		c.links[i] = link{Named: l, outcomes: count.outcomesOf(l.Name)}
		if g, ok := l.Authenticator.(Greeter); ok {
			if c.greeters = append(c.greeters, g); c.greeting == nil {
				c.greeting = &c.links[i]
			}
		}
	}
	return c, nil
}

// Authenticate returns the identity that the first authenticator with a
// credential of its kind established. The error is ErrNoCredential, ErrInvalid,
// ErrTooMany or ErrUnavailable, wrapped with the operator's detail. An error that is none
// of the sentinels counts as ErrUnavailable: what is not understood closes.
func (c *Chain) Authenticate(ctx context.Context, r *Request) (*authz.Identity, error) {
	var foreign *link // the first that found a credential for somebody else
	var why error
	for i := range c.links {
		l := &c.links[i]
		id, err := l.Authenticator.Authenticate(ctx, r)
		switch {
		case err == nil && id == nil:
			return nil, l.refuse(errors.New("authenticator returned no identity"))
		case err == nil && foreign != nil && !id.Authenticated:
			// Somebody presented a credential: it is not to be ignored.
		case err == nil:
			l.outcomes.accepted.Add(1)
			return id, nil
		case errors.Is(err, ErrForeign):
			if foreign == nil {
				foreign, why = l, err
			}
		case errors.Is(err, ErrNotMine):
		case errors.As(err, new(*Answer)):
			l.outcomes.answered.Add(1)
			return nil, err
		default:
			return nil, l.refuse(err)
		}
	}
	if foreign != nil {
		foreign.outcomes.rejected.Add(1)
		return nil, &refusal{by: foreign, class: ErrInvalid, err: why}
	}
	if a := c.greet(ctx, r); a != nil {
		return nil, a
	}
	c.missing.Add(1)
	return nil, ErrNoCredential
}

func (c *Chain) greet(ctx context.Context, r *Request) *Answer {
	if c.greeting == nil {
		return nil
	}
	a := c.greeters[0].Greet(ctx, r, c.greeters)
	if a != nil {
		c.greeting.outcomes.answered.Add(1)
	}
	return a
}

// StepUp returns what to answer in place of the challenge of a denial: who
// established the identity has the sender authenticate again, and somebody without
// one has to begin. Nil: the challenge itself is the answer.
func (c *Chain) StepUp(ctx context.Context, r *Request, id *authz.Identity, challenge *authz.Challenge) *Answer {
	if id == nil || !id.Authenticated {
		return c.greet(ctx, r)
	}
	for i := range c.links {
		if s, ok := c.links[i].Authenticator.(Stepper); ok && c.links[i].Name == id.Authenticator {
			return s.StepUp(ctx, r, id, challenge)
		}
	}
	return nil
}

// Invitations returns what the authenticators add to a 401, in their order.
func (c *Chain) Invitations(r *Request) (out []authz.Header) {
	for i := range c.links {
		if v, ok := c.links[i].Authenticator.(Inviter); ok {
			out = append(out, v.Invitation(r)...)
		}
	}
	return out
}

func (l *link) refuse(err error) *refusal {
	if errors.Is(err, ErrInvalid) && !errors.Is(err, ErrUnavailable) {
		l.outcomes.rejected.Add(1)
		return &refusal{by: l, class: ErrInvalid, err: err}
	}
	if tooMany := (*TooManyError)(nil); errors.As(err, &tooMany) {
		l.outcomes.limited.Add(1)
		return &refusal{by: l, class: tooMany, err: err}
	}
	if body := (*BodyError)(nil); errors.As(err, &body) {
		l.outcomes.rejected.Add(1)
		return &refusal{by: l, class: body.Err, err: err}
	}
	l.outcomes.unavailable.Add(1)
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

// Is lets through what is wrong with a token beside the class.
func (r *refusal) Is(target error) bool {
	switch target {
	case ErrMalformed, ErrSignature, ErrAudience, ErrExpired, ErrIssuer, ErrNotYetValid:
		return r.class == ErrInvalid && errors.Is(r.err, target)
	}
	return false
}

func (r *refusal) Error() string { return "authenticator " + r.by.Name + ": " + r.err.Error() }

func (r *refusal) Unwrap() error { return r.class }
