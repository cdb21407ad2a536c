package oidc

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/authn"
)

// oneRedirect is a login for all hosts of example.com but those of nobody, that comes
// back at example.com.
func oneRedirect(c *Config) {
	c.Origins = []string{"https://example.com", "https://a.example.com", "https://*.apps.example.com"}
	c.RedirectOrigin, c.Session.CookieDomain = "https://example.com", "example.com"
}

// visit is a browser at a host.
func (s *setup) visit(host string) *browser {
	b := s.browser()
	b.host = host
	return b
}

// cookiesSet are the attributes of the cookies that a response sets, by name.
func cookiesSet(r *authn.Request) map[string]string {
	out := map[string]string{}
	for _, h := range r.Response {
		if h.Name == "set-cookie" {
			pair, attributes, _ := strings.Cut(h.Value, ";")
			name, _, _ := strings.Cut(pair, "=")
			out[name] = attributes
		}
	}
	return out
}

// TestRedirectOrigin: the provider knows one address; people begin and end where they
// asked for a page.
func TestRedirectOrigin(t *testing.T) {
	s := newSetup(t, oneRedirect)
	for _, origin := range []string{"https://a.example.com", "https://x.y.apps.example.com", "https://example.com"} {
		b := s.visit(strings.TrimPrefix(origin, "https://"))
		r, _, answer := b.get("/v1/orders?a=b&c=%20d")
		q := b.idp.resolve(sent(t, answer).Query())
		b.idp.set(func(f *fake) { f.nonces["code-"+q.Get("state")] = q.Get("nonce") })
		if got := q.Get("redirect_uri"); got != "https://example.com/oauth2/callback" {
			t.Errorf("%s: redirect_uri %q", origin, got)
		}
		for name, attributes := range cookiesSet(r) {
			if !strings.HasPrefix(name, "__Secure-sallyport-login-") || !strings.Contains(attributes, "; Domain=example.com") || !strings.Contains(attributes, "; Secure") ||
				!strings.Contains(attributes, "; HttpOnly") || !strings.Contains(attributes, "; SameSite=Lax") || !strings.Contains(attributes, "; Max-Age=600") {
				t.Errorf("%s: the cookie of the login is %s with%s", origin, name, attributes)
			}
		}
		b.host = "example.com"
		if got := sent(t, b.at(b.back(q))).String(); got != origin+"/v1/orders?a=b&c=%20d" {
			t.Errorf("%s: sent to %s", origin, got)
		}
		if asked := s.idp.questions(); asked[len(asked)-1].Get("redirect_uri") != "https://example.com/oauth2/callback" {
			t.Errorf("%s: token endpoint was asked %v", origin, asked[len(asked)-1])
		}
		if len(b.jar) != 1 {
			t.Errorf("%s: cookies after the login: %v", origin, slices.Collect(keys(b.jar)))
		}
		for _, host := range []string{"example.com", "a.example.com", "b.apps.example.com"} {
			if b.host = host; !b.in() {
				t.Errorf("%s: not logged in at %s", origin, host)
			}
		}
	}
}

// TestRedirectOriginAsRegistered: the port that https has anyway is not in the redirect
// URI, as it is not in what browsers say.
func TestRedirectOriginAsRegistered(t *testing.T) {
	s := newSetup(t, func(c *Config) { oneRedirect(c); c.RedirectOrigin = "https://example.com:443" })
	b := s.visit("a.example.com")
	q := b.begin("/x")
	if got := q.Get("redirect_uri"); got != "https://example.com/oauth2/callback" {
		t.Errorf("redirect_uri %q", got)
	}
	b.host = "example.com:443"
	if got := sent(t, b.at(b.back(q))).String(); got != "https://a.example.com/x" {
		t.Errorf("sent to %s", got)
	}
}

// TestLoginCookieKeepsToItsHost where logins come back to it: a domain for sessions is
// none for logins.
func TestLoginCookieKeepsToItsHost(t *testing.T) {
	s := newSetup(t, func(c *Config) { oneRedirect(c); c.RedirectOrigin = "" })
	r, _, _ := s.visit("a.example.com").get("/x")
	set := cookiesSet(r)
	for name, attributes := range set {
		if !strings.HasPrefix(name, "__Host-") || strings.Contains(attributes, "Domain") {
			t.Errorf("%s with%s", name, attributes)
		}
	}
	if len(set) != 1 {
		t.Errorf("cookies %v", set)
	}
}

