//go:build e2e

package e2e_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport/sallyport/cmd/sallyport/internal/demo"
)

// The changes below happen under load, and each must be seen within this time.
const (
	rounds      = 20
	connections = 64
	effect      = 2 * time.Second
)

// site is a gateway with everything around it.
type site struct {
	dir, addr, admin string
	token            string
	upstream         *httptest.Server
	ca               *authority
	gateway          *process
}

// rev is a policy that lets alice in and names its revision in the answer.
func rev(n int) string {
	return fmt.Sprintf(`package gateway

default decision := {"allow": false}

decision := {"allow": true, "response": {"set_headers": {"x-rev": "%d", "x-label": input.route.labels.rev}}} if {
	input.identity.subject == "alice"
}
`, n)
}

// config is the gateway's file. policy is the text below "policy:".
func (s *site) config(label int, policy string) string {
	return fmt.Sprintf(`version: v1
listeners:
  - name: public
    address: %s
    tls: {cert_file: server.pem, key_file: server.key}
admin: {address: %s}
authenticators:
  dev: {jwt: {issuer: "http://127.0.0.1:1", audiences: [demo], jwks_file: jwks.json}}
upstreams:
  api: {endpoints: [%s]}
routes:
  - name: all
    match: {path: "/**"}
    authenticate: [dev]
    upstream: api
    labels: {rev: "%d"}
policy:
  entrypoint: gateway/decision
%s`, s.addr, s.admin, s.upstream.URL, label, policy)
}

const fromPaths = "  paths: [policies]\n"

// newSite writes the files of a gateway and starts its upstream.
func newSite(t *testing.T, policy func(*site) string) *site {
	t.Helper()
	s := &site{dir: t.TempDir(), addr: freeAddress(t), admin: freeAddress(t), ca: newAuthority(t)}
	s.upstream = httptest.NewServer(http.HandlerFunc(demo.Echo))
	t.Cleanup(s.upstream.Close)
	issuer, err := demo.NewIssuer("http://127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	if s.token, err = issuer.Token("alice", nil, time.Now(), time.Hour); err != nil {
		t.Fatal(err)
	}
	keys, err := issuer.KeySet()
	if err != nil {
		t.Fatal(err)
	}
	write(t, s.file("jwks.json"), string(keys))
	s.certificate(t, 100)
	write(t, s.file("policies/gateway.rego"), rev(0))
	write(t, s.file("sallyport.yaml"), s.config(0, policy(s)))
	return s
}

func (s *site) file(name string) string { return filepath.Join(s.dir, name) }

func (s *site) certificate(t *testing.T, serial int64) {
	t.Helper()
	cert, key := s.ca.issue(t, serial)
	write(t, s.file("server.pem"), cert)
	write(t, s.file("server.key"), key)
}

func (s *site) start(t *testing.T) {
	t.Helper()
	s.gateway = start(t, "serve", "-c", s.file("sallyport.yaml"))
	waitReady(t, s.admin)
}

func (s *site) request() *http.Request {
	req, err := http.NewRequest(http.MethodGet, "https://"+s.addr+"/v1/orders/42", nil)
	if err != nil {
		panic(err)
	}
	req.Header.Set("Authorization", "Bearer "+s.token)
	return req
}

func (s *site) load(t *testing.T) *load {
	t.Helper()
	return drive(t, connections, oneConnection(s.ca.pool), s.request, accept(http.StatusOK))
}

// header returns a response header of a request on a new connection.
func (s *site) header(t *testing.T, name string) string {
	t.Helper()
	c := oneConnection(s.ca.pool)()
	defer c.CloseIdleConnections()
	resp, err := c.Do(s.request())
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp.Header.Get(name)
}

// again repeats a change and reports the slowest time until it was seen.
func again(t *testing.T, change func(round int), seen func(round int) bool) {
	t.Helper()
	var slowest time.Duration
	for round := 1; round <= rounds; round++ {
		change(round)
		slowest = max(slowest, eventually(t, effect, "round "+strconv.Itoa(round), func() bool { return seen(round) }))
	}
	t.Logf("%d rounds, slowest effect %v", rounds, slowest)
}

