package kubernetes

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/engine/setting"
	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/anonymous"
	"github.com/sallyport/sallyport/proxy/authn/asking"
	"github.com/sallyport/sallyport/proxy/certs/certstest"
)

func pemOf(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

func TestIdentity(t *testing.T) {
	s := newAPIServer(t)
	a := s.open(nil)
	r := request(token(t, nil))
	id := authenticate(t, a, r)
	want := &authz.Identity{
		Authenticated: true, Authenticator: "cluster", Kind: "kubernetes", Subject: builder, Issuer: s.URL,
		Audiences: []string{audience}, ExpiresAt: now.Add(time.Hour),
		Claims: map[string]any{
			"namespace": "ci", "serviceaccount": "builder", "uid": "u-1", "pod": "build-7", "pod_uid": "p-7",
			"groups": []any{"system:serviceaccounts", "system:serviceaccounts:ci"},
		},
	}
	if d := cmp.Diff(want, id, cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".memo" }, cmp.Ignore())); d != "" {
		t.Error(d)
	}
	if r.Token != token(t, nil) {
		t.Errorf("the token that stands for the caller is %q", r.Token)
	}
	if asked := s.specs(); len(asked) != 1 || asked[0]["token"] != r.Token || !cmp.Equal(asked[0]["audiences"], []any{audience}) {
		t.Errorf("asked %v", asked)
	}
	if again := authenticate(t, a, request(r.Token)); again != id || s.tokens.Load() != 1 {
		t.Errorf("the second request got another identity, or asked again (%d questions)", s.tokens.Load())
	}
}

// TestRefused is the table of what does not enter, with what the gateway answers and
// whether it bothers the API server.
func TestRefused(t *testing.T) {
	foreign := map[string]any{"kubernetes.io": nil}
	for _, tt := range []struct {
		name   string
		token  string
		status map[string]any
		want   error
		asked  int64
	}{
		{"opaque", "6e1c3f", nil, authn.ErrForeign, 0},
		{"JWT of an identity provider", token(t, foreign), nil, authn.ErrForeign, 0},
		{"payload is not JSON", "eyJhIjoxfQ.AAAA.c2ln", nil, authn.ErrForeign, 0},
		{"duplicate claim", "eyJhIjoxfQ.eyJhdWQiOjEsImF1ZCI6Mn0.c2ln", nil, authn.ErrForeign, 0},
		{"payload with a line break", strings.Replace(token(t, nil), ".ey", ".\ney", 1), nil, authn.ErrForeign, 0},
		{"too long", token(t, map[string]any{"x": strings.Repeat("x", 16<<10)}), nil, authn.ErrInvalid, 0},
		{"expired by its own word", token(t, map[string]any{"exp": now.Unix()}), nil, authn.ErrInvalid, 0},
		{"exp is a string", token(t, map[string]any{"exp": "tomorrow"}), nil, authn.ErrInvalid, 0},
		{"for another audience by its own word", token(t, map[string]any{"aud": "billing"}), nil, authn.ErrInvalid, 0},
		{"audience of a wrong type", token(t, map[string]any{"aud": 7}), nil, authn.ErrInvalid, 0},
		{"not authenticated", token(t, nil), map[string]any{"authenticated": false, "error": "invalid bearer token"}, authn.ErrInvalid, 1},
		{"empty status", token(t, nil), map[string]any{}, authn.ErrInvalid, 1},
		{"no audiences confirmed", token(t, nil), with("audiences", nil), authn.ErrInvalid, 1},
		{"another audience confirmed", token(t, nil), with("audiences", []string{"https://kubernetes.default.svc"}), authn.ErrInvalid, 1},
		{"token of a secret, for no audience of ours", token(t, map[string]any{"kubernetes.io": nil, "aud": nil, "kubernetes.io/serviceaccount/namespace": "ci"}), with("audiences", nil), authn.ErrInvalid, 1},
		{"a person", token(t, nil), with("user", map[string]any{"username": "alice"}), authn.ErrInvalid, 1},
		{"a node", token(t, nil), with("user", map[string]any{"username": "system:node:node0"}), authn.ErrInvalid, 1},
		{"no name", token(t, nil), with("user", map[string]any{"username": "system:serviceaccount:ci:"}), authn.ErrInvalid, 1},
		{"no namespace", token(t, nil), with("user", map[string]any{"username": "system:serviceaccount::x"}), authn.ErrInvalid, 1},
		{"too many parts", token(t, nil), with("user", map[string]any{"username": "system:serviceaccount:a:b:c"}), authn.ErrInvalid, 1},
		{"no user", token(t, nil), with("user", nil), authn.ErrInvalid, 1},
		{"no status", token(t, nil), map[string]any(nil), authn.ErrUnavailable, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newAPIServer(t)
			s.status = tt.status
			a := s.open(nil)
			for range 2 { // the second answer may come from a cache, and is the same
				id, err := a.Authenticate(t.Context(), request(tt.token))
				if !errors.Is(err, tt.want) || id != nil {
					t.Errorf("got %v, %v; want %v", id, err, tt.want)
				}
				if errors.Is(tt.want, authn.ErrInvalid) && s.tokens.Load() != tt.asked {
					t.Errorf("%d questions, want %d", s.tokens.Load(), tt.asked)
				}
			}
		})
	}
}

