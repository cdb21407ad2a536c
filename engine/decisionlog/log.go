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
	"context"
	"fmt"
	"io"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/engine/meter"
)

// Event is one record as it left the log: masked and encoded. It and its slices
// are the log's again when Emit returns, and not to be changed.
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
	deps  Deps
	queue *queue
	w     io.Writer
	enc   encoder
	tail  *tail

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
		deps: deps, queue: newQueue(cfg.Queue), w: w,
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
			o.Observe(int64(l.queue.len()))
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
	if r.Input != nil && r.Input.Request.Body != nil {
		r = withoutBody(r) // a full queue must not hold a buffered body per record
	}
	if !l.queue.put(r) {
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
	lost := l.queue.close()
	l.dropped.Add(int64(lost))
	l.deps.Logger.ErrorContext(ctx, "nobody reads the decision log; records are lost", slog.Int("records", lost), slog.String("after", flushTimeout.String()))
	return fmt.Errorf("flush decision log: not taken within %v", flushTimeout)
}

// gather is how long the worker lets records come together after it wrote some:
// waking it and writing for each alone would cost more than the encoding. The
// first record after a quiet time does not wait.
const gather = time.Millisecond

// chunk is about how many bytes are written at once.
const chunk = 64 << 10

func (l *Log) work(ctx context.Context) error {
	work := context.WithoutCancel(ctx)
	var batch []*authz.Record
	pause := time.NewTimer(gather)
	defer pause.Stop()
	for {
		batch = l.queue.take(batch[:0])
		if len(batch) == 0 {
			select {
			case <-l.queue.wake:
			case <-ctx.Done():
				return l.drain(work)
			}
			continue
		}
		l.handleAll(work, batch)
		l.flush(work)
		if !l.queue.relax() {
			continue
		}
		pause.Reset(gather)
		select {
		case <-pause.C:
		case <-l.queue.wake:
		case <-ctx.Done():
			return l.drain(work)
		}
	}
}

func (l *Log) drain(ctx context.Context) error {
	defer l.tail.close()
	l.queue.close()
	l.handleAll(ctx, l.queue.take(nil))
	if err := l.writeOut(); err != nil {
		return fmt.Errorf("flush decision log: %w", err)
	}
	return nil
}

// handleAll handles the records and forgets them. It leaves less than a chunk to
// be written.
func (l *Log) handleAll(ctx context.Context, batch []*authz.Record) {
	for i, r := range batch {
		batch[i] = nil
		l.queue.begin()
		l.handle(ctx, r)
		if len(l.enc.out.b) >= chunk {
			l.flush(ctx)
		}
	}
}

// handle encodes one record and hands it to all who want it. A panic, which could
// only come from an encoder's mistake or a sink, costs the record, not the log.
func (l *Log) handle(ctx context.Context, r *authz.Record) {
	begin, encoded := len(l.enc.out.b), false
	defer func() {
		if p := recover(); p != nil {
			if !encoded {
				l.enc.out.b = l.enc.out.b[:begin]
			}
			l.failed.Add(1)
			l.deps.Logger.ErrorContext(ctx, "decision log record lost", slog.Any("panic", p))
		}
	}()
	e := l.enc.line(r, l.deps.Now)
	encoded = true
	l.written.Add(1)
	l.tail.add(e.JSON)
	for _, s := range l.deps.Sinks {
		s.Emit(ctx, e)
	}
}

// flush writes what is encoded.
func (l *Log) flush(ctx context.Context) {
	if len(l.enc.out.b) == 0 {
		return
	}
	if err := l.writeOut(); err != nil {
		l.writeFailed(ctx, err)
		return
	}
	if l.failing {
		l.failing = false
		l.deps.Logger.InfoContext(ctx, "the decision log is written again")
	}
}

// writeOut writes what is encoded and empties the buffer, also after an error: a
// pipe that is gone stays gone, a disk that was full may not.
func (l *Log) writeOut() error {
	lines := l.enc.out.b
	if l.enc.out.b = lines[:0]; cap(lines) > 4*chunk {
		l.enc.out.b = nil // one long line must not keep its memory for ever
	}
	if len(lines) == 0 {
		return nil
	}
	n, err := l.w.Write(lines)
	if err == nil && n < len(lines) {
		err = io.ErrShortWrite
	}
	return err
}

// writeFailed counts a failed write. The first of a series is told, or the
// operator's log would grow with each request.
func (l *Log) writeFailed(ctx context.Context, err error) {
	l.failed.Add(1)
	if !l.failing {
		l.deps.Logger.ErrorContext(ctx, "write decision log", slog.Any("error", err))
	}
	l.failing = true
}

// Recent returns up to n of the newest lines, newest first and without line ends.
func (l *Log) Recent(n int) [][]byte { return l.tail.recent(n) }

// Follow returns a channel of the lines from now on, without line ends. It is
// closed when ctx or the log ends. A follower that does not keep up misses lines.
// Several may get the same memory: it is not to be changed.
func (l *Log) Follow(ctx context.Context) <-chan []byte { return l.tail.follow(ctx) }
