//go:build e2e

package e2e_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport/sallyport/cmd/sallyport/internal/demo"
)

// keyServer is an issuer's key set, whose keys and health a test changes.
type keyServer struct {
	*httptest.Server
	mu      sync.Mutex
	issuers []*demo.Issuer
	fault   http.HandlerFunc // nil: healthy
	fetches int
}

func newKeyServer(t *testing.T) *keyServer {
	t.Helper()
	k := &keyServer{}
	k.Server = httptest.NewServer(k)
	t.Cleanup(k.Close)
	k.publish(k.issuer(t))
	return k
}

func (k *keyServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	k.mu.Lock()
	k.fetches++
	fault, issuers := k.fault, k.issuers
	k.mu.Unlock()
	if fault != nil {
		fault(w, r)
		return
	}
	var all struct {
		Keys []json.RawMessage `json:"keys"`
	}
	for _, i := range issuers {
		var one struct {
			Keys []json.RawMessage `json:"keys"`
		}
		set, err := i.KeySet()
		if err != nil || json.Unmarshal(set, &one) != nil {
			http.Error(w, "no key set", http.StatusInternalServerError)
			return
		}
		all.Keys = append(all.Keys, one.Keys...)
	}
	_ = json.NewEncoder(w).Encode(all) // the reader has gone
}

func (k *keyServer) issuer(t *testing.T) *demo.Issuer {
	t.Helper()
	i, err := demo.NewIssuer(k.URL)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// publish makes these the issuer's only keys.
func (k *keyServer) publish(issuers ...*demo.Issuer) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.issuers = issuers
}

func (k *keyServer) fail(h http.HandlerFunc) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.fault = h
}

// fetched returns how often the key set was fetched.
func (k *keyServer) fetched() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.fetches
}

func tokenOf(t *testing.T, i *demo.Issuer, at time.Time, life time.Duration) string {
	t.Helper()
	token, err := i.Token("alice", nil, at, life)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// keyedSite is a gateway that fetches the keys of k.
func keyedSite(t *testing.T, k *keyServer, interval string) *site {
	t.Helper()
	s := newSite(t, paths)
	own := fmt.Sprintf(`jwt: {issuer: %q, audiences: [demo], jwks_url: %q, refresh_interval: %s}`, k.URL, k.URL+"/jwks", interval)
	text := strings.Replace(s.config(0, fromPaths), `jwt: {issuer: "http://127.0.0.1:1", audiences: [demo], jwks_file: jwks.json}`, own, 1)
	if !strings.Contains(text, own) {
		t.Fatal("the configuration has no such authenticator")
	}
	write(t, s.file("sallyport.yaml"), text)
	s.start(t)
	c := oneConnection(s.ca.pool)()
	defer c.CloseIdleConnections()
	token := tokenOf(t, k.issuers[0], time.Now(), time.Hour)
	eventually(t, 15*time.Second, "the keys are there", func() bool {
		status, _ := s.get(t, c, "/v1/orders/42", token)
		return status == 200
	})
	return s
}

// TestKeySetEndpointFaults: whatever the endpoint does in place of an answer, the keys
// that are known go on, and 503 is never answered for their tokens.
func TestKeySetEndpointFaults(t *testing.T) {
	k := newKeyServer(t)
	s := keyedSite(t, k, "1s")
	c := oneConnection(s.ca.pool)()
	defer c.CloseIdleConnections()
	release := make(chan struct{})
	defer close(release)
	known := k.issuers[0]
	for name, fault := range map[string]http.HandlerFunc{
		"500":     func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) },
		"garbage": func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "garbage") },
		"nothing": func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"keys":[]}`) },
		"64 MiB": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.Copy(w, io.LimitReader(strings.NewReader(strings.Repeat(" ", 64<<20)), 64<<20))
		},
		"a hang": func(_ http.ResponseWriter, r *http.Request) {
			select {
			case <-r.Context().Done():
			case <-release:
			}
		},
	} {
		k.fail(fault)
		before := k.fetched()
		eventually(t, 30*time.Second, name+": it is fetched", func() bool { return k.fetched() > before })
		for range 5 { // each is new, so that no cache answers
			if status, _ := s.get(t, c, "/v1/orders/42", tokenOf(t, known, time.Now(), time.Hour)); status != 200 {
				t.Errorf("%s: a token with a known key gets %d", name, status)
			}
		}
	}
	k.fail(nil)
}

// TestKeyRotation: a new key counts with the first request that brings it; a removed
// one is refused once the key set was fetched again, although its token is cached.
func TestKeyRotation(t *testing.T) {
	k := newKeyServer(t)
	s := keyedSite(t, k, "5s")
	c := oneConnection(s.ca.pool)()
	defer c.CloseIdleConnections()
	first, second := k.issuers[0], k.issuer(t)
	old, fresh := tokenOf(t, first, time.Now(), time.Hour), tokenOf(t, second, time.Now(), time.Hour)
	if status, _ := s.get(t, c, "/v1/orders/42", old); status != 200 {
		t.Fatalf("the first key's token gets %d", status)
	}
	if status, _ := s.get(t, c, "/v1/orders/42", fresh); status != 401 {
		t.Fatalf("a token of a key that is not published gets %d, want 401", status)
	}
	k.publish(first, second)
	next := tokenOf(t, k.issuer(t), time.Now(), time.Hour) // nobody's, to see that the answer above is not remembered
	if status, _ := s.get(t, c, "/v1/orders/42", next); status != 401 {
		t.Errorf("a token of nobody's key gets %d, want 401", status)
	}
	third := k.issuer(t)
	k.publish(first, third)
	if status, _ := s.get(t, c, "/v1/orders/42", tokenOf(t, third, time.Now(), time.Hour)); status != 200 {
		t.Errorf("the first token of a new key gets %d, want 200", status)
	}
	if status, _ := s.get(t, c, "/v1/orders/42", old); status != 200 {
		t.Errorf("a token of the key that stays gets %d", status)
	}
	k.publish(third)
	after := k.fetched() + 1 // one may be under way
	eventually(t, 30*time.Second, "the key set is fetched anew", func() bool { return k.fetched() > after })
	eventually(t, 5*time.Second, "the removed key is refused", func() bool {
		status, _ := s.get(t, c, "/v1/orders/42", old)
		return status == 401
	})
}

// TestStrangersKids: many unknown kids are few fetches, and others are served.
func TestStrangersKids(t *testing.T) {
	k := newKeyServer(t)
	s := keyedSite(t, k, "1h")
	c := oneConnection(s.ca.pool)()
	defer c.CloseIdleConnections()
	good := tokenOf(t, k.issuers[0], time.Now(), time.Hour)
	_, rest, _ := strings.Cut(good, ".")
	before := k.fetched()
	for i := range 300 {
		head := base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"alg":"RS256","typ":"at+jwt","kid":"stranger-%d"}`, i))
		if status, _ := s.get(t, c, "/v1/orders/42", head+"."+rest); status != 401 && status != 429 {
			t.Fatalf("a token with an unknown kid gets %d", status)
		}
	}
	if n := k.fetched() - before; n < 1 || n > 5 {
		t.Errorf("%d fetches for 300 unknown kids, want 1 to 5", n)
	}
	if status, _ := s.get(t, c, "/v1/orders/42", good); status != 200 {
		t.Errorf("a good token gets %d", status)
	}
}

