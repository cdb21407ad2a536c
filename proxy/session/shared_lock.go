package session

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bsm/redislock"

	"github.com/sallyport/sallyport/proxy/authn"
)

const (
	// lockLife is how long the lock of a replica that died keeps others from renewing
	// the session: one that lives holds on to it for as long as the renewal takes.
	lockLife  = 10 * time.Second
	lockPause = 20 * time.Millisecond
	// lockWait is longer than lockLife: whoever waits outlives a lock that is nobody's.
	lockWait = 15 * time.Second
)

// turns are the times of the lock by which replicas take turns.
type turns struct{ life, wait, keep time.Duration }

// lock waits until it is this replica's turn to renew the session, and holds the lock
// until release is called.
func (s *Shared) lock(ctx context.Context, id string) (release func(), err error) {
	wait, cancel := context.WithTimeout(ctx, s.turns.wait)
	defer cancel()
	key := s.prefix + "lock:" + hashed(id)
	lock, err := s.locks.Obtain(wait, key, s.turns.life, &redislock.Options{RetryStrategy: redislock.LinearBackoff(lockPause)})
	switch {
	case err == nil:
	case wait.Err() != nil:
		return nil, fmt.Errorf("%w: lock session: another replica is still renewing it", authn.ErrUnavailable)
	default:
		return nil, unavailable("lock session", err)
	}
	over, held := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(held)
		s.hold(ctx, lock, key, over)
	}()
	return func() {
		close(over)
		<-held
		ctx, cancel := s.within(ctx)
		defer cancel()
		_ = lock.Release(ctx) // it ends by itself
	}, nil
}

// hold keeps a lock from ending until over is closed.
func (s *Shared) hold(ctx context.Context, lock *redislock.Lock, key string, over <-chan struct{}) {
	tick := time.NewTicker(s.turns.life / 5)
	defer tick.Stop()
	for {
		select {
		case <-over:
			return
		case <-tick.C:
			s.prolong(ctx, lock, key)
		}
	}
}

// prolong tells Redis that the lock is still held. One that ended while Redis was away
// it takes again, if nobody else has it. Errors are for the next time.
func (s *Shared) prolong(ctx context.Context, lock *redislock.Lock, key string) {
	ctx, cancel := s.within(ctx)
	defer cancel()
	if err := lock.Refresh(ctx, s.turns.life, nil); errors.Is(err, redislock.ErrNotObtained) {
		_, _ = s.locks.Obtain(ctx, key, s.turns.life, &redislock.Options{Token: lock.Token()})
	}
}
