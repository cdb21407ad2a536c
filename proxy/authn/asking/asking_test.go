package asking_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/asking"
)

// TestFlights: one question for all who want the same answer, which goes on when one of
// them gives up, and one for each key.
func TestFlights(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f asking.Flights[string]
		asked := map[string]int{}
		release := make(chan struct{})
		ask := func(key string) func(context.Context) (string, error) {
			return func(ctx context.Context) (string, error) {
				asked[key]++ // one flight at a time has this key, and the bubble waits between the keys
				<-release
				return "answer to " + key, ctx.Err()
			}
		}
		leaving, leave := context.WithCancelCause(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			got, err := f.Ask(leaving, "one", time.Minute, ask("one"))
			if got != "" || !errors.Is(err, authn.ErrUnavailable) || !strings.Contains(err.Error(), "the client left") {
				t.Errorf("who gave up got %q, %v", got, err)
			}
		})
		synctest.Wait()
		for _, key := range []string{"one", "one", "two"} {
			wg.Go(func() {
				if got, err := f.Ask(t.Context(), key, time.Minute, ask(key)); got != "answer to "+key || err != nil {
					t.Errorf("%s: got %q, %v", key, got, err)
				}
			})
			synctest.Wait()
		}
		leave(errors.New("the client left"))
		synctest.Wait()
		close(release)
		wg.Wait()
		if asked["one"] != 1 || asked["two"] != 1 {
			t.Errorf("asked %v, want each once", asked)
		}
	})
}

// TestFlightEnds: by its own timeout, and not by a panic of the process.
func TestFlightEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f asking.Flights[*int]
		begin := time.Now()
		_, err := f.Ask(t.Context(), "slow", time.Second, func(ctx context.Context) (*int, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		})
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) != time.Second {
			t.Errorf("after %s: %v", time.Since(begin), err)
		}
		got, err := f.Ask(t.Context(), "broken", time.Second, func(context.Context) (*int, error) { panic("out of range") })
		if got != nil || !errors.Is(err, authn.ErrUnavailable) || !strings.Contains(err.Error(), "out of range") {
			t.Errorf("a panic is %v, %v", got, err)
		}
		if got, err = f.Ask(t.Context(), "broken", time.Second, func(context.Context) (*int, error) { return new(1), nil }); err != nil || *got != 1 {
			t.Errorf("the question after: %v, %v", got, err)
		}
	})
}

// TestTurns: as many as there are, for who waits until one is given back.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := make(asking.Turns, 2)
		for range 2 {
			if err := turns.Take(t.Context(), 0); err != nil {
				t.Fatal(err)
			}
		}
		begin := time.Now()
		if err := turns.Take(t.Context(), time.Second); !errors.Is(err, asking.ErrBusy) || time.Since(begin) != time.Second {
			t.Errorf("the third: %v after %s", err, time.Since(begin))
		}
		ended, end := context.WithCancel(t.Context())
		end()
		if err := turns.Take(ended, time.Hour); !errors.Is(err, asking.ErrBusy) {
			t.Errorf("a request that has ended: %v", err)
		}
		waiting := make(chan error)
		go func() { waiting <- turns.Take(t.Context(), time.Hour) }()
		synctest.Wait()
		turns.Give()
		if err := <-waiting; err != nil {
			t.Errorf("the one that waited: %v", err)
		}
	})
}

// TestBreaker: opened by silence in a row alone, and by no other error; then one
// question at a time finds out.
func TestBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := asking.NewBreaker[int]("idp")
		asked := 0
		ask := func(err error) error {
			_, err = b.Execute(func() (int, error) { asked++; return 0, err })
			return err
		}
		refused := errors.New("refused")
		for range 3 * asking.BreakAfter {
			if err := ask(refused); !errors.Is(err, refused) {
				t.Fatalf("got %v", err)
			}
		}
		for range 3 * asking.BreakAfter {
			if err := ask(asking.ErrAbsent); err == nil {
				t.Fatal("no error")
			}
		}
		if asked != 4*asking.BreakAfter {
			t.Errorf("asked %d times, want %d", asked, 4*asking.BreakAfter)
		}
		time.Sleep(time.Second + 1) // of the bubble's clock
		if err := ask(nil); err != nil {
			t.Errorf("a moment later: %v", err)
		}
	})
}
