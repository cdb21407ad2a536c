package keyring

import (
	"context"
	"math/rand/v2"
	"time"
)

const (
	firstRetry = 250 * time.Millisecond
	// An issuer that just went down is tried again soon; one that stays down less
	// often, so that a fleet of gateways does not keep it there.
	earlyRetries  = 20
	maxEarlyRetry = 5 * time.Second
	maxLateRetry  = 30 * time.Second
)

// Run renews the key set until ctx ends, and returns nil then.
func (r *Ring) Run(ctx context.Context) error {
	if r.fetcher == nil {
		<-ctx.Done()
		return nil
	}
	defer r.fetcher.client.Close()
	_ = r.Prime(ctx) // an error is logged, counted and kept for the answers of requests
	timer := time.NewTimer(r.delay())
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-r.wake:
		}
		_ = r.refresh(ctx) // as above
		timer.Reset(r.delay())
	}
}

// delay is the time until the next fetch, a little at random so that gateways
// started together do not ask together.
func (r *Ring) delay() time.Duration {
	r.mu.Lock()
	failures := r.failures
	r.mu.Unlock()
	d := r.source.RefreshInterval
	if failures > 0 {
		d = min(backoff(failures), r.source.RefreshInterval)
	}
	return d - time.Duration(rand.Int64N(int64(d)/10+1)) //nolint:gosec // spreads load; nothing secret
}

func backoff(failures int) time.Duration {
	if failures > earlyRetries {
		return maxLateRetry
	}
	return min(firstRetry<<min(failures-1, 10), maxEarlyRetry)
}
