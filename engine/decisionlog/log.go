// Package decisionlog writes what the gateway decided, for auditors: one JSON
// object per request and line.
//
// A request hands its record over and goes on; one worker masks, encodes and
// writes. The queue between them is bounded and what does not fit is dropped and
// counted, because an audit log that can stop the gateway is a way to stop it.
//
// Masking is done here, in Go, before anything else sees a record: neither the
// output nor a sink behind it gets a credential in the clear.
package decisionlog

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/engine/meter"
)

// Event is one record as it left the log: masked and encoded. It is shared and
// not to be changed.
type Event struct {
	Time       time.Time
	RequestID  string
	DecisionID string // empty when the request never reached the policy
	Outcome    authz.Outcome
	Entrypoint string
	Revision   string
	Bundles    map[string]string // revision by name
	TraceID    string
	SpanID     string
	Input      []byte // masked input document, JSON; nil if it was too large
	Decision   []byte // masked decision, JSON; nil if there is none
	JSON       []byte // the whole record, without a line end
}

// Sink takes further copies, such as OPA's decision log plugin. Emit is called by
// the one worker, in order: a sink that can block has a queue of its own.
type Sink interface {
	Emit(ctx context.Context, e *Event)
}

// Deps are what the log uses of its surroundings. All may be left out.
type Deps struct {
	Logger  *slog.Logger
	Metrics *meter.Registry // of the records
	Meter   metric.Meter    // of the queue
	Now     func() time.Time
	// Entrypoint is written for requests whose route names none.
	Entrypoint string
	Sinks      []Sink
}

// Log is the decision log. It is safe for concurrent use; Run is called once.
type Log struct {
	deps   Deps
	queue  chan *authz.Record
	closed atomic.Bool
	w      io.Writer
	out    *bufio.Writer
	enc    encoder
	tail   *tail

	failing bool // the newest write failed; the worker's alone

	written, dropped, failed *meter.Count
}

// New returns a log that writes to w once it runs.
func New(cfg Config, w io.Writer, deps Deps) (*Log, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if deps.Logger == nil {
		deps.Logger = slog.New(slog.DiscardHandler)
	}
	if deps.Metrics == nil {
		deps.Metrics = meter.New()
	}
	if deps.Meter == nil {
		deps.Meter = noop.Meter{}
	}
	if deps.Now == nil {
		deps.Now = time.Now
	}
	l := &Log{
		deps: deps, queue: make(chan *authz.Record, cfg.Queue), w: w, out: bufio.NewWriterSize(w, 64<<10),
		enc:  encoder{mask: newMasker(cfg.Mask), maxInput: int(cfg.MaxInput), entrypoint: deps.Entrypoint},
		tail: newTail(cfg.Recent),
	}
	return l, l.instrument(deps.Metrics, deps.Meter)
}

func (l *Log) instrument(metrics *meter.Registry, m metric.Meter) error {
	l.written = metrics.Counter("sallyport.decision_log.written", "", "Records written to the decision log.").With()
	l.dropped = metrics.Counter("sallyport.decision_log.dropped", "", "Records lost because the queue was full or the log had ended.").With()
	l.failed = metrics.Counter("sallyport.decision_log.errors", "", "Writes and sinks that failed.").With()
	if _, err := m.Int64ObservableGauge("sallyport.decision_log.queued",
		metric.WithDescription("Records that wait to be written."),
		metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
			o.Observe(int64(len(l.queue)))
			return nil
		})); err != nil {
		return fmt.Errorf("create metrics of the decision log: %w", err)
	}
	return nil
}

// Record queues r, which must not change any more. It never blocks. A decision
// with log.drop is not recorded; a policy fault always is.
func (l *Log) Record(r *authz.Record) {
	if r.Decision != nil && r.Decision.LogDrop && r.Decision.Fault == nil {
		return
	}
	if l.closed.Load() {
		l.drop()
		return
	}
	if r.Input != nil && r.Input.Request.Body != nil {
		r = withoutBody(r) // a full queue must not hold a buffered body per record
	}
	select {
	case l.queue <- r:
	default:
		l.drop()
	}
}