// TestRedirectOriginRefuses: answers that come back elsewhere, or are of a login that
// nobody may end here any more.
func TestRedirectOriginRefuses(t *testing.T) {
	s := newSetup(t, oneRedirect)
	reloaded := func(change func(*Config)) *Authenticator {
		c := s.a.config
		change(&c)
		next := s.open("login", c)
		next.Inherit(s.a)
		return next
	}
	for _, tc := range []struct {
		name   string
		a      *Authenticator
		change func(b *browser, r *authn.Request)
	}{
		{"where it began", s.a, func(_ *browser, r *authn.Request) { r.Host = "a.example.com" }},
		{"at another that is admitted", s.a, func(_ *browser, r *authn.Request) { r.Host = "b.apps.example.com" }},
		{"at a neighbour that is not", s.a, func(_ *browser, r *authn.Request) { r.Host = "b.example.com" }},
		{"at another site", s.a, func(_ *browser, r *authn.Request) { r.Host = "evil.test" }},
		{"at another port", s.a, func(_ *browser, r *authn.Request) { r.Host = "example.com:8443" }},
		{"over http", s.a, func(_ *browser, r *authn.Request) { r.Scheme = "http" }},
		{"with a dot behind", s.a, func(_ *browser, r *authn.Request) { r.Host = "example.com." }},
		{"its origin was taken away", reloaded(func(c *Config) { c.Origins = []string{"https://example.com", "https://*.apps.example.com"} }), nil},
		{"its domain was taken away", reloaded(func(c *Config) { c.Origins = []string{"https://example.com"} }), nil},
		{"another redirect origin since", reloaded(func(c *Config) { c.RedirectOrigin = "https://b.apps.example.com" }), nil},
		{"another redirect origin since, and there", reloaded(func(c *Config) { c.RedirectOrigin = "https://a.example.com" }), nil},
		{"no redirect origin since", reloaded(func(c *Config) { c.RedirectOrigin = "" }), nil},
		{"no redirect origin since, and where it began", reloaded(func(c *Config) { c.RedirectOrigin = "" }), func(_ *browser, r *authn.Request) { r.Host = "a.example.com" }},
		{"the cookie has no domain", s.a, func(b *browser, r *authn.Request) {
			b.jar = map[string]string{}
			rename(r, "__Secure-sallyport-", "__Host-sallyport-")
		}},
		{"the cookie is of nobody", s.a, func(b *browser, r *authn.Request) {
			b.jar = map[string]string{}
			rename(r, "__Secure-sallyport-", "sallyport-insecure-")
		}},
		{"another state", s.a, func(_ *browser, r *authn.Request) { r.RawQuery = strings.Replace(r.RawQuery, "state=", "state=x", 1) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := s.visit("a.example.com")
			q := b.begin("/x")
			b.host = "example.com"
			r := b.back(q)
			if tc.change != nil {
				tc.change(b, r)
			}
			before := len(s.idp.questions())
			answer := tc.a.callback(t.Context(), r)
			b.take(r)
			if answer.Status != http.StatusBadRequest || len(s.idp.questions()) != before || b.in() {
				t.Errorf("answered %d: %s; the code was sent: %v", answer.Status, answer.Why, len(s.idp.questions()) != before)
			}
			if strings.Contains(string(answer.Body), "a.example.com") {
				t.Errorf("the page leads to where nobody may log in: %s", answer.Body)
			}
		})
	}
	for _, host := range []string{"b.example.com", "apps.example.com", "evil.test", "evilapps.example.com", "x.apps.example.com.evil.test"} {
		b := s.visit(host)
		if _, _, answer := b.get("/x"); answer == nil || answer.Status != 403 || len(b.jar) != 0 {
			t.Errorf("a login begins at %s: %+v", host, answer)
		}
	}
}

