package jwt

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/jose/josetest"
)

func TestDiscovery(t *testing.T) {
	key := josetest.New(t, "k1", "ES256")
	is := josetest.NewIssuer(t, key)
	c := configOf(is)
	c.JWKSURL = ""
	a := start(t, c)
	if err := a.Prime(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := present(t, a, key.Sign(t, key.Header(), claims(is.URL, nil))); err != nil {
		t.Error(err)
	}
	if s := a.Status(); s.Keys != 1 || s.Err != nil || s.Fetched.IsZero() {
		t.Errorf("status is %+v", s)
	}
}

// TestFetchRefused: what must not become a key set.
func TestFetchRefused(t *testing.T) {
	key := josetest.New(t, "k1", "ES256")
	good := josetest.JWKS(t, key)
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, good) }))
	defer other.Close()
	var sent, requests atomic.Int64
	for _, tt := range []struct {
		name     string
		metadata string // with discovery, %s is the issuer
		answer   http.HandlerFunc
		ok       bool
	}{
		{"good", "", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, good) }, true},
		{"500", "", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500); _, _ = io.WriteString(w, good) }, false},
		{"garbage", "", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") }, false},
		{"64 MiB", "", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, good)
			n, _ := io.Copy(w, io.LimitReader(spaces{}, 64<<20))
			sent.Store(n)
		}, false},
		{"redirect to another host", "", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, other.URL, http.StatusFound) }, false},
		{"redirect on the same host", "", func(w http.ResponseWriter, r *http.Request) {
			if r.URL.RawQuery == "" {
				http.Redirect(w, r, "/keys?next", http.StatusFound)
				return
			}
			_, _ = io.WriteString(w, good)
		}, true},
		{"redirect for ever", "", func(w http.ResponseWriter, r *http.Request) {
			requests.Add(1)
			http.Redirect(w, r, "/keys", http.StatusFound)
		}, false},
		{"metadata", `{"issuer":"%[1]s","jwks_uri":"%[1]s/keys"}`, nil, true},
		{"metadata of another issuer", `{"issuer":"%[1]s/","jwks_uri":"%[1]s/keys"}`, nil, false},
		{"metadata without issuer", `{"jwks_uri":"%[1]s/keys"}`, nil, false},
		{"metadata without keys", `{"issuer":"%[1]s"}`, nil, false},
		{"metadata with plain HTTP keys", `{"issuer":"%[1]s","jwks_uri":"http://idp.example/keys"}`, nil, false},
		{"metadata with file keys", `{"issuer":"%[1]s","jwks_uri":"file:///etc/keys"}`, nil, false},
		{"metadata with two issuers", `{"issuer":"x","issuer":"%[1]s","jwks_uri":"%[1]s/keys"}`, nil, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			mux := http.NewServeMux()
			server := httptest.NewServer(mux)
			defer server.Close()
			mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
				_, _ = fmt.Fprintf(w, tt.metadata, server.URL)
			})
			if tt.answer == nil {
				tt.answer = func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, good) }
			}
			mux.HandleFunc("/keys", tt.answer)
			c := Default()
			c.Issuer, c.Audiences = server.URL, []string{"orders-api"}
			if tt.metadata == "" {
				c.JWKSURL = server.URL + "/keys"
			}
			a, err := New("corp", c, Deps{})
			if err != nil {
				t.Fatal(err)
			}
			defer finish(t, a)
			if err := a.Prime(t.Context()); (err == nil) != tt.ok {
				t.Fatalf("Prime: %v, want good: %v", err, tt.ok)
			}
			if _, err := present(t, a, key.Sign(t, key.Header(), claims(server.URL, nil))); (err == nil) != tt.ok || err != nil && !errors.Is(err, authn.ErrUnavailable) {
				t.Errorf("token got %v, want good: %v, else ErrUnavailable", err, tt.ok)
			}
		})
	}
	if n := requests.Load(); n > 3+1 {
		t.Errorf("%d redirects were followed", n-1)
	}
	if n := sent.Load(); n > 16<<20 {
		t.Errorf("%d MiB of 64 were read before giving up", n>>20)
	}
}

// spaces is an endless reader of white space.
type spaces struct{}

func (spaces) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}
