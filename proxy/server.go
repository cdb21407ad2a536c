// Package proxy is the HTTP/1.1 front: it accepts connections, reads requests,
// has them judged, forwards or answers them, and counts and records what
// happened. It owns listeners' limits, connections and the snapshot of
// configuration that requests are served by.
//
// It does not decide: package judge does, and it does not know OPA. TLS is the
// business of whoever opens the listener.
//
// It stands on fasthttp's client side (pools, response parser) and not on its
// server: see package wire for what that server does with hostile requests.
package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/engine/meter"
	"github.com/sallyport/sallyport/proxy/certs"
	"github.com/sallyport/sallyport/proxy/judge"
	"github.com/sallyport/sallyport/proxy/problem"
)

// Recorder keeps what happened to each request. Record must not block.
type Recorder interface {
	Record(rec *authz.Record)
}

// Deps is what a Server uses. Every field may be left out.
type Deps struct {
	Logger   *slog.Logger
	Metrics  *meter.Registry
	Tracer   trace.Tracer // nil: off; trace context is then carried on untouched
	Recorder Recorder
}

// Server serves any number of listeners from one current snapshot.
type Server struct {
	logger     *slog.Logger
	tracer     trace.Tracer
	recorder   Recorder
	metrics    *instruments
	handshakes *certs.Failures
	linger     time.Duration // how long idle connections may still bring a request at shutdown

	current atomic.Pointer[Snapshot]
	closing atomic.Bool

	mu        sync.Mutex
	listeners map[net.Listener]struct{}
	conns     map[*conn]struct{}
	empty     chan struct{} // closed when conns becomes empty while closing
}

type discard struct{}

func (discard) Record(*authz.Record) {}

// New returns a server without snapshot; Swap gives it one.
func New(deps Deps) (*Server, error) {
	if deps.Logger == nil {
		deps.Logger = slog.New(slog.DiscardHandler)
	}
	if deps.Metrics == nil {
		deps.Metrics = meter.New()
	}
	if deps.Recorder == nil {
		deps.Recorder = discard{}
	}
	return &Server{
		logger: deps.Logger, tracer: deps.Tracer, recorder: deps.Recorder, metrics: newInstruments(deps.Metrics), linger: time.Second,
		handshakes: certs.NewFailures(deps.Logger, deps.Metrics, nil),
		listeners:  map[net.Listener]struct{}{}, conns: map[*conn]struct{}{}, empty: make(chan struct{}),
	}, nil
}

// Swap makes next current. Requests under way finish with the snapshot that
// they began with; its upstream connections are closed after the last of them.
func (s *Server) Swap(next *Snapshot) {
	if old := s.current.Swap(next); old != nil {
		old.release()
	}
}

// acquire returns the current snapshot for one request; release must follow.
func (s *Server) acquire() *Snapshot {
	for {
		snap := s.current.Load()
		if snap == nil || snap.tryAcquire() {
			return snap
		}
	}
}

// ErrClosed is returned by Serve after Shutdown.
var ErrClosed = errors.New("proxy is shut down")

// Serve accepts connections of ln until Shutdown or the end of ctx, as the
// listener of that name in the current snapshot. It closes ln.
func (s *Server) Serve(ctx context.Context, ln net.Listener, name string) error {
	if !s.track(ln) {
		_ = ln.Close()
		return ErrClosed
	}
	defer s.untrack(ln)
	stop := context.AfterFunc(ctx, func() { _ = ln.Close() })
	defer stop()
	watch, cancel := context.WithCancel(ctx)
	var watcher sync.WaitGroup
	watcher.Go(func() { s.watchClients(watch, name) })
	defer watcher.Wait()
	defer cancel()
	return s.accept(ctx, ln, name)
}

