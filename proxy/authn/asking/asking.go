// Package asking is how somebody else is asked about a credential: each question once
// for all who want the answer, so many at a time, and none while nobody answers.
//
// It exists so that every mechanism that asks holds out in the same way against a
// provider that is slow or away. It knows no protocol and keeps no answers (package
// tokencache does), and what a client may cause is for package limit.
package asking

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sony/gobreaker/v2"
	"golang.org/x/sync/singleflight"

	"github.com/sallyport/sallyport/proxy/authn"
)

// What a question ends with that has no answer.
var (
	// ErrBusy: too many questions are under way. Nobody was asked.
	ErrBusy = errors.New("too many questions are under way")
	// ErrAbsent: the provider did not answer, or somebody before it said so. It counts
	// for a breaker.
	ErrAbsent = errors.New("the provider does not answer")
)

// Flights are the questions with answers of one kind that are under way. The zero
// value is ready for use.
type Flights[V any] struct{ group singleflight.Group }

// Ask returns what ask finds out, or what it finds out at this moment for another
// request with the same key. It is of all who wait, so that the end of one of them ends
// it for nobody: its context ends with the timeout, and with no request.
//
// What belongs to the request's buffers must be copied before: ask may outlive it. A
// panic in there is an authn.ErrUnavailable, and so is the end of ctx.
func (f *Flights[V]) Ask(ctx context.Context, key string, timeout time.Duration, ask func(context.Context) (V, error)) (V, error) {
	shared := context.WithoutCancel(ctx)
	done := f.group.DoChan(key, func() (v any, err error) {
		// This is not a request's goroutine, where a panic would end one connection.
		defer func() {
			if p := recover(); p != nil {
				err = fmt.Errorf("%w: panic: %v", authn.ErrUnavailable, p)
			}
		}()
		ctx, cancel := context.WithTimeout(shared, timeout)
		defer cancel()
		return ask(ctx)
	})
	select {
	case result := <-done:
		v, _ := result.Val.(V)
		return v, result.Err
	case <-ctx.Done():
		var none V
		return none, fmt.Errorf("%w: the request was given up: %w", authn.ErrUnavailable, context.Cause(ctx))
	}
}

// Turns bound how many questions to one provider are under way: as many as the channel
// has room for.
type Turns chan struct{}

// Take waits for a turn until ctx ends, and for a time at most. The error is ErrBusy.
func (t Turns) Take(ctx context.Context, wait time.Duration) error {
	select {
	case t <- struct{}{}:
		return nil
	default:
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case t <- struct{}{}:
		return nil
	case <-timer.C:
	case <-ctx.Done():
	}
	return ErrBusy
}

// Give gives a turn back.
func (t Turns) Give() { <-t }

const (
	// BreakAfter is after how many questions in a row that end with ErrAbsent a provider
	// is left alone for a moment, and then asked one question. Until it answers that,
	// all others fail at once: they neither wait for it nor keep it down.
	BreakAfter = 10
	breakFor   = time.Second
)

// NewBreaker returns what leaves a provider alone that does not answer.
func NewBreaker[V any](name string) *gobreaker.CircuitBreaker[V] {
	return gobreaker.NewCircuitBreaker[V](gobreaker.Settings{
		Name: name, MaxRequests: 1, Timeout: breakFor,
		ReadyToTrip: func(n gobreaker.Counts) bool { return n.ConsecutiveFailures >= BreakAfter },
		// A provider that answers is there, whatever it says: nobody closes the way for
		// others by a credential that it chokes on or refuses.
		IsSuccessful: func(err error) bool { return !errors.Is(err, ErrAbsent) },
	})
}
