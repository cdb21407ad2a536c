package keyring

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport/sallyport/proxy/authn/jose/josetest"
)

// TestToken: a key set that is not public is fetched with the token that the file holds
// at that time.
func TestToken(t *testing.T) {
	key := josetest.New(t, "k1", "ES256")
	is := josetest.NewIssuer(t, key)
	good := josetest.JWKS(t, key)
	var known atomic.Value
	known.Store("first")
	is.Answer(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+known.Load().(string) {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_, _ = io.WriteString(w, good)
	})
	s := Source{Issuer: is.URL, URL: is.URL + "/keys", TokenFile: filepath.Join(t.TempDir(), "token"), RefreshInterval: time.Hour}
	if _, err := New("corp", s, Deps{}); err == nil {
		t.Error("New returned no error although the token is missing")
	}
	hold := func(text string) {
		if err := os.WriteFile(s.TokenFile, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	hold("first\n")
	r, err := New("corp", s, Deps{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.fetcher.client.Close()
	if err := r.Prime(t.Context()); err != nil || r.Get("k1") == nil {
		t.Errorf("%v, key %v", err, r.Get("k1"))
	}
	known.Store("second")
	if err := r.refresh(t.Context()); err == nil {
		t.Error("the old token was accepted")
	}
	hold("second")
	if err := r.refresh(t.Context()); err != nil {
		t.Error(err)
	}
	hold("two words")
	if err := r.refresh(t.Context()); err == nil {
		t.Error("a file that is no token was used")
	}
}
