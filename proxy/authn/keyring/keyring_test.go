package keyring

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/jose"
	"github.com/sallyport/sallyport/proxy/authn/jose/josetest"
)

// ring makes a keyring whose load the test answers, for tests of time.
func ring(t *testing.T, load func() (string, error)) *Ring {
	t.Helper()
	r, err := New("corp", Source{Issuer: "https://idp.example", RefreshInterval: 5 * time.Minute}, Deps{})
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
		go func() { done <- r.Run(ctx) }()
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
		go func() { done <- r.Run(ctx) }()
		synctest.Wait()
		alg, _ := jose.AlgorithmOf("ES256")
		for i := range 600 { // one each 100 ms: a minute
			_, err := r.Verify(ctx, &jose.JWS{Algorithm: "ES256", KeyID: fmt.Sprint(i), HasKeyID: true}, map[string]jose.Algorithm{"ES256": alg})
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
func running(t *testing.T, r *Ring) (ask func(kid string) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	synctest.Wait()
	alg, _ := jose.AlgorithmOf("ES256")
	return func(kid string) error {
		_, err := r.Verify(ctx, &jose.JWS{Algorithm: "ES256", KeyID: kid, HasKeyID: true}, map[string]jose.Algorithm{"ES256": alg})
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
		keys := r
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

// TestDiscoveredURL: the metadata cannot talk us into an insecure fetch, which
// would fail in this test anyway, hence the look at the reason.
func TestDiscoveredURL(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintf(w, `{"issuer":"http://%s","jwks_uri":"http://idp.invalid/keys"}`, r.Host)
	}))
	defer server.Close()
	for insecure, want := range map[bool]string{false: "not loopback", true: "dial"} {
		f, err := newFetcher(Source{Issuer: server.URL, InsecureHTTP: insecure})
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
