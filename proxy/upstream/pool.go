// Package upstream owns the connections to the servers behind the gateway: one
// fasthttp.HostClient per endpoint, the choice of the endpoint, deadlines, and
// the one retry that is allowed.
//
// Of the HostClient it uses the pool and the buffers, not Do: Do would retry
// after a read timeout, rewrite the path and the Authorization header from the
// URL, add a User-Agent and a Content-Type, return a connection to the pool
// after a 101, and take a chunked response that was cut between two chunks for
// complete. The request head is written from what was judged, byte for byte.
package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/sallyport/sallyport/proxy/problem"
	"github.com/sallyport/sallyport/proxy/wire"
)

// Pool is one upstream. It is safe for concurrent use.
type Pool struct {
	name      string
	cfg       Config
	endpoints []*endpoint
	next      atomic.Uint32 // where the search for the least busy begins
	retired   atomic.Bool
}

type endpoint struct {
	addr    address
	client  *fasthttp.HostClient
	tls     *tls.Config
	dialer  net.Dialer
	pending atomic.Int64
}

// New makes the pool of an upstream. It connects to nothing.
func New(name string, cfg Config) (*Pool, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	base, err := cfg.TLS.build()
	if err != nil {
		return nil, err
	}
	p := &Pool{name: name, cfg: cfg}
	for _, text := range cfg.Endpoints {
		addr, err := parseEndpoint(text)
		if err != nil {
			return nil, err
		}
		p.endpoints = append(p.endpoints, newEndpoint(addr, cfg, base))
	}
	return p, nil
}

func newEndpoint(addr address, cfg Config, base *tls.Config) *endpoint {
	e := &endpoint{addr: addr, dialer: net.Dialer{Timeout: cfg.ConnectTimeout, KeepAlive: 30 * time.Second}}
	if addr.tls {
		e.tls = base.Clone()
		if e.tls.ServerName == "" {
			e.tls.ServerName = addr.host
		}
	}
	e.client = &fasthttp.HostClient{
		Addr: addr.hostport, IsTLS: addr.tls, TLSConfig: e.tls,
		DialTimeout:        func(string, time.Duration) (net.Conn, error) { return e.dial(cfg.ConnectTimeout) },
		MaxConns:           cfg.MaxConnections,
		MaxConnWaitTimeout: cfg.ConnectTimeout, MaxIdleConnDuration: cfg.IdleTimeout,
		ReadBufferSize: readBuffer, WriteBufferSize: writeBuffer, ConnPoolStrategy: fasthttp.LIFO,
		// Do is not used; should it ever be, it does not repeat anything.
		MaxIdemponentCallAttempts: 1,
		RetryIfErr:                func(*fasthttp.Request, int, error) (bool, bool) { return false, false },
		NoDefaultUserAgentHeader:  true, DisablePathNormalizing: true, SecureErrorLogMessage: true,
	}
	return e
}

// Buffers of an upstream connection in use. A response head must fit the first.
const (
	readBuffer  = 16 << 10
	writeBuffer = 4 << 10
)

// dial connects over IPv4 or IPv6, whichever answers first (RFC 8305), and
// hands out connections that can tell whether the server has closed.
func (e *endpoint) dial(timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	raw, err := e.dialer.DialContext(ctx, "tcp", e.addr.hostport)
	if err != nil {
		return nil, err
	}
	if e.tls == nil {
		return &conn{Conn: raw, raw: raw, limit: wire.NewDeadline(raw.SetDeadline)}, nil
	}
	secure := tls.Client(raw, e.tls)
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		return nil, fmt.Errorf("TLS handshake: %w", err)
	}
	return &tlsConn{conn{Conn: secure, raw: raw, limit: wire.NewDeadline(secure.SetDeadline)}}, nil
}

// conn remembers that the server closed: a chunked response that ended with
// the connection is cut, not complete.
type conn struct {
	net.Conn
	raw   net.Conn
	limit wire.Deadline // of an exchange
	// The exchange that has the connection alone reads and writes these.
	gone  bool // a read failed
	heard bool // a byte of the response has arrived
	used  bool // a response has been read from it before
}

func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.heard = c.heard || n > 0
	if err != nil {
		c.gone = true
	}
	return n, err
}

func (c *conn) state() *conn { return c }

// CloseWrite ends the sending side, so that a tunnel can end one way at a time.
func (c *conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return c.Close()
}

// tlsConn shows the pool that the handshake is done.
type tlsConn struct{ conn }

// Handshake does nothing; it marks the connection as a TLS one.
func (c *tlsConn) Handshake() error { return nil }

// Name is the upstream's name in the configuration.
func (p *Pool) Name() string { return p.name }

// choose returns the endpoint with the fewest exchanges under way; equals take
// turns.
func (p *Pool) choose(not *endpoint) *endpoint {
	start := int(p.next.Add(1))
	var best *endpoint
	for i := range p.endpoints {
		e := p.endpoints[(start+i)%len(p.endpoints)]
		if e == not && len(p.endpoints) > 1 {
			continue
		}
		if best == nil || e.pending.Load() < best.pending.Load() {
			best = e
		}
	}
	return best
}

// Retire closes the connections that are idle and makes those in use close when
// they are done.
func (p *Pool) Retire() {
	p.retired.Store(true)
	for _, e := range p.endpoints {
		e.client.CloseIdleConnections()
	}
}

// Pending is the number of exchanges under way.
func (p *Pool) Pending() int {
	n := int64(0)
	for _, e := range p.endpoints {
		n += e.pending.Load()
	}
	return int(n)
}

// classify turns an error of dialing or waiting for a connection into a class.
func classify(err error) error {
	var timeout net.Error
	switch {
	case errors.Is(err, fasthttp.ErrNoFreeConns):
		return fmt.Errorf("%w: %w", err, problem.ErrUpstreamBusy)
	case errors.Is(err, fasthttp.ErrTimeout), errors.Is(err, context.DeadlineExceeded),
		errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Errorf("%w: %w", err, problem.ErrUpstreamTimeout)
	}
	return fmt.Errorf("%w: %w", err, problem.ErrUnreachable)
}
