package clientcredentials

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"
	"testing"

	"github.com/sallyport/sallyport/proxy/authn/oidc/oidctest"
)

// middle stands before the token endpoint of a certified provider, a process of its
// own. It counts the questions and answers them itself when a test wants that.
type middle struct {
	*httptest.Server
	issuer string
	proxy  *httputil.ReverseProxy

	mu     sync.Mutex
	asked  int
	answer http.HandlerFunc // nil: the provider does
}

func startProvider(t *testing.T, env ...string) *middle {
	t.Helper()
	return newMiddle(t, oidctest.StartMachines(t, env...).Issuer)
}

func newMiddle(t *testing.T, issuer string) *middle {
	t.Helper()
	to, err := url.Parse(issuer)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(to)
	m := &middle{issuer: issuer, proxy: proxy}
	m.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m.mu.Lock()
		m.asked++
		answer := m.answer
		m.mu.Unlock()
		if answer == nil {
			answer = proxy.ServeHTTP
		}
		answer(w, r)
	}))
	t.Cleanup(m.Close)
	return m
}

// questions returns how many there were since it was asked last.
func (m *middle) questions() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.asked
	m.asked = 0
	return n
}

func (m *middle) answers(h http.HandlerFunc) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.answer = h
}
