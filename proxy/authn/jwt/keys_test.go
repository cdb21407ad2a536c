package jwt

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/jose/josetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start makes an authenticator and runs it until the test ends.
func start(t *testing.T, c Config) *Authenticator {
	t.Helper()
	a, err := New("corp", c, Deps{})
	if err != nil {
		t.Fatal(err)
	}
	run(t, a)
	return a
}

func run(t *testing.T, a *Authenticator) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

// finish ends what was not run, as Run does when its context has ended.
func finish(t *testing.T, a interface{ Run(context.Context) error }) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := a.Run(ctx); err != nil {
		t.Errorf("Run: %v", err)
	}
}

// eventually polls until ok, for at most limit.
func eventually(t *testing.T, limit time.Duration, ok func() bool) bool {
	t.Helper()
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline.C:
			return false
		case <-tick.C:
		}
	}
	return true
}

// TestProviderDownAtStart: 503 until the keys are there, then at once.
func TestProviderDownAtStart(t *testing.T) {
	key := josetest.New(t, "k1", "ES256")
	is := josetest.NewIssuer(t, key)
	is.Answer(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
	a := start(t, configOf(is))
	token := key.Sign(t, key.Header(), claims(is.URL, nil))
	if _, err := present(t, a, token); !errors.Is(err, authn.ErrUnavailable) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
	is.Publish(t, key)
	if !eventually(t, 6*time.Second, func() bool { _, err := present(t, a, token); return err == nil }) {
		t.Error("the token is still refused")
	}
}

// TestProviderDownLater: known keys go on whatever the endpoint does.
func TestProviderDownLater(t *testing.T) {
	key := josetest.New(t, "k1", "ES256")
	release := make(chan struct{})
	for name, answer := range map[string]http.HandlerFunc{
		"500":     func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) },
		"garbage": func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "garbage") },
		"empty":   func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"keys":[]}`) },
		"hangs": func(_ http.ResponseWriter, r *http.Request) {
			select {
			case <-r.Context().Done():
			case <-release:
			}
		},
		"64 MiB": func(w http.ResponseWriter, _ *http.Request) { _, _ = io.Copy(w, io.LimitReader(spaces{}, 64<<20)) },
	} {
		t.Run(name, func(t *testing.T) {
			is := josetest.NewIssuer(t, key)
			c := configOf(is)
			c.RefreshInterval = time.Second
			a := start(t, c)
			if err := a.Prime(t.Context()); err != nil {
				t.Fatal(err)
			}
			is.Answer(answer)
			before := is.Fetches.Load()
			if !eventually(t, 5*time.Second, func() bool { return is.Fetches.Load() > before }) {
				t.Fatal("no fetch")
			}
			for range 3 { // fresh tokens, so that the cache does not answer
				if _, err := present(t, a, key.Sign(t, key.Header(), claims(is.URL, nil))); err != nil {
					t.Errorf("a token with a known key: %v", err)
				}
			}
		})
	}
	close(release)
}

// TestRotation: a new key counts within a second of its first use, and a removed
// one no longer than a refresh interval, although its tokens are cached.
func TestRotation(t *testing.T) {
	first, second := josetest.New(t, "k1", "ES256"), josetest.New(t, "k2", "ES256")
	is := josetest.NewIssuer(t, first)
	c := configOf(is)
	c.RefreshInterval = time.Second
	a := start(t, c)
	if err := a.Prime(t.Context()); err != nil {
		t.Fatal(err)
	}
	old := first.Sign(t, first.Header(), claims(is.URL, nil))
	kept, err := present(t, a, old)
	if err != nil {
		t.Fatal(err)
	}
	is.Publish(t, first, second)
	begin := time.Now()
	if _, err := present(t, a, second.Sign(t, second.Header(), claims(is.URL, nil))); err != nil || time.Since(begin) > time.Second {
		t.Errorf("the first token with the new key: %v after %s", err, time.Since(begin))
	}
	if again, err := present(t, a, old); err != nil || again != kept {
		t.Errorf("a cached token with a key that stays: %v, from the cache: %v", err, again == kept)
	}
	is.Publish(t, second)
	if !eventually(t, c.RefreshInterval+2*time.Second, func() bool { _, err := present(t, a, old); return err != nil }) {
		t.Error("a cached token lives although its key was removed more than a refresh interval ago")
	}
	if _, err := present(t, a, old); !errors.Is(err, authn.ErrInvalid) {
		t.Errorf("got %v, want ErrInvalid", err)
	}
}

// TestUnknownKids: 300 of them, from everywhere at once.
func TestUnknownKids(t *testing.T) {
	key := josetest.New(t, "k1", "ES256")
	is := josetest.NewIssuer(t, key)
	a := start(t, configOf(is))
	if err := a.Prime(t.Context()); err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	var wrong atomic.Int64
	for i := range 300 {
		h := key.Header()
		h["kid"] = fmt.Sprintf("unknown-%d", i)
		token := key.Sign(t, h, claims(is.URL, nil))
		group.Go(func() {
			if _, err := present(t, a, token); !errors.Is(err, authn.ErrInvalid) {
				wrong.Add(1)
			}
		})
	}
	group.Wait()
	if n := wrong.Load(); n != 0 {
		t.Errorf("%d tokens did not get ErrInvalid", n)
	}
	if n := is.Fetches.Load(); n < 2 || n > 5 {
		t.Errorf("%d fetches, want the first, at least one more, and at most 5", n)
	}
	if _, err := present(t, a, key.Sign(t, key.Header(), claims(is.URL, nil))); err != nil {
		t.Errorf("a token with the known key: %v", err)
	}
}

// TestSameUnknownKid: a kid that the issuer does not have uses up no budget, so
// that one client with a stale token does not delay a rotation.
func TestSameUnknownKid(t *testing.T) {
	first, stale, second := josetest.New(t, "k1", "ES256"), josetest.New(t, "k0", "ES256"), josetest.New(t, "k2", "ES256")
	is := josetest.NewIssuer(t, first)
	a := start(t, configOf(is))
	if err := a.Prime(t.Context()); err != nil {
		t.Fatal(err)
	}
	token := stale.Sign(t, stale.Header(), claims(is.URL, nil))
	for range 50 {
		if _, err := present(t, a, token); !errors.Is(err, authn.ErrInvalid) {
			t.Fatalf("got %v, want ErrInvalid", err)
		}
	}
	if n := is.Fetches.Load(); n != 2 {
		t.Errorf("%d fetches, want 2", n)
	}
	is.Publish(t, second)
	if _, err := present(t, a, second.Sign(t, second.Header(), claims(is.URL, nil))); err != nil {
		t.Errorf("the new key: %v", err)
	}
}

// TestUnknownKidWhileDown: it may be a new key, and nobody can say.
func TestUnknownKidWhileDown(t *testing.T) {
	key, later := josetest.New(t, "k1", "ES256"), josetest.New(t, "k2", "ES256")
	is := josetest.NewIssuer(t, key)
	a := start(t, configOf(is))
	if err := a.Prime(t.Context()); err != nil {
		t.Fatal(err)
	}
	is.Answer(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
	if _, err := present(t, a, later.Sign(t, later.Header(), claims(is.URL, nil))); !errors.Is(err, authn.ErrUnavailable) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
}

// TestKeySetsAreNotMerged: a key of one issuer is nothing to another, also under
// the same kid.
func TestKeySetsAreNotMerged(t *testing.T) {
	mine, theirs := josetest.New(t, "same", "ES256"), josetest.New(t, "same", "ES256")
	a, b := josetest.NewIssuer(t, mine), josetest.NewIssuer(t, theirs)
	first, second := start(t, configOf(a)), start(t, configOf(b))
	for _, x := range []*Authenticator{first, second} {
		if err := x.Prime(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	chain, err := authn.New([]authn.Named{{Name: "a", Authenticator: first}, {Name: "b", Authenticator: second}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if id, err := present(t, chain, mine.Sign(t, mine.Header(), claims(a.URL, nil))); err != nil || id.Issuer != a.URL {
		t.Errorf("the first issuer's token: %v", err)
	}
	if id, err := present(t, chain, theirs.Sign(t, theirs.Header(), claims(b.URL, nil))); err != nil || id.Issuer != b.URL {
		t.Errorf("the second issuer's token: %v", err)
	}
	if _, err := present(t, chain, theirs.Sign(t, theirs.Header(), claims(a.URL, nil))); !errors.Is(err, authn.ErrInvalid) {
		t.Errorf("the second issuer's token in the name of the first: got %v, want ErrInvalid", err)
	}
	if _, err := present(t, chain, mine.Sign(t, mine.Header(), claims("https://third.example", nil))); !errors.Is(err, authn.ErrInvalid) {
		t.Errorf("a token of a third issuer: got %v, want ErrInvalid", err)
	}
	if !strings.Contains(chain.Challenges(authn.ErrNoCredential)[0], `Bearer realm="sallyport"`) {
		t.Errorf("challenges are %q", chain.Challenges(authn.ErrNoCredential))
	}
}