func TestNoCredential(t *testing.T) {
	a := newAPIServer(t).open(nil)
	for authorization, want := range map[string]error{
		"": authn.ErrNotMine, "Basic YTpi": authn.ErrNotMine, token(t, nil): authn.ErrNotMine, "Bearer": authn.ErrInvalid, "Bearer  ": authn.ErrInvalid,
	} {
		r := request("")
		r.Authorization = authorization
		if _, err := a.Authenticate(t.Context(), r); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", authorization, err, want)
		}
	}
}

// TestFaults: what is no answer is never a yes, and not a no that is remembered.
func TestFaults(t *testing.T) {
	text := func(status int, body string) func(http.ResponseWriter) bool {
		return func(w http.ResponseWriter) bool {
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
			return true
		}
	}
	yes, err := json.Marshal(map[string]any{"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1beta1", "status": good()})
	if err != nil {
		t.Fatal(err)
	}
	status, err := json.Marshal(map[string]any{"status": good()})
	if err != nil {
		t.Fatal(err)
	}
	for name, answer := range map[string]func(http.ResponseWriter) bool{
		"403":                text(403, "{}"),
		"404":                text(404, "{}"),
		"429":                text(429, "{}"),
		"500":                text(500, "{}"),
		"503":                text(503, "{}"),
		"204":                text(204, ""),
		"garbage":            text(201, "<html>"),
		"empty":              text(201, ""),
		"another version":    text(201, string(yes)),
		"nobody's object":    text(200, string(status)),
		"wrong type":         text(201, `{"kind":"TokenReview","apiVersion":"authentication.k8s.io/v1","status":{"authenticated":"true"}}`),
		"huge":               text(201, `{"kind":"`+strings.Repeat("x", maxAnswer)),
		"redirect":           func(w http.ResponseWriter) bool { w.Header().Set("Location", "/"); return text(307, "")(w) },
		"connection dropped": func(http.ResponseWriter) bool { panic(http.ErrAbortHandler) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newAPIServer(t)
			s.answer = answer
			a := s.open(nil)
			if id, err := a.Authenticate(t.Context(), request(token(t, nil))); !errors.Is(err, authn.ErrUnavailable) || errors.Is(err, authn.ErrInvalid) {
				t.Fatalf("got %v, %v; want ErrUnavailable", id, err)
			}
			s.change(func() { s.answer = nil })
			authenticate(t, a, request(token(t, nil)))
		})
	}
}

// TestDown: tokens in the cache go on, others get 503.
func TestDown(t *testing.T) {
	s := newAPIServer(t)
	a := s.open(nil)
	authenticate(t, a, request(token(t, nil)))
	s.Close()
	authenticate(t, a, request(token(t, nil)))
	if _, err := a.Authenticate(t.Context(), request(token(t, map[string]any{"jti": "other"}))); !errors.Is(err, authn.ErrUnavailable) {
		t.Errorf("a token that nobody can confirm: %v", err)
	}
}

