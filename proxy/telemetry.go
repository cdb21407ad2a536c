package proxy

import (
	"context"
	"errors"
	"strconv"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/problem"
	"github.com/sallyport/sallyport/proxy/route"
)

// instruments are the metrics of the front.
type instruments struct {
	requests         metric.Int64Counter
	duration         metric.Float64Histogram
	upstreamRequests metric.Int64Counter
	upstreamDuration metric.Float64Histogram
	upstreamErrors   metric.Int64Counter
	connections      metric.Int64UpDownCounter
	panics           metric.Int64Counter
}

// Bounds of durations in seconds: a gateway adds fractions of a millisecond.
var durationBounds = []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}

func newInstruments(m metric.Meter) (*instruments, error) {
	var in instruments
	var errs [7]error
	in.requests, errs[0] = m.Int64Counter("sallyport.requests", metric.WithUnit("{request}"),
		metric.WithDescription("Requests by listener, route, outcome and class of the status."))
	in.duration, errs[1] = m.Float64Histogram("sallyport.request.duration", metric.WithUnit("s"),
		metric.WithExplicitBucketBoundaries(durationBounds...),
		metric.WithDescription("Time from the end of the request head to the end of the response."))
	in.upstreamRequests, errs[2] = m.Int64Counter("sallyport.upstream.requests", metric.WithUnit("{request}"),
		metric.WithDescription("Requests that an upstream answered, by class of the status."))
	in.upstreamDuration, errs[3] = m.Float64Histogram("sallyport.upstream.duration", metric.WithUnit("s"),
		metric.WithExplicitBucketBoundaries(durationBounds...),
		metric.WithDescription("Time from sending a request to the head of the upstream's response."))
	in.upstreamErrors, errs[4] = m.Int64Counter("sallyport.upstream.errors", metric.WithUnit("{error}"),
		metric.WithDescription("Requests that an upstream did not answer, by reason."))
	in.connections, errs[5] = m.Int64UpDownCounter("sallyport.connections.open", metric.WithUnit("{connection}"),
		metric.WithDescription("Open client connections by listener."))
	in.panics, errs[6] = m.Int64Counter("sallyport.panics", metric.WithUnit("{panic}"),
		metric.WithDescription("Panics that ended a connection and not the process."))
	return &in, errors.Join(errs[:]...)
}

// stats keeps the attribute sets of one listener: making them each time would
// cost more than all the counting.
type stats struct {
	listener string
	routes   []cells // by route index; the last is for requests without route
}

// cells are the attribute sets of one route, by outcome and class of status.
type cells struct {
	name string
	sets [outcomes * classesOfStatus]atomic.Pointer[measure]
}

// measure holds the prepared options of one attribute set.
type measure struct {
	add    []metric.AddOption
	record []metric.RecordOption
}

func newMeasure(kv ...attribute.KeyValue) *measure {
	set := metric.WithAttributeSet(attribute.NewSet(kv...))
	return &measure{add: []metric.AddOption{set}, record: []metric.RecordOption{set}}
}

const (
	outcomes        = 7
	classesOfStatus = 6 // 0: no status
)

var outcomeNames = [outcomes]authz.Outcome{
	authz.OutcomeAllowed, authz.OutcomeDenied, authz.OutcomeFault,
	authz.OutcomeUnauthenticated, authz.OutcomeUnavailable, authz.OutcomeRefused, authz.OutcomeAnswered,
}

func newStats(listener string, table *route.Table) stats {
	st := stats{listener: listener, routes: make([]cells, len(table.Routes())+1)}
	for i, r := range table.Routes() {
		st.routes[i].name = r.Config.Name
	}
	return st
}

// measure returns the options for a request, making them at its first use.
func (st *stats) measure(r *route.Route, outcome authz.Outcome, status int) *measure {
	cell := &st.routes[len(st.routes)-1]
	if r != nil {
		cell = &st.routes[r.Index]
	}
	o := 0
	for i, name := range outcomeNames {
		if name == outcome {
			o = i
		}
	}
	class := classOf(status)
	slot := &cell.sets[o*classesOfStatus+class]
	if m := slot.Load(); m != nil {
		return m
	}
	m := newMeasure(
		attribute.String("listener", st.listener), attribute.String("route", cell.name),
		attribute.String("outcome", string(outcomeNames[o])), attribute.String("code", className(class)),
	)
	slot.Store(m)
	return m
}

func classOf(status int) int {
	if c := status / 100; c < classesOfStatus {
		return c
	}
	return 0
}

func className(class int) string {
	if class == 0 {
		return "none"
	}
	return strconv.Itoa(class) + "xx"
}

// upstreamStats are the prepared options of one upstream.
type upstreamStats struct {
	classes [classesOfStatus]*measure
	errors  [4]*measure
}

var errorReasons = [4]string{"unreachable", "timeout", "protocol", "busy"}

func newUpstreamStats(name string) *upstreamStats {
	u := &upstreamStats{}
	for i := range u.classes {
		u.classes[i] = newMeasure(attribute.String("upstream", name), attribute.String("code", className(i)))
	}
	for i := range u.errors {
		u.errors[i] = newMeasure(attribute.String("upstream", name), attribute.String("reason", errorReasons[i]))
	}
	return u
}

// answered counts a response, failed the lack of one.
func (in *instruments) answered(ctx context.Context, u *upstreamStats, status int, took time.Duration) {
	m := u.classes[classOf(status)]
	in.upstreamRequests.Add(ctx, 1, m.add...)
	in.upstreamDuration.Record(ctx, took.Seconds(), m.record...)
}

func (in *instruments) failed(ctx context.Context, u *upstreamStats, err error) {
	reason := 0
	switch {
	case errors.Is(err, problem.ErrUpstreamTimeout):
		reason = 1
	case errors.Is(err, problem.ErrUpstreamProtocol):
		reason = 2
	case errors.Is(err, problem.ErrUpstreamBusy):
		reason = 3
	case !errors.Is(err, problem.ErrUnreachable):
		return // the client's fault
	}
	in.upstreamErrors.Add(ctx, 1, u.errors[reason].add...)
}
