package keyring

import (
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/jose/josetest"
)

func findKey(t *testing.T, k *Ring, id string) error {
	t.Helper()
	found, err := k.Find(t.Context(), id)
	if (found == nil) == (err == nil) {
		t.Fatalf("%q: got %v and %v", id, found, err)
	}
	return err
}

// TestKeysOfURL: a key is found by kid or thumbprint, a new one as soon as it is asked
// for, and what a server that is down may have is unknown and not absent.
func TestKeysOfURL(t *testing.T) {
	one, two := josetest.New(t, "one", "ES256"), josetest.New(t, "two", "EdDSA")
	is := josetest.NewIssuer(t, one)
	k, err := New("test", Source{URL: is.URL + "/keys", RefreshInterval: time.Hour}, Deps{})
	if err != nil {
		t.Fatal(err)
	}
	if err := findKey(t, k, "one"); !errors.Is(err, authn.ErrUnavailable) {
		t.Errorf("before the first fetch: %v", err)
	}
	if err := k.Prime(t.Context()); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	ctx := t.Context()
	go func() { done <- k.Run(ctx) }()
	t.Cleanup(func() {
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	if err := findKey(t, k, "one"); err != nil {
		t.Error(err)
	}
	if got := k.Get(one.Thumbprint(t)); got == nil || got.ID != "one" {
		t.Errorf("by thumbprint: %v", got)
	}
	if err := findKey(t, k, "made-up"); !errors.Is(err, authn.ErrForeign) {
		t.Errorf("unknown key: %v", err)
	}
	is.Publish(t, one, two)
	if err := findKey(t, k, "two"); err != nil {
		t.Errorf("new key: %v", err)
	}
	next, err := New("test", Source{URL: is.URL + "/keys", RefreshInterval: time.Hour}, Deps{})
	if err != nil {
		t.Fatal(err)
	}
	next.Inherit(k)
	if err := findKey(t, next, "two"); err != nil {
		t.Errorf("after a reload: %v", err)
	}
	is.Answer(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"keys":[{"kty":"oct","k":"`+one.Thumbprint(t)+`"}]}`)
	})
	if err := k.refresh(t.Context()); err == nil {
		t.Error("a shared secret was fetched")
	}
	if err := findKey(t, k, "three"); !errors.Is(err, authn.ErrUnavailable) {
		t.Errorf("unknown key of a server that is broken: %v", err)
	}
	if err := findKey(t, k, "two"); err != nil {
		t.Errorf("known key of a server that is broken: %v", err)
	}
}

func TestKeysOfFile(t *testing.T) {
	one, two := josetest.New(t, "one", "ES256"), josetest.New(t, "two", "EdDSA")
	file := filepath.Join(t.TempDir(), "keys.json")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(josetest.JSON(t, one.JWK()))
	k, err := New("test", Source{File: file}, Deps{})
	if err != nil {
		t.Fatal(err)
	}
	if err := findKey(t, k, "one"); err != nil {
		t.Errorf("single key: %v", err)
	}
	write(josetest.JWKS(t, two))
	if err := k.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := findKey(t, k, "one"); !errors.Is(err, authn.ErrForeign) {
		t.Errorf("removed key: %v", err)
	}
	for _, text := range []string{`{"keys":[{"kty":"oct","k":"` + josetest.Base64(make([]byte, 32)) + `"}]}`, `[]`, `{`} {
		write(text)
		if err := k.Reload(t.Context()); err == nil {
			t.Errorf("%s was taken", text)
		}
	}
	if err := findKey(t, k, "two"); err != nil {
		t.Errorf("after a broken file: %v", err)
	}
}