func withoutBody(r *authz.Record) *authz.Record {
	in, out := *r.Input, *r
	in.Request.Body = nil
	out.Input = &in
	return &out
}

func (l *Log) drop() { l.dropped.Add(1) }

// flushTimeout is how long the end waits for whoever reads the log.
const flushTimeout = 5 * time.Second

// Run writes records until ctx ends and then what is still queued. Whoever stops
// the gateway ends ctx after the last request. It returns the error of the last
// flush. A reader that takes nothing does not keep the process: what it has not
// taken by then is lost, counted and told.
func (l *Log) Run(ctx context.Context) error {
	done := make(chan error, 1)
	go func() { done <- l.work(ctx) }() // a write that hangs cannot be ended
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	late := time.NewTimer(flushTimeout)
	defer late.Stop()
	select {
	case err := <-done:
		return err
	case <-late.C:
	}
	ctx = context.WithoutCancel(ctx)
	lost := len(l.queue)
	l.closed.Store(true)
	l.dropped.Add(int64(lost))
	l.deps.Logger.ErrorContext(ctx, "nobody reads the decision log; records are lost", slog.Int("records", lost), slog.String("after", flushTimeout.String()))
	return fmt.Errorf("flush decision log: not taken within %v", flushTimeout)
}

func (l *Log) work(ctx context.Context) error {
	work := context.WithoutCancel(ctx)
	for {
		select {
		case r := <-l.queue:
			l.handle(work, r)
			if len(l.queue) == 0 {
				l.flush(work)
			}
		case <-ctx.Done():
			l.closed.Store(true)
			return l.drain(work)
		}
	}
}

func (l *Log) drain(ctx context.Context) error {
	defer l.tail.close()
	for {
		select {
		case r := <-l.queue:
			l.handle(ctx, r)
		default:
			if err := l.out.Flush(); err != nil {
				return fmt.Errorf("flush decision log: %w", err)
			}
			return nil
		}
	}
}

// handle encodes one record and hands it to all who want it. A panic, which could
// only come from an encoder's mistake or a sink, costs the record, not the log.
func (l *Log) handle(ctx context.Context, r *authz.Record) {
	defer func() {
		if p := recover(); p != nil {
			l.failed.Add(1)
			l.deps.Logger.ErrorContext(ctx, "decision log record lost", slog.Any("panic", p))
		}
	}()
	e := l.enc.event(r, l.deps.Now)
	l.write(ctx, e.JSON)
	l.tail.add(e)
	for _, s := range l.deps.Sinks {
		s.Emit(ctx, e)
	}
}

func (l *Log) write(ctx context.Context, line []byte) {
	_, err := l.out.Write(line)
	if err == nil {
		err = l.out.WriteByte('\n')
	}
	if err != nil {
		l.writeFailed(ctx, err)
		return
	}
	l.written.Add(1)
}

func (l *Log) flush(ctx context.Context) {
	if l.out.Buffered() == 0 {
		return
	}
	if err := l.out.Flush(); err != nil {
		l.writeFailed(ctx, err)
		return
	}
	if l.failing {
		l.failing = false
		l.deps.Logger.InfoContext(ctx, "the decision log is written again")
	}
}

// writeFailed counts a failed write. A bufio.Writer keeps its error for ever, so
// it is reset: a pipe that is gone stays gone, a disk that was full may not. The
// first of a series is told, or the operator's log would grow with each request.
func (l *Log) writeFailed(ctx context.Context, err error) {
	l.failed.Add(1)
	if !l.failing {
		l.deps.Logger.ErrorContext(ctx, "write decision log", slog.Any("error", err))
	}
	l.failing = true
	l.out.Reset(l.w)
}

// Recent returns up to n of the newest events, newest first.
func (l *Log) Recent(n int) []*Event { return l.tail.recent(n) }

// Follow returns a channel of the events from now on. It is closed when ctx or
// the log ends. A follower that does not keep up misses events.
func (l *Log) Follow(ctx context.Context) <-chan *Event { return l.tail.follow(ctx) }
