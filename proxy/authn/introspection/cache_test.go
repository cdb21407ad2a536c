package introspection

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/limit"
)

// TestHowLongAnAnswerCounts: until the token ends or max_age is over, whichever is
// first; then the provider is asked again, and what it says now counts.
func TestHowLongAnAnswerCounts(t *testing.T) {
	for _, tt := range []struct {
		name    string
		exp     any
		maxAge  time.Duration
		after   time.Duration
		revoked error // what a revoked token gets after that time
	}{
		{"within max_age", testNow.Unix() + 300, time.Minute, time.Minute - 1, nil},
		{"after max_age", testNow.Unix() + 300, time.Minute, time.Minute, authn.ErrInvalid},
		{"before exp", testNow.Unix() + 30, time.Minute, 30*time.Second - 1, nil},
		{"after exp", testNow.Unix() + 30, time.Minute, 30 * time.Second, authn.ErrInvalid},
		{"no exp", nil, time.Minute, time.Minute - 1, nil},
		{"no exp, after max_age", nil, time.Minute, time.Minute, authn.ErrInvalid},
		{"expired within leeway", testNow.Unix() - 5, time.Minute, 0, authn.ErrInvalid},
		{"no cache", testNow.Unix() + 300, 0, 0, authn.ErrInvalid},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newIDP(t)
			c := p.config(t)
			c.MaxAge = tt.maxAge
			a := start(t, c)
			p.says(answerOf(map[string]any{"exp": tt.exp}))
			if _, err := present(t, a, "token"); err != nil {
				t.Fatal(err)
			}
			p.says(`{"active":false}`)
			r := request("token")
			r.Now = testNow.Add(tt.after)
			if _, err := a.Authenticate(t.Context(), r); !errors.Is(err, tt.revoked) {
				t.Errorf("got %v, want %v", err, tt.revoked)
			}
		})
	}
}

// TestRefusedAreRemembered for a moment, and never longer.
func TestRefusedAreRemembered(t *testing.T) {
	p := newIDP(t)
	a := start(t, p.config(t))
	p.says(`{"active":false}`)
	for _, tt := range []struct {
		after time.Duration
		asked int64
	}{{0, 1}, {5*time.Second - 1, 1}, {5 * time.Second, 2}} {
		r := request("token")
		r.Now = testNow.Add(tt.after)
		if _, err := a.Authenticate(t.Context(), r); !errors.Is(err, authn.ErrInvalid) {
			t.Errorf("after %s: %v", tt.after, err)
		}
		if n := p.asked.Load(); n != tt.asked {
			t.Errorf("after %s: asked %d times, want %d", tt.after, n, tt.asked)
		}
	}
}

// TestJunkPushesNothingOut: tokens that a stranger makes up.
func TestJunkPushesNothingOut(t *testing.T) {
	p := newIDP(t)
	c := p.config(t)
	c.CacheSize, c.QuestionLimit.Burst = 1, 1000
	a := start(t, c)
	if _, err := present(t, a, "good"); err != nil {
		t.Fatal(err)
	}
	p.says(`{"active":false}`)
	for i := range 200 {
		if _, err := present(t, a, fmt.Sprintf("junk%d", i)); !errors.Is(err, authn.ErrInvalid) {
			t.Fatal(err)
		}
	}
	if _, err := present(t, a, "good"); err != nil {
		t.Errorf("after the junk: %v", err)
	}
	if n, _ := a.good.Len(); n != 1 {
		t.Errorf("%d good tokens are kept", n)
	}
}

// TestOneQuestion: requests that come with the same token at once share a question,
// and who gives up ends it for nobody else.
func TestOneQuestion(t *testing.T) {
	p := newIDP(t)
	c := p.config(t)
	c.Timeout = 20 * time.Second
	a := start(t, c)
	arrived, release := make(chan struct{}), make(chan struct{})
	p.answer(func(w http.ResponseWriter, _ *http.Request) {
		close(arrived) // a second question would panic here
		<-release
		_, _ = io.WriteString(w, answerOf(nil))
	})
	first, giveUp := context.WithCancel(t.Context())
	gaveUp := make(chan error, 1)
	go func() {
		_, err := a.Authenticate(first, request("token"))
		gaveUp <- err
	}()
	<-arrived
	var wg sync.WaitGroup
	var good atomic.Int64
	for range 20 {
		wg.Go(func() {
			if _, err := present(t, a, "token"); err == nil {
				good.Add(1)
			} else {
				t.Error(err)
			}
		})
	}
	giveUp()
	if err := <-gaveUp; !errors.Is(err, authn.ErrUnavailable) {
		t.Errorf("who gave up got %v, want ErrUnavailable", err)
	}
	close(release)
	wg.Wait()
	if good.Load() != 20 || p.asked.Load() != 1 {
		t.Errorf("%d of 20 were accepted after %d questions", good.Load(), p.asked.Load())
	}
}

// TestStrangersAskLittle: who sends made-up tokens has no more of them asked about for
// a while; its good tokens in the cache pass, and so do other clients.
func TestStrangersAskLittle(t *testing.T) {
	p := newIDP(t)
	c := p.config(t)
	c.QuestionLimit = limit.Config{Failures: 1, Burst: 3}
	a := start(t, c)
	from := func(client, token string, after time.Duration) error {
		r := request(token)
		r.Client, r.Now = client, testNow.Add(after)
		_, err := a.Authenticate(t.Context(), r)
		return err
	}
	if err := from("192.0.2.1", "good", 0); err != nil {
		t.Fatal(err)
	}
	p.says(`{"active":false}`)
	for i, tt := range []struct {
		client, token string
		after         time.Duration
		want          error
	}{
		{"192.0.2.1", "junk1", 0, authn.ErrInvalid},
		{"192.0.2.1", "junk1", 0, authn.ErrInvalid}, // remembered: costs no question
		{"192.0.2.1", "junk2", 0, authn.ErrInvalid},
		{"192.0.2.1", "junk3", 0, authn.ErrInvalid},
		{"192.0.2.1", "junk4", 0, authn.ErrTooMany},
		{"192.0.2.1", "junk1", 0, authn.ErrInvalid},
		{"192.0.2.1", "good", 0, nil},
		{"192.0.2.2", "junk4", 0, authn.ErrInvalid},
		{"192.0.2.1", "junk5", time.Second, authn.ErrInvalid},
		{"192.0.2.1", "junk6", time.Second, authn.ErrTooMany},
	} {
		if err := from(tt.client, tt.token, tt.after); !errors.Is(err, tt.want) {
			t.Errorf("row %d: got %v, want %v", i, err, tt.want)
		}
	}
	if n := p.asked.Load(); n != 6 {
		t.Errorf("%d questions, want 6", n)
	}
}