func TestOtherServer(t *testing.T) {
	s := newAPIServer(t)
	a := s.open(func(c *Config) { certstest.Write(t, c.CAFile, certstest.NewCA(t, "other").PEM()) })
	if _, err := a.Authenticate(t.Context(), request(token(t, nil))); !errors.Is(err, authn.ErrUnavailable) || s.tokens.Load() != 0 {
		t.Errorf("a server of another authority: %v, %d questions", err, s.tokens.Load())
	}
}

func TestCacheAge(t *testing.T) {
	s := newAPIServer(t)
	a := s.open(nil)
	long, short := token(t, nil), token(t, map[string]any{"exp": now.Add(3 * time.Second).Unix()})
	for _, step := range []struct {
		token string
		at    time.Duration
		asked int64
		want  error
	}{
		{long, 0, 1, nil},
		{long, 10*time.Second - 1, 1, nil},
		{long, 10 * time.Second, 2, nil},
		{short, 0, 3, nil},
		{short, 3*time.Second - 1, 3, nil},
		{short, 3 * time.Second, 3, authn.ErrInvalid}, // it ends before its answer does
	} {
		if _, err := a.Authenticate(t.Context(), at(step.token, step.at)); !errors.Is(err, step.want) || s.tokens.Load() != step.asked {
			t.Errorf("after %s: %v, %d questions; want %v, %d", step.at, err, s.tokens.Load(), step.want, step.asked)
		}
	}

	s.change(func() { s.status = map[string]any{"authenticated": false} })
	if _, err := a.Authenticate(t.Context(), at(long, 20*time.Second)); !errors.Is(err, authn.ErrInvalid) {
		t.Errorf("a token that ended: %v", err)
	}
	s.change(func() { s.status = good() })
	if _, err := a.Authenticate(t.Context(), at(long, 25*time.Second-1)); !errors.Is(err, authn.ErrInvalid) || s.tokens.Load() != 4 {
		t.Errorf("right after a refusal: %v, %d questions", err, s.tokens.Load())
	}
	authenticate(t, a, at(long, 25*time.Second))

	every := s.open(func(c *Config) { c.CacheMaxAge = 0 })
	before := s.tokens.Load()
	authenticate(t, every, request(long))
	authenticate(t, every, request(long))
	if got := s.tokens.Load() - before; got != 2 {
		t.Errorf("with cache_max_age 0s: %d questions for two requests", got)
	}
}

// TestStrangersPushNobodyOut: tokens that are refused have no room among the good.
func TestStrangersPushNobodyOut(t *testing.T) {
	s := newAPIServer(t)
	a := s.open(func(c *Config) { c.CacheSize = 1 })
	authenticate(t, a, request(token(t, nil)))
	s.change(func() { s.status = map[string]any{"authenticated": false} })
	for i := range 100 {
		if _, err := a.Authenticate(t.Context(), request(token(t, map[string]any{"jti": i}))); !errors.Is(err, authn.ErrInvalid) {
			t.Fatal(err)
		}
	}
	authenticate(t, a, request(token(t, nil)))
}

// TestTogether: who wants to know the same at the same time asks once, and who leaves
// takes the answer from nobody.
func TestTogether(t *testing.T) {
	s := newAPIServer(t)
	arrived, release := make(chan struct{}, 1), make(chan struct{})
	s.answer = func(http.ResponseWriter) bool {
		arrived <- struct{}{}
		<-release
		return false
	}
	a := s.open(func(c *Config) { c.Timeout = 30 * time.Second })
	impatient, leave := context.WithCancel(t.Context())
	left := make(chan error)
	go func() {
		_, err := a.Authenticate(impatient, request(token(t, nil)))
		left <- err
	}()
	<-arrived
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			if _, err := a.Authenticate(t.Context(), request(token(t, nil))); err != nil {
				t.Error(err)
			}
		})
	}
	leave()
	if err := <-left; !errors.Is(err, authn.ErrUnavailable) {
		t.Errorf("who left got %v", err)
	}
	close(release)
	wg.Wait()
	if n := s.tokens.Load(); n != 1 {
		t.Errorf("%d questions, want 1", n)
	}
}

