package session

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

const (
	// A browser sends several requests with one cookie before it has the renewed
	// one: they get what the first of them got.
	renewedFor = 2 * time.Minute
	// unreachableFor is how long a session is not renewed again after the provider
	// could not be reached: each attempt may cost its whole timeout.
	unreachableFor = 5 * time.Second
	maxFlights     = 16384
)

// flights has one renewal of a session at a time, and remembers how it ended.
type flights struct {
	mu  sync.Mutex
	all map[digest]*flight
	now func() time.Time
}

type flight struct {
	done    chan struct{}
	session *Session
	err     error
	until   time.Time // zero while it is going on
}

func newFlights(now func() time.Time) *flights {
	return &flights{all: make(map[digest]*flight), now: now}
}

// do calls f unless somebody else is at it or has just been, and returns what came
// of it. Whoever waits gives up with ctx; the work goes on.
func (fs *flights) do(ctx context.Context, key digest, f func(context.Context) (*Session, error)) (*Session, error) {
	fs.mu.Lock()
	fl, ok := fs.all[key]
	if ok && !fl.until.IsZero() && !fs.now().Before(fl.until) {
		ok = false
	}
	if !ok {
		fl = &flight{done: make(chan struct{})}
		fs.sweep()
		fs.all[key] = fl
		go fs.run(context.WithoutCancel(ctx), key, fl, f)
	}
	fs.mu.Unlock()
	select {
	case <-fl.done:
		return fl.session, fl.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// run is not bound to the request that asked first: a browser that goes away must
// not lose the new tokens, since the old ones are no longer good.
func (fs *flights) run(ctx context.Context, key digest, fl *flight, f func(context.Context) (*Session, error)) {
	defer close(fl.done)
	fl.session, fl.err = guarded(ctx, f)
	fs.mu.Lock()
	defer fs.mu.Unlock()
	keep := renewedFor
	switch {
	case errors.Is(fl.err, ErrUnreachable):
		keep = 0 // each request asks the store anyway
	case fl.err != nil && !errors.Is(fl.err, ErrNone):
		keep = unreachableFor
	}
	fl.until = fs.now().Add(keep)
	if len(fs.all) > maxFlights {
		delete(fs.all, key)
	}
}

// guarded keeps a panic from ending the process, which one on this goroutine would.
func guarded(ctx context.Context, f func(context.Context) (*Session, error)) (s *Session, err error) {
	defer func() {
		if p := recover(); p != nil {
			s, err = nil, fmt.Errorf("renew session: panic: %v", p)
		}
	}()
	return f(ctx)
}

// sweep forgets what is over. It is called with the lock held, and looks at all of
// them only when there are many.
func (fs *flights) sweep() {
	if len(fs.all) < 1024 && len(fs.all)%64 != 63 {
		return
	}
	now := fs.now()
	for k, fl := range fs.all {
		if !fl.until.IsZero() && !now.Before(fl.until) {
			delete(fs.all, k)
		}
	}
}