func rename(r *authn.Request, from, to string) {
	r.Headers = slices.Clone(r.Headers)
	for i := range r.Headers {
		if r.Headers[i].Name == "cookie" {
			r.Headers[i].Value = strings.ReplaceAll(r.Headers[i].Value, from, to)
		}
	}
}

// TestHostileReturnAddressesAcrossOrigins: with a redirect origin too a login ends at
// the origin that it began at, whatever the address says.
func TestHostileReturnAddressesAcrossOrigins(t *testing.T) {
	s := newSetup(t, oneRedirect)
	b := s.browser()
	rows := append(hostileAddresses(), "https://example.com/", "https://b.apps.example.com/x", "//example.com/x", "https://a.example.com/x", "/oauth2/callback?code=x", "/oauth2/login?return=//evil.example",
		"/@evil.example", ".evil.example/", ":80@evil.example/", "@evil.example/")
	for _, row := range rows {
		b.jar = map[string]string{}
		asked := []*authn.Request{b.request("GET", "/oauth2/login?"+url.Values{"return": {row}}.Encode())}
		if strings.HasPrefix(row, "/") {
			r := b.request("GET", "/")
			r.Path, r.RawQuery, _ = strings.Cut(row, "?")
			asked = append(asked, r)
		}
		for _, r := range asked {
			b.jar, b.host, r.Host = map[string]string{}, "example.com", "a.example.com"
			var answer *authn.Answer
			if r.Path == s.a.config.LoginPath && r.RawQuery != "" {
				answer = b.at(r)
			} else {
				_, _, answer = b.through(s.a, r)
			}
			q := sent(t, answer).Query()
			s.idp.set(func(f *fake) { f.nonces["code-"+q.Get("state")] = q.Get("nonce") })
			to := sent(t, b.at(b.back(q)))
			path, query, _ := strings.Cut(row, "?")
			inside := to.Path == "/" && to.RawQuery == "" || to.EscapedPath() == path && to.RawQuery == query
			if to.Scheme != "https" || to.Host != "a.example.com" || to.User != nil || !inside {
				t.Errorf("%q leads to %s", row, to)
			}
		}
	}
	if len(rows) < 60 {
		t.Errorf("%d rows", len(rows))
	}
}

// TestHostileCallback: nothing that the browser sends along with the provider's answer
// changes where it goes.
func TestHostileCallback(t *testing.T) {
	s := newSetup(t, oneRedirect)
	for _, more := range []string{"return=https://evil.example/", "origin=https://evil.example", "redirect_uri=https://evil.example/", "Return=/y", "return=/y"} {
		b := s.visit("a.example.com")
		q := b.begin("/x")
		b.host = "example.com"
		r := b.back(q)
		r.RawQuery += "&" + more
		for name, value := range map[string]string{"origin": "https://evil.example", "referer": "https://evil.example/", "x-forwarded-host": "evil.example", "forwarded": "host=evil.example"} {
			r.Headers = append(r.Headers, authz.Header{Name: name, Value: value})
		}
		if got := sent(t, b.at(r)).String(); got != "https://a.example.com/x" {
			t.Errorf("%s: sent to %s", more, got)
		}
	}
}

// TestLoginsAcrossOrigins: a browser has one login under way, at whichever host; with
// several allowed each ends at its own.
func TestLoginsAcrossOrigins(t *testing.T) {
	s := newSetup(t, oneRedirect)
	b := s.visit("a.example.com")
	first := b.begin("/first")
	s.pass(time.Second)
	b.host = "b.apps.example.com"
	second := b.begin("/second")
	if len(b.jar) != 1 {
		t.Errorf("logins under way: %v", slices.Collect(keys(b.jar)))
	}
	b.host = "example.com"
	if answer := b.at(b.back(first)); answer.Status != 400 {
		t.Errorf("the first login ends with %d: %s", answer.Status, answer.Why)
	}
	if got := sent(t, b.at(b.back(second))).String(); got != "https://b.apps.example.com/second" {
		t.Errorf("the second leads to %s", got)
	}

	s = newSetup(t, func(c *Config) { oneRedirect(c); severalLogins(c) })
	b = s.browser()
	hosts := []string{"a.example.com", "b.apps.example.com", "c.apps.example.com", "example.com"}
	var asked []url.Values
	for _, b.host = range hosts {
		asked = append(asked, b.begin("/tab"))
		s.pass(time.Second)
	}
	b.host = "example.com"
	for i, host := range hosts {
		if got := sent(t, b.at(b.back(asked[i]))).String(); got != "https://"+host+"/tab" {
			t.Errorf("the tab at %s is sent to %s", host, got)
		}
	}
	b.jar, b.host = map[string]string{}, "a.example.com"
	for range 3 * maxFlows {
		s.pass(time.Second)
		b.begin("/x")
	}
	if len(b.jar) != maxFlows {
		t.Errorf("cookies %v", slices.Collect(keys(b.jar)))
	}
}

