package proxy

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport/sallyport/proxy/upstream"
)

func TestShutdownDrains(t *testing.T) {
	release := make(chan struct{})
	up := listenRaw(t, func(c net.Conn, r *bufio.Reader) {
		_, _ = http.ReadRequest(r)
		<-release
		_, _ = io.WriteString(c, okResponse)
	})
	g := start(t, up.addr())
	busy, idle := dial(t, g.addr), dial(t, g.addr)
	_, _ = io.WriteString(busy, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	eventually(t, "the request arrives", func() bool { return up.received() != "" })
	done := make(chan error, 1)
	go func() { done <- g.Shutdown(context.Background()) }()
	if got := readAll(t, idle, 2*time.Second); got != "" {
		t.Errorf("idle connection got %q", got)
	}
	if _, err := net.DialTimeout("tcp", g.addr, time.Second); err == nil {
		t.Error("connections are still accepted")
	}
	close(release)
	resp, err := http.ReadResponse(bufio.NewReader(busy), nil)
	if err != nil || resp.StatusCode != 200 || !resp.Close {
		t.Errorf("request under way: %+v, %v", resp, err)
	}
	if err := <-done; err != nil {
		t.Errorf("shutdown: %v", err)
	}
}

func TestShutdownCutsWhatDoesNotEnd(t *testing.T) {
	up := listenRaw(t, func(c net.Conn, r *bufio.Reader) {
		_, _ = http.ReadRequest(r)
		_, _ = c.Read(make([]byte, 1))
	})
	g := start(t, up.addr())
	c := dial(t, g.addr)
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	eventually(t, "the request arrives", func() bool { return up.received() != "" })
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := g.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("shutdown: %v", err)
	}
}

// TestShutdownEndsTunnels: they would not end by themselves. What was sent before arrives,
// and nothing is lost that anybody waits for.
func TestShutdownEndsTunnels(t *testing.T) {
	for name, client := range map[string]func(net.Conn){
		"a client that closes then":       func(c net.Conn) { _ = c.Close() },
		"a client that closes its side":   func(c net.Conn) { _ = c.(*net.TCPConn).CloseWrite() },
		"a client that goes on to listen": func(net.Conn) {},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		ended := make(chan string, 1)
		up := listenRaw(t, func(c net.Conn, r *bufio.Reader) {
			_, _ = http.ReadRequest(r)
			_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
			said, err := io.ReadAll(io.TeeReader(r, c))
			if err != nil {
				said = []byte(err.Error())
			}
			ended <- string(said)
		})
		g := start(t, up.addr())
		c := dial(t, g.addr)
		_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nping")
		br := bufio.NewReader(c)
		if _, err := http.ReadResponse(br, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(br, make([]byte, len("ping"))); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- g.Shutdown(ctx) }()
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		if rest, err := io.ReadAll(br); len(rest) > 0 || err != nil {
			t.Errorf("%s: it got %q and %v, want the end", name, rest, err)
		}
		client(c)
		if err := <-done; err != nil || ctx.Err() != nil {
			t.Errorf("%s: shutdown: %v, %v", name, err, ctx.Err())
		}
		if said := <-ended; said != "ping" {
			t.Errorf("%s: the upstream got %q", name, said)
		}
	}
}

// TestShutdownCutsTunnels: neither end hears that it is over.
func TestShutdownCutsTunnels(t *testing.T) {
	up := listenRaw(t, func(c net.Conn, r *bufio.Reader) {
		_, _ = http.ReadRequest(r)
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
		for err := error(nil); err == nil; {
			_, err = c.Write(make([]byte, 1<<20))
		}
	})
	g := start(t, up.addr())
	c := dial(t, g.addr)
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	if _, err := io.ReadFull(c, make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := g.Shutdown(ctx); err != nil {
		t.Errorf("shutdown: %v", err)
	}
	if left := g.all(func(*conn) bool { return true }); len(left) != 0 {
		t.Errorf("%d connections are left", len(left))
	}
}

// TestUpgradeDuringShutdown: the handshake that was under way ends, and so does the
// tunnel.
func TestUpgradeDuringShutdown(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	release := make(chan struct{})
	up := listenRaw(t, func(c net.Conn, r *bufio.Reader) {
		_, _ = http.ReadRequest(r)
		<-release
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
		_, _ = io.Copy(c, r)
	})
	g := start(t, up.addr())
	c := dial(t, g.addr)
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	eventually(t, "the request arrives", func() bool { return up.received() != "" })
	done := make(chan error, 1)
	go func() { done <- g.Shutdown(ctx) }()
	eventually(t, "no request begins any more", g.closing.Load)
	close(release)
	if got := readAll(t, c, 10*time.Second); !strings.HasPrefix(got, "HTTP/1.1 101 ") {
		t.Errorf("got %q", got)
	}
	if err := <-done; err != nil || ctx.Err() != nil {
		t.Errorf("shutdown: %v, %v", err, ctx.Err())
	}
}

// TestTunnelEndsOneWayAtATime: what the upstream still has to say after the
// client has ended its side arrives.
func TestTunnelEndsOneWayAtATime(t *testing.T) {
	up := listenRaw(t, func(c net.Conn, r *bufio.Reader) {
		_, _ = http.ReadRequest(r)
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
		_, _ = io.Copy(io.Discard, r)
		_, _ = io.WriteString(c, "bye")
	})
	g := start(t, up.addr())
	c := dial(t, g.addr)
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	eventually(t, "the request arrives", func() bool { return up.received() != "" })
	_ = c.(*net.TCPConn).CloseWrite()
	if got := readAll(t, c, 2*time.Second); !strings.HasSuffix(got, "\r\n\r\nbye") {
		t.Errorf("got %q", got)
	}
}

func TestSwapUnderLoad(t *testing.T) {
	one, two := listenRaw(t, nil), listenRaw(t, nil)
	g := start(t, one.addr())
	stop := make(chan struct{})
	var failed, served atomic.Int64
	for range 8 {
		c := dial(t, g.addr)
		br := bufio.NewReader(c)
		go func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
				resp, err := http.ReadResponse(br, nil)
				if err != nil || resp.StatusCode != 200 {
					failed.Add(1)
					return
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				served.Add(1)
			}
		}()
	}
	var last *Snapshot
	for i := range 40 {
		cfg := g.cfg
		u := cfg.Upstreams["main"]
		u.Endpoints = []string{"http://" + []string{one.addr(), two.addr()}[i%2]}
		cfg.Upstreams = map[string]upstream.Config{"main": u}
		next, err := Build(cfg, g.parts)
		if err != nil {
			t.Fatal(err)
		}
		last = g.current.Load()
		at := served.Load()
		g.Swap(next)
		eventually(t, "requests are served", func() bool { return served.Load() > at+20 || failed.Load() > 0 })
	}
	close(stop)
	if failed.Load() > 0 {
		t.Errorf("%d of %d requests failed", failed.Load(), served.Load())
	}
	if two.received() == "" {
		t.Error("the other upstream was never used")
	}
	eventually(t, "the old snapshot is let go", func() bool { return last.users.Load() == 0 })
	// The last swap was to two: one's kept connections belong to retired snapshots.
	eventually(t, "the retired connections are closed", func() bool {
		one.mu.Lock()
		defer one.mu.Unlock()
		return len(one.open) == 0
	})
}

