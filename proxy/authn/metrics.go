package authn

import (
	"context"
	"fmt"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
)

// authentications is the counter of what authenticators answered.
type authentications struct{ metric.Int64Counter }

func newAuthentications(meter metric.Meter) (authentications, error) {
	if meter == nil {
		meter = noop.Meter{}
	}
	c, err := meter.Int64Counter("sallyport.authentications",
		metric.WithDescription("Requests by the authenticator that ended the search for an identity, and its answer: "+
			"accepted, rejected, unavailable, answered by itself (a redirect to log in); missing when no authenticator found a credential."),
		metric.WithUnit("{request}"))
	if err != nil {
		return authentications{}, fmt.Errorf("register sallyport.authentications: %w", err)
	}
	return authentications{c}, nil
}

// outcomes are the counters of one authenticator.
type outcomes struct{ accepted, rejected, unavailable, answered counter }

func (a authentications) outcomesOf(name string) outcomes {
	return outcomes{
		accepted:    a.of(name, "accepted"),
		rejected:    a.of(name, "rejected"),
		unavailable: a.of(name, "unavailable"),
		answered:    a.of(name, "answered"),
	}
}

func (a authentications) of(name, outcome string) counter {
	set := attribute.NewSet(attribute.String("authenticator", name), attribute.String("outcome", outcome))
	return counter{counts: a, options: []metric.AddOption{metric.WithAttributeSet(set)}}
}

// counter is a counter with its attributes prepared: building an attribute set
// for each request costs three times what the addition does.
type counter struct {
	counts  authentications
	options []metric.AddOption
}

func (c counter) add(ctx context.Context) { c.counts.Add(ctx, 1, c.options...) }