// TestClockSkew: the issuer's clock may be off by leeway, 30s by default, either way.
func TestClockSkew(t *testing.T) {
	k := newKeyServer(t)
	s := keyedSite(t, k, "1h")
	c := oneConnection(s.ca.pool)()
	defer c.CloseIdleConnections()
	for _, tt := range []struct {
		off  time.Duration // of the issuer's clock
		life time.Duration
		want int
	}{
		{-time.Minute + 15*time.Second, time.Minute - 15*time.Second, 200}, // ends now
		{-2 * time.Minute, 2*time.Minute - 15*time.Second, 200},            // ended 15 s ago
		{-2 * time.Minute, 2*time.Minute - 31*time.Second, 401},
		{15 * time.Second, time.Minute, 200},
		{45 * time.Second, time.Minute, 401},
	} {
		if status, _ := s.get(t, c, "/v1/orders/42", tokenOf(t, k.issuers[0], time.Now().Add(tt.off), tt.life)); status != tt.want {
			t.Errorf("a token from %s off, for %s: status %d, want %d", tt.off, tt.life, status, tt.want)
		}
	}
}

// TestTokenEndpointDown: sessions outlive their access tokens while nobody renews
// these, and end when they end.
func TestTokenEndpointDown(t *testing.T) {
	s, stop := newLoginSite(t)
	p := s.person(t)
	if pg := p.LogIn(p.Get("https://"+s.addr+"/v1/orders"), s.addr); pg.Status != 200 {
		t.Fatalf("login: %d %s", pg.Status, pg.Text)
	}
	loggedIn := time.Now()
	stop()
	eventually(t, 30*time.Second, "the access token, of 12 s, is over", func() bool {
		if !p.in(s) {
			t.Fatalf("the session ended %s after the login", time.Since(loggedIn))
		}
		return time.Since(loggedIn) > 14*time.Second
	})
	form := p.Get("https://" + s.addr + "/oauth2/logout")
	p.Client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse } // to the provider
	if out := p.Submit(form, nil); out.Status != 303 && out.Status != 302 {
		t.Errorf("logout answers %d: %s", out.Status, out.Text)
	}
	if p.in(s) {
		t.Error("logged out, and the session goes on")
	}
}
