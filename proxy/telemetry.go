package proxy

import (
	"errors"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/engine/meter"
	"github.com/sallyport/sallyport/proxy/problem"
	"github.com/sallyport/sallyport/proxy/route"
)

// instruments are the metrics of the front.
type instruments struct {
	requests         *meter.Counter
	duration         *meter.Histogram
	upstreamRequests *meter.Counter
	upstreamDuration *meter.Histogram
	upstreamErrors   *meter.Counter
	connections      *meter.Counter
	panics           *meter.Count
}

func newInstruments(r *meter.Registry) *instruments {
	return &instruments{
		requests: r.Counter("sallyport.requests", "{request}", "Requests by listener, route, outcome and class of the status."),
		duration: r.Histogram("sallyport.request.duration",
			"Time from the end of the request head to the end of the response.", meter.Bounds()),
		upstreamRequests: r.Counter("sallyport.upstream.requests", "{request}",
			"Requests that an upstream answered, by class of the status."),
		upstreamDuration: r.Histogram("sallyport.upstream.duration",
			"Time from sending a request to the head of the upstream's response.", meter.Bounds()),
		upstreamErrors: r.Counter("sallyport.upstream.errors", "{error}", "Requests that an upstream did not answer, by reason."),
		connections:    r.UpDownCounter("sallyport.connections.open", "{connection}", "Open client connections by listener."),
		panics:         r.Counter("sallyport.panics", "{panic}", "Panics that ended a connection and not the process.").With(),
	}
}

// measure is what is counted of a request or an exchange.
type measure struct {
	count    *meter.Count
	duration *meter.Durations
}

func (m *measure) add(took time.Duration) {
	m.count.Add(1)
	m.duration.Record(took)
}

// slot keeps a measure from its first use on. Whoever is first at the same time
// gets the same series.
type slot struct{ atomic.Pointer[measure] }

func (s *slot) of(count *meter.Counter, duration *meter.Histogram, attrs ...meter.Attr) *measure {
	m := &measure{count: count.With(attrs...), duration: duration.With(attrs...)}
	s.Store(m)
	return m
}

// stats keeps the series of one listener: finding them each time would cost more
// than all the counting.
type stats struct {
	listener string
	routes   []cells // by route index; the last is for requests without route
}

// cells are the series of one route, by outcome and class of status.
type cells struct {
	name  string
	slots [outcomes * classesOfStatus]slot
}

const (
	outcomes        = 8
	classesOfStatus = 6 // 0: no status
)

var outcomeNames = [outcomes]authz.Outcome{
	authz.OutcomeAllowed, authz.OutcomeDenied, authz.OutcomeFault,
	authz.OutcomeUnauthenticated, authz.OutcomeUnavailable, authz.OutcomeRefused, authz.OutcomeAnswered,
	authz.OutcomeLimited,
}

func newStats(listener string, table *route.Table) stats {
	st := stats{listener: listener, routes: make([]cells, len(table.Routes())+1)}
	for i, r := range table.Routes() {
		st.routes[i].name = r.Config.Name
	}
	return st
}

// served counts a request.
func (in *instruments) served(st *stats, r *route.Route, outcome authz.Outcome, status int, took time.Duration) {
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
	at := &cell.slots[o*classesOfStatus+class]
	m := at.Load()
	if m == nil {
		m = at.of(in.requests, in.duration,
			meter.String("listener", st.listener), meter.String("route", cell.name),
			meter.String("outcome", string(outcomeNames[o])), meter.String("code", className(class)))
	}
	m.add(took)
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

// upstreamStats keeps the series of one upstream.
type upstreamStats struct {
	name    string
	classes [classesOfStatus]slot
	errors  [4]atomic.Pointer[meter.Count] // by index of errorReasons
}

var errorReasons = [4]string{"unreachable", "timeout", "protocol", "busy"}

// answered counts a response, failed the lack of one.
func (in *instruments) answered(u *upstreamStats, status int, took time.Duration) {
	class := classOf(status)
	m := u.classes[class].Load()
	if m == nil {
		m = u.classes[class].of(in.upstreamRequests, in.upstreamDuration,
			meter.String("upstream", u.name), meter.String("code", className(class)))
	}
	m.add(took)
}

func (in *instruments) failed(u *upstreamStats, err error) {
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
	c := u.errors[reason].Load()
	if c == nil {
		c = in.upstreamErrors.With(meter.String("upstream", u.name), meter.String("reason", errorReasons[reason]))
		u.errors[reason].Store(c)
	}
	c.Add(1)
}
