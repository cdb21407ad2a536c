package introspection

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/sallyport/sallyport/proxy/authn"
)

// Run keeps the key set fresh, if there is one, until ctx ends, and returns nil then.
func (a *Authenticator) Run(ctx context.Context) error {
	defer a.provider.client.Close()
	if a.reader.verifier != nil {
		return a.reader.verifier.Run(ctx)
	}
	<-ctx.Done()
	return nil
}

// Prime fetches the key set, if there is one. An error is no reason not to start:
// until the keys are there, tokens get authn.ErrUnavailable.
func (a *Authenticator) Prime(ctx context.Context) error {
	if a.reader.verifier == nil {
		return nil
	}
	return a.reader.verifier.Prime(ctx)
}

// Inherit takes over the memory of DPoP proofs of prev, the authenticator of this name
// in the configuration before, so that a reload makes no proof good for a second time.
// Call it before the first request.
func (a *Authenticator) Inherit(prev *Authenticator) {
	a.possession.Proofs.Inherit(prev.possession.Proofs)
}

// Files returns the files that Reload reads.
func (a *Authenticator) Files() []string {
	files := append([]string{a.provider.credentials.file()}, a.provider.client.Files()...)
	if a.reader.verifier != nil {
		files = append(files, a.reader.verifier.Files()...)
	}
	slices.Sort(files)
	return slices.DeleteFunc(slices.Compact(files), func(f string) bool { return f == "" })
}

// Reload reads the files again. What could not be read stays as it was.
func (a *Authenticator) Reload(ctx context.Context) error {
	errs := []error{a.provider.credentials.reload(), a.provider.client.Reload()}
	if a.reader.verifier != nil {
		errs = append(errs, a.reader.verifier.Reload(ctx))
	}
	return errors.Join(errs...)
}

// outcomeOf is how a question ended, for the counter.
func outcomeOf(err error) string {
	switch {
	case err == nil:
		return "active"
	case errors.Is(err, errInactive):
		return "inactive"
	case errors.Is(err, authn.ErrInvalid):
		return "refused"
	case errors.Is(err, errBusy):
		return "busy"
	}
	return "error"
}

// newCounter returns what counts the questions of name.
func newCounter(meter metric.Meter, name string) (func(context.Context, string), error) {
	if meter == nil {
		meter = noop.Meter{}
	}
	c, err := meter.Int64Counter("sallyport.introspections", metric.WithUnit("{question}"),
		metric.WithDescription("Questions to a provider about a token, by authenticator and outcome: active, inactive, "+
			"refused (active, and not acceptable here), busy (too many under way; the provider was not asked) or error."))
	if err != nil {
		return nil, fmt.Errorf("register sallyport.introspections: %w", err)
	}
	return func(ctx context.Context, outcome string) {
		c.Add(ctx, 1, metric.WithAttributes(
			attribute.String("authenticator", name), attribute.String("outcome", outcome)))
	}, nil
}
