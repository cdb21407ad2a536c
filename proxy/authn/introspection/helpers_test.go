package introspection

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/jose/josetest"
	"github.com/sallyport/sallyport/proxy/certs/certstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var testNow = time.Unix(1767323045, 0)

// idp is a provider that answers questions as a test says.
type idp struct {
	*httptest.Server
	handler atomic.Pointer[http.HandlerFunc]
	asked   atomic.Int64
	last    atomic.Pointer[question]
	keys    atomic.Pointer[string]
}

type question struct {
	header http.Header
	form   url.Values
}

func newIDP(t *testing.T) *idp {
	t.Helper()
	p := &idp{}
	p.Server = httptest.NewServer(http.HandlerFunc(p.serve))
	t.Cleanup(p.Close)
	p.says(answerOf(nil))
	return p
}

func (p *idp) serve(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/keys" {
		_, _ = io.WriteString(w, *p.keys.Load())
		return
	}
	p.asked.Add(1)
	_ = r.ParseForm() // a test looks at what is there
	p.last.Store(&question{header: r.Header, form: r.PostForm})
	(*p.handler.Load())(w, r)
}

func (p *idp) answer(h http.HandlerFunc) { p.handler.Store(&h) }

// says answers every question with this JSON.
func (p *idp) says(text string) { p.sends("application/json", text) }

func (p *idp) sends(media, text string) {
	p.answer(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", media)
		_, _ = io.WriteString(w, text)
	})
}

func (p *idp) config(t *testing.T) Config {
	t.Helper()
	c := Default()
	c.URL, c.ClientID, c.ClientSecretFile = p.URL+"/introspect", "gw", filepath.Join(t.TempDir(), "secret")
	certstest.Write(t, c.ClientSecretFile, []byte("s3cret\n"))
	return c
}

func start(t *testing.T, c Config) *Authenticator {
	t.Helper()
	a, err := New("opaque", c, Deps{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.provider.client.Close)
	return a
}

// answerOf is what a provider says of a good token, changed by change; a nil value leaves one out.
func answerOf(change map[string]any) string {
	m := map[string]any{
		"active": true, "sub": "alice", "client_id": "web", "username": "alice@example.com", "scope": "orders.read orders.write",
		"iss": "https://idp.example", "aud": []string{"orders-api"}, "token_type": "Bearer",
		"iat": testNow.Unix() - 10, "nbf": testNow.Unix() - 10, "exp": testNow.Unix() + 300,
	}
	for name, value := range change {
		if m[name] = value; value == nil {
			delete(m, name)
		}
	}
	return mustJSON(m)
}

func mustJSON(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}

func request(token string) *authn.Request {
	return &authn.Request{Authorization: "Bearer " + token, Now: testNow}
}

func present(t *testing.T, a *Authenticator, token string) (*authz.Identity, error) {
	t.Helper()
	return a.Authenticate(t.Context(), request(token))
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline.C:
			t.Fatalf("%s: it does not come about", what)
		case <-tick.C:
		}
	}
}

// signer is a provider's key, or that of a client which proves that it has it.
type signer struct {
	*josetest.Signer
	t *testing.T
}

func newSigner(t *testing.T) *signer {
	t.Helper()
	return &signer{josetest.New(t, "k1", "ES256"), t}
}

func (s *signer) keySet() string {
	s.t.Helper()
	return josetest.JWKS(s.t, s.Signer)
}

func (s *signer) sign(typ string, claims map[string]any) string {
	s.t.Helper()
	return s.Sign(s.t, map[string]any{"alg": s.Algorithm, "kid": s.KeyID, "typ": typ}, claims)
}
