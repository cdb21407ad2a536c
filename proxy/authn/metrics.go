package authn

import "github.com/sallyport/sallyport/engine/meter"

// authentications is the counter of what authenticators answered.
type authentications struct{ *meter.Counter }

func newAuthentications(r *meter.Registry) authentications {
	return authentications{r.Counter("sallyport.authentications", "{request}",
		"Requests by the authenticator that ended the search for an identity, and its answer: "+
			"accepted, rejected, limited, unavailable, answered by itself (a redirect to log in); missing when no authenticator found a credential.")}
}

// outcomes are the series of one authenticator.
type outcomes struct{ accepted, rejected, limited, unavailable, answered *meter.Count }

func (a authentications) outcomesOf(name string) outcomes {
	return outcomes{
		accepted:    a.of(name, "accepted"),
		rejected:    a.of(name, "rejected"),
		limited:     a.of(name, "limited"),
		unavailable: a.of(name, "unavailable"),
		answered:    a.of(name, "answered"),
	}
}

func (a authentications) of(name, outcome string) *meter.Count {
	return a.With(meter.String("authenticator", name), meter.String("outcome", outcome))
}
