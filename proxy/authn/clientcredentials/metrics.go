package clientcredentials

import (
	"errors"

	"github.com/sallyport/sallyport/engine/meter"
	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/asking"
)

// errRefuses: the provider does not know the client, or has no such token for it. It
// comes with authn.ErrInvalid.
var errRefuses = errors.New("it refuses the client")

// questions are the series of one authenticator.
type questions struct{ granted, refused, unacceptable, busy, failed *meter.Count }

// newQuestions registers the counter. With nil, nobody sees it.
func newQuestions(name string, metrics *meter.Registry) questions {
	if metrics == nil {
		metrics = meter.New()
	}
	c := metrics.Counter("sallyport.client.credentials.questions", "{question}",
		"Questions to a provider for a token of a caller, by authenticator and outcome: granted, refused (the provider does not take the caller's "+
			"credentials), unacceptable (the token that it gave is not good here), busy (too many under way; the provider was not asked) or error.")
	of := func(outcome string) *meter.Count {
		return c.With(meter.String("authenticator", name), meter.String("outcome", outcome))
	}
	return questions{of("granted"), of("refused"), of("unacceptable"), of("busy"), of("error")}
}

// of returns the series of how a question ended.
func (q *questions) of(err error) *meter.Count {
	switch {
	case err == nil:
		return q.granted
	case errors.Is(err, errRefuses):
		return q.refused
	case errors.Is(err, authn.ErrInvalid):
		return q.unacceptable
	case errors.Is(err, asking.ErrBusy):
		return q.busy
	}
	return q.failed
}
