package oidc

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/authn"
)

// fake is a provider that does what a row of a test says. What a certified one does
// is tested with the whole gateway.
type fake struct {
	*httptest.Server
	key *ecdsa.PrivateKey

	keysDown atomic.Bool // the key set is not to be had
	keysHang atomic.Bool // nobody answers who asks for it

	mu       sync.Mutex
	metadata map[string]any                               // changes
	claims   map[string]any                               // changes of the ID token; nil removes
	header   map[string]string                            // of the ID token
	token    func(http.ResponseWriter, url.Values) bool   // answers in place of the provider; false: does not
	answer   map[string]any                               // changes of the token answer
	userinfo func(w http.ResponseWriter, r *http.Request) // nil: 404
	asked    []url.Values                                 // of the token endpoint
	basic    string                                       // Authorization of the last question
	nonces   map[string]string                            // by code
	push     func(http.ResponseWriter, url.Values) bool   // answers pushed requests in place of the provider; false: does not
	pushed   []url.Values                                 // in order
	revoke   func(http.ResponseWriter, url.Values) bool   // answers revocations in place of the provider; false: does not
	revoked  []url.Values                                 // in order
	now      func() time.Time
}

func newFake(t *testing.T, now func() time.Time) *fake {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{key: key, nonces: map[string]string{}, now: now}
	mux := http.NewServeMux()
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		f.mu.Lock()
		defer f.mu.Unlock()
		doc := map[string]any{
			"issuer": f.URL, "authorization_endpoint": f.URL + "/authorize", "token_endpoint": f.URL + "/token", "jwks_uri": f.URL + "/keys",
			"userinfo_endpoint": f.URL + "/userinfo", "end_session_endpoint": f.URL + "/logout", "authorization_response_iss_parameter_supported": true,
		}
		merge(doc, f.metadata)
		writeJSON(w, doc)
	})
	mux.HandleFunc("/keys", func(w http.ResponseWriter, r *http.Request) {
		if f.keysHang.Load() {
			<-r.Context().Done()
			return
		}
		if f.keysDown.Load() {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		b64 := base64.RawURLEncoding.EncodeToString
		x, y := make([]byte, 32), make([]byte, 32)
		writeJSON(w, map[string]any{"keys": []any{map[string]any{
			"kty": "EC", "crv": "P-256", "kid": "k1", "use": "sig", "alg": "ES256",
			"x": b64(key.X.FillBytes(x)), "y": b64(key.Y.FillBytes(y)),
		}}})
	})
	mux.HandleFunc("/token", f.serveToken)
	mux.HandleFunc("/par", f.servePush)
	mux.HandleFunc("/revoke", f.serveRevocation)
	mux.HandleFunc("/userinfo", func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.userinfo == nil {
			http.NotFound(w, r)
			return
		}
		f.userinfo(w, r)
	})
	f.Server = httptest.NewServer(mux)
	t.Cleanup(f.Close)
	return f
}

func merge(doc, changes map[string]any) {
	for k, v := range changes {
		if doc[k] = v; v == nil {
			delete(doc, k)
		}
	}
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

// sign makes a JWT of the provider.
func (f *fake) sign(t testing.TB, header map[string]string, claims map[string]any) string {
	all, err := newSigners(f.key, "JWT", "k1")
	if err != nil {
		t.Fatal(err)
	}
	s := all[0]
	if header != nil {
		head := map[string]string{"alg": "ES256", "typ": "JWT", "kid": "k1"}
		maps.Copy(head, header)
		text, err := json.Marshal(head)
		if err != nil {
			t.Fatal(err)
		}
		s.header = base64.RawURLEncoding.EncodeToString(text)
	}
	out, err := s.sign(claims)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (f *fake) serveToken(w http.ResponseWriter, r *http.Request) {
	_ = r.ParseForm()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, r.PostForm)
	f.basic = r.Header.Get("Authorization")
	if f.token != nil && f.token(w, r.PostForm) {
		return
	}
	now := f.now()
	access := "at-" + string(rune('a'+len(f.asked)%26))
	sum := sha256.Sum256([]byte(access))
	claims := map[string]any{
		"iss": f.URL, "sub": "alice", "aud": "web", "exp": now.Add(5 * time.Minute).Unix(), "iat": now.Unix(), "sid": "s1",
		"auth_time": now.Unix(), "acr": "one", "at_hash": base64.RawURLEncoding.EncodeToString(sum[:16]), "email": "alice@example.com",
	}
	if nonce := f.nonces[r.PostForm.Get("code")]; nonce != "" {
		claims["nonce"] = nonce
	}
	merge(claims, f.claims)
	s := &signTB{}
	doc := map[string]any{
		"access_token": access, "token_type": "Bearer", "expires_in": 60, "refresh_token": "rt-" + access,
		"id_token": f.sign(s, f.header, claims),
	}
	merge(doc, f.answer)
	writeJSON(w, doc)
}

// signTB lets the server sign outside of a test's goroutine.
type signTB struct{ testing.TB }

func (signTB) Fatal(args ...any) { panic(args) }

// set changes the fake safely.
func (f *fake) set(change func(*fake)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
}

func (f *fake) questions() []url.Values {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]url.Values(nil), f.asked...)
}

// setup is an authenticator, its provider, and a clock.
type setup struct {
	t    *testing.T
	idp  *fake
	a    *Authenticator
	mu   sync.Mutex
	time time.Time
}

func (s *setup) now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.time
}

func (s *setup) pass(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.time = s.time.Add(d)
}

