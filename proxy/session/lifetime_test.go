package session

import (
	"context"
	"errors"
	"testing"
	"time"
)

// TestLongerLifetime: what a process remembers of sessions that ended, and the index by
// which a provider ends them, last as long as those sessions could live. A reload that
// has sessions live longer is for those to come.
func TestLongerLifetime(t *testing.T) {
	now := epoch
	short := func(c *Config) { c.Lifetime, c.IdleTimeout = time.Hour, 24*time.Hour }
	b := newBrowser(t, "login", short, func() time.Time { return now })
	gone, stays := logIn(t, b, someone(0), now), logIn(t, b, someone(0), now)
	s, err := load(t, b, gone, now)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.End(t.Context(), gone.visit(now), s); err != nil {
		t.Fatal(err)
	}
	next := newBrowser(t, "login", func(c *Config) { c.Lifetime, c.IdleTimeout = 24*time.Hour, 24*time.Hour }, func() time.Time { return now })
	next.keys.Adopt(b.keys)
	next.Adopt(b)
	now = now.Add(59 * time.Minute)
	r := stays.visit(now)
	if s, err = next.Load(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if s, err = next.Renew(t.Context(), r, s, func(_ context.Context, s *Session) (*Session, error) { return s.Copy(), nil }); err != nil {
		t.Fatal(err)
	}
	stays.take(r)
	if got := s.Ends(24 * time.Hour); !got.Equal(epoch.Add(time.Hour)) {
		t.Errorf("a renewed session says that it ends at %s", got)
	}
	now = epoch.Add(2 * time.Hour)
	fresh := logIn(t, next, someone(0), now) // has notes that are over forgotten
	if err := next.End(t.Context(), fresh.visit(now), nil); err != nil {
		t.Fatal(err)
	}
	if err := next.Revoke(t.Context(), "https://idp.example", "s9", ""); err != nil {
		t.Fatal(err)
	}
	for name, j := range map[string]jar{"that ended": gone, "that lived for its lifetime": stays} {
		if _, err := load(t, next, j, now); !errors.Is(err, ErrNone) {
			t.Errorf("a session %s is good: %v", name, err)
		}
	}
	if _, err := load(t, next, fresh, now.Add(20*time.Hour)); err != nil {
		t.Errorf("a session from after the reload: %v", err)
	}
	shorter := newBrowser(t, "login", short, func() time.Time { return now })
	shorter.keys.Adopt(b.keys)
	if _, err := load(t, shorter, fresh, now.Add(61*time.Minute)); !errors.Is(err, ErrNone) {
		t.Errorf("a shorter lifetime is not for sessions that there are: %v", err)
	}
}
