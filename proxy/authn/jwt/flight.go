package jwt

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/sallyport/sallyport/proxy/authn"
)

// flights are the verifications that are going on. Requests that come with a
// token that is being verified wait for that: a client that opens many
// connections at once, or a token that has just left the cache, costs one
// signature check and not one for each request.
//
// They are keyed by the whole token, so that nobody gets the answer to another
// one. Nothing stays when a verification has ended.
//
// The first request verifies in its own goroutine and with its own context.
// golang.org/x/sync/singleflight would hand its end to all the others.
type flights struct {
	mu      sync.Mutex
	running map[string]*flight
}

type flight struct {
	done  chan struct{} // closed at the end; the rest is written before
	entry *entry
	err   error
	// own is set when the outcome is of the request that verified and not of the
	// token: it was given up, it panicked, or its client is limited.
	own bool
}

func newFlights() *flights { return &flights{running: make(map[string]*flight)} }

// do returns what verify makes of token, or what another request makes of it at
// this moment.
func (s *flights) do(ctx context.Context, token string, now time.Time, verify func() (*entry, error)) (*entry, error) {
	for {
		f, lead := s.join(token)
		if lead {
			return s.lead(ctx, token, f, verify)
		}
		select {
		case <-f.done:
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: the request was given up: %w", authn.ErrUnavailable, context.Cause(ctx))
		}
		switch {
		case f.own, f.err == nil && !f.entry.good(now):
		default:
			return f.entry, f.err
		}
	}
}

// join returns the flight of token, and whether the caller is the one to verify.
// It copies the token, which may belong to a connection's buffer.
func (s *flights) join(token string) (f *flight, lead bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f = s.running[token]; f != nil {
		return f, false
	}
	f = &flight{done: make(chan struct{}), own: true}
	s.running[strings.Clone(token)] = f
	return f, true
}

func (s *flights) lead(ctx context.Context, token string, f *flight, verify func() (*entry, error)) (*entry, error) {
	defer func() {
		s.mu.Lock()
		delete(s.running, token)
		s.mu.Unlock()
		close(f.done)
	}()
	f.entry, f.err = verify()
	f.own = f.err != nil && ctx.Err() != nil || errors.Is(f.err, authn.ErrTooMany)
	return f.entry, f.err
}
