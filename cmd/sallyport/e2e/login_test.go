//go:build e2e

package e2e_test

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"errors"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

const loginPolicy = `package gateway

default decision := {"allow": false}

decision := {"allow": true} if startswith(input.request.path, "/public/")

decision := answer if input.identity.authenticated

answer := {"allow": false, "challenge": {"max_age": 4}} if {
	input.request.path == "/admin"
	time.now_ns() / 1000000000 - input.identity.claims.auth_time > 4
} else := {"allow": true, "upstream": {"set_headers": {"x-user": input.identity.subject, "x-mail": object.get(input.identity.claims, "email", "")}}}
`

// nodeFor returns the folder of the identity providers and the Node.js that is
// installed there: the machine's own may be too old.
func nodeFor(t *testing.T) (dir, node string) {
	t.Helper()
	dir, err := filepath.Abs("../../../proxy/authn/jwt/testdata/idp")
	if err != nil {
		t.Fatal(err)
	}
	if own, err := filepath.Glob(filepath.Join(dir, "node_modules", "node-*", "bin", "node")); err == nil && len(own) == 1 {
		return dir, own[0]
	}
	return dir, "node"
}

// identityProvider is a certified OpenID provider, a process of its own, with the
// arguments of login.mjs.
func identityProvider(t *testing.T, args ...string) (address string, stop func()) {
	t.Helper()
	dir, node := nodeFor(t)
	cmd := exec.Command(node, append([]string{"login.mjs"}, args...)...)
	// The gateway's certificate is made for the test.
	cmd.Dir, cmd.Stderr, cmd.Env = dir, os.Stderr, append(os.Environ(), "NODE_TLS_REJECT_UNAUTHORIZED=0", "NODE_NO_WARNINGS=1")
	stdin, err := cmd.StdinPipe() // closing it ends the process, also when this one dies
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := false
	stop = func() {
		if !ended {
			ended = true
			_ = stdin.Close()
			_ = cmd.Wait()
		}
	}
	t.Cleanup(stop)
	var said struct{ Address string }
	line, err := bufio.NewReader(stdout).ReadBytes('\n')
	if err = errors.Join(err, json.Unmarshal(line, &said)); err != nil {
		t.Fatalf("the provider said %q: %v", line, err)
	}
	return said.Address, stop
}

// newLoginSite is a gateway at which people log in.
func newLoginSite(t *testing.T) (s *site, stopProvider func()) {
	t.Helper()
	s = newSite(t, paths)
	issuer, stop := identityProvider(t, "https://"+s.addr)
	write(t, s.file("secret"), "a-secret-for-the-test-only\n")
	write(t, s.file("key"), strings.Repeat("5e", 32)+"\n")
	s.login(t, issuer, "keys_files: [key]")
	s.start(t)
	return s, stop
}

// login has people log in at an issuer. keep is the text below "session:". What is
// below /api/ is for bearer tokens alone.
func (s *site) login(t *testing.T, issuer, keep string) {
	t.Helper()
	text := s.config(0, fromPaths)
	text = strings.Replace(text, "  dev:", `  anyone: {anonymous: {}}
  login: {oidc: {issuer: "`+issuer+`", client_id: web, client_secret_file: secret, userinfo: true, post_logout_redirect: /public/bye, session: {`+keep+`}}}
  dev:`, 1)
	text = strings.Replace(text, "routes:\n", `routes:
  - name: public
    match: {path: "/public/**"}
    authenticate: [anyone]
    upstream: api
  - name: api
    match: {path: "/api/**"}
    authenticate: [dev]
    upstream: api
`, 1)
	text = strings.Replace(text, "authenticate: [dev]\n    upstream: api\n    labels", "authenticate: [login, dev]\n    upstream: api\n    labels", 1)
	write(t, s.file("sallyport.yaml"), text)
	write(t, s.file("policies/gateway.rego"), loginPolicy)
}

// person is somebody at a browser: a cookie jar, and forms that are filled in.
type person struct {
	t      *testing.T
	client *http.Client
	logins int // forms filled in with a name
}

func (s *site) person(t *testing.T) *person {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	c := &http.Client{Jar: jar, Timeout: 20 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: s.ca.pool}}}
	t.Cleanup(c.CloseIdleConnections)
	return &person{t: t, client: c}
}

// page is what a browser shows.
type page struct {
	status int
	url    *url.URL
	text   string
}

func (p *person) do(req *http.Request) page {
	p.t.Helper()
	req.Header.Set("Accept", "text/html,application/xhtml+xml,*/*;q=0.8")
	resp, err := p.client.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return page{resp.StatusCode, resp.Request.URL, string(body)}
}

func (p *person) get(url string) page {
	p.t.Helper()
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	return p.do(req)
}

var (
	formTag  = regexp.MustCompile(`(?s)<form[^>]*action="([^"]*)"[^>]*>(.*?)</form>`)
	inputTag = regexp.MustCompile(`<(?:input|button)[^>]*>`)
	attr     = regexp.MustCompile(`(name|value|type)="([^"]*)"`)
)