// TestBeginAgainElsewhere: the page of a login that ended is at the redirect origin, and leads
// back to where the login began.
func TestBeginAgainElsewhere(t *testing.T) {
	s := newSetup(t, oneRedirect)
	for _, tc := range []struct {
		host, code string
		change     func(*fake)
		status     int
		link       string
	}{
		{"a.example.com", "access_denied", nil, 400, `href="https://a.example.com/x?y=z"`},
		{"example.com", "access_denied", nil, 400, `href="/x?y=z"`},
		{"a.example.com", "temporarily_unavailable", nil, 503, `href="https://a.example.com/x?y=z"`},
		{"a.example.com", "", func(f *fake) { f.claims = map[string]any{"nonce": "another"} }, 403, `href="https://a.example.com/"`},
		{"example.com", "", func(f *fake) { f.claims = map[string]any{"nonce": "another"} }, 403, `href="/"`},
	} {
		b := s.visit(tc.host)
		q := b.begin("/x?y=z")
		b.host = "example.com"
		changes := []string{"error", tc.code}
		if tc.code != "" {
			changes = append(changes, "code", "")
		}
		if tc.change != nil {
			s.idp.set(tc.change)
		}
		answer := b.at(b.back(q, changes...))
		s.idp.set(func(f *fake) { f.claims = nil })
		if answer.Status != tc.status || !strings.Contains(string(answer.Body), tc.link) {
			t.Errorf("%s %q: answered %d, want %d with %s: %s\n%s", tc.host, tc.code, answer.Status, tc.status, tc.link, answer.Why, answer.Body)
		}
	}
}

// TestRestAcrossOrigins: what else begins a login, and what ends one, at a host that is
// not the redirect origin.
func TestRestAcrossOrigins(t *testing.T) {
	s := newSetup(t, func(c *Config) { oneRedirect(c); c.PostLogoutRedirect = "/bye" })
	b := s.visit("a.example.com")
	finish := func(answer *authn.Answer) string {
		t.Helper()
		q := sent(t, answer).Query()
		if got := q.Get("redirect_uri"); got != "https://example.com/oauth2/callback" {
			t.Errorf("redirect_uri %q", got)
		}
		s.idp.set(func(f *fake) { f.nonces["code-"+q.Get("state")] = q.Get("nonce") })
		host := b.host
		b.host = "example.com"
		to := sent(t, b.at(b.back(q))).String()
		b.host = host
		return to
	}
	if got := finish(b.at(b.request("GET", "/oauth2/login?return=/orders%3Fa=b"))); got != "https://a.example.com/orders?a=b" {
		t.Errorf("a link to log in leads to %s", got)
	}
	_, id, _ := b.get("/x")
	if id == nil {
		t.Fatal("not logged in")
	}
	r := b.request("GET", "/pay?now=1")
	s.pass(10 * time.Second)
	r.Now = s.now()
	answer := s.a.StepUp(t.Context(), r, id, &authz.Challenge{MaxAge: 5})
	b.take(r)
	s.idp.set(func(f *fake) { f.claims = map[string]any{"auth_time": s.now().Unix()} })
	if got := finish(answer); got != "https://a.example.com/pay?now=1" {
		t.Errorf("a step-up leads to %s", got)
	}

	// A form of a neighbour logs nobody out, though the session is the neighbour's too.
	token := b.token()
	post := func(origin string) *authn.Answer {
		return b.at(b.post("/oauth2/logout", "token="+token, "origin", origin))
	}
	if answer := post("https://example.com"); answer.Status != 403 {
		t.Errorf("a neighbour's form: %d %s", answer.Status, answer.Why)
	}
	answer = post("https://a.example.com")
	if got := sent(t, answer).Query().Get("post_logout_redirect_uri"); got != "https://a.example.com/bye" {
		t.Errorf("after the logout: %q", got)
	}
	if b.host = "example.com"; len(b.jar) != 0 || b.in() {
		t.Errorf("logged in after the logout: %v", slices.Collect(keys(b.jar)))
	}
}

