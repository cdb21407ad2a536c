package upstream

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/problem"
)

// server answers every request head after gate lets it.
type server struct {
	ln    net.Listener
	heads atomic.Int64
	gate  chan struct{}
}

func listen(t *testing.T, network, addr string) *server {
	t.Helper()
	ln, err := net.Listen(network, addr)
	if err != nil {
		t.Skipf("listen on %s: %v", addr, err)
	}
	s := &server{ln: ln, gate: make(chan struct{})}
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go s.serve(c)
		}
	}()
	return s
}

func (s *server) serve(c net.Conn) {
	defer func() { _ = c.Close() }()
	r := bufio.NewReader(c)
	for {
		if _, err := http.ReadRequest(r); err != nil {
			return
		}
		s.heads.Add(1)
		<-s.gate
		if _, err := io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"); err != nil {
			return
		}
	}
}

func pool(t *testing.T, change func(*Config), servers ...*server) *Pool {
	t.Helper()
	cfg := Default()
	for _, s := range servers {
		cfg.Endpoints = append(cfg.Endpoints, "http://"+s.ln.Addr().String())
	}
	if change != nil {
		change(&cfg)
	}
	p, err := New("test", cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Retire)
	return p
}

func request() *Request {
	return &Request{Method: "GET", Target: "/", Host: "a", Headers: []authz.Header{{Name: "x-a", Value: "b"}}, Deadline: time.Now().Add(5 * time.Second)}
}

// begin sends a request and returns when the exchange is over.
func begin(p *Pool) chan error {
	done := make(chan error, 1)
	go func() {
		x, err := p.Do(request(), nil)
		if err == nil {
			x.Close(true)
		}
		done <- err
	}()
	return done
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(5 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 5 s: %s", what)
		}
		<-time.After(time.Millisecond)
	}
}

func TestLeastPending(t *testing.T) {
	slow, fast := listen(t, "tcp", "127.0.0.1:0"), listen(t, "tcp", "127.0.0.1:0")
	close(fast.gate)
	p := pool(t, nil, slow, fast)
	var waiting []chan error
	for slow.heads.Load() == 0 { // until the slow one has one under way
		waiting = append(waiting, begin(p))
		n := int64(len(waiting))
		eventually(t, "the request arrives", func() bool { return slow.heads.Load()+fast.heads.Load() == n })
	}
	eventually(t, "the others end", func() bool { return p.Pending() == 1 })
	for range 10 {
		if err := <-begin(p); err != nil {
			t.Fatal(err)
		}
	}
	if slow.heads.Load() != 1 {
		t.Errorf("the busy endpoint got %d requests", slow.heads.Load())
	}
	close(slow.gate)
	for _, done := range waiting {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestBusyPoolIsItsOwnProblem(t *testing.T) {
	s := listen(t, "tcp", "127.0.0.1:0")
	p := pool(t, func(c *Config) { c.MaxConnections, c.ConnectTimeout = 1, 50*time.Millisecond }, s)
	first := begin(p)
	eventually(t, "the request arrives", func() bool { return s.heads.Load() == 1 })
	if err := <-begin(p); !errors.Is(err, problem.ErrUpstreamBusy) {
		t.Errorf("got %v", err)
	}
	close(s.gate)
	if err := <-first; err != nil {
		t.Error(err)
	}
	if err := <-begin(p); err != nil {
		t.Errorf("after the first: %v", err)
	}
}

func TestIPv6(t *testing.T) {
	s := listen(t, "tcp6", "[::1]:0")
	close(s.gate)
	if err := <-begin(pool(t, nil, s)); err != nil {
		t.Error(err)
	}
}

func TestRetireClosesNowAndLater(t *testing.T) {
	s := listen(t, "tcp", "127.0.0.1:0")
	p := pool(t, nil, s)
	under := begin(p)
	eventually(t, "the request arrives", func() bool { return s.heads.Load() == 1 })
	p.Retire()
	close(s.gate)
	if err := <-under; err != nil {
		t.Errorf("the exchange under way: %v", err)
	}
	if n := p.endpoints[0].client.ConnsCount(); n != 0 {
		t.Errorf("%d connections are left", n)
	}
}

func TestCutAfterCloseHarmsNobody(t *testing.T) {
	s := listen(t, "tcp", "127.0.0.1:0")
	close(s.gate)
	p := pool(t, nil, s)
	x, err := p.Do(request(), nil)
	if err != nil {
		t.Fatal(err)
	}
	x.Close(true)
	x.Cut() // a watcher that was late: the connection may already be another's
	if err := <-begin(p); err != nil || s.heads.Load() != 2 || p.endpoints[0].client.ConnsCount() != 1 {
		t.Errorf("%v after %d heads on %d connections", err, s.heads.Load(), p.endpoints[0].client.ConnsCount())
	}
}

func TestDeadlineOfTheRequest(t *testing.T) {
	s := listen(t, "tcp", "127.0.0.1:0")
	defer close(s.gate)
	p := pool(t, nil, s)
	r := request()
	r.Deadline = time.Now().Add(50 * time.Millisecond)
	if _, err := p.Do(r, nil); !errors.Is(err, problem.ErrUpstreamTimeout) {
		t.Errorf("got %v", err)
	}
	if s.heads.Load() != 1 {
		t.Errorf("sent %d times", s.heads.Load())
	}
}
