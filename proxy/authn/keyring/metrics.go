package keyring

import (
	"context"
	"fmt"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
)

// newFetchCounter returns what counts the fetches of name's key set.
func newFetchCounter(meter metric.Meter, name string) (func(context.Context, string), error) {
	if meter == nil {
		meter = noop.Meter{}
	}
	c, err := meter.Int64Counter("sallyport.jwks.fetches", metric.WithUnit("{fetch}"),
		metric.WithDescription("Attempts to read an issuer's key set, by authenticator and outcome: ok or error."))
	if err != nil {
		return nil, fmt.Errorf("register sallyport.jwks.fetches: %w", err)
	}
	return func(ctx context.Context, outcome string) {
		c.Add(ctx, 1, metric.WithAttributes(
			attribute.String("authenticator", name), attribute.String("outcome", outcome)))
	}, nil
}
