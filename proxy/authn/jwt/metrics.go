package jwt

import (
	"context"
	"fmt"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
)

// What came of a token that was not in the cache of verified tokens, as far as
// its signature is concerned.
const (
	outcomeVerified = "verified"
	outcomeFailed   = "failed"
	outcomeLimited  = "limited"
)

// newVerificationCounter returns what counts the signatures that were checked
// for name.
func newVerificationCounter(meter metric.Meter, name string) (func(ctx context.Context, outcome string), error) {
	if meter == nil {
		meter = noop.Meter{}
	}
	c, err := meter.Int64Counter("sallyport.token.verifications", metric.WithUnit("{token}"),
		metric.WithDescription("Tokens whose signature had to be checked because they were not among those verified before, "+
			"by authenticator and outcome: verified, failed, or limited when it was not checked because of verification_limit."))
	if err != nil {
		return nil, fmt.Errorf("register sallyport.token.verifications: %w", err)
	}
	options := map[string]metric.AddOption{}
	for _, outcome := range []string{outcomeVerified, outcomeFailed, outcomeLimited} {
		options[outcome] = metric.WithAttributeSet(attribute.NewSet(
			attribute.String("authenticator", name), attribute.String("outcome", outcome)))
	}
	return func(ctx context.Context, outcome string) { c.Add(ctx, 1, options[outcome]) }, nil
}