func TestListenerThatTheConfigurationLost(t *testing.T) {
	up := listenRaw(t, nil)
	g := start(t, up.addr())
	c := dial(t, g.addr)
	br := bufio.NewReader(c)
	exchangeOn(t, c, br, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	cfg := g.cfg
	other := cfg.Listeners[0]
	other.Name = "other"
	cfg.Listeners = []ListenerConfig{other}
	next, err := Build(cfg, g.parts)
	if err != nil {
		t.Fatal(err)
	}
	g.Swap(next)
	resp, _ := exchangeOn(t, c, br, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	if resp.StatusCode != 503 || !resp.Close || resp.Header.Get("X-Request-Id") == "" {
		t.Errorf("got %d %v", resp.StatusCode, resp.Header)
	}
}

func TestTooManyConnections(t *testing.T) {
	up := listenRaw(t, nil)
	g := start(t, up.addr(), withListener(func(l *ListenerConfig) { l.Limits.MaxConnections = 1 }))
	first := dial(t, g.addr)
	br := bufio.NewReader(first)
	exchangeOn(t, first, br, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	if got := readAll(t, dial(t, g.addr), 2*time.Second); !strings.HasPrefix(got, "HTTP/1.1 503 ") {
		t.Errorf("got %.60q, want 503", got)
	}
	first.Close()
	eventually(t, "there is room again", func() bool {
		return strings.HasPrefix(send(t, g.addr, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"), "HTTP/1.1 200 ")
	})
}

// TestShutdownUnderLoad: clients that keep connections busy see a response to
// every request, the last of which says that there will be no more.
func TestShutdownUnderLoad(t *testing.T) {
	up := listenRaw(t, nil)
	g := start(t, up.addr())
	g.linger = time.Second
	var served, failed, told atomic.Int64
	var wg sync.WaitGroup
	for range 16 {
		c := dial(t, g.addr)
		br := bufio.NewReader(c)
		exchangeOn(t, c, br, "GET / HTTP/1.1\r\nHost: a\r\n\r\n") // what was never accepted is not under test
		wg.Go(func() {
			for {
				if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
					failed.Add(1)
					return
				}
				resp, err := http.ReadResponse(br, nil)
				if err != nil || resp.StatusCode != 200 {
					failed.Add(1)
					return
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				served.Add(1)
				if resp.Close {
					told.Add(1)
					return
				}
			}
		})
	}
	eventually(t, "the load is on", func() bool { return served.Load() > 200 })
	if err := g.Shutdown(context.Background()); err != nil {
		t.Errorf("shutdown: %v", err)
	}
	wg.Wait()
	if failed.Load() != 0 || told.Load() != 16 {
		t.Errorf("%d requests failed, %d of 16 clients were told; %d served", failed.Load(), told.Load(), served.Load())
	}
}

// TestSlowClientsHarmNobody: 500 clients send a head byte by byte and never end it.
func TestSlowClientsHarmNobody(t *testing.T) {
	up := listenRaw(t, nil)
	g := start(t, up.addr(), withListener(func(l *ListenerConfig) { l.Limits.HeaderTimeout = time.Second }))
	before := inUse()
	slow := make([]net.Conn, 500)
	for i := range slow {
		slow[i] = dial(t, g.addr)
		_, _ = io.WriteString(slow[i], "GET / HTTP/1.1\r\nHost: a\r\nX-Slow: ")
	}
	for range 20 {
		if resp, _ := get(t, g.addr, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"); resp.StatusCode != 200 {
			t.Fatalf("got %d", resp.StatusCode)
		}
	}
	if grown := inUse() - before; grown > 64<<20 {
		t.Errorf("memory grew by %d bytes", grown)
	}
	for _, c := range slow {
		if got := readAll(t, c, 5*time.Second); !strings.HasPrefix(got, "HTTP/1.1 408 ") {
			t.Fatalf("got %.40q, want 408", got)
		}
	}
}
