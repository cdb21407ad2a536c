package admin_test

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/cmd/sallyport/internal/admin"
)

type log struct{ follow chan []byte }

func (log) Recent(n int) [][]byte {
	all := [][]byte{[]byte(`{"n":3}`), []byte(`{"n":2}`), []byte(`{"n":1}`)}
	return all[:min(n, len(all))]
}

func (l log) Follow(context.Context) <-chan []byte { return l.follow }

func server(t *testing.T, checks []admin.Check, l log) *httptest.Server {
	srv := httptest.NewServer(admin.New(admin.Deps{
		Ready:     func() []admin.Check { return checks },
		Status:    func() any { return map[string]string{"revision": "r1"} },
		Version:   map[string]string{"version": "1.2.3"},
		Metrics:   http.NotFoundHandler(),
		Decisions: l,
	}))
	t.Cleanup(srv.Close)
	return srv
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func TestPages(t *testing.T) {
	up := []admin.Check{{Name: "policy", OK: true}}
	down := []admin.Check{{Name: "policy", OK: true}, {Name: "bundle authz", Detail: "not activated"}}
	for _, c := range []struct {
		path   string
		checks []admin.Check
		status int
		body   string
	}{
		{"/livez", down, 200, "ok\n"},
		{"/readyz", up, 200, "ok\n"},
		{"/readyz", down, 503, "not ready\n"},
		{"/readyz?verbose", down, 503, "ok policy\nFAILED bundle authz: not activated\nnot ready\n"},
		{"/version", up, 200, "{\n  \"version\": \"1.2.3\"\n}\n"},
		{"/v1/status", up, 200, "{\n  \"revision\": \"r1\"\n}\n"},
		{"/v1/decisions?n=2", up, 200, "{\"n\":2}\n{\"n\":3}\n"},
		{"/v1/decisions?n=-1", up, 400, "n is a number from 0 to 1000\n"},
		{"/v1/decisions?n=x", up, 400, "n is a number from 0 to 1000\n"},
		{"/elsewhere", up, 404, "404 page not found\n"},
	} {
		t.Run(c.path, func(t *testing.T) {
			status, body := get(t, server(t, c.checks, log{}).URL+c.path)
			if status != c.status || body != c.body {
				t.Errorf("got %d %q, want %d %q", status, body, c.status, c.body)
			}
		})
	}
}

func TestOnlyReads(t *testing.T) {
	resp, err := http.Post(server(t, nil, log{}).URL+"/v1/status", "text/plain", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST got %d, want 405", resp.StatusCode)
	}
}

func TestFollow(t *testing.T) {
	l := log{follow: make(chan []byte)}
	resp, err := http.Get(server(t, nil, l).URL + "/v1/decisions?n=1&follow")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for i, want := range []string{`{"n":3}`, `{"n":4}`, `{"n":5}`} {
		if i > 0 {
			l.follow <- []byte(want)
		}
		if !lines.Scan() || lines.Text() != want {
			t.Fatalf("line %d: %q, want %q (%v)", i, lines.Text(), want, lines.Err())
		}
	}
	close(l.follow)
	if lines.Scan() {
		t.Errorf("line %q after the log was closed", lines.Text())
	}
}
