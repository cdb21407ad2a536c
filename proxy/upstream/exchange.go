package upstream

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/problem"
	"github.com/sallyport/sallyport/proxy/wire"
)

// Request is what to send. Headers must not hold framing or hop-by-hop fields.
type Request struct {
	Method, Target, Host string
	Headers              []authz.Header
	Body                 io.Reader // nil: none
	Length               int64     // of Body; wire.Unknown: sent in chunks
	Upgrade              string    // protocol to ask for, "" for none
	Now                  time.Time // when Do is called; zero: not known
	Deadline             time.Time // until the response begins
}

// repeatable reports whether sending r twice does what sending it once does,
// and whether it can be sent twice (RFC 9110 section 9.2.2).
func (r *Request) repeatable() bool {
	if r.Body != nil || r.Upgrade != "" {
		return false
	}
	switch r.Method {
	case "GET", "HEAD", "OPTIONS", "QUERY":
		return true
	}
	return false
}

// Exchange is one request and its response. Close must be called.
type Exchange struct {
	Response *fasthttp.Response
	Endpoint string // host:port

	endpoint *endpoint
	conn     *conn
	reader   *bufio.Reader
	release  func(reuse bool)
	timeout  time.Duration
	patient  bool
	keep     bool // the server keeps the connection

	mu     sync.Mutex // Cut comes from outside
	closed bool
	cut    bool
}

// errStale: a kept connection broke before the first byte of a response.
var errStale = errors.New("kept connection was closed")

// errNotSent: there is no connection, so that no server has seen the request.
var errNotSent = errors.New("not connected")

// Do sends r and returns the response once its head is there. Errors wrap a
// class of package problem, or are those of reading r.Body. Start, if not nil,
// is called with the exchange before anything is sent; Cut may be called on it
// from then on.
func (p *Pool) Do(r *Request, start func(*Exchange)) (*Exchange, error) {
	if r.Now.IsZero() {
		r.Now = time.Now()
	}
	e := p.choose(nil)
	x, err := p.try(e, r, start)
	switch {
	case errors.Is(err, errStale) && r.repeatable():
		// What is idle is as old as what has just failed.
		e.client.CloseIdleConnections()
		r.Now = time.Now()
		x, err = p.try(e, r, start)
	case errors.Is(err, errNotSent) && len(p.endpoints) > 1:
		r.Now = time.Now()
		x, err = p.try(p.choose(e), r, start)
	}
	if err != nil {
		return nil, fmt.Errorf("upstream %s: %w", p.name, err)
	}
	return x, nil
}

func (p *Pool) try(e *endpoint, r *Request, start func(*Exchange)) (*Exchange, error) {
	e.pending.Add(1)
	x, err := p.open(e, r)
	if err != nil {
		e.pending.Add(-1)
		return nil, err
	}
	if start != nil {
		start(x)
	}
	if err := x.roundTrip(r); err != nil {
		x.Close(false)
		return nil, err
	}
	return x, nil
}

// open takes a connection from the pool or dials one. A kept one is looked at
// first when the request could not be repeated.
func (p *Pool) open(e *endpoint, r *Request) (*Exchange, error) {
	wait := r.Deadline.Sub(r.Now)
	if wait <= 0 {
		return nil, problem.ErrUpstreamTimeout
	}
	for {
		cc, err := e.client.AcquireConn(wait, false)
		if err != nil {
			return nil, fmt.Errorf("%s: %w: %w", e.addr.hostport, classify(err), errNotSent)
		}
		c := cc.Conn().(interface{ state() *conn }).state() //nolint:forcetypeassert // dial makes no others
		if c.used && !r.repeatable() && closed(c.raw) {
			e.client.CloseConn(cc)
			continue
		}
		x := &Exchange{
			Response: fasthttp.AcquireResponse(), Endpoint: e.addr.hostport,
			endpoint: e, conn: c, timeout: p.cfg.ResponseTimeout,
		}
		x.release = func(reuse bool) {
			if reuse && !p.retired.Load() {
				e.client.ReleaseConn(cc)
				if p.retired.Load() {
					e.client.CloseIdleConnections()
				}
				return
			}
			e.client.CloseConn(cc)
		}
		return x, nil
	}
}