// TestRedirectOriginPushedAndSigned: a pushed request and a request object have the
// redirect origin too.
func TestRedirectOriginPushedAndSigned(t *testing.T) {
	_, file := clientKey(t)
	s := offering(t, map[string]any{pushEndpoint: "/par"}, func(c *Config) {
		oneRedirect(c)
		c.RequestObject, c.RequestObjectKeyFile = true, file
	})
	b := s.visit("a.example.com")
	_, _, answer := b.get("/x")
	if q := sent(t, answer).Query(); q.Get("request_uri") == "" || q.Has("redirect_uri") || len(s.idp.pushed) != 1 {
		t.Fatalf("sent with %v, pushed %v", q, s.idp.pushed)
	}
	parts := strings.Split(s.idp.pushed[0].Get("request"), ".")
	if len(parts) != 3 {
		t.Fatalf("pushed %v", s.idp.pushed)
	}
	text, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	var claims map[string]any
	if err := json.Unmarshal(text, &claims); err != nil || claims["redirect_uri"] != "https://example.com/oauth2/callback" {
		t.Errorf("the request object has %v (%v)", claims, err)
	}
}

func TestRedirectOriginConfig(t *testing.T) {
	good := Default()
	good.Issuer, good.ClientID = "https://idp.example", "web"
	oneRedirect(&good)
	for i, same := range []string{"https://example.com", "https://example.com:443", "https://b.apps.example.com"} {
		c := good
		if c.RedirectOrigin = same; c.Validate() != nil {
			t.Errorf("%d: %v", i, c.Validate())
		}
	}
	for want, change := range map[string]func(*Config){
		"redirect_origin: needs session.cookie_domain":                                       func(c *Config) { c.Session.CookieDomain = "" },
		"redirect_origin: needs origins":                                                     func(c *Config) { c.Origins = nil },
		"redirect_origin: \"https://b.example.com\" is not one of origins":                   func(c *Config) { c.RedirectOrigin = "https://b.example.com" },
		"redirect_origin: \"https://evil.test\" is not one of origins":                       func(c *Config) { c.RedirectOrigin = "https://evil.test" },
		"redirect_origin: \"https://*.apps.example.com\" is not an origin":                   func(c *Config) { c.RedirectOrigin = "https://*.apps.example.com" },
		"redirect_origin: \"https://example.com/\" is not an origin":                         func(c *Config) { c.RedirectOrigin = "https://example.com/" },
		"redirect_origin: \"https://Example.com\" is not an origin":                          func(c *Config) { c.RedirectOrigin = "https://Example.com" },
		"redirect_origin: \"https://x@example.com\" is not an origin":                        func(c *Config) { c.RedirectOrigin = "https://x@example.com" },
		"redirect_origin: \"http://example.com\" is not one of origins":                      func(c *Config) { c.RedirectOrigin = "http://example.com" },
		"redirect_origin: \"https://example.com\" is not below session.cookie_domain":        func(c *Config) { c.Session.CookieDomain = "apps.example.com" },
		"origins: \"https://a.example.com\" is not below session.cookie_domain apps.example": func(c *Config) { c.Session.CookieDomain = "apps.example.com" },
		"origins: \"https://other.test\" is not below session.cookie_domain example.com":     func(c *Config) { c.Origins = append(slices.Clone(c.Origins), "https://other.test") },
	} {
		c := good
		change(&c)
		if err := c.Validate(); err == nil || !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
}
