//go:build e2e

package e2e_test

import (
	"bytes"
	"crypto/tls"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport/sallyport/proxy/authn/oidc/oidctest"
	"github.com/sallyport/sallyport/proxy/redis/redistest"
)

// The points of a renewal at which front can hold it.
const (
	asked    = "asked"    // the provider has not heard of it
	answered = "answered" // the refresh token is spent, and the gateway does not know
)

// front stands before a provider and sees what gateways ask of its token endpoint.
type front struct {
	*httptest.Server
	to atomic.Pointer[url.URL]

	mu    sync.Mutex
	used  map[string]int   // how often the provider saw a refresh token
	gates map[string]*gate // by point
}

// gate is where one request waits.
type gate struct{ reached, open chan struct{} }

func newFront(t *testing.T) *front {
	t.Helper()
	f := &front{used: map[string]int{}, gates: map[string]*gate{}}
	f.Server = httptest.NewServer(f)
	t.Cleanup(f.Close)
	return f
}

// hold has the next renewal wait at a point until it is let go, or its sender dies.
func (f *front) hold(point string) *gate {
	f.mu.Lock()
	defer f.mu.Unlock()
	g := &gate{make(chan struct{}), make(chan struct{})}
	f.gates[point] = g
	return g
}

func (f *front) pass(point string, r *http.Request) {
	f.mu.Lock()
	g := f.gates[point]
	delete(f.gates, point)
	f.mu.Unlock()
	if g == nil {
		return
	}
	close(g.reached)
	select {
	case <-g.open:
	case <-r.Context().Done():
	}
}

// ServeHTTP implements http.Handler.
func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	proxy := httputil.ReverseProxy{Rewrite: func(pr *httputil.ProxyRequest) {
		pr.SetURL(f.to.Load())
		pr.Out.Host = pr.In.Host
	}}
	form, _ := url.ParseQuery(string(body)) // empty when it is none
	if form.Get("grant_type") == "refresh_token" {
		if f.pass(asked, r); r.Context().Err() != nil {
			return
		}
		f.mu.Lock()
		f.used[form.Get("refresh_token")]++
		f.mu.Unlock()
		proxy.ModifyResponse = func(*http.Response) error { f.pass(answered, r); return nil }
	}
	proxy.ServeHTTP(w, r)
}

// renewals returns how many there were. A refresh token that came twice fails the test.
func (f *front) renewals(t *testing.T) int {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, n := range f.used {
		if n != 1 {
			t.Errorf("a refresh token was used %d times", n)
		}
	}
	return len(f.used)
}

// replicas are two gateways that keep sessions in one Redis.
type replicas struct {
	a, b     *site
	provider *front
	redis    *redistest.Server
}

const (
	// rights are what the documentation tells to give the gateway.
	rights        = "~sallyport:* -@all +@connection +get +set +getrange +del +pexpire +zadd +zrange +zremrangebyscore +multi +exec +eval +evalsha"
	byUserOverTLS = redistest.OverTLS + `user default off
user sallyport on >s3cret ` + rights + "\n"
)

func newReplicas(t *testing.T, redis, client string) *replicas {
	t.Helper()
	rs := &replicas{a: newSite(t, paths), b: newSite(t, paths), provider: newFront(t)}
	rs.b.ca = rs.a.ca
	rs.b.certificate(t, 101)
	dir := t.TempDir()
	cert, key := rs.a.ca.issue(t, 102)
	write(t, dir+"/server.pem", cert)
	write(t, dir+"/server.key", key)
	rs.redis = redistest.Start(t, dir, redis)
	provider := identityProvider(t, "https://"+rs.a.addr+",https://"+rs.b.addr, map[string]any{"rotates": true, "issuer": rs.provider.URL})
	to, err := url.Parse(provider.Address)
	if err != nil {
		t.Fatal(err)
	}
	rs.provider.to.Store(to)
	for _, s := range []*site{rs.a, rs.b} {
		write(t, s.file("secret"), "a-secret-for-the-test-only\n")
		write(t, s.file("key"), strings.Repeat("5e", 32)+"\n")
		write(t, s.file("password"), "s3cret\n")
		write(t, s.file("ca.pem"), s.ca.pem())
		s.login(t, rs.provider.URL, "keys_files: [key], redis: {address: "+rs.redis.Address+", password_file: password, timeout: 500ms"+client+"}")
		s.start(t)
	}
	return rs
}

func (rs *replicas) both(of func(*site) bool) bool { return of(rs.a) && of(rs.b) }

// logIn logs a person in at a site.
func (rs *replicas) logIn(t *testing.T, s *site) *person {
	t.Helper()
	p := s.person(t)
	if pg := p.LogIn(p.Get("https://"+s.addr+"/v1/orders"), s.addr); pg.Status != 200 {
		t.Fatalf("login: %d %s", pg.Status, pg.Text)
	}
	return p
}