func (x *Exchange) roundTrip(r *Request) error {
	again, err := x.limitSending(r)
	if err != nil {
		return x.broken(err)
	}
	w := x.endpoint.client.AcquireWriter(x.conn)
	err = send(w, r)
	x.endpoint.client.ReleaseWriter(w)
	var cp *wire.CopyError
	if errors.As(err, &cp) && cp.Reading {
		return cp.Err
	}
	sendErr := err
	if err := x.limitReceiving(r, again, sendErr); err != nil {
		return x.broken(err)
	}
	if err := x.receive(r); err != nil {
		if sendErr != nil {
			err = sendErr
		}
		return x.broken(err)
	}
	return nil
}

// limitSending sets the deadline for sending r. A request without body is sent at
// once, so that the response is limited with it and the result is false: there is
// no second limit to set.
func (x *Exchange) limitSending(r *Request) (again bool, err error) {
	whole := r.Deadline.Sub(r.Now)
	if r.Body == nil {
		return false, x.conn.limit.After(r.Now, min(whole, x.timeout))
	}
	x.conn.limit.Forget() // the deadlines of reading and writing part
	return true, x.conn.SetDeadline(r.Deadline)
}

// limitReceiving sets the deadline for the head of the response.
func (x *Exchange) limitReceiving(r *Request, again bool, sendErr error) error {
	timeout := x.timeout
	if sendErr != nil {
		// The server may have answered before it stopped reading.
		again, timeout = true, 100*time.Millisecond
	}
	if !again {
		return nil
	}
	x.conn.limit.Forget()
	limit := time.Now().Add(timeout)
	if limit.After(r.Deadline) {
		return nil
	}
	return x.conn.SetReadDeadline(limit)
}

// broken classifies an error on the connection.
func (x *Exchange) broken(err error) error {
	var timeout net.Error
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, fasthttp.ErrTimeout), errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Errorf("%s: %w", x.Endpoint, problem.ErrUpstreamTimeout)
	case errors.Is(err, problem.ErrUpstreamProtocol):
		return fmt.Errorf("%s: %w", x.Endpoint, err)
	case x.conn.used && !x.conn.heard:
		return fmt.Errorf("%s: %w: %w: %w", x.Endpoint, err, errStale, problem.ErrUnreachable)
	case x.conn.heard:
		return fmt.Errorf("%s: %w: %w", x.Endpoint, err, problem.ErrUpstreamProtocol)
	}
	return fmt.Errorf("%s: %w: %w", x.Endpoint, err, problem.ErrUnreachable)
}

func (x *Exchange) receive(r *Request) error {
	x.conn.heard = false
	x.reader = x.endpoint.client.AcquireReader(x.conn)
	resp := x.Response
	resp.StreamBody = true
	resp.SkipBody = r.Method == "HEAD"
	// A made-up type would let a browser take for text what the server left open,
	// and a 304 would put it into caches.
	resp.Header.SetNoDefaultContentType(true)
	if err := resp.ReadLimitBody(x.reader, 0); err != nil {
		return err
	}
	if resp.StatusCode() == fasthttp.StatusSwitchingProtocols && (r.Upgrade == "" || !strings.EqualFold(string(resp.Header.Peek("Upgrade")), r.Upgrade)) {
		return fmt.Errorf("switched protocols unasked: %w", problem.ErrUpstreamProtocol)
	}
	if resp.StatusCode() < 200 && resp.StatusCode() != fasthttp.StatusSwitchingProtocols || resp.StatusCode() > 999 {
		return fmt.Errorf("status %d: %w", resp.StatusCode(), problem.ErrUpstreamProtocol)
	}
	x.conn.used, x.keep = true, !resp.ConnectionClose()
	return nil
}

