package kubernetes

import (
	"context"
	"errors"
	"fmt"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/asking"
)

// Run returns when ctx ends, and leaves no idle connection behind.
func (a *Authenticator) Run(ctx context.Context) error {
	<-ctx.Done()
	a.server.client.Close()
	return nil
}

// Files returns the files that Reload reads.
func (a *Authenticator) Files() []string {
	return append([]string{a.config.TokenFile}, a.server.client.Files()...)
}

// Reload reads the files again. What could not be read stays as it was.
func (a *Authenticator) Reload(context.Context) error {
	return errors.Join(a.server.readToken(), a.server.client.Reload())
}

// outcomeOf is how a question ended, for the counter.
func outcomeOf(err error) string {
	switch {
	case err == nil:
		return "accepted"
	case errors.Is(err, authn.ErrInvalid):
		return "refused"
	case errors.Is(err, asking.ErrBusy):
		return "busy"
	}
	return "error"
}

// newCounter returns what counts the questions of name.
func newCounter(meter metric.Meter, name string) (func(ctx context.Context, review, outcome string), error) {
	if meter == nil {
		meter = noop.Meter{}
	}
	c, err := meter.Int64Counter("sallyport.kubernetes.reviews", metric.WithUnit("{question}"),
		metric.WithDescription("Questions to a Kubernetes API server, by authenticator, review (token or access) and outcome: "+
			"accepted or refused for tokens, allowed or not_allowed for access, busy (too many under way; nobody was asked) or error."))
	if err != nil {
		return nil, fmt.Errorf("register sallyport.kubernetes.reviews: %w", err)
	}
	return func(ctx context.Context, review, outcome string) {
		c.Add(ctx, 1, metric.WithAttributes(
			attribute.String("authenticator", name), attribute.String("review", review), attribute.String("outcome", outcome)))
	}, nil
}