// TestBulkhead: a slow API server holds max_calls requests and no more.
func TestBulkhead(t *testing.T) {
	s := newAPIServer(t)
	arrived, release := make(chan struct{}, 1), make(chan struct{})
	s.answer = func(http.ResponseWriter) bool {
		arrived <- struct{}{}
		<-release
		return false
	}
	a := s.open(func(c *Config) { c.MaxCalls, c.MaxWait, c.Timeout = 1, 0, 30*time.Second })
	first := make(chan error)
	go func() {
		_, err := a.Authenticate(t.Context(), request(token(t, nil)))
		first <- err
	}()
	<-arrived
	if _, err := a.Authenticate(t.Context(), request(token(t, map[string]any{"jti": 1}))); !errors.Is(err, authn.ErrUnavailable) || !errors.Is(err, asking.ErrBusy) {
		t.Errorf("one too many: %v", err)
	}
	close(release)
	if err := <-first; err != nil {
		t.Error(err)
	}
	if n := len(a.server.slots); n != 0 {
		t.Errorf("%d slots are still taken", n)
	}
}

func TestTimeout(t *testing.T) {
	s := newAPIServer(t)
	release := make(chan struct{})
	s.answer = func(http.ResponseWriter) bool { <-release; return false }
	defer close(release)
	a := s.open(func(c *Config) { c.Timeout = 10 * time.Millisecond })
	if _, err := a.Authenticate(t.Context(), request(token(t, nil))); !errors.Is(err, authn.ErrUnavailable) {
		t.Errorf("an API server that does not answer: %v", err)
	}
}

// TestOwnToken: the gateway's own token is renewed in its file, watched or not.
func TestOwnToken(t *testing.T) {
	s := newAPIServer(t)
	a := s.open(func(c *Config) { c.CacheMaxAge = 0 })
	authenticate(t, a, request(token(t, nil)))
	s.change(func() { s.known = "gateway-2" })
	if _, err := a.Authenticate(t.Context(), request(token(t, nil))); !errors.Is(err, authn.ErrUnavailable) || !errors.Is(err, errWho) {
		t.Errorf("with a token that ended: %v", err)
	}
	certstest.Write(t, a.config.TokenFile, []byte("gateway-2"))
	authenticate(t, a, request(token(t, nil)))

	certstest.Write(t, a.config.TokenFile, []byte(" \n"))
	if err := a.Reload(t.Context()); err == nil {
		t.Error("Reload of an empty token returned no error")
	}
	authenticate(t, a, request(token(t, nil)))
	if want := []string{a.config.TokenFile, a.config.CAFile}; !slices.Equal(a.Files(), want) {
		t.Errorf("files are %q, want %q", a.Files(), want)
	}
}

// other takes the tokens of one issuer, as the authenticators beside this one do.
type other struct{ good string }

func (o other) Authenticate(_ context.Context, r *authn.Request) (*authz.Identity, error) {
	if r.Authorization != "Bearer "+o.good {
		return nil, authn.ErrForeign
	}
	return &authz.Identity{Authenticated: true, Kind: "other"}, nil
}

// TestChains: beside authenticators for other tokens, in either order, each token finds
// its own, and none becomes anonymous.
func TestChains(t *testing.T) {
	s := newAPIServer(t)
	jwt, opaque := token(t, map[string]any{"kubernetes.io": nil, "iss": "https://idp.example"}), "6e1c3f"
	elsewhere := token(t, map[string]any{"iss": "https://elsewhere.example"})
	links := []authn.Named{
		{Name: "cluster", Authenticator: s.open(func(c *Config) { c.Issuers = []string{"https://cluster.example"} })},
		{Name: "jwt", Authenticator: other{jwt}},
		{Name: "introspection", Authenticator: other{opaque}},
	}
	for _, order := range [][]int{{0, 1, 2}, {1, 0, 2}, {2, 1, 0}, {0, 2, 1}} {
		list := []authn.Named{links[order[0]], links[order[1]], links[order[2]], {Name: "anyone", Authenticator: anonymous.New("anyone", anonymous.Config{})}}
		chain, err := authn.New(list, nil)
		if err != nil {
			t.Fatal(err)
		}
		for presented, want := range map[string]string{token(t, nil): "kubernetes", jwt: "other", opaque: "other", elsewhere: "", "unknown": ""} {
			id, err := chain.Authenticate(t.Context(), request(presented))
			switch {
			case want == "" && !errors.Is(err, authn.ErrInvalid):
				t.Errorf("%v: %.20q: %v, %v; want ErrInvalid", order, presented, id, err)
			case want != "" && (err != nil || id.Kind != want):
				t.Errorf("%v: %.20q: %v, %v; want %s", order, presented, id, err, want)
			}
		}
	}
}

