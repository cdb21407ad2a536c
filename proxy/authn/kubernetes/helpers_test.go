package kubernetes

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/certs/certstest"
)

const (
	audience = "orders"
	builder  = "system:serviceaccount:ci:builder"
)

// now is when requests arrive, on a whole second as tokens say times.
var now = time.Now().Truncate(time.Second)

// apiServer answers reviews. Its zero status is that of a good token.
type apiServer struct {
	*httptest.Server
	t        *testing.T
	mu       sync.Mutex
	known    string                                   // the gateway's own token
	answer   func(http.ResponseWriter) bool           // reports whether it answered itself
	status   map[string]any                           // of token reviews
	access   func(spec map[string]any) map[string]any // status of access reviews
	tokens   atomic.Int64                             // questions about tokens
	accesses atomic.Int64
	asked    []map[string]any // their specs
}

func newAPIServer(t *testing.T) *apiServer {
	t.Helper()
	s := &apiServer{t: t, known: "gateway-1", status: good()}
	s.Server = httptest.NewTLSServer(s)
	t.Cleanup(s.Close)
	return s
}

func good() map[string]any {
	return map[string]any{
		"authenticated": true, "audiences": []string{audience},
		"user": map[string]any{
			"username": builder, "uid": "u-1", "groups": []string{"system:serviceaccounts", "system:serviceaccounts:ci"},
			"extra": map[string]any{"authentication.kubernetes.io/pod-name": []string{"build-7"}, "authentication.kubernetes.io/pod-uid": []string{"p-7"}, "other": []string{"x"}},
		},
	}
}

// with returns the status of a good token with one member replaced.
func with(name string, value any) map[string]any {
	s := good()
	s[name] = value
	return s
}

func (s *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.Header.Get("Authorization") != "Bearer "+s.known {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	var question map[string]any
	if err := json.NewDecoder(r.Body).Decode(&question); err != nil {
		s.t.Errorf("question: %v", err)
	}
	spec, _ := question["spec"].(map[string]any)
	s.asked = append(s.asked, spec)
	switch r.Method + " " + r.URL.Path + " " + question["kind"].(string) {
	case "POST /apis/authentication.k8s.io/v1/tokenreviews TokenReview":
		s.tokens.Add(1)
		question["status"] = s.status
	case "POST /apis/authorization.k8s.io/v1/subjectaccessreviews SubjectAccessReview":
		s.accesses.Add(1)
		question["status"] = s.access(spec)
	default:
		s.t.Errorf("asked %s %s %v", r.Method, r.URL, question)
	}
	if s.answer != nil && s.answer(w) {
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusCreated)
	if err := json.NewEncoder(w).Encode(question); err != nil {
		s.t.Errorf("answer: %v", err)
	}
}

// change changes what is answered.
func (s *apiServer) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

func (s *apiServer) specs() []map[string]any {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.asked)
}

// config is a good configuration for s.
func (s *apiServer) config() Config {
	dir := s.t.TempDir()
	c := Default()
	c.APIServer, c.Audiences = s.URL, []string{audience}
	c.TokenFile, c.CAFile = filepath.Join(dir, "token"), filepath.Join(dir, "ca.crt")
	certstest.Write(s.t, c.TokenFile, []byte("gateway-1\n"))
	certstest.Write(s.t, c.CAFile, pemOf(s.Certificate()))
	return c
}

func (s *apiServer) open(change func(*Config)) *Authenticator {
	s.t.Helper()
	c := s.config()
	if change != nil {
		change(&c)
	}
	a, err := New("cluster", c, Deps{})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(a.server.client.Close)
	return a
}

// token returns a JWT with these claims over those of a good token; nil removes one.
// Nobody here looks at the signature.
func token(t testing.TB, change map[string]any) string {
	t.Helper()
	claims := map[string]any{
		"iss": "https://cluster.example", "aud": []string{audience}, "sub": builder, "exp": now.Add(time.Hour).Unix(),
		"kubernetes.io": map[string]any{"namespace": "ci"},
	}
	for name, value := range change {
		if value == nil {
			delete(claims, name)
			continue
		}
		claims[name] = value
	}
	data, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	part := base64.RawURLEncoding.EncodeToString
	return part([]byte(`{"alg":"RS256"}`)) + "." + part(data) + "." + part([]byte("signature"))
}

func request(token string) *authn.Request {
	return &authn.Request{Authorization: "Bearer " + token, Now: now, Method: "GET", Path: "/orders/7"}
}

func at(token string, later time.Duration) *authn.Request {
	r := request(token)
	r.Now = now.Add(later)
	return r
}

func authenticate(t testing.TB, a *Authenticator, r *authn.Request) *authz.Identity {
	t.Helper()
	id, err := a.Authenticate(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return id
}
