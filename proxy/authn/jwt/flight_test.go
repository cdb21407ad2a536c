package jwt

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	sdk "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/jose"
	"github.com/sallyport/sallyport/proxy/authn/jose/josetest"
)

// metered makes an authenticator that counts, and what reads its verifications
// by outcome.
func metered(t testing.TB, change func(*Config), signers ...*josetest.Signer) (*Authenticator, func() map[string]int64) {
	t.Helper()
	reader := sdk.NewManualReader()
	meter := sdk.NewMeterProvider(sdk.WithReader(reader)).Meter("test")
	a := newWith(t, Deps{Meter: meter}, change, signers...)
	return a, func() map[string]int64 {
		var all metricdata.ResourceMetrics
		if err := reader.Collect(context.Background(), &all); err != nil {
			t.Fatal(err)
		}
		out := map[string]int64{}
		for _, scope := range all.ScopeMetrics {
			for _, m := range scope.Metrics {
				if sum, ok := m.Data.(metricdata.Sum[int64]); ok && m.Name == "sallyport.token.verifications" {
					for _, p := range sum.DataPoints {
						outcome, _ := p.Attributes.Value("outcome")
						out[outcome.AsString()] = p.Value
					}
				}
			}
		}
		return out
	}
}

// TestOneVerificationForMany: many requests that come at once with a token that
// nobody has seen cost one verification.
func TestOneVerificationForMany(t *testing.T) {
	k := josetest.New(t, "k1", "RS256")
	a, count := metered(t, nil, k)
	token := k.Sign(t, k.Header(), claims(testIssuer, nil))
	begin := make(chan struct{})
	var group sync.WaitGroup
	for range 200 {
		group.Go(func() {
			<-begin
			if id, err := present(t, a, token); err != nil || id.Subject != "alice" {
				t.Errorf("got %v, %v", id, err)
			}
		})
	}
	close(begin)
	group.Wait()
	if n := count()["verified"]; n != 1 {
		t.Errorf("%d verifications for one token, want 1", n)
	}
}

// TestTokensDoNotShare: at the same moment, each token gets its own answer.
func TestTokensDoNotShare(t *testing.T) {
	k, stranger := josetest.New(t, "k1", "ES256"), josetest.New(t, "k1", "ES256")
	a, _ := metered(t, nil, k)
	var group sync.WaitGroup
	for _, sub := range []string{"alice", "bob", "carol", "dave"} {
		good := k.Sign(t, k.Header(), claims(testIssuer, map[string]any{"sub": sub}))
		bad := stranger.Sign(t, stranger.Header(), claims(testIssuer, map[string]any{"sub": sub}))
		for range 20 {
			group.Go(func() {
				if id, err := present(t, a, good); err != nil || id.Subject != sub {
					t.Errorf("%s: got %+v, %v", sub, id, err)
				}
			})
			group.Go(func() {
				if id, err := present(t, a, bad); !errors.Is(err, authn.ErrInvalid) {
					t.Errorf("%s signed by a stranger: got %+v, %v", sub, id, err)
				}
			})
		}
	}
	group.Wait()
}

// whileWaiting has one request verify a token by lead, which may give that
// request up, and another wait for it; both are there before lead goes on. It
// returns the other's answer. The other verifies by good when it has to itself.
func whileWaiting(t *testing.T, waiterGivesUp bool, lead func(giveUp func()) (*entry, error)) (got *entry, waited bool, err error) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := newFlights()
		gate := make(chan struct{})
		leader, giveUp := context.WithCancel(t.Context())
		waiter, cancel := context.WithCancel(t.Context())
		defer giveUp()
		defer cancel()
		go func() {
			defer func() { _ = recover() }() // a front recovers too
			_, _ = s.do(leader, "token", testNow, func() (*entry, error) {
				<-gate
				return lead(giveUp)
			})
		}()
		synctest.Wait()
		waited = true
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			got, err = s.do(waiter, "token", testNow, func() (*entry, error) {
				waited = false
				return good()
			})
		}()
		synctest.Wait()
		if waiterGivesUp {
			cancel()
			<-ended
		}
		close(gate)
		<-ended
		synctest.Wait()
		if len(s.running) != 0 {
			t.Errorf("%d flights are left", len(s.running))
		}
	})
	return got, waited, err
}

func good() (*entry, error) {
	return &entry{until: testNow.Add(time.Minute), key: &jose.Key{}, identity: &authz.Identity{}}, nil
}

func TestWaiterTakesTheAnswer(t *testing.T) {
	for name, lead := range map[string]func(func()) (*entry, error){
		"good": func(func()) (*entry, error) { return good() },
		"bad":  func(func()) (*entry, error) { return nil, authn.ErrSignature },
	} {
		e, waited, err := whileWaiting(t, false, lead)
		if !waited || (e != nil) != (name == "good") || (name == "bad") != errors.Is(err, authn.ErrSignature) {
			t.Errorf("%s: got %v, %v, waited %v", name, e, err, waited)
		}
	}
}

// TestWaiterGivesUp: who waits for another's verification ends with its own
// request.
func TestWaiterGivesUp(t *testing.T) {
	_, waited, err := whileWaiting(t, true, func(func()) (*entry, error) { return good() })
	if !waited || !errors.Is(err, context.Canceled) || !errors.Is(err, authn.ErrUnavailable) {
		t.Errorf("got %v, waited %v; want canceled and ErrUnavailable", err, waited)
	}
}

// TestWhatConcernsOneRequestIsNotShared: a request that was given up or that
// panicked, and an entry that is over, say nothing about the token of another.
func TestWhatConcernsOneRequestIsNotShared(t *testing.T) {
	for name, lead := range map[string]func(func()) (*entry, error){
		"panicked": func(func()) (*entry, error) { panic("of this request") },
		"over":     func(func()) (*entry, error) { return &entry{until: testNow, key: &jose.Key{}}, nil },
		"limited":  func(func()) (*entry, error) { return nil, &authn.TooManyError{} },
		"given up": func(giveUp func()) (*entry, error) { giveUp(); return nil, authn.ErrInvalid },
	} {
		e, waited, err := whileWaiting(t, false, lead)
		if waited || err != nil || e == nil {
			t.Errorf("%s: the waiting request got %v, %v without verifying", name, e, err)
		}
	}
}