// ask returns the status of a script's request, 0 when there was no answer.
func (p *person) ask(s *site, path string, headers ...string) int {
	req, err := http.NewRequest(http.MethodGet, "https://"+s.addr+path, nil)
	if err != nil {
		panic(err)
	}
	req.Header.Set("X-Requested-With", "XMLHttpRequest")
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := p.Client.Do(req)
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return 0
	}
	return resp.StatusCode
}

func (p *person) cookies(s *site) string {
	p.t.Helper()
	u, err := url.Parse("https://" + s.addr)
	if err != nil {
		p.t.Fatal(err)
	}
	var pairs []string
	for _, c := range p.Client.Jar.Cookies(u) {
		pairs = append(pairs, c.Name+"="+c.Value)
	}
	return strings.Join(pairs, "; ")
}

// renewing has the person's requests to s come until one of them is at the gate, and
// returns the channel on which its status comes.
func (p *person) renewing(t *testing.T, s *site, g *gate) <-chan int {
	t.Helper()
	held := make(chan int, 1)
	go func() {
		for t.Context().Err() == nil {
			got := p.ask(s, "/v1/orders")
			select {
			case <-g.reached: // by this one, since there is one at a time
				held <- got
				return
			default:
			}
		}
	}()
	select {
	case <-g.reached:
	case <-time.After(30 * time.Second):
		t.Fatal("the session is not renewed")
	}
	return held
}

// TestReplicas: what happens at one replica counts at the other, over TLS and with no more rights in Redis than the documentation asks for.
func TestReplicas(t *testing.T) {
	rs := newReplicas(t, byUserOverTLS, ", username: sallyport, tls: true, ca_file: ca.pem")
	if docs, err := os.ReadFile("../../../docs/log-users-in.md"); err != nil || !strings.Contains(string(docs), rights) {
		t.Errorf("the documentation does not tell to give %s: %v", rights, err)
	}
	p := rs.logIn(t, rs.a)
	if !p.in(rs.b) {
		t.Fatal("a login at one replica is none at the other")
	}
	var n atomic.Int64
	l := drive(t, 16,
		func() *http.Client {
			return &http.Client{Jar: p.Client.Jar, Timeout: 20 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: rs.a.ca.pool}}}
		},
		func() *http.Request {
			s := []*site{rs.a, rs.b}[n.Add(1)%2]
			req, err := http.NewRequest(http.MethodGet, "https://"+s.addr+"/v1/orders", nil)
			if err != nil {
				panic(err)
			}
			req.Header.Set("X-Requested-With", "XMLHttpRequest")
			return req
		},
		accept(http.StatusOK))
	eventually(t, 30*time.Second, "the session is renewed three times", func() bool { return rs.provider.renewals(t) >= 3 })
	l.end(t)

	copied := p.cookies(rs.a)
	out := p.Submit(p.Get("https://"+rs.a.addr+"/oauth2/logout"), nil)
	if pg := p.Submit(out, map[string]string{"logout": "yes"}); pg.URL.Path != "/public/bye" || pg.Status != 200 {
		t.Errorf("after the logout %s answers %d", pg.URL, pg.Status)
	}
	if got := rs.b.person(t).ask(rs.b, "/v1/orders", "Cookie", copied); got != 401 {
		t.Errorf("after the logout at one replica a copy of the cookie gets %d at the other", got)
	}

	q := rs.logIn(t, rs.b)
	if !rs.both(q.in) {
		t.Fatal("a login at one replica is none at the other")
	}
	q.Submit(q.Get(rs.provider.URL+"/session/end"), map[string]string{"logout": "yes"}) // the provider tells the first replica
	eventually(t, 10*time.Second, "the session ended at both", func() bool { return !q.in(rs.b) && !q.in(rs.a) })
	for _, s := range []*site{rs.a, rs.b} {
		if log := s.gateway.stderr.String(); strings.Contains(log, "s3cret") || strings.Contains(log, "\nredis: ") {
			t.Errorf("the log has the password, or lines of its own kind:\n%s", log)
		}
	}
}

