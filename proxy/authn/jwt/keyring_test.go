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
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/jose"
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
	is := newIssuer(t, key)
	is.answer(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
	a := start(t, is.config())
	token := key.Sign(t, key.Header(), claims(is.URL, nil))
	if _, err := present(t, a, token); !errors.Is(err, authn.ErrUnavailable) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
	is.publish(t, key)
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
			is := newIssuer(t, key)
			a := start(t, is.config())
			if err := a.Prime(t.Context()); err != nil {
				t.Fatal(err)
			}
			is.answer(answer)
			a.keys.wake <- struct{}{} // as when the interval is over
			before := is.fetches.Load()
			if !eventually(t, 5*time.Second, func() bool { return is.fetches.Load() > before }) {
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
	is := newIssuer(t, first)
	c := is.config()
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
	is.publish(t, first, second)
	begin := time.Now()
	if _, err := present(t, a, second.Sign(t, second.Header(), claims(is.URL, nil))); err != nil || time.Since(begin) > time.Second {
		t.Errorf("the first token with the new key: %v after %s", err, time.Since(begin))
	}
	if again, err := present(t, a, old); err != nil || again != kept {
		t.Errorf("a cached token with a key that stays: %v, from the cache: %v", err, again == kept)
	}
	is.publish(t, second)
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
	is := newIssuer(t, key)
	a := start(t, is.config())
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
	if n := is.fetches.Load(); n < 2 || n > 5 {
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
	is := newIssuer(t, first)
	a := start(t, is.config())
	if err := a.Prime(t.Context()); err != nil {
		t.Fatal(err)
	}
	token := stale.Sign(t, stale.Header(), claims(is.URL, nil))
	for range 50 {
		if _, err := present(t, a, token); !errors.Is(err, authn.ErrInvalid) {
			t.Fatalf("got %v, want ErrInvalid", err)
		}
	}
	if n := is.fetches.Load(); n != 2 {
		t.Errorf("%d fetches, want 2", n)
	}
	is.publish(t, second)
	if _, err := present(t, a, second.Sign(t, second.Header(), claims(is.URL, nil))); err != nil {
		t.Errorf("the new key: %v", err)
	}
}

// ring makes a keyring whose load the test answers, for tests of time.
func ring(t *testing.T, load func() (string, error)) *keyring {
	t.Helper()
	c := Default()
	c.Issuer = testIssuer
	r, err := newKeyring("corp", c, Deps{})
	if err != nil {
		t.Fatal(err)
	}
	r.load = func(context.Context) ([]byte, error) {
		text, err := load()
		return []byte(text), err
	}
	return r
}

// TestBackoff: at most 5 s apart at first, more later, and in the interval again
// after a success.
func TestBackoff(t *testing.T) {
	good := josetest.JWKS(t, josetest.New(t, "k1", "ES256"))
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		var mu sync.Mutex // guards the two below
		var attempts []time.Duration
		down := true
		count := func() int {
			mu.Lock()
			defer mu.Unlock()
			return len(attempts)
		}
		r := ring(t, func() (string, error) {
			mu.Lock()
			defer mu.Unlock()
			attempts = append(attempts, time.Since(begin))
			if down {
				return "", errors.New("down")
			}
			return good, nil
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- r.run(ctx) }()
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		mu.Lock()
		for i := 1; i < len(attempts); i++ {
			gap := attempts[i] - attempts[i-1]
			if limit := maxLateRetry; gap > limit || i < earlyRetries && gap > maxEarlyRetry {
				t.Errorf("attempt %d came %s after the one before", i, gap)
			}
		}
		if n := len(attempts); n < earlyRetries || n > 40 {
			t.Errorf("%d attempts in 5 minutes", n)
		}
		down = false
		mu.Unlock()
		time.Sleep(maxLateRetry)
		synctest.Wait()
		if r.current.Load() == nil {
			t.Fatal("no key set although the issuer is up")
		}
		before := count()
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if n := count() - before; n < 2 || n > 3 {
			t.Errorf("%d fetches in 10 minutes, want one in each interval of 5", n)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestDemandBudget: unknown kids cause a bounded number of fetches for ever.
func TestDemandBudget(t *testing.T) {
	key := josetest.New(t, "k1", "ES256")
	good := josetest.JWKS(t, key)
	synctest.Test(t, func(t *testing.T) {
		var fetches atomic.Int64
		r := ring(t, func() (string, error) { fetches.Add(1); return good, nil })
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- r.run(ctx) }()
		synctest.Wait()
		alg, _ := jose.AlgorithmOf("ES256")
		for i := range 600 { // one each 100 ms: a minute
			_, err := r.verify(ctx, &jose.JWS{Algorithm: "ES256", KeyID: fmt.Sprint(i), HasKeyID: true}, map[string]jose.Algorithm{"ES256": alg})
			if !errors.Is(err, authn.ErrInvalid) {
				t.Fatalf("got %v, want ErrInvalid", err)
			}
			time.Sleep(100 * time.Millisecond)
		}
		if limit := 1 + demandBurst + int(time.Minute/demandInterval); int(fetches.Load()) > limit {
			t.Errorf("%d fetches in a minute, want at most %d", fetches.Load(), limit)
		}
		if n := len(r.unknown); n > maxUnknown {
			t.Errorf("%d unknown kids are remembered, want at most %d", n, maxUnknown)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// running runs the keyring in the bubble of a test and returns what a token with a kid
// gets.
func running(t *testing.T, r *keyring) (ask func(kid string) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- r.run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	synctest.Wait()
	alg, _ := jose.AlgorithmOf("ES256")
	return func(kid string) error {
		_, err := r.verify(ctx, &jose.JWS{Algorithm: "ES256", KeyID: kid, HasKeyID: true}, map[string]jose.Algorithm{"ES256": alg})
		return err
	}
}

// TestUnknownKidWhileFetchHangs: it may be a new key as long as nobody has said, and is
// none once a fetch ended without it.
func TestUnknownKidWhileFetchHangs(t *testing.T) {
	good := josetest.JWKS(t, josetest.New(t, "k1", "ES256"))
	synctest.Test(t, func(t *testing.T) {
		var hang atomic.Int64
		r := ring(t, func() (string, error) { time.Sleep(time.Duration(hang.Load())); return good, nil })
		keys := &Keys{ring: r}
		ask := running(t, r)
		find := func() error { _, err := keys.Find(t.Context(), "k3"); return err }

		hang.Store(int64(2*demandWait + time.Second))
		if err := ask("k2"); !errors.Is(err, authn.ErrUnavailable) || errors.Is(err, authn.ErrInvalid) {
			t.Errorf("a token while the fetch hangs: got %v, want ErrUnavailable", err)
		}
		if err := find(); !errors.Is(err, authn.ErrUnavailable) || errors.Is(err, authn.ErrForeign) {
			t.Errorf("a key while the fetch hangs: got %v, want ErrUnavailable", err)
		}
		if len(r.unknown) != 0 {
			t.Errorf("remembered without an answer: %v", r.unknown)
		}
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := keys.Find(gone, "k3"); !errors.Is(err, authn.ErrUnavailable) {
			t.Errorf("a request that was given up: got %v, want ErrUnavailable", err)
		}
		time.Sleep(time.Minute)
		hang.Store(0)
		for range 2 { // the second time by memory
			if err := ask("k2"); !errors.Is(err, authn.ErrInvalid) {
				t.Errorf("a token after a fetch: got %v, want ErrInvalid", err)
			}
			if err := find(); !errors.Is(err, authn.ErrForeign) || errors.Is(err, authn.ErrUnavailable) {
				t.Errorf("a key after a fetch: got %v, want ErrForeign", err)
			}
			hang.Store(int64(time.Minute))
		}
	})
}

// TestUnknownKidsBeyondTheBudget: where no fetch may be made nobody waits, and a made-up
// kid is as bad as ever: a 503 needs a fetch that is going on.
func TestUnknownKidsBeyondTheBudget(t *testing.T) {
	good := josetest.JWKS(t, josetest.New(t, "k1", "ES256"))
	synctest.Test(t, func(t *testing.T) {
		var fetches, hang atomic.Int64
		r := ring(t, func() (string, error) {
			fetches.Add(1)
			time.Sleep(time.Duration(hang.Load()))
			return good, nil
		})
		ask := running(t, r)
		hang.Store(int64(demandWait + time.Second))
		const budget = demandBurst + 1 // one is earned while the others hang
		for i := range budget {
			if err := ask(fmt.Sprint(i)); !errors.Is(err, authn.ErrUnavailable) {
				t.Errorf("fetch %d: got %v, want ErrUnavailable", i, err)
			}
			time.Sleep(demandWait) // and it ended
		}
		begin := time.Now()
		for i := range 100 {
			if err := ask(fmt.Sprint("made-up-", i)); !errors.Is(err, authn.ErrInvalid) || errors.Is(err, authn.ErrUnavailable) {
				t.Fatalf("without a fetch: got %v, want ErrInvalid", err)
			}
		}
		if n := fetches.Load(); n != 1+budget || time.Since(begin) != 0 {
			t.Errorf("%d fetches, want %d; %s waited, want none", n, 1+budget, time.Since(begin))
		}
	})
}

// TestUnknownKidWhileDown: it may be a new key, and nobody can say.
func TestUnknownKidWhileDown(t *testing.T) {
	key, later := josetest.New(t, "k1", "ES256"), josetest.New(t, "k2", "ES256")
	is := newIssuer(t, key)
	a := start(t, is.config())
	if err := a.Prime(t.Context()); err != nil {
		t.Fatal(err)
	}
	is.answer(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
	if _, err := present(t, a, later.Sign(t, later.Header(), claims(is.URL, nil))); !errors.Is(err, authn.ErrUnavailable) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
}

// TestKeySetsAreNotMerged: a key of one issuer is nothing to another, also under
// the same kid.
func TestKeySetsAreNotMerged(t *testing.T) {
	mine, theirs := josetest.New(t, "same", "ES256"), josetest.New(t, "same", "ES256")
	a, b := newIssuer(t, mine), newIssuer(t, theirs)
	first, second := start(t, a.config()), start(t, b.config())
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
