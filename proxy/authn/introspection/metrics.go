package introspection

import (
	"errors"

	"github.com/sallyport/sallyport/engine/meter"
	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/asking"
)

// What makes a token unacceptable here that the provider calls active, beside the
// reasons that package authn has. They come with authn.ErrInvalid.
var (
	errType    = errors.New("not an access token of a type that is accepted")
	errBinding = errors.New("bound to something that nobody can prove to have here")
)

// reason is why a token was refused, as the counter calls it.
type reason struct {
	err  error
	name string
}

// reasons are all there are, so that the series are few: the provider chooses none.
// What is none of them is a member of a wrong type.
func reasons() []reason {
	return []reason{
		{authn.ErrExpired, "expired"},
		{authn.ErrNotYetValid, "not_yet_valid"},
		{authn.ErrAudience, "audience"},
		{authn.ErrIssuer, "issuer"},
		{errType, "type"},
		{errBinding, "binding"},
		{nil, "malformed"},
	}
}

// questions are the series of one authenticator.
type questions struct {
	active, inactive, busy, failed *meter.Count
	refused                        []*meter.Count // as reasons
}

// newQuestions registers the counter. With nil, nobody sees it.
func newQuestions(name string, metrics *meter.Registry) questions {
	if metrics == nil {
		metrics = meter.New()
	}
	c := metrics.Counter("sallyport.introspections", "{question}",
		"Questions to a provider about a token, by authenticator and outcome: active, inactive, refused (active, and not acceptable here, by reason: "+
			"expired, not_yet_valid, audience, issuer, type, binding or malformed), busy (too many under way; the provider was not asked) or error.")
	of := func(outcome string, more ...meter.Attr) *meter.Count {
		return c.With(append(more, meter.String("authenticator", name), meter.String("outcome", outcome))...)
	}
	q := questions{active: of("active"), inactive: of("inactive"), busy: of("busy"), failed: of("error")}
	for _, r := range reasons() {
		q.refused = append(q.refused, of("refused", meter.String("reason", r.name)))
	}
	return q
}

// of returns the series of how a question ended.
func (q *questions) of(err error) *meter.Count {
	switch {
	case err == nil:
		return q.active
	case errors.Is(err, errInactive):
		return q.inactive
	case errors.Is(err, authn.ErrInvalid):
		for i, r := range reasons() {
			if r.err == nil || errors.Is(err, r.err) {
				return q.refused[i]
			}
		}
	case errors.Is(err, asking.ErrBusy):
		return q.busy
	}
	return q.failed
}