// TestReplicasWithoutRedis: Redis dies, hangs, comes back with its data and without.
func TestReplicasWithoutRedis(t *testing.T) {
	rs := newReplicas(t, redistest.ByPassword, "")
	p := rs.logIn(t, rs.a)
	stranger := rs.a.person(t)
	browser := func(s *site) oidctest.Page { return p.Get("https://" + s.addr + "/v1/orders") }
	goesOn := func(after string) {
		t.Helper()
		eventually(t, 30*time.Second, "the session goes on after "+after, func() bool {
			return rs.both(func(s *site) bool { return p.ask(s, "/v1/orders") == 200 })
		})
		if p.Logins != 1 {
			t.Errorf("after %s they logged in again", after)
		}
	}
	// unharmed: nobody else sees anything of it.
	unharmed := func(s *site, while string) {
		t.Helper()
		if got := stranger.ask(s, "/api/orders", "Authorization", "Bearer "+s.token); got != 200 {
			t.Errorf("while Redis %s a bearer token gets %d", while, got)
		}
		if got := stranger.ask(s, "/v1/orders", "Authorization", "Bearer "+s.token); got != 200 {
			t.Errorf("while Redis %s a bearer token gets %d where people log in", while, got)
		}
		if got := stranger.ask(s, "/v1/orders"); got != 401 {
			t.Errorf("while Redis %s a stranger gets %d", while, got)
		}
		if got := status("http://" + s.admin + "/readyz"); got != 200 {
			t.Errorf("while Redis %s readyz answers %d", while, got)
		}
	}

	rs.redis.Kill()
	cookies := p.cookies(rs.a)
	for _, s := range []*site{rs.a, rs.b} {
		for range 3 {
			if got := p.ask(s, "/v1/orders"); got != 503 {
				t.Errorf("without Redis a script with a session gets %d", got)
			}
			if pg := browser(s); pg.Status != 503 || pg.URL.Host != s.addr {
				t.Errorf("without Redis somebody with a session gets %d at %s", pg.Status, pg.URL)
			}
		}
		unharmed(s, "is dead")
	}
	q := rs.a.person(t)
	if pg := q.LogIn(q.Get("https://"+rs.a.addr+"/v1/orders"), rs.a.addr); pg.Status != 503 {
		t.Errorf("without Redis a login ends with %d at %s", pg.Status, pg.URL)
	}
	if p.cookies(rs.a) != cookies {
		t.Error("without Redis the browser lost its session")
	}
	rs.redis.Restart()
	goesOn("a restart")

	rs.redis.Signal(syscall.SIGSTOP)
	var waiting sync.WaitGroup
	for i := range 64 {
		waiting.Go(func() {
			if got := p.ask([]*site{rs.a, rs.b}[i%2], "/v1/orders"); got != 503 {
				t.Errorf("while Redis hangs a session gets %d", got)
			}
		})
	}
	for range 10 {
		unharmed(rs.a, "hangs")
		unharmed(rs.b, "hangs")
	}
	waiting.Wait()
	rs.redis.Signal(syscall.SIGCONT)
	goesOn("a pause")

	g := rs.provider.hold(answered)
	last := p.renewing(t, rs.a, g)
	rs.redis.Kill()
	close(g.open)
	if got := <-last; got != 503 {
		t.Errorf("a renewal that Redis did not take is answered with %d", got)
	}
	rs.redis.Restart()
	goesOn("its death in the middle of a renewal")
	had := rs.provider.renewals(t)
	eventually(t, 30*time.Second, "the session is renewed again", func() bool {
		return rs.both(p.in) && rs.provider.renewals(t) > had
	})

	rs.redis.Kill()
	rs.redis.Empty()
	rs.redis.Restart()
	eventually(t, 30*time.Second, "nobody is logged in", func() bool {
		return rs.both(func(s *site) bool { return p.ask(s, "/v1/orders") == 401 })
	})
	if pg := p.LogIn(browser(rs.b), rs.b.addr); pg.Status != 200 || pg.URL.Path != "/v1/orders" || !rs.both(p.in) {
		t.Errorf("when Redis has lost everything, logging in again ends with %d at %s", pg.Status, pg.URL)
	}
}

// TestReplicaDies while it renews two sessions: of one the provider has heard nothing
// yet, of the other it has spent the refresh token.
func TestReplicaDies(t *testing.T) {
	rs := newReplicas(t, redistest.ByPassword, "")
	p, q := rs.logIn(t, rs.a), rs.logIn(t, rs.a)
	before, after := rs.provider.hold(asked), (*gate)(nil)
	lastP := p.renewing(t, rs.a, before)
	after = rs.provider.hold(answered)
	lastQ := q.renewing(t, rs.a, after)
	if err := rs.a.gateway.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if got := []int{<-lastP, <-lastQ}; got[0] != 0 || got[1] != 0 {
		t.Fatalf("the dead replica answered %v", got)
	}
	if !p.in(rs.b) || p.Logins != 1 {
		t.Error("the session ended with the replica that was about to renew it")
	}
	if pg := q.LogIn(q.Get("https://"+rs.b.addr+"/v1/orders"), rs.b.addr); pg.Status != 200 || !q.in(rs.b) {
		t.Errorf("a session whose refresh token is lost: %d at %s", pg.Status, pg.URL)
	}
}
