package session

import (
	"context"
	"errors"
	"testing"
	"time"
)

// TestClocksGoBack: a session ends although it began later than now, as a replica whose
// clock is ahead, or ours before it was set, says.
func TestClocksGoBack(t *testing.T) {
	for name, end := range map[string]func(*Browser, jar, *Session, time.Time) error{
		"logout": func(b *Browser, j jar, s *Session, at time.Time) error {
			return b.End(t.Context(), j.visit(at), s)
		},
		"new login": func(b *Browser, j jar, _ *Session, at time.Time) error {
			return b.Create(t.Context(), j.visit(at), someone(0))
		},
		"renewal refused": func(b *Browser, j jar, s *Session, at time.Time) error {
			_, err := b.Renew(t.Context(), j.visit(at), s, func(context.Context, *Session) (*Session, error) { return nil, ErrNone })
			if !errors.Is(err, ErrNone) {
				return errors.New("the session was renewed")
			}
			return nil
		},
	} {
		now := epoch
		b := newBrowser(t, "login", nil, func() time.Time { return now })
		j := logIn(t, b, someone(0), now.Add(30*time.Second))
		s, err := load(t, b, j, now)
		if err != nil {
			t.Fatal(err)
		}
		if err := end(b, j, s, now); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, after := range []time.Duration{0, 31 * time.Second, 30 * time.Minute} {
			if _, err := load(t, b, j, now.Add(after)); !errors.Is(err, ErrNone) {
				t.Errorf("%s: %s later a copy of the cookie is good: %v", name, after, err)
			}
		}
	}
}