func paths(*site) string { return fromPaths }

func TestPolicyFileUnderLoad(t *testing.T) {
	s := newSite(t, paths)
	s.start(t)
	l := s.load(t)
	again(t,
		func(n int) { write(t, s.file("policies/gateway.rego"), rev(n)) },
		func(n int) bool { return s.header(t, "X-Rev") == strconv.Itoa(n) })
	l.end(t)
}

func TestCertificateUnderLoad(t *testing.T) {
	s := newSite(t, paths)
	s.start(t)
	l := s.load(t)
	serial := func() int64 {
		c, err := tls.Dial("tcp", s.addr, &tls.Config{RootCAs: s.ca.pool})
		if err != nil {
			return 0 // certificate and key are two files: between them the old pair must serve
		}
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
	}
	again(t,
		func(n int) { s.certificate(t, int64(100+n)) },
		func(n int) bool { return serial() == int64(100+n) })
	l.end(t)
}

func TestConfigUnderLoad(t *testing.T) {
	s := newSite(t, paths)
	s.start(t)
	l := s.load(t)
	again(t,
		func(n int) { write(t, s.file("sallyport.yaml"), s.config(n, fromPaths)) },
		func(n int) bool { return s.header(t, "X-Label") == strconv.Itoa(n) })
	l.end(t)
}

// TestBadReloadsUnderLoad breaks each file in turn; what works must go on.
func TestBadReloadsUnderLoad(t *testing.T) {
	s := newSite(t, paths)
	s.start(t)
	l := s.load(t)
	for _, file := range []string{"sallyport.yaml", "policies/gateway.rego", "server.pem", "jwks.json"} {
		good, err := os.ReadFile(s.file(file))
		if err != nil {
			t.Fatal(err)
		}
		refused := countRefused(s)
		write(t, s.file(file), "{ broken")
		eventually(t, 5*time.Second, file+" is refused", func() bool { return countRefused(s) > refused })
		if got := s.header(t, "X-Rev"); got != "0" {
			t.Errorf("with broken %s the revision is %q, want 0", file, got)
		}
		write(t, s.file(file), string(good))
	}
	l.end(t)
}

func countRefused(s *site) int { return strings.Count(s.gateway.stderr.String(), refusedText) }

const refusedText = "the last good state stays"

func TestTerminationUnderLoad(t *testing.T) {
	s := newSite(t, paths)
	s.start(t)
	// A client of a gateway that goes away sees its connection refused, never a
	// request that was taken and dropped.
	l := s.load(t)
	s.gateway.stop(t)
	l.cancel()
	l.wg.Wait()
	for _, e := range l.examples {
		if !strings.Contains(e, "connection refused") {
			t.Errorf("a request was dropped: %s", e)
		}
	}
	l.failed.Store(0) // refused ones are right
	if s.gateway.cmd.ProcessState.ExitCode() != 0 {
		t.Errorf("exit status %d, want 0", s.gateway.cmd.ProcessState.ExitCode())
	}
}