// Buffered is how much behind the response head has already arrived.
func (x *Exchange) Buffered() int { return x.reader.Buffered() }

// Read reads the response body. A body that ends before its framing says so is
// an error, never EOF.
func (x *Exchange) Read(p []byte) (int, error) {
	if !x.patient && x.reader.Buffered() == 0 {
		x.conn.limit.Forget()
		if err := x.conn.SetReadDeadline(time.Now().Add(x.timeout)); err != nil {
			return 0, err
		}
	}
	n, err := x.Response.BodyStream().Read(p)
	if err == io.EOF && x.conn.gone && x.Response.Header.ContentLength() != closeDelimited {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// closeDelimited is fasthttp's content length of a body that ends with the
// connection.
const closeDelimited = -2

// Patient lifts the timeout between parts of the response, for event streams.
func (x *Exchange) Patient() {
	x.patient = true
	x.conn.limit.Forget()
	_ = x.conn.SetDeadline(time.Time{})
}

// Tunnel returns the connection after a 101, and what has been read from it
// already. The exchange must still be closed, with reuse false.
func (x *Exchange) Tunnel() (net.Conn, *bufio.Reader) {
	x.Patient()
	return x.conn, x.reader
}

// Cut breaks the exchange off from outside, when nobody waits for it any more.
func (x *Exchange) Cut() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !x.closed { // else the connection may be another exchange's
		x.cut = true
		_ = x.conn.raw.Close()
	}
}

// Close ends the exchange. Reuse says that the response was read to its end;
// the connection is kept only if the server agrees and sent nothing behind it.
func (x *Exchange) Close(reuse bool) {
	x.mu.Lock()
	x.closed = true
	x.mu.Unlock()
	resp := x.Response
	reuse = reuse && x.keep && !x.conn.gone && !x.cut &&
		x.reader != nil && x.reader.Buffered() == 0 && resp.StatusCode() != fasthttp.StatusSwitchingProtocols
	if resp.BodyStream() != nil {
		_ = resp.CloseBodyStream()
	}
	if x.reader != nil {
		x.endpoint.client.ReleaseReader(x.reader)
		x.reader = nil
	}
	fasthttp.ReleaseResponse(resp)
	x.Response = nil
	x.release(reuse)
	x.endpoint.pending.Add(-1)
}

// send writes the request.
func send(w *bufio.Writer, r *Request) error {
	writeHead(w, r)
	if r.Body != nil {
		if err := wire.CopyBody(w, r.Body, r.Length, false); err != nil {
			return err
		}
	}
	return w.Flush()
}

// writeHead writes the head; bufio keeps the first error for Flush.
func writeHead(w *bufio.Writer, r *Request) {
	for _, s := range [...]string{r.Method, " ", r.Target, " HTTP/1.1\r\nHost: ", r.Host, "\r\n"} {
		_, _ = w.WriteString(s)
	}
	for i := range r.Headers {
		wire.WriteField(w, r.Headers[i].Name, r.Headers[i].Value)
	}
	switch {
	case r.Upgrade != "":
		_, _ = w.WriteString("Connection: Upgrade\r\nUpgrade: " + r.Upgrade + "\r\n")
	case r.Body != nil && r.Length < 0:
		_, _ = w.WriteString("Transfer-Encoding: chunked\r\n")
	case r.Body != nil || needsLength(r.Method):
		var digits [20]byte
		_, _ = w.WriteString("Content-Length: ")
		_, _ = w.Write(strconv.AppendInt(digits[:0], r.Length, 10))
		_, _ = w.WriteString("\r\n")
	}
	_, _ = w.WriteString("\r\n")
}

// needsLength: methods that anticipate a body say that there is none (RFC 9110
// section 8.6).
func needsLength(method string) bool {
	return method == "POST" || method == "PUT" || method == "PATCH"
}
