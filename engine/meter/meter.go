// Package meter counts what happens on the path of a request. Its counters and
// histograms cost a few nanoseconds and no allocation, because a series is found
// once, by With, and counting is an atomic addition to one of several cells.
//
// It exports nothing: Snapshot is what package telemetry hands to the Prometheus
// page and to OTLP. What happens rarely is better counted with the instruments of
// the OpenTelemetry API. The package stands below all others and knows only the
// standard library, so that the engine and the proxy can both count with it.
package meter

import (
	"slices"
	"sync"
	"time"
)

// Kind is what a metric is.
type Kind int

// The kinds of metrics.
const (
	KindCounter   Kind = iota // a sum that only grows
	KindUpDown                // a sum that grows and shrinks
	KindHistogram             // a distribution of durations
)

// Attr is one attribute of a series.
type Attr struct{ Key, Value string }

// String returns an attribute.
func String(key, value string) Attr { return Attr{Key: key, Value: value} }

// MaxSeries is how many series one metric has at most, as in the OpenTelemetry
// SDK. What goes beyond is counted together, in a series with the attribute Overflow.
const MaxSeries = 2000

// Overflow returns the attribute of the series that stands for all that are too
// many (OpenTelemetry specification, "Metrics SDK, Overflow attribute").
func Overflow() Attr { return String("otel.metric.overflow", "true") }

// Registry holds metrics. It is safe for concurrent use.
type Registry struct {
	start  time.Time
	shards int // cells of each series

	mu         sync.Mutex
	counters   map[identity]*Counter
	histograms map[identity]*Histogram
	order      []interface{ snapshot() Metric }
}

// identity tells metrics apart. Asking for one that is there returns it, so that
// what a reload builds again goes on counting.
type identity struct {
	kind                    Kind
	name, unit, description string
}

// New returns an empty registry. Its metrics count from now on.
func New() *Registry {
	return &Registry{
		start: time.Now(), shards: shards(),
		counters: map[identity]*Counter{}, histograms: map[identity]*Histogram{},
	}
}

// Start is since when the metrics count.
func (r *Registry) Start() time.Time { return r.start }

// Counter returns the counter of that name. Unit is one of UCUM's, such as
// {request}, or empty.
func (r *Registry) Counter(name, unit, description string) *Counter {
	return r.counter(identity{KindCounter, name, unit, description})
}

// UpDownCounter returns the counter of that name, which can also shrink.
func (r *Registry) UpDownCounter(name, unit, description string) *Counter {
	return r.counter(identity{KindUpDown, name, unit, description})
}

func (r *Registry) counter(id identity) *Counter {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c := r.counters[id]; c != nil {
		return c
	}
	c := &Counter{id: id, family: newFamily(func() *Count { return newCount(r.shards) })}
	r.counters[id] = c
	r.order = append(r.order, c)
	return c
}

// Histogram returns the histogram of durations of that name. It is exported in
// seconds. Bounds are the upper, inclusive limits of the buckets in ascending
// order; those of the first call count.
func (r *Registry) Histogram(name, description string, bounds []time.Duration) *Histogram {
	id := identity{KindHistogram, name, "s", description}
	r.mu.Lock()
	defer r.mu.Unlock()
	if h := r.histograms[id]; h != nil {
		return h
	}
	h := &Histogram{id: id, bounds: bounds}
	h.family = newFamily(func() *Durations { return newDurations(r.shards, bounds) })
	r.histograms[id] = h
	r.order = append(r.order, h)
	return h
}

// Bounds are the limits of the buckets of durations. A gateway adds tens of
// microseconds and waits for upstreams up to a minute.
func Bounds() []time.Duration {
	const us, ms = time.Microsecond, time.Millisecond
	return []time.Duration{
		100 * us, 250 * us, 500 * us, 1 * ms, 2500 * us, 5 * ms, 10 * ms, 25 * ms, 50 * ms, 100 * ms, 250 * ms, 500 * ms,
		time.Second, 2500 * ms, 5 * time.Second, 10 * time.Second, 30 * time.Second, time.Minute,
	}
}

// Metric is the state of one metric.
type Metric struct {
	Kind                    Kind
	Name, Unit, Description string
	Bounds                  []time.Duration // of a histogram; not to be changed
	Series                  []Series
}

// Series is the state of one series.
type Series struct {
	Attrs   []Attr        // by key; not to be changed
	Value   int64         // of a counter
	Buckets []uint64      // of a histogram: how many were in each; the last is beyond all bounds
	Sum     time.Duration // of a histogram
}

// Snapshot returns the state of every metric in the order in which they were
// registered. A series that never counted is not in it, because handles are
// prepared for much that never happens; one that can shrink always is. What is
// counted meanwhile may be in the buckets of a histogram and not yet in its sum,
// or the other way round.
func (r *Registry) Snapshot() []Metric {
	r.mu.Lock()
	order := slices.Clip(r.order)
	r.mu.Unlock()
	out := make([]Metric, 0, len(order))
	for _, m := range order {
		out = append(out, m.snapshot())
	}
	return out
}