// TestTerminationWithWebSocket: it would go on for ever, and ends with the gateway; a
// request that has to be cut is a failure.
func TestTerminationWithWebSocket(t *testing.T) {
	heard, arrived := make(chan string, 1), make(chan struct{})
	s := newSite(t, paths)
	s.upstream = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") == "" {
			close(arrived)
			<-r.Context().Done()
			return
		}
		c, buffered, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
		said, err := io.ReadAll(io.TeeReader(buffered, c))
		heard <- fmt.Sprint(string(said), err)
	}))
	t.Cleanup(s.upstream.Close)

	write(t, s.file("sallyport.yaml"), s.config(0, fromPaths)+"shutdown: {timeout: 10m}\n")
	s.start(t)
	req := s.request()
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", "websocket")
	resp, err := oneConnection(s.ca.pool)().Transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	socket, ok := resp.Body.(io.ReadWriter)
	if !ok {
		t.Fatalf("no tunnel: %+v", resp)
	}
	echo := make([]byte, len("ping"))
	if _, err := io.WriteString(socket, "ping"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(socket, echo); err != nil || string(echo) != "ping" {
		t.Fatalf("%q, %v", echo, err)
	}
	s.gateway.stop(t)
	if rest, err := io.ReadAll(socket); len(rest) > 0 || err != nil {
		t.Errorf("the client hears %q and %v, want the end", rest, err)
	}
	if got := <-heard; got != "ping<nil>" {
		t.Errorf("the upstream hears %s, want the end", got)
	}
	if code := s.gateway.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit status %d, want 0", code)
	}

	write(t, s.file("sallyport.yaml"), s.config(0, fromPaths)+"shutdown: {timeout: 100ms}\n")
	s.start(t)
	var hangs sync.WaitGroup
	hangs.Go(func() {
		if resp, err := oneConnection(s.ca.pool)().Do(s.request()); err == nil {
			t.Errorf("answered %d", resp.StatusCode)
			resp.Body.Close()
		}
	})
	<-arrived
	s.gateway.stop(t)
	hangs.Wait()
	if code := s.gateway.cmd.ProcessState.ExitCode(); code != 1 {
		t.Errorf("a request was cut: exit status %d, want 1", code)
	}
}

// TestHangup reloads by signal although no file changed, and hears of a refusal:
// the watcher tells of a broken file once, so a second refusal is the signal's.
func TestHangup(t *testing.T) {
	s := newSite(t, paths)
	s.start(t)
	reloads := func() int { return strings.Count(s.gateway.stderr.String(), "configuration reloaded") }
	before := reloads()
	if err := s.gateway.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	eventually(t, effect, "reload", func() bool { return reloads() == before+1 })
	if got := s.header(t, "X-Rev"); got != "0" {
		t.Errorf("revision %q after the reload, want 0", got)
	}
	write(t, s.file("sallyport.yaml"), "{ broken")
	eventually(t, 5*time.Second, "the watcher's refusal", func() bool { return countRefused(s) == 1 })
	if err := s.gateway.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	eventually(t, effect, "the signal's refusal", func() bool { return countRefused(s) == 2 })
}

// TestListenersComeAndGo adds and removes a listener while another serves.
func TestListenersComeAndGo(t *testing.T) {
	s := newSite(t, paths)
	s.start(t)
	l := s.load(t)
	second := freeAddress(t)
	one := s.config(0, fromPaths)
	two := strings.Replace(one, "admin:", fmt.Sprintf("  - {name: second, address: %q}\nadmin:", second), 1)
	answers := func() bool {
		req := s.request()
		req.URL.Scheme, req.URL.Host = "http", second
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	}
	for range 3 {
		write(t, s.file("sallyport.yaml"), two)
		eventually(t, effect, "the second listener serves", answers)
		write(t, s.file("sallyport.yaml"), one)
		eventually(t, effect, "the second listener is gone", func() bool {
			http.DefaultClient.CloseIdleConnections()
			return !answers()
		})
	}
	l.end(t)
}

// TestTLSSettingsUnderLoad changes what TLS versions the address speaks.
func TestTLSSettingsUnderLoad(t *testing.T) {
	s := newSite(t, paths)
	s.start(t)
	l := s.load(t)
	speaks12 := func() bool {
		c, err := tls.Dial("tcp", s.addr, &tls.Config{RootCAs: s.ca.pool, MaxVersion: tls.VersionTLS12})
		if err != nil {
			return false
		}
		c.Close()
		return true
	}
	loose := s.config(0, fromPaths)
	strict := strings.Replace(loose, "key_file: server.key", `key_file: server.key, min_version: "1.3"`, 1)
	for range 3 {
		write(t, s.file("sallyport.yaml"), strict)
		eventually(t, effect, "TLS 1.2 is refused", func() bool { return !speaks12() })
		write(t, s.file("sallyport.yaml"), loose)
		eventually(t, effect, "TLS 1.2 is spoken", speaks12)
	}
	l.end(t)
}
