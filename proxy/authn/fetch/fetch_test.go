package fetch_test

import (
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/sallyport/sallyport/proxy/authn/fetch"
	"github.com/sallyport/sallyport/proxy/certs/certstest"
)

func newClient(t *testing.T, c fetch.Config) *fetch.Client {
	t.Helper()
	client, err := fetch.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

// TestPostIsNeverRedirected: a token and a secret go to one address only, also
// where the server itself sends them on and net/http would repeat the body.
func TestPostIsNeverRedirected(t *testing.T) {
	var arrived atomic.Int64
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { arrived.Add(1) }))
	defer other.Close()
	for _, status := range []int{301, 302, 303, 307, 308} {
		for name, to := range map[string]string{"elsewhere": other.URL, "same host": "/next"} {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/next" {
					arrived.Add(1)
				}
				http.Redirect(w, r, to, status)
			}))
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL, strings.NewReader("token=secret"))
			if err != nil {
				t.Fatal(err)
			}
			resp, err := newClient(t, fetch.Config{}).Do(req)
			if err == nil {
				resp.Body.Close()
				t.Errorf("%d %s: status %d, want an error", status, name, resp.StatusCode)
			}
			server.Close()
		}
	}
	if n := arrived.Load(); n > 0 {
		t.Errorf("%d requests were sent on", n)
	}
}

// TestCertificates: the server is verified with ca_file, and the gateway shows its
// own certificate, both as the files are now.
func TestCertificates(t *testing.T) {
	ca := certstest.NewCA(t, "provider CA")
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.TLS.PeerCertificates[0].Subject.CommonName)
	}))
	server.TLS = &tls.Config{
		Certificates: []tls.Certificate{ca.Issue(t, "idp", nil)}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.Pool(),
		MinVersion: tls.VersionTLS12,
	}
	server.StartTLS()
	defer server.Close()
	dir := t.TempDir()
	c := fetch.Config{
		Whose: "provider", CAFile: filepath.Join(dir, "ca.pem"), CertFile: filepath.Join(dir, "own.pem"), KeyFile: filepath.Join(dir, "own.key"),
	}
	if _, err := fetch.New(c); err == nil {
		t.Error("New returned no error although the files are missing")
	}
	identify := func(name string) {
		certstest.WritePair(t, ca.Issue(t, name, nil), c.CertFile, c.KeyFile)
	}
	certstest.Write(t, c.CAFile, ca.PEM())
	identify("gateway")
	client := newClient(t, c)
	seen := func() string {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			return err.Error()
		}
		defer resp.Body.Close()
		body, err := fetch.Read(resp.Body, 100, "answer")
		if err != nil {
			t.Fatal(err)
		}
		return string(body)
	}
	if got := seen(); got != "gateway" {
		t.Errorf("the server saw %q", got)
	}
	identify("renewed")
	if err := client.Reload(); err != nil {
		t.Fatal(err)
	}
	if got := seen(); got != "renewed" {
		t.Errorf("after the reload the server saw %q", got)
	}
	certstest.Write(t, c.KeyFile, []byte("broken"))
	if err := client.Reload(); err == nil {
		t.Error("Reload of a broken key returned no error")
	}
	if got := seen(); got != "renewed" {
		t.Errorf("after a broken reload the server saw %q", got)
	}
	certstest.Write(t, c.CAFile, certstest.NewCA(t, "provider CA").PEM())
	identify("again")
	if err := client.Reload(); err != nil {
		t.Fatal(err)
	}
	if got := seen(); !strings.Contains(got, "certificate") {
		t.Errorf("a server of another authority was trusted: %q", got)
	}
	if !slices.Equal(client.Files(), []string{c.CAFile, c.CertFile, c.KeyFile}) {
		t.Errorf("files are %q", client.Files())
	}
}

func TestRead(t *testing.T) {
	if got, err := fetch.Read(strings.NewReader("1234"), 4, "answer"); err != nil || string(got) != "1234" {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := fetch.Read(strings.NewReader("12345"), 4, "answer"); err == nil {
		t.Error("more than the limit was read")
	}
}

func TestCheckURL(t *testing.T) {
	for raw, want := range map[string][2]bool{ // acceptable; when http is allowed
		"https://idp.example/x":         {true, true},
		"http://127.0.0.1:8080/x":       {true, true},
		"http://[::1]/x":                {true, true},
		"http://localhost/x":            {true, true},
		"http://idp.example/x":          {false, true},
		"http://localhost.example/x":    {false, true},
		"https://user:pw@idp.example/x": {false, false},
		"https://idp.example/x#y":       {false, false},
		"/x":                            {false, false},
		"https:///x":                    {false, false},
		"ftp://127.0.0.1/x":             {false, false},
		"http://a b/":                   {false, false},
		"":                              {false, false},
	} {
		for i, insecure := range []bool{false, true} {
			if err := fetch.CheckURL(raw, insecure); (err == nil) != want[i] {
				t.Errorf("%q, insecure %v: %v", raw, insecure, err)
			}
		}
	}
}

// TestRoundTrip: a redirect that is not followed is an error of which nothing stays open,
// for a library that brings its own http.Client too, and nothing is said past the
// operator's log.
func TestRoundTrip(t *testing.T) {
	var opened atomic.Int64
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
	}))
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			opened.Add(1)
		}
	}
	server.Start()
	defer server.Close()
	var said strings.Builder
	log.SetOutput(&said)
	defer log.SetOutput(os.Stderr)
	client := newClient(t, fetch.Config{Connections: 2})
	library := http.Client{Transport: client}
	for _, do := range []func(*http.Request) (*http.Response, error){library.Do, library.Do, client.Do, client.Do} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL, strings.NewReader("client_secret=x"))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := do(req)
		if err == nil {
			resp.Body.Close()
			t.Fatalf("status %d, want an error", resp.StatusCode)
		}
		if !strings.Contains(err.Error(), "is not followed") {
			t.Errorf("got %v", err)
		}
	}
	if n := opened.Load(); n != 1 {
		t.Errorf("%d connections, want one: an answer was left open", n)
	}
	if said.Len() > 0 {
		t.Errorf("the library said %q", said.String())
	}
}
