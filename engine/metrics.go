package engine

import (
	"time"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/engine/meter"
)

// instruments are the engine's metrics, with a series prepared for whatever can
// happen: the path of a decision looks none up.
type instruments struct {
	builtinErrors, panics *meter.Count
	activated, refused    *meter.Count
	hit, miss, off        *meter.Count
	evictions             *meter.Count
	allowed, denied       outcome
	faults                map[authz.FaultKind]outcome
	fault                 outcome // of any other kind
}

// outcome is what is counted of a decision with this outcome.
type outcome struct {
	decisions *meter.Count
	duration  *meter.Durations
}

func newInstruments(r *meter.Registry) *instruments {
	decisions := r.Counter("sallyport.decisions", "", "Decisions by outcome; faults of the policy by kind.")
	duration := r.Histogram("sallyport.decision.duration",
		"Time to find the decision in the cache or to build the input document and evaluate the policy, without the wait for a body.",
		meter.Bounds())
	activations := r.Counter("sallyport.policy.activations", "", "Policy revisions that became live, or were refused.")
	lookups := r.Counter("sallyport.decision_cache.lookups", "",
		"Decisions that were found in the cache (hit), were not there (miss), or may not be taken from it (off).")
	of := func(name authz.Outcome, more ...meter.Attr) outcome {
		attrs := append(more, meter.String("outcome", string(name)))
		return outcome{decisions.With(attrs...), duration.With(attrs...)}
	}
	m := &instruments{
		builtinErrors: r.Counter("sallyport.policy.builtin_errors", "",
			"Built-in functions that failed and so were undefined to the policy.").With(),
		panics:    r.Counter("sallyport.policy.panics", "", "Evaluations that panicked and so denied.").With(),
		activated: activations.With(meter.String("result", "activated")),
		refused:   activations.With(meter.String("result", "refused")),
		hit:       lookups.With(meter.String("result", "hit")),
		miss:      lookups.With(meter.String("result", "miss")),
		off:       lookups.With(meter.String("result", "off")),
		evictions: r.Counter("sallyport.decision_cache.evictions", "", "Decisions that left the cache to make room.").With(),
		allowed:   of(authz.OutcomeAllowed),
		denied:    of(authz.OutcomeDenied),
		faults:    map[authz.FaultKind]outcome{},
		fault:     of(authz.OutcomeFault),
	}
	for _, kind := range []authz.FaultKind{
		authz.FaultUndefined, authz.FaultType, authz.FaultUnknownKey,
		authz.FaultUnsupported, authz.FaultTimeout, authz.FaultEval,
	} {
		m.faults[kind] = of(authz.OutcomeFault, meter.String("fault", string(kind)))
	}
	return m
}

func (m *instruments) decision(d *authz.Decision, took time.Duration) {
	o := m.denied
	switch {
	case d.Fault != nil:
		var known bool
		if o, known = m.faults[d.Fault.Kind]; !known {
			o = m.fault
		}
	case d.Allow:
		o = m.allowed
	}
	o.decisions.Add(1)
	o.duration.Record(took)
}

func (m *instruments) activation(ok bool) {
	if ok {
		m.activated.Add(1)
	} else {
		m.refused.Add(1)
	}
}

func (m *instruments) lookup(q *question, found *authz.Decision) {
	switch {
	case q == nil:
		m.off.Add(1)
	case found != nil:
		m.hit.Add(1)
	default:
		m.miss.Add(1)
	}
}

func (m *instruments) evicted(n int) {
	if n > 0 {
		m.evictions.Add(int64(n))
	}
}