func newSetup(t *testing.T, change func(*Config)) *setup {
	t.Helper()
	s := &setup{t: t, time: time.Now().Truncate(time.Second)}
	s.idp = newFake(t, s.now)
	c := Default()
	c.Issuer, c.ClientID = s.idp.URL, "web"
	c.ClientSecretFile = filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(c.ClientSecretFile, []byte("s3cret/+ \n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(&c)
	}
	s.a = s.open("login", c)
	return s
}

func (s *setup) open(name string, c Config) *Authenticator {
	s.t.Helper()
	a, err := New(name, c, Deps{Now: s.now})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(a.provider.client.Close)
	if err := a.Prime(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
	s.fetchKeys(a)
	return a
}

// fetchKeys has a get new key sets until the test ends, as it does while it serves.
func (s *setup) fetchKeys(a *Authenticator) {
	var running sync.WaitGroup
	running.Go(func() { _ = a.verifier.Run(s.t.Context()) })
	s.t.Cleanup(running.Wait)
}

// browser keeps cookies and follows nothing by itself.
type browser struct {
	*setup
	jar  map[string]string
	host string
}

func (s *setup) browser() *browser {
	return &browser{setup: s, jar: map[string]string{}, host: "app.example"}
}

type form struct{ data string }

func (f form) Buffer(context.Context) ([]byte, bool, error) { return []byte(f.data), false, nil }

// request makes a request; headers are pairs.
func (b *browser) request(method, target string, headers ...string) *authn.Request {
	path, query, _ := strings.Cut(target, "?")
	r := &authn.Request{Now: b.now(), Method: method, Scheme: "https", Host: b.host, Path: path, RawQuery: query, ID: "r1"}
	if len(headers) == 0 {
		headers = []string{"accept", "text/html,*/*;q=0.8"}
	}
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "authorization" {
			r.Authorization = headers[i+1]
		}
		r.Headers = append(r.Headers, authz.Header{Name: headers[i], Value: headers[i+1]})
	}
	var pairs []string
	for name, value := range b.jar {
		pairs = append(pairs, name+"="+value)
	}
	if len(pairs) > 0 {
		r.Headers = append(r.Headers, authz.Header{Name: "cookie", Value: strings.Join(pairs, "; ")})
	}
	return r
}

func (b *browser) take(r *authn.Request) {
	for _, h := range r.Response {
		if h.Name != "set-cookie" {
			continue
		}
		pair, attributes, _ := strings.Cut(h.Value, ";")
		name, value, _ := strings.Cut(pair, "=")
		if delete(b.jar, name); !strings.Contains(attributes, "Max-Age=0") {
			b.jar[name] = value
		}
	}
}

// get asks for a page through a chain of the authenticator alone.
func (b *browser) get(target string, headers ...string) (*authn.Request, *authz.Identity, *authn.Answer) {
	b.t.Helper()
	return b.through(b.a, b.request("GET", target, headers...))
}

func (b *browser) through(a *Authenticator, r *authn.Request) (*authn.Request, *authz.Identity, *authn.Answer) {
	b.t.Helper()
	chain, err := authn.New([]authn.Named{{Name: a.name, Authenticator: a}}, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	id, err := chain.Authenticate(b.t.Context(), r)
	b.take(r)
	var answer *authn.Answer
	if err != nil && !errors.As(err, &answer) && !errors.Is(err, authn.ErrNoCredential) {
		b.t.Fatalf("%s %s: %v", r.Method, r.Path, err)
	}
	return r, id, answer
}

// at asks an endpoint of the gateway.
func (b *browser) at(r *authn.Request) *authn.Answer {
	b.t.Helper()
	for _, e := range b.a.Endpoints() {
		if e.Path == r.Path {
			answer := e.Serve(b.t.Context(), r)
			b.take(r)
			return answer
		}
	}
	b.t.Fatalf("nothing serves %s", r.Path)
	return nil
}

// sent parses where an answer redirects to.
func sent(t *testing.T, a *authn.Answer) *url.URL {
	t.Helper()
	if a == nil || a.Status != 302 && a.Status != 303 {
		t.Fatalf("answer %+v, want a redirect", a)
	}
	for _, h := range a.Headers {
		if h.Name == "location" {
			u, err := url.Parse(h.Value)
			if err != nil {
				t.Fatal(err)
			}
			return u
		}
	}
	t.Fatal("redirect without location")
	return nil
}

// begin asks for a page and returns what the provider is asked.
func (b *browser) begin(target string) url.Values {
	b.t.Helper()
	_, _, answer := b.get(target)
	q := b.idp.resolve(sent(b.t, answer).Query())
	b.idp.set(func(f *fake) { f.nonces["code-"+q.Get("state")] = q.Get("nonce") })
	return q
}

// back is the callback as the provider would have the browser call it.
func (b *browser) back(q url.Values, changes ...string) *authn.Request {
	params := url.Values{"code": {"code-" + q.Get("state")}, "state": {q.Get("state")}, "iss": {b.idp.URL}}
	for i := 0; i < len(changes); i += 2 {
		if changes[i+1] == "" {
			params.Del(changes[i])
			continue
		}
		params.Set(changes[i], changes[i+1])
	}
	return b.request("GET", b.a.config.RedirectPath+"?"+params.Encode())
}

// logIn goes the whole way.
func (b *browser) logIn(target string) {
	b.t.Helper()
	if a := b.at(b.back(b.begin(target))); a.Status != 303 {
		b.t.Fatalf("login answered %d: %s", a.Status, a.Why)
	}
}

// in reports whether the browser has a session.
func (b *browser) in() bool {
	b.t.Helper()
	_, id, _ := b.get("/x")
	return id != nil
}
