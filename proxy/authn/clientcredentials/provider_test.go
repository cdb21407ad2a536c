package clientcredentials

import (
	"bufio"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"
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
	dir, err := filepath.Abs("../jwt/testdata/idp")
	if err != nil {
		t.Fatal(err)
	}
	own, err := filepath.Glob(filepath.Join(dir, "node_modules", "node-*", "bin", "node"))
	if err != nil || len(own) != 1 {
		t.Skip("the OpenID provider is not installed; do it with: npm ci --prefix proxy/authn/jwt/testdata/idp")
	}
	cmd := exec.Command(own[0], "server.mjs")
	cmd.Dir, cmd.Stderr, cmd.Env = dir, os.Stderr, append(os.Environ(), env...)
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
	kill := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	t.Cleanup(func() {
		_ = stdin.Close()
		_ = cmd.Wait()
		kill.Stop()
	})
	var said struct{ Issuer string }
	if err := json.NewDecoder(bufio.NewReader(stdout)).Decode(&said); err != nil {
		t.Fatalf("the provider did not start: %v", err)
	}
	return newMiddle(t, said.Issuer)
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
