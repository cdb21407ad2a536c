package jwt

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sallyport/sallyport/engine/meter"
	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/jose"
	"github.com/sallyport/sallyport/proxy/authn/limit"
	"github.com/sallyport/sallyport/proxy/authn/splittoken"
	"github.com/sallyport/sallyport/proxy/authn/tokencache"
)

// splitter completes tokens of which the client has the signature alone.
type splitter struct {
	config  splittoken.Config
	finder  *splittoken.Finder
	limiter *limit.Limiter
	refused *tokencache.Cache[error] // so that a stranger's tokens push out nothing but each other
	allowed map[string]jose.Algorithm
	count   lookups
}

// The tokens that were refused are small, and kept for seconds.
const (
	maxRefused      = 16384
	maxRefusedBytes = 16 << 20
)

// lookups are the series of one authenticator.
type lookups struct{ found, unknown, refused, limited, failed *meter.Count }

// newLookups registers the counter, also where no tokens are split, so that it stands
// on the page of metrics.
func newLookups(name string, metrics *meter.Registry) lookups {
	if metrics == nil {
		metrics = meter.New()
	}
	c := metrics.Counter("sallyport.split.token.lookups", "{token}",
		"Look-ups of the header and payload of split tokens, by authenticator and outcome: found, unknown, refused (found, and not acceptable), "+
			"limited (not made because of lookup_limit) or error.")
	of := func(outcome string) *meter.Count {
		return c.With(meter.String("authenticator", name), meter.String("outcome", outcome))
	}
	return lookups{of("found"), of("unknown"), of("refused"), of("limited"), of("error")}
}

// newSplitter returns nil without a configuration.
func newSplitter(c *splittoken.Config, allowed map[string]jose.Algorithm, count lookups) (*splitter, error) {
	if c == nil {
		return nil, nil //nolint:nilnil // a nil splitter completes no token
	}
	s := &splitter{
		config: c.Filled(), allowed: allowed, count: count,
		refused: tokencache.New[error](maxRefused, maxRefusedBytes),
	}
	var err error
	if s.limiter, err = limit.New(s.config.LookupLimit); err != nil {
		return nil, err
	}
	s.finder, err = splittoken.New(*c)
	return s, err
}

// takes reports whether token has the form and the length of a signature by one of
// the algorithms. Other opaque tokens are not worth a look-up.
func (s *splitter) takes(token string) bool {
	if s == nil || len(token) > jose.MaxSignature {
		return false
	}
	raw, err := jose.DecodeBase64(token)
	if err != nil {
		return false
	}
	for _, alg := range s.allowed {
		if alg.Signs(len(raw)) {
			return true
		}
	}
	return false
}

// join returns the JWT of a signature. One that is not stored may be another
// authenticator's opaque token.
func (s *splitter) join(ctx context.Context, token, client string, now time.Time) (string, error) {
	if err, refused := s.refused.Get(token, now); refused {
		return "", err
	}
	if err := s.limiter.Allow(client, now); err != nil {
		s.count.limited.Add(1)
		return "", err
	}
	text, err := s.finder.Join(ctx, token)
	switch {
	case errors.Is(err, splittoken.ErrUnknown):
		s.count.unknown.Add(1)
		return "", s.refuse(token, client, fmt.Errorf("%w: %w", authn.ErrForeign, err), now)
	case err != nil:
		s.count.failed.Add(1)
		return "", fmt.Errorf("%w: look up a split token: %w", authn.ErrUnavailable, err)
	}
	return text, nil
}

// refuse remembers why a token is refused, and charges its sender for the look-up.
func (s *splitter) refuse(token, client string, why error, now time.Time) error {
	s.limiter.Charge(client, now)
	s.refused.Put(token, why, 0, now.Add(s.config.RefusedMaxAge))
	return why
}

// complete verifies the JWT of which token is the signature.
func (a *Authenticator) complete(ctx context.Context, token string, r *authn.Request) (*entry, error) {
	text, err := a.split.join(ctx, token, r.Client, r.Now)
	if err != nil {
		return nil, err
	}
	e, err := a.verify(ctx, presented{token: token, text: text, joined: true}, r.Client, r.Now)
	switch {
	case err == nil:
		a.split.count.found.Add(1)
	case errors.Is(err, authn.ErrInvalid), errors.Is(err, authn.ErrForeign):
		a.split.count.refused.Add(1)
		return nil, a.split.refuse(token, r.Client, err, r.Now)
	}
	return e, err
}