// submit fills in the form of a page and sends it.
func (p *person) submit(pg page, fill map[string]string) page {
	p.t.Helper()
	form := formTag.FindStringSubmatch(pg.text)
	if form == nil {
		p.t.Fatalf("%s has no form: %d %s", pg.url, pg.status, pg.text)
	}
	values := url.Values{}
	for _, tag := range inputTag.FindAllString(form[2], -1) {
		attrs := map[string]string{}
		for _, a := range attr.FindAllStringSubmatch(tag, -1) {
			attrs[a[1]] = html.UnescapeString(a[2])
		}
		if attrs["name"] != "" {
			values.Set(attrs["name"], attrs["value"])
		}
	}
	for k, v := range fill {
		values.Set(k, v)
	}
	to, err := pg.url.Parse(html.UnescapeString(form[1]))
	if err != nil {
		p.t.Fatal(err)
	}
	req, err := http.NewRequest(http.MethodPost, to.String(), strings.NewReader(values.Encode()))
	if err != nil {
		p.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Origin", pg.url.Scheme+"://"+pg.url.Host)
	return p.do(req)
}

// through goes through the provider's pages until the gateway answers.
func (p *person) through(pg page, gateway string) page {
	p.t.Helper()
	for range 5 {
		if pg.url.Host == gateway {
			return pg
		}
		fill := map[string]string{}
		if strings.Contains(pg.text, `name="login"`) {
			p.logins++
			fill = map[string]string{"login": "alice", "password": "x"}
		}
		pg = p.submit(pg, fill)
	}
	p.t.Fatalf("still at %s: %d %s", pg.url, pg.status, pg.text)
	return pg
}

// in reports whether a request of the person gets to the upstream as alice.
func (p *person) in(s *site) bool {
	p.t.Helper()
	req, err := http.NewRequest(http.MethodGet, "https://"+s.addr+"/v1/orders", nil)
	if err != nil {
		p.t.Fatal(err)
	}
	req.Header.Set("X-Requested-With", "XMLHttpRequest")
	pg := p.do(req)
	if pg.status != 200 && pg.status != 401 {
		p.t.Fatalf("answered %d: %s", pg.status, pg.text)
	}
	return pg.status == 200
}

// TestLogin goes the whole way with a certified provider: login, identity, renewal, step-up, and logout, after which a copy of the
// cookies is good for nothing.
func TestLogin(t *testing.T) {
	s, _ := newLoginSite(t)
	p := s.person(t)
	base := "https://" + s.addr
	if p.in(s) {
		t.Fatal("a script without a session is let in")
	}
	pg := p.get(base + "/v1/orders?a=b")
	if pg.url.Host == s.addr {
		t.Fatalf("nobody is asked to log in: %d %s", pg.status, pg.text)
	}
	pg = p.through(pg, s.addr)
	var echo struct {
		Path    string
		Headers map[string]string
	}
	if err := json.Unmarshal([]byte(pg.text), &echo); err != nil || pg.status != 200 || pg.url.RequestURI() != "/v1/orders?a=b" {
		t.Fatalf("after the login %s answers %d: %s", pg.url, pg.status, pg.text)
	}
	if got := echo.Headers["X-User"] + " " + echo.Headers["X-Mail"]; got != "alice alice@example.com" {
		t.Errorf("the upstream sees %q", got)
	}
	if strings.Contains(pg.text, "__Host-sallyport") {
		t.Errorf("the upstream sees the session: %s", pg.text)
	}

	pg = p.through(p.get(base+"/admin"), s.addr)
	if pg.status != 200 || pg.url.Path != "/admin" {
		t.Errorf("/admin answers %d at %s: %s", pg.status, pg.url, pg.text)
	}
	before := p.logins
	eventually(t, 15*time.Second, "the login is too old for /admin", func() bool { return p.get(base+"/admin").url.Host != s.addr })
	if pg = p.through(p.get(base+"/admin"), s.addr); pg.status != 200 || pg.url.Path != "/admin" || p.logins == before {
		t.Errorf("stepped up %d times; /admin answers %d at %s", p.logins-before, pg.status, pg.url)
	}

	// The access token lasts 12 seconds, and is renewed from 10 seconds before.
	cookie := func() string {
		u, err := url.Parse(base)
		if err != nil {
			t.Fatal(err)
		}
		text := ""
		for _, c := range p.client.Jar.Cookies(u) {
			text += c.Name + "=" + c.Value + "; "
		}
		return text
	}
	first := cookie()
	eventually(t, 20*time.Second, "the session is renewed", func() bool { return p.in(s) && cookie() != first })

	copied := cookie()
	out := p.submit(p.get(base+"/oauth2/logout"), nil)
	if out.url.Host == s.addr {
		t.Fatalf("logout answers %d: %s", out.status, out.text)
	}
	if pg = p.submit(out, map[string]string{"logout": "yes"}); pg.url.Path != "/public/bye" || pg.status != 200 {
		t.Errorf("after the logout %s answers %d", pg.url, pg.status)
	}
	if p.in(s) {
		t.Error("still logged in")
	}
	req, err := http.NewRequest(http.MethodGet, base+"/v1/orders", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Cookie", copied)
	thief := oneConnection(s.ca.pool)()
	defer thief.CloseIdleConnections()
	resp, err := thief.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 401 {
		t.Errorf("a copy of the cookies gets %d", resp.StatusCode)
	}
}

// TestProviderEndsSessions: somebody logs out at the provider, from another browser
// window; the provider tells the gateway.
func TestProviderEndsSessions(t *testing.T) {
	s, stop := newLoginSite(t)
	p := s.person(t)
	base := "https://" + s.addr
	pg := p.get(base + "/v1/orders")
	provider := pg.url.Scheme + "://" + pg.url.Host
	if pg = p.through(pg, s.addr); pg.status != 200 {
		t.Fatalf("login: %d %s", pg.status, pg.text)
	}
	form := p.get(provider + "/session/end")
	p.submit(form, map[string]string{"logout": "yes"})
	eventually(t, 10*time.Second, "the session ended", func() bool { return !p.in(s) })

	q := s.person(t)
	if pg = q.through(q.get(base+"/v1/orders"), s.addr); pg.status != 200 {
		t.Fatalf("login: %d %s", pg.status, pg.text)
	}
	stop()
	for range 3 {
		if !q.in(s) {
			t.Error("the provider is down, and the session ended")
		}
	}
}
