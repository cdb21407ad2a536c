package session

import (
	"context"
	"errors"
	"fmt"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/sallyport/sallyport/proxy/authn"
)

const (
	// renewWithin is how long a renewal may take once it is this replica's turn. The
	// wait is not part of it: a refresh token that was sent too late for the answer to
	// be heard is lost.
	renewWithin = 30 * time.Second
	// keepWithin is how long a renewal that Redis did not take is offered again.
	keepWithin = time.Minute
	keepPause  = 100 * time.Millisecond
)

// Renew implements Store. Replicas take turns by a lock in Redis; who comes second
// finds the renewed session.
func (s *Shared) Renew(ctx context.Context, r *authn.Request, v *Session, do func(context.Context, *Session) (*Session, error)) (*Session, error) {
	now := r.Now
	next, err := s.flights.do(ctx, digestOf("renew", v.ID, v.AccessToken, v.RefreshToken), func(ctx context.Context) (*Session, error) {
		return s.renew(ctx, v, now, do)
	})
	if errors.Is(err, ErrNone) {
		s.cookies.Clear(r)
	}
	return next, err
}

func (s *Shared) renew(ctx context.Context, v *Session, now time.Time, do func(context.Context, *Session) (*Session, error)) (*Session, error) {
	release, err := s.lock(ctx, v.ID)
	if err != nil {
		return nil, err
	}
	later := false
	defer func() {
		if !later { // also when do panics
			release()
		}
	}()
	next, err := s.renewed(ctx, v, now, do)
	if later = errors.Is(err, ErrUnreachable); later {
		s.kept.Go(func() {
			defer release() // the refresh token in Redis may be spent: nobody is to use it meanwhile
			s.offer(ctx, next, now)
		})
	}
	if err != nil {
		return nil, err
	}
	return next, nil
}

// renewed renews a session whose lock is held. If it returns both a session and
// ErrUnreachable, that is what Redis did not take.
func (s *Shared) renewed(ctx context.Context, v *Session, now time.Time, do func(context.Context, *Session) (*Session, error)) (*Session, error) {
	current, err := s.load(ctx, v.ID, now)
	if err != nil {
		return nil, err
	}
	if current.AccessToken != v.AccessToken || current.RefreshToken != v.RefreshToken {
		return current, nil // another replica was faster
	}
	work, cancel := context.WithTimeout(ctx, renewWithin)
	defer cancel()
	next, err := do(work, current)
	if errors.Is(err, ErrNone) {
		ctx, cancel := s.within(ctx)
		defer cancel()
		return nil, errors.Join(err, s.redis.Del(ctx, s.key(v.ID)).Err())
	}
	if err != nil {
		return nil, err
	}
	next.Used = max(next.Used, now.UnixMilli())
	if next.sealed, err = s.seal(next); err != nil {
		return nil, err
	}
	return next, s.put(ctx, next, now)
}

// put writes a renewed session, unless it was ended.
func (s *Shared) put(ctx context.Context, next *Session, now time.Time) error {
	ctx, cancel := s.within(ctx)
	defer cancel()
	kept, err := s.redis.SetXX(ctx, s.key(next.ID), next.sealed, s.limits.remaining(next, now)).Result()
	switch {
	case err != nil && !errors.Is(err, goredis.Nil):
		return unavailable("keep renewed session", err)
	case !kept:
		return fmt.Errorf("%w: it was ended while it was renewed", ErrNone)
	}
	return nil
}

// offer writes a renewed session, if there is one, as soon as Redis takes it.
func (s *Shared) offer(ctx context.Context, next *Session, now time.Time) {
	if next == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, s.turns.keep)
	defer cancel()
	tick := time.NewTicker(keepPause)
	defer tick.Stop()
	for {
		err := s.put(ctx, next, now)
		if !errors.Is(err, ErrUnreachable) || errors.Is(err, goredis.ErrClosed) {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
