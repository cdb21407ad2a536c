package proxy

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/judge"
	"github.com/sallyport/sallyport/proxy/problem"
	"github.com/sallyport/sallyport/proxy/upstream"
	"github.com/sallyport/sallyport/proxy/wire"
)

// request is one request on its way.
type request struct {
	c       *conn
	snap    *Snapshot
	ln      *listener
	head    *wire.Head
	start   time.Time
	arrival judge.Arrival
	out     upstream.Request
	body    *policyBody
	verdict *judge.Verdict
	span    trace.Span
	status  int
	forward time.Duration
	keep    bool // another request may follow
	refused bool // the request was not read to its end
}

// request serves one request whose head was read, or could not be for err, and
// reports whether another may follow.
func (c *conn) request(ctx context.Context, head *wire.Head, now time.Time, err error) bool {
	snap := c.s.acquire()
	if snap == nil {
		return c.unavailable()
	}
	defer snap.release()
	ln := snap.listeners[c.listener]
	if ln == nil { // a reload took the listener away
		return c.unavailable()
	}
	r := &c.current
	*r = request{c: c, snap: snap, ln: ln, head: head, start: now, keep: err == nil && !head.Close}
	defer func() { *r = request{} }() // an idle connection keeps nothing of its last request
	c.wrote = false
	c.body.Reset(c.reader, 0, 0, nil)
	defer r.recoverPanic()
	r.arrive()
	arrival := &r.arrival
	if err == nil {
		err = r.openBody(arrival)
	}
	ctx = r.startSpan(ctx)
	switch {
	case err != nil:
		r.keep, r.refused = false, true
		r.verdict = snap.judge.Refuse(arrival, err)
	case ln.cfg.RedirectToHTTPS:
		r.verdict = snap.judge.RedirectToHTTPS(arrival, ln.cfg.RedirectPort)
	default:
		r.verdict = snap.judge.Judge(ctx, arrival)
	}
	r.carryOut(ctx)
	r.finish()
	return r.keep
}

// unavailable answers for want of a snapshot; the connection ends.
func (c *conn) unavailable() bool {
	_, _ = c.writer.Write(unavailable())
	if c.writer.Flush() == nil {
		c.lingerClose()
	}
	return false
}

func (r *request) arrive() {
	c := r.c
	r.arrival = judge.Arrival{
		Listener: &r.ln.judge, Method: r.head.Method, Target: r.head.Target, Protocol: r.head.Protocol,
		Headers: r.head.Headers, Peer: c.peer, PeerText: c.peerText, TLS: c.tls, TLSInfo: c.tlsInfo, TLSOptions: c.options,
		ContentLength: r.head.Length, Time: r.start,
	}
}

// openBody makes the body readable. An announced body that is too large is
// refused before a byte of it is asked for.
func (r *request) openBody(a *judge.Arrival) error {
	limit := int64(r.ln.limits.MaxBodyBytes)
	var before func() error
	if r.head.Continue {
		before = r.c.sendContinue
	}
	r.c.body.Reset(r.c.reader, r.head.Length, limit, before)
	if r.head.Length == 0 {
		return nil
	}
	if r.head.Length > limit {
		return authz.ErrBodyTooLarge
	}
	if err := r.c.read.After(r.start, r.ln.limits.RequestTimeout); err != nil {
		return err
	}
	r.body = &policyBody{src: &r.c.body, limit: r.snap.bodyCap}
	a.Body = r.body
	return nil
}

// sendContinue tells the client to go on, after the decision or when the policy
// wants the body.
func (c *conn) sendContinue() error {
	if _, err := c.writer.WriteString("HTTP/1.1 100 Continue\r\n\r\n"); err != nil {
		return err
	}
	return c.writer.Flush()
}

func (r *request) carryOut(ctx context.Context) {
	if a := r.verdict.Answer; a != nil {
		r.answer(a)
		return
	}
	if err := r.exchange(ctx); err != nil {
		r.fail(err)
	}
}

// fail answers for an upstream that gave no response, or for a client that did
// not deliver its body.
func (r *request) fail(err error) {
	if r.c.wrote {
		r.keep = false
		return
	}
	v := r.verdict
	if p := problem.Of(err); p.Status < 500 {
		v.Outcome = authz.OutcomeRefused
		r.keep = false
	}
	r.answer(v.Fail(err))
}

// answer sends what the gateway says itself.
func (r *request) answer(a *judge.Answer) {
	if malformed(r.verdict.Err) {
		r.keep = false // where the next request begins is a matter of opinion
	}
	r.status = a.Status
	r.record()
	r.settleBody()
	if err := r.writeAnswer(a); err != nil {
		r.keep = false
		return
	}
	r.afterResponse()
}

