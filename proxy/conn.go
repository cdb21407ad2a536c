package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/certs"
	"github.com/sallyport/sallyport/proxy/problem"
	"github.com/sallyport/sallyport/proxy/upstream"
	"github.com/sallyport/sallyport/proxy/wire"
)

// States of a connection, for shutdown.
const (
	stateIdle int32 = iota // waits for a request
	stateBusy
	stateRetired // closed while idle; no request may begin
)

// conn is one client connection. Its goroutine serves request after request.
type conn struct {
	s        *Server
	nc       net.Conn
	listener string
	state    atomic.Int32

	reader *wire.Reader
	read   wire.Deadline
	write  wire.Deadline
	idle   time.Time     // since when the connection waits for a request; zero: since now
	writer *pooledWriter // nil while idle
	body   wire.Body
	head   wire.Head

	current request // the one being served; reused, so that requests cost no allocation of their own

	peer     netip.AddrPort
	peerText string
	tls      *tls.ConnectionState
	tlsInfo  *authz.TLS
	options  string // of TLS, by which the client was verified; empty: there is one set of them

	exchange atomic.Pointer[upstream.Exchange] // under way, for the watcher
	awaiting atomic.Int64                      // unix nanoseconds since when nothing of the client is read; 0: not now
	tunnel   atomic.Pointer[tunnel]            // nil: there is none
	wrote    bool                              // something of the current response may have been sent
}

func newConn(s *Server, nc net.Conn, listener string) *conn {
	return &conn{
		s: s, nc: nc, listener: listener, reader: wire.NewReader(nc),
		read: wire.NewDeadline(nc.SetReadDeadline), write: wire.NewDeadline(nc.SetWriteDeadline),
	}
}

// retireIdle moves an idle connection out of use.
func (c *conn) retireIdle() bool { return c.state.CompareAndSwap(stateIdle, stateRetired) }

// tunnels reports whether the connection is a tunnel.
func (c *conn) tunnels() bool { return c.tunnel.Load() != nil }

// cut ends the connection whatever it does.
func (c *conn) cut() {
	_ = c.nc.Close()
	if x := c.exchange.Load(); x != nil {
		x.Cut()
	}
	if t := c.tunnel.Load(); t != nil {
		t.cut()
	}
}

// serve serves the connection and closes it. A panic ends the connection, not
// the process.
func (c *conn) serve(ctx context.Context) {
	defer func() { _ = c.nc.Close() }()
	defer c.recoverPanic(ctx)
	if !c.open(ctx) {
		return
	}
	for c.await() && c.next(ctx) {
		continue
	}
}

func (c *conn) recoverPanic(ctx context.Context) {
	p := recover()
	if p == nil {
		return
	}
	c.s.metrics.panics.Add(1)
	c.s.logger.ErrorContext(ctx, "panic while serving a connection",
		slog.Any("panic", p), slog.String("listener", c.listener), slog.String("stack", string(debug.Stack())))
	if x := c.exchange.Load(); x != nil {
		x.Cut()
	}
}

// open finds out who is at the other end. With PROXY protocol or TLS, it reads.
func (c *conn) open(ctx context.Context) bool {
	limits := c.limits()
	if t, ok := c.nc.(interface {
		certs.Handshake
		HandshakeContext(ctx context.Context) error
	}); ok {
		if c.nc.SetDeadline(time.Now().Add(limits.HeaderTimeout)) != nil {
			return false
		}
		if err := t.HandshakeContext(ctx); err != nil {
			c.s.handshakes.Add(ctx, c.listener, t, err)
			return false
		}
		_ = c.nc.SetDeadline(time.Time{})
		state := t.ConnectionState()
		c.tls, c.tlsInfo = &state, certs.TLSOf(&state)
		if o, ok := c.nc.(interface{ Options() string }); ok {
			c.options = o.Options()
		}
	}
	if tcp, ok := c.nc.RemoteAddr().(*net.TCPAddr); ok {
		ap := tcp.AddrPort()
		c.peer = netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())
	}
	c.peerText = c.peer.Addr().String()
	if !c.peer.IsValid() {
		c.peerText = "unknown" // a Unix socket (RFC 7239 section 6)
	}
	return true
}

func (c *conn) limits() Limits {
	if snap := c.s.current.Load(); snap != nil && snap.listeners[c.listener] != nil {
		return snap.listeners[c.listener].limits
	}
	return DefaultListener().Limits
}

// next serves one request, whose first byte is there, and reports whether
// another may follow.
func (c *conn) next(ctx context.Context) bool {
	limits := c.limits()
	raw, err := c.reader.ReadHead(int(limits.MaxHeaderBytes), func() error {
		return c.read.After(time.Now(), limits.HeaderTimeout)
	})
	now := time.Now()
	c.head = wire.Head{}
	if err == nil {
		c.head, err = wire.ParseHead(raw)
	}
	if err != nil && problem.Of(err).Status == http.StatusInternalServerError {
		return false // the connection is gone, and nobody is there to answer to
	}
	c.writer = acquireWriter(c, limits.RequestTimeout)
	defer func() {
		releaseWriter(c.writer)
		c.writer = nil
		c.head = wire.Head{}
	}()
	keep := c.request(ctx, &c.head, now, err)
	return keep && c.state.CompareAndSwap(stateBusy, stateIdle)
}

// await waits for the first byte of a request. Idle connections stand here: the
// frames below it are few and small, so that their stacks shrink.
func (c *conn) await() bool {
	if c.reader.Buffered() == 0 && (!c.setIdleDeadline() || c.reader.Await() != nil) {
		return false
	}
	return c.state.CompareAndSwap(stateIdle, stateBusy)
}

func (c *conn) setIdleDeadline() bool {
	if c.idle.IsZero() {
		c.idle = time.Now()
	}
	return c.read.After(c.idle, c.limits().IdleTimeout) == nil
}

// deadlineWriter gives each write its own deadline: a client that takes nothing
// ends its connection, a slow one does not.
type deadlineWriter struct {
	c       *conn
	timeout time.Duration
}

func (w *deadlineWriter) Write(p []byte) (int, error) {
	if err := w.c.write.After(time.Now(), w.timeout); err != nil {
		return 0, err
	}
	return w.c.nc.Write(p)
}

// pooledWriter is a response buffer; connections hold one only while they
// respond.
type pooledWriter struct {
	*bufio.Writer
	to deadlineWriter
}

var writers = sync.Pool{New: func() any {
	w := &pooledWriter{}
	w.Writer = bufio.NewWriterSize(&w.to, 4<<10)
	return w
}}

func acquireWriter(c *conn, timeout time.Duration) *pooledWriter {
	w := writers.Get().(*pooledWriter) //nolint:forcetypeassert // the pool has one type
	w.to = deadlineWriter{c, timeout}
	w.Reset(&w.to)
	return w
}

func releaseWriter(w *pooledWriter) {
	w.to = deadlineWriter{}
	w.Reset(&w.to)
	writers.Put(w)
}
