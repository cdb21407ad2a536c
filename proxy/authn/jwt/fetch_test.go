package jwt

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/jose/josetest"
)

func TestDiscovery(t *testing.T) {
	key := josetest.New(t, "k1", "ES256")
	is := newIssuer(t, key)
	c := is.config()
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
			defer a.fetcher.client.Close()
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

// TestDiscoveredURL: the metadata cannot talk us into an insecure fetch, which
// would fail in this test anyway, hence the look at the reason.
func TestDiscoveredURL(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintf(w, `{"issuer":"http://%s","jwks_uri":"http://idp.invalid/keys"}`, r.Host)
	}))
	defer server.Close()
	for insecure, want := range map[bool]string{false: "not loopback", true: "dial"} {
		f, err := newFetcher(Config{Issuer: server.URL, InsecureHTTP: insecure})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.load(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("insecure_http %v: got %v, want an error with %q", insecure, err, want)
		}
		f.client.Close()
	}
}

// TestUnknownKidsAreBounded: what strangers send takes a bounded place.
func TestUnknownKidsAreBounded(t *testing.T) {
	r := ring(t, nil)
	for i := range 5 * maxUnknown {
		r.remember(fmt.Sprint(i))
	}
	r.remember(strings.Repeat("x", maxKid+1))
	if n := len(r.unknown); n > maxUnknown {
		t.Errorf("%d kids are remembered, want at most %d", n, maxUnknown)
	}
	if _, long := r.unknown[strings.Repeat("x", maxKid+1)]; long {
		t.Error("a long kid is remembered")
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

// TestJWKSToken: a key set that is not public is fetched with the token that the file
// holds at that time.
func TestJWKSToken(t *testing.T) {
	key := josetest.New(t, "k1", "ES256")
	is := newIssuer(t, key)
	good := josetest.JWKS(t, key)
	var known atomic.Value
	known.Store("first")
	is.answer(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+known.Load().(string) {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_, _ = io.WriteString(w, good)
	})
	c := is.config()
	c.JWKSTokenFile = filepath.Join(t.TempDir(), "token")
	if _, err := New("corp", c, Deps{}); err == nil {
		t.Error("New returned no error although the token is missing")
	}
	hold := func(text string) {
		if err := os.WriteFile(c.JWKSTokenFile, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	hold("first\n")
	a := start(t, c)
	if err := a.Prime(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := present(t, a, key.Sign(t, key.Header(), claims(is.URL, nil))); err != nil {
		t.Error(err)
	}
	known.Store("second")
	if err := a.keys.refresh(t.Context()); err == nil {
		t.Error("the old token was accepted")
	}
	hold("second")
	if err := a.keys.refresh(t.Context()); err != nil {
		t.Error(err)
	}
	hold("two words")
	if err := a.keys.refresh(t.Context()); err == nil {
		t.Error("a file that is no token was used")
	}
}