func malformed(err error) bool {
	return errors.Is(err, problem.ErrMalformed) || errors.Is(err, problem.ErrAmbiguous)
}

// maxDrain is how much of an unread body is read to keep a connection, in bytes.
const maxDrain = 256 << 10

// settleBody decides, before the response head says so, whether the connection
// can outlive a body that nobody read: what is left of it must never be taken
// for a request.
func (r *request) settleBody() {
	b := &r.c.body
	if !b.Done() && (b.Awaited() || r.head.Length > maxDrain) {
		r.keep = false
	}
	if r.c.s.closing.Load() {
		r.keep = false
	}
}

// afterResponse reads what is left of the body, or closes gently.
func (r *request) afterResponse() {
	b := &r.c.body
	if r.keep && !b.Done() {
		r.keep = r.c.read.After(time.Now(), r.ln.limits.HeaderTimeout) == nil && b.Discard(maxDrain)
	}
	if !r.keep && (r.refused || !b.Done() || r.c.reader.Buffered() > 0) {
		r.c.lingerClose()
	}
}

// lingerClose ends the sending side and reads a little of what the client still
// sends: closing at once would reset the connection and take the response with it.
func (c *conn) lingerClose() {
	half, ok := c.nc.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		return
	}
	if c.nc.SetReadDeadline(time.Now().Add(500*time.Millisecond)) == nil {
		_, _ = io.CopyN(io.Discard, c.nc, maxDrain)
	}
}

// record hands the record on. Nothing in it belongs to the connection.
func (r *request) record() {
	r.body.detach()
	rec := r.verdict.Record()
	rec.Status, rec.Forward = r.status, r.forward
	if r.span != nil {
		sc := r.span.SpanContext()
		if sc.IsValid() {
			rec.TraceID, rec.SpanID = sc.TraceID().String(), sc.SpanID().String()
		}
	}
	r.c.s.recorder.Record(rec)
}

// finish counts the request.
func (r *request) finish() {
	now := time.Now()
	r.c.idle = now
	r.c.s.metrics.served(&r.ln.stats, r.verdict.Route, r.verdict.Outcome, r.status, now.Sub(r.start))
	r.endSpan()
}

// recoverPanic answers 500 if nothing was sent yet, and lets the connection end.
func (r *request) recoverPanic() {
	p := recover()
	if p == nil {
		return
	}
	r.keep = false
	if !r.c.wrote && r.c.writer != nil {
		a := r.snap.judge.Refuse(&r.arrival, errors.New("panic")).Answer
		_ = r.writeAnswer(a)
	}
	r.endSpan()
	panic(p) // counted and logged where the connection ends
}

// exchange forwards the request and sends the response back. Its error means
// that no byte of a response has been sent.
func (r *request) exchange(ctx context.Context) error {
	c, f := r.c, r.verdict.Forward
	t := r.snap.upstreams[f.Upstream]
	begin := time.Now()
	endSpan := r.startUpstreamSpan(ctx, f)
	x, err := t.pool.Do(r.outgoing(f, begin), c.begin)
	r.forward = time.Since(begin)
	if err != nil {
		c.awaiting.Store(0)
		c.exchange.Store(nil)
		endSpan(0, err)
		c.s.metrics.failed(t.stats, err)
		return err
	}
	endSpan(x.Response.StatusCode(), nil)
	c.s.metrics.answered(t.stats, x.Response.StatusCode(), r.forward)
	complete := false
	defer func() {
		c.awaiting.Store(0)
		c.exchange.Store(nil)
		x.Close(complete)
	}()
	r.status = x.Response.StatusCode()
	r.record()
	if r.status == 101 {
		r.keep = false
		r.tunnel(x)
		return nil
	}
	r.settleBody()
	if err := r.relay(x); err != nil {
		c.s.logger.DebugContext(ctx, "response was cut", slog.Any("error", err))
		r.keep = false
		return nil
	}
	complete = true
	r.afterResponse()
	return nil
}

// begin makes the exchange visible to the watcher.
func (c *conn) begin(x *upstream.Exchange) {
	c.exchange.Store(x)
	c.awaiting.Store(c.current.out.Now.UnixNano())
}

func (r *request) outgoing(f *judge.Forward, now time.Time) *upstream.Request {
	timeout := r.ln.limits.RequestTimeout
	if f.Timeout > 0 {
		timeout = f.Timeout
	}
	r.out = upstream.Request{
		Method: r.head.Method, Target: f.Target, Host: f.Host, Headers: f.Headers, Now: now, Deadline: r.start.Add(timeout),
	}
	if f.WebSocket {
		r.out.Upgrade = "websocket"
	}
	if r.head.Length != 0 {
		r.out.Length = r.head.Length
		r.out.Body = &forwarding{buffered: r.body.data, rest: &r.c.body}
	}
	return &r.out
}
