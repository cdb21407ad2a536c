package engine

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/sallyport/sallyport/engine/authz"
)

// instruments are the engine's metrics. The attribute sets of a decision are made
// once: the hot path allocates none.
type instruments struct {
	decisions     metric.Int64Counter
	duration      metric.Float64Histogram
	builtinErrors metric.Int64Counter
	panics        metric.Int64Counter
	activations   metric.Int64Counter
	lookups       metric.Int64Counter
	evictions     metric.Int64Counter

	hit, miss, off  []metric.AddOption
	allowed, denied outcome
	faults          map[authz.FaultKind]outcome
}

// outcome has the options of one attribute set for each kind of instrument.
type outcome struct {
	add    []metric.AddOption
	record []metric.RecordOption
}

func newOutcome(attrs ...attribute.KeyValue) outcome {
	set := metric.WithAttributeSet(attribute.NewSet(attrs...))
	return outcome{add: []metric.AddOption{set}, record: []metric.RecordOption{set}}
}

func newInstruments(meter metric.Meter) (*instruments, error) {
	m := &instruments{
		allowed: newOutcome(attribute.String("outcome", string(authz.OutcomeAllowed))),
		denied:  newOutcome(attribute.String("outcome", string(authz.OutcomeDenied))),
		faults:  map[authz.FaultKind]outcome{},
		hit:     newOutcome(attribute.String("result", "hit")).add,
		miss:    newOutcome(attribute.String("result", "miss")).add,
		off:     newOutcome(attribute.String("result", "off")).add,
	}
	for _, kind := range []authz.FaultKind{
		authz.FaultUndefined, authz.FaultType, authz.FaultUnknownKey,
		authz.FaultUnsupported, authz.FaultTimeout, authz.FaultEval,
	} {
		m.faults[kind] = newOutcome(
			attribute.String("outcome", string(authz.OutcomeFault)), attribute.String("fault", string(kind)))
	}
	var errs [7]error
	m.decisions, errs[0] = meter.Int64Counter("sallyport.decisions",
		metric.WithDescription("Decisions by outcome; faults of the policy by kind."))
	m.duration, errs[1] = meter.Float64Histogram("sallyport.decision.duration", metric.WithUnit("s"),
		metric.WithDescription("Time to find the decision in the cache or to build the input document and evaluate the policy, without the wait for a body."),
		metric.WithExplicitBucketBoundaries(10e-6, 25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3))
	m.builtinErrors, errs[2] = meter.Int64Counter("sallyport.policy.builtin_errors",
		metric.WithDescription("Built-in functions that failed and so were undefined to the policy."))
	m.panics, errs[3] = meter.Int64Counter("sallyport.policy.panics",
		metric.WithDescription("Evaluations that panicked and so denied."))
	m.activations, errs[4] = meter.Int64Counter("sallyport.policy.activations",
		metric.WithDescription("Policy revisions that became live, or were refused."))
	m.lookups, errs[5] = meter.Int64Counter("sallyport.decision_cache.lookups",
		metric.WithDescription("Decisions that were found in the cache (hit), were not there (miss), or may not be taken from it (off)."))
	m.evictions, errs[6] = meter.Int64Counter("sallyport.decision_cache.evictions",
		metric.WithDescription("Decisions that left the cache to make room."))
	return m, errors.Join(errs[:]...)
}

func (m *instruments) decision(ctx context.Context, d *authz.Decision, took time.Duration) {
	o := &m.denied
	switch {
	case d.Fault != nil:
		f := m.faults[d.Fault.Kind]
		o = &f
	case d.Allow:
		o = &m.allowed
	}
	m.decisions.Add(ctx, 1, o.add...)
	m.duration.Record(ctx, took.Seconds(), o.record...)
}

func (m *instruments) activation(ctx context.Context, ok bool) {
	result := "activated"
	if !ok {
		result = "refused"
	}
	m.activations.Add(ctx, 1, metric.WithAttributes(attribute.String("result", result)))
}

func (m *instruments) lookup(ctx context.Context, q *question, found *authz.Decision) {
	result := m.miss
	switch {
	case q == nil:
		result = m.off
	case found != nil:
		result = m.hit
	}
	m.lookups.Add(ctx, 1, result...)
}

func (m *instruments) evicted(ctx context.Context, n int) {
	if n > 0 {
		m.evictions.Add(ctx, int64(n))
	}
}