func (s *Server) accept(ctx context.Context, ln net.Listener, name string) error {
	open := s.metrics.connections.With(meter.String("listener", name))
	var count atomic.Int64
	var pause time.Duration
	for {
		nc, err := ln.Accept()
		if err != nil {
			if ctx.Err() != nil || s.closing.Load() {
				return ErrClosed
			}
			if errors.Is(err, net.ErrClosed) {
				return fmt.Errorf("accept on %s: %w", name, err)
			}
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			s.logger.WarnContext(ctx, "accept", slog.String("listener", name), slog.Any("error", err))
			if !wait(ctx, pause) {
				return ErrClosed
			}
			continue
		}
		pause = 0
		if count.Load() >= s.maxConnections(name) {
			refuseConnection(nc)
			continue
		}
		c := newConn(s, nc, name)
		if !s.add(c) {
			_ = nc.Close()
			continue
		}
		count.Add(1)
		open.Add(1)
		go func() { //nolint:gosec,contextcheck // connections outlive ctx until they are drained
			defer func() {
				s.remove(c)
				count.Add(-1)
				open.Add(-1)
			}()
			c.serve(context.Background())
		}()
	}
}

func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

func (s *Server) maxConnections(name string) int64 {
	if snap := s.current.Load(); snap != nil && snap.listeners[name] != nil {
		return int64(snap.listeners[name].limits.MaxConnections)
	}
	return int64(DefaultListener().Limits.MaxConnections)
}

// refuseConnection answers without reading. A TLS client only sees the end.
func refuseConnection(nc net.Conn) {
	if _, secure := nc.(certs.Handshake); !secure {
		_ = nc.SetDeadline(time.Now().Add(50 * time.Millisecond))
		_, _ = nc.Write(unavailable())
	}
	_ = nc.Close()
}

// unavailable is the answer when there is no snapshot to make one with.
func unavailable() []byte {
	id := judge.NewID()
	body := problem.Of(problem.ErrBusy).AppendJSON(nil, id, "")
	return append([]byte("HTTP/1.1 503 Service Unavailable\r\nContent-Type: "+problem.ContentType+"\r\nX-Request-Id: "+id+
		"\r\nRetry-After: 1\r\nContent-Length: "+strconv.Itoa(len(body))+"\r\nConnection: close\r\n\r\n"), body...)
}

func (s *Server) track(ln net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing.Load() {
		return false
	}
	s.listeners[ln] = struct{}{}
	return true
}

func (s *Server) untrack(ln net.Listener) {
	s.mu.Lock()
	delete(s.listeners, ln)
	s.mu.Unlock()
	_ = ln.Close()
}

func (s *Server) add(c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing.Load() {
		return false
	}
	s.conns[c] = struct{}{}
	return true
}

func (s *Server) remove(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	if s.closing.Load() && len(s.conns) == 0 {
		s.signalEmpty()
	}
}

// signalEmpty needs mu.
func (s *Server) signalEmpty() {
	select {
	case <-s.empty:
	default:
		close(s.empty)
	}
}

// all returns the connections that keep accepts.
func (s *Server) all(keep func(*conn) bool) []*conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*conn
	for c := range s.conns {
		if keep(c) {
			out = append(out, c)
		}
	}
	return out
}

// Shutdown stops accepting, lets requests under way finish, and tells clients
// to close: every response from now on says so. Kept connections that bring no
// request within a second are closed, and tunnels, which would go on for ever, end
// at once. When ctx ends first, everything that is left is cut, and if requests were
// among it the error of ctx returned.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.closing.Store(true)
	for ln := range s.listeners {
		_ = ln.Close()
	}
	if len(s.conns) == 0 {
		s.signalEmpty()
	}
	s.mu.Unlock()
	for _, c := range s.all((*conn).tunnels) {
		if t := c.tunnel.Load(); t != nil {
			t.retire()
		}
	}
	err := s.drain(ctx)
	if snap := s.current.Swap(nil); snap != nil {
		snap.release()
	}
	return err
}

func (s *Server) drain(ctx context.Context) error {
	linger := time.NewTimer(s.linger)
	defer linger.Stop()
	select {
	case <-s.empty:
		return nil
	case <-linger.C:
		for _, c := range s.all((*conn).retireIdle) {
			_ = c.nc.Close()
		}
	case <-ctx.Done():
	}
	select {
	case <-s.empty:
		return nil
	case <-ctx.Done():
	}
	err := error(nil)
	for _, c := range s.all(func(*conn) bool { return true }) {
		if !c.tunnels() {
			err = ctx.Err()
		}
		c.cut()
	}
	<-s.empty
	return err
}
