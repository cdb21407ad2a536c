package dpop

import (
	"errors"

	"github.com/sallyport/sallyport/engine/meter"
	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/replay"
)

// outcomes are the series of the proofs of one authenticator.
type outcomes struct{ accepted, refused, replayed, nonce, limited, full, unavailable *meter.Count }

// newOutcomes registers the counter. With nil, nobody sees it.
func newOutcomes(name string, metrics *meter.Registry) outcomes {
	if metrics == nil {
		metrics = meter.New()
	}
	c := metrics.Counter("sallyport.dpop.proofs", "{proof}",
		"DPoP proofs that came with tokens that are bound to a key, by authenticator and outcome: accepted, refused, replayed "+
			"(it counted before), nonce (the client has to use the one it was sent), limited (the key has used up dpop.replay_entries_per_key), "+
			"full (dpop.replay_entries are in use) or unavailable (the Redis of dpop.replay_redis cannot be asked).")
	of := func(outcome string) *meter.Count {
		return c.With(meter.String("authenticator", name), meter.String("outcome", outcome))
	}
	return outcomes{of("accepted"), of("refused"), of("replayed"), of("nonce"), of("limited"), of("full"), of("unavailable")}
}

// of returns the series of what Check made of a proof.
func (o *outcomes) of(err error) *meter.Count {
	switch {
	case err == nil:
		return o.accepted
	case errors.Is(err, replay.ErrFull):
		return o.full
	case errors.Is(err, replay.ErrUnreachable):
		return o.unavailable
	case errors.Is(err, authn.ErrTooMany):
		return o.limited
	case errors.Is(err, replay.ErrUsed):
		return o.replayed
	case errors.Is(err, ErrNonce):
		return o.nonce
	}
	return o.refused
}