// TestOthersCostNothing: a token that is somebody else's is not taken apart each time.
func TestOthersCostNothing(t *testing.T) {
	a := newAPIServer(t).open(nil)
	for name, r := range map[string]*authn.Request{
		"none": {Now: now}, "opaque": request("6e1c3f"), "JWT": request(token(t, map[string]any{"kubernetes.io": nil})), "good": request(token(t, nil)),
	} {
		_, _ = a.Authenticate(t.Context(), r) // the first time may cost
		if n := testing.AllocsPerRun(100, func() { _, _ = a.Authenticate(t.Context(), r) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func TestValidate(t *testing.T) {
	for key, change := range map[string]func(*Config){
		"api_server":                func(c *Config) { c.APIServer = "http://kubernetes.default.svc" },
		"token_file":                func(c *Config) { c.TokenFile = "" },
		"audiences":                 func(c *Config) { c.Audiences = nil },
		"issuers":                   func(c *Config) { c.Issuers = []string{""} },
		"cache_max_age":             func(c *Config) { c.CacheMaxAge = time.Hour },
		"question_limit.burst":      func(c *Config) { c.QuestionLimit.Burst = -1 },
		"refused_max_age":           func(c *Config) { c.RefusedMaxAge = -1 },
		"timeout":                   func(c *Config) { c.Timeout = 0 },
		"max_wait":                  func(c *Config) { c.MaxWait = time.Hour },
		"max_calls":                 func(c *Config) { c.MaxCalls = 0 },
		"cache_size":                func(c *Config) { c.CacheSize = 0 },
		"realm":                     func(c *Config) { c.Realm = `"` },
		"access_review.path":        func(c *Config) { c.AccessReview = &AccessReview{Path: "orders"} },
		"access_review.namespace":   func(c *Config) { c.AccessReview = &AccessReview{Namespace: "shop"} },
		"access_review.group":       func(c *Config) { c.AccessReview = &AccessReview{Group: "apps"} },
		"access_review.name":        func(c *Config) { c.AccessReview = &AccessReview{Name: "x"} },
		"access_review.subresource": func(c *Config) { c.AccessReview = &AccessReview{Subresource: "log"} },
	} {
		c := Default()
		c.Audiences = []string{audience}
		if err := c.Validate(); err != nil {
			t.Fatal(err)
		}
		change(&c)
		problems := setting.Problems(c.Validate())
		if len(problems) != 1 || problems[0].Key != key {
			t.Errorf("%s: problems are %v", key, problems)
		}
	}
	both := Config{AccessReview: &AccessReview{Resource: "pods", Path: "/x"}}
	if err := both.AccessReview.validate(); err == nil {
		t.Error("a review of a resource and a path is accepted")
	}
	if _, err := New("cluster", Config{}, Deps{}); err == nil {
		t.Error("New of an empty configuration returned no error")
	}
}

func TestMissingFiles(t *testing.T) {
	s := newAPIServer(t)
	for name, change := range map[string]func(*Config){
		"token": func(c *Config) { c.TokenFile += ".missing" },
		"CA":    func(c *Config) { c.CAFile += ".missing" },
	} {
		c := s.config()
		change(&c)
		if _, err := New("cluster", c, Deps{}); err == nil {
			t.Errorf("%s: New returned no error", name)
		}
	}
}

// TestReasons: what an error response may tell the client is told apart.
func TestReasons(t *testing.T) {
	a := newAPIServer(t).open(nil)
	for name, tt := range map[string]struct {
		change map[string]any
		want   error
	}{
		"expired":          {map[string]any{"exp": now.Unix()}, authn.ErrExpired},
		"another audience": {map[string]any{"aud": "billing"}, authn.ErrAudience},
	} {
		if _, err := a.Authenticate(t.Context(), request(token(t, tt.change))); !errors.Is(err, tt.want) || !errors.Is(err, authn.ErrInvalid) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
}
