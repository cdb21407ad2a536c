package introspection

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/asking"
)

// spaces is an endless reader of white space.
type spaces struct{}

func (spaces) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

// TestAnswersThatAreNone say nothing about a token: 503, and nothing is remembered.
func TestAnswersThatAreNone(t *testing.T) {
	var elsewhere, sent atomic.Int64
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		elsewhere.Add(1)
		_, _ = io.WriteString(w, answerOf(nil))
	}))
	defer other.Close()
	p := newIDP(t)
	a := start(t, p.config(t))
	text := func(s string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, s) }
	}
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(code)
			if code != 204 {
				_, _ = io.WriteString(w, answerOf(nil))
			}
		}
	}
	for name, h := range map[string]http.HandlerFunc{
		"400": status(400), "401": status(401), "403": status(403), "404": status(404), "429": status(429),
		"500": status(500), "502": status(502), "503": status(503), "201": status(201), "204": status(204),
		"garbage":         text("<html>"),
		"nothing":         text(""),
		"array":           text(`[{"active":true}]`),
		"no active":       text(`{"sub":"alice"}`),
		"active is text":  text(`{"active":"true"}`),
		"active is 1":     text(`{"active":1}`),
		"active is null":  text(`{"active":null}`),
		"active twice":    text(`{"active":false,"active":true}`),
		"two objects":     text(`{"active":true}{"active":true}`),
		"other case":      text(`{"Active":true}`),
		"broken off":      text(`{"active":true,"sub":"ali`),
		"nested too deep": text(`{"active":true,"x":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`),
		"not UTF-8":       text("{\"active\":true,\"sub\":\"\xff\"}"),
		"redirect elsewhere": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
		},
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/again", http.StatusPermanentRedirect)
		},
		"64 MiB": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"active":true`)
			n, _ := io.Copy(w, io.LimitReader(spaces{}, 64<<20))
			_, _ = io.WriteString(w, `}`)
			sent.Store(n)
		},
		"cut off": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			_, _ = io.WriteString(w, `{"active":true}`)
		},
		"closed": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	} {
		p.answer(h)
		if id, err := present(t, a, "token"); id != nil || !errors.Is(err, authn.ErrUnavailable) || errors.Is(err, authn.ErrInvalid) {
			t.Errorf("%s: got %+v, %v; want ErrUnavailable", name, id, err)
		}
		p.says(answerOf(nil))
		if _, err := present(t, a, "after-"+strings.ReplaceAll(name, " ", "-")); err != nil {
			t.Errorf("the question after %s: %v", name, err)
		}
	}
	if _, err := present(t, a, "token"); err != nil {
		t.Errorf("the token of all these answers: %v", err)
	}
	if n := elsewhere.Load(); n > 0 {
		t.Errorf("the token was sent elsewhere %d times", n)
	}
	if n := sent.Load(); n > 16<<20 {
		t.Errorf("%d MiB of 64 were read before giving up", n>>20)
	}
}

// TestHangingProvider: a question ends with its timeout, those above the bound do not
// wait that long, and tokens that are known still pass.
func TestHangingProvider(t *testing.T) {
	p := newIDP(t)
	c := p.config(t)
	c.MaxConcurrent, c.MaxWait, c.Timeout = 2, time.Millisecond, 20*time.Second
	a := start(t, c)
	if _, err := present(t, a, "known"); err != nil {
		t.Fatal(err)
	}
	release := make(chan struct{})
	p.answer(func(http.ResponseWriter, *http.Request) { <-release })
	var wg sync.WaitGroup
	for _, token := range []string{"one", "two"} {
		wg.Go(func() {
			if _, err := present(t, a, token); !errors.Is(err, authn.ErrUnavailable) {
				t.Errorf("%s: %v, want ErrUnavailable", token, err)
			}
		})
	}
	eventually(t, "two questions are under way", func() bool { return p.asked.Load() == 3 })
	if _, err := present(t, a, "three"); !errors.Is(err, authn.ErrUnavailable) || !errors.Is(err, asking.ErrBusy) {
		t.Errorf("the third question: %v, want ErrUnavailable because of others", err)
	}
	if n := p.asked.Load(); n != 3 {
		t.Errorf("%d questions reached the provider, want 3", n)
	}
	if _, err := present(t, a, "known"); err != nil {
		t.Errorf("a known token: %v", err)
	}
	close(release)
	wg.Wait()
	if len(a.provider.slots) != 0 {
		t.Errorf("%d turns were not given back", len(a.provider.slots))
	}
}

// TestTimeout: nobody waits for ever, whatever part of the answer is missing.
func TestTimeout(t *testing.T) {
	for name, begin := range map[string]string{"no answer": "", "half an answer": `{"active":true,`} {
		p := newIDP(t)
		c := p.config(t)
		c.Timeout = 50 * time.Millisecond
		a := start(t, c)
		release := make(chan struct{})
		p.answer(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, begin)
			if begin != "" {
				_ = http.NewResponseController(w).Flush()
			}
			<-release
		})
		if _, err := present(t, a, "token"); !errors.Is(err, authn.ErrUnavailable) || !errors.Is(err, asking.ErrAbsent) {
			t.Errorf("%s: %v, want ErrUnavailable", name, err)
		}
		close(release)
	}
}

// TestBreaker: a provider that is away is left alone, and asked again a little later.
func TestBreaker(t *testing.T) {
	p := newIDP(t)
	a := start(t, p.config(t))
	away := func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }
	p.answer(away)
	for i := range 5 * asking.BreakAfter {
		if _, err := present(t, a, "token"); !errors.Is(err, authn.ErrUnavailable) {
			t.Fatalf("question %d: %v", i, err)
		}
	}
	if n := p.asked.Load(); n < asking.BreakAfter || n > asking.BreakAfter+5 { // a slow machine may probe in between
		t.Errorf("%d questions reached a provider that is away, want %d", n, asking.BreakAfter)
	}
	p.says(answerOf(nil))
	eventually(t, "the provider is asked again", func() bool { _, err := present(t, a, "token"); return err == nil })
}

// TestBreakerIsNotForStrangers: a token that the provider chokes on closes the way
// for no other.
func TestBreakerIsNotForStrangers(t *testing.T) {
	p := newIDP(t)
	a := start(t, p.config(t))
	p.answer(func(w http.ResponseWriter, r *http.Request) {
		if r.PostForm.Get("token") == "poison" {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		_, _ = io.WriteString(w, answerOf(nil))
	})
	for range 5 * asking.BreakAfter {
		if _, err := present(t, a, "poison"); !errors.Is(err, authn.ErrUnavailable) {
			t.Fatal(err)
		}
	}
	if _, err := present(t, a, "token"); err != nil {
		t.Errorf("another token: %v", err)
	}
}
