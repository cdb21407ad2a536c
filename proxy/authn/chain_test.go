package authn_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/engine/meter"
	"github.com/sallyport/sallyport/engine/meter/metertest"
	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/anonymous"
)

// answers is an authenticator that always answers the same.
type answers struct {
	identity *authz.Identity
	err      error
	scheme   string
}

func (a answers) Authenticate(context.Context, *authn.Request) (*authz.Identity, error) {
	return a.identity, a.err
}

func (a answers) Challenge(err error) string {
	if err != nil {
		return a.scheme + " error"
	}
	return a.scheme
}

func newChain(t *testing.T, links ...authn.Named) *authn.Chain {
	t.Helper()
	c, err := authn.New(links, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestChain(t *testing.T) {
	alice := &authz.Identity{Authenticated: true, Subject: "alice"}
	says := func(err error) authn.Named { return authn.Named{Name: "says", Authenticator: answers{err: err}} }
	accepts := authn.Named{Name: "accepts", Authenticator: answers{identity: alice}}
	anyone := authn.Named{Name: "anyone", Authenticator: anonymous.New("anyone", anonymous.Config{})}
	notMine, foreign := says(authn.ErrNotMine), says(fmt.Errorf("%w: issuer x", authn.ErrForeign))
	invalid, unavailable := says(fmt.Errorf("%w: expired", authn.ErrInvalid)), says(fmt.Errorf("%w: down", authn.ErrUnavailable))
	unknown := says(errors.New("something else"))
	for _, tt := range []struct {
		name    string
		links   []authn.Named
		subject string // with want nil
		want    error
	}{
		{"empty", nil, "", authn.ErrNoCredential},
		{"first claims", []authn.Named{accepts, invalid}, "alice", nil},
		{"second claims", []authn.Named{notMine, accepts}, "alice", nil},
		{"nobody claims", []authn.Named{notMine, notMine}, "", authn.ErrNoCredential},
		{"anonymous", []authn.Named{notMine, anyone}, "", nil},
		{"bad stops before anonymous", []authn.Named{invalid, anyone}, "", authn.ErrInvalid},
		{"bad stops before one that would accept", []authn.Named{invalid, accepts}, "", authn.ErrInvalid},
		{"unavailable stops before anonymous", []authn.Named{unavailable, anyone}, "", authn.ErrUnavailable},
		{"unknown error closes", []authn.Named{unknown, anyone}, "", authn.ErrUnavailable},
		{"invalid and unavailable closes as unavailable", []authn.Named{says(errors.Join(authn.ErrInvalid, authn.ErrUnavailable))}, "", authn.ErrUnavailable},
		{"no identity and no error closes", []authn.Named{says(nil), anyone}, "", authn.ErrUnavailable},
		{"foreign alone", []authn.Named{foreign}, "", authn.ErrInvalid},
		{"foreign never becomes anonymous", []authn.Named{foreign, anyone}, "", authn.ErrInvalid},
		{"foreign after not mine never becomes anonymous", []authn.Named{notMine, foreign, notMine, anyone}, "", authn.ErrInvalid},
		{"foreign to one, of another", []authn.Named{foreign, accepts}, "alice", nil},
		{"foreign to one, bad to another", []authn.Named{foreign, unavailable}, "", authn.ErrUnavailable},
		{"anonymous first asks nobody", []authn.Named{anyone, invalid}, "", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			id, err := newChain(t, tt.links...).Authenticate(t.Context(), &authn.Request{Now: time.Now()})
			if !errors.Is(err, tt.want) || tt.want == nil && id.Subject != tt.subject || tt.want != nil && id != nil {
				t.Fatalf("got %+v, %v; want %q, %v", id, err, tt.subject, tt.want)
			}
			classes := 0
			for _, class := range []error{authn.ErrNoCredential, authn.ErrInvalid, authn.ErrUnavailable, authn.ErrTooMany, authn.ErrNotMine, authn.ErrForeign} {
				if errors.Is(err, class) {
					classes++
				}
			}
			if err != nil && classes != 1 {
				t.Errorf("%v is of %d classes; the mapping to a status must find one", err, classes)
			}
		})
	}
}

func TestNilAuthenticator(t *testing.T) {
	if _, err := authn.New([]authn.Named{{Name: "x"}}, nil); err == nil {
		t.Error("a chain with a nil authenticator was made")
	}
}

func TestChallenges(t *testing.T) {
	named := func(name, scheme string, err error) authn.Named {
		return authn.Named{Name: name, Authenticator: answers{err: err, scheme: scheme}}
	}
	for _, tt := range []struct {
		name  string
		links []authn.Named
		want  []string
	}{
		{"no credential", []authn.Named{named("a", "Bearer", authn.ErrNotMine), named("b", "DPoP", authn.ErrNotMine)}, []string{"Bearer", "DPoP"}},
		{"one per scheme", []authn.Named{named("a", "Bearer", authn.ErrNotMine), named("b", "bearer", authn.ErrNotMine)}, []string{"Bearer"}},
		{"the bad one names the error", []authn.Named{named("a", "DPoP", authn.ErrNotMine), named("b", "Bearer", authn.ErrInvalid)}, []string{"Bearer error", "DPoP"}},
		{"foreign names the error", []authn.Named{named("a", "DPoP", authn.ErrNotMine), named("b", "Bearer", authn.ErrForeign)}, []string{"Bearer error", "DPoP"}},
		{"too many names none", []authn.Named{named("a", "Bearer", &authn.TooManyError{})}, []string{"Bearer"}},
		{"unavailable names none", []authn.Named{named("a", "Bearer", authn.ErrUnavailable)}, []string{"Bearer"}},
		{"nothing to say", []authn.Named{named("a", "", authn.ErrNotMine)}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newChain(t, tt.links...)
			_, err := c.Authenticate(t.Context(), &authn.Request{})
			if diff := cmp.Diff(tt.want, c.Challenges(err)); diff != "" {
				t.Errorf("challenges (-want +got):\n%s", diff)
			}
		})
	}
}

// TestBearerChallenge: RFC 6750 section 3.1 wants no error when there was no
// credential, and nobody learns what was wrong with a token.
func TestBearerChallenge(t *testing.T) {
	if got := authn.BearerChallenge("api", nil); got != `Bearer realm="api"` {
		t.Errorf("without credential: %s", got)
	}
	expired := authn.BearerChallenge("api", errors.New("expired"))
	if want := `Bearer realm="api", error="invalid_token", error_description="The access token is not acceptable"`; expired != want {
		t.Errorf("got %s, want %s", expired, want)
	}
	if forged := authn.BearerChallenge("api", errors.New("forged")); forged != expired {
		t.Errorf("two errors, two texts: %s and %s", expired, forged)
	}
}

func TestMetric(t *testing.T) {
	metrics := meter.New()
	for _, err := range []error{nil, authn.ErrInvalid, authn.ErrUnavailable, authn.ErrForeign, authn.ErrNotMine, &authn.TooManyError{}} {
		a := answers{err: err}
		if err == nil {
			a.identity = &authz.Identity{}
		}
		c, newErr := authn.New([]authn.Named{{Name: "corp", Authenticator: a}}, metrics)
		if newErr != nil {
			t.Fatal(newErr)
		}
		_, _ = c.Authenticate(t.Context(), &authn.Request{})
	}
	want := map[string]int64{
		"sallyport.authentications authenticator=corp,outcome=accepted":    1,
		"sallyport.authentications authenticator=corp,outcome=rejected":    2,
		"sallyport.authentications authenticator=corp,outcome=limited":     1,
		"sallyport.authentications authenticator=corp,outcome=unavailable": 1,
		"sallyport.authentications authenticator=,outcome=missing":         1,
	}
	if diff := cmp.Diff(want, metertest.Counts(metrics)); diff != "" {
		t.Errorf("counts (-want +got):\n%s", diff)
	}
}

// invites says in a 401 what to do.
type invites struct{ answers }

func (invites) Invitation(r *authn.Request) []authz.Header {
	return []authz.Header{{Name: "accept-x", Value: r.Method}}
}

func TestInvitations(t *testing.T) {
	says := authn.Named{Name: "says", Authenticator: answers{err: authn.ErrNotMine}}
	inviter := authn.Named{Name: "invites", Authenticator: invites{answers{err: authn.ErrNotMine}}}
	got := newChain(t, says, inviter, inviter).Invitations(&authn.Request{Method: "PUT"})
	want := []authz.Header{{Name: "accept-x", Value: "PUT"}, {Name: "accept-x", Value: "PUT"}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// TestBodyError: what is wrong with a body is the client's, is no bad credential, and
// ends the walk.
func TestBodyError(t *testing.T) {
	err := fmt.Errorf("signature: %w", &authn.BodyError{Err: fmt.Errorf("too long: %w", authz.ErrBodyTooLarge)})
	c := newChain(t, authn.Named{Name: "signed", Authenticator: answers{err: err, scheme: "Signature"}},
		authn.Named{Name: "anyone", Authenticator: anonymous.New("anyone", anonymous.Config{})})
	_, got := c.Authenticate(t.Context(), &authn.Request{})
	if !errors.Is(got, authz.ErrBodyTooLarge) || errors.Is(got, authn.ErrInvalid) || errors.Is(got, authn.ErrUnavailable) {
		t.Errorf("got %v", got)
	}
}

// greets sends people to log in, and knows those that it let in.
type greets struct {
	answers
	answer *authn.Answer
	all    int
}

func (g *greets) Greet(_ context.Context, _ *authn.Request, all []authn.Greeter) *authn.Answer {
	g.all = len(all)
	return g.answer
}

func (g *greets) StepUp(context.Context, *authn.Request, *authz.Identity, *authz.Challenge) *authn.Answer {
	return &authn.Answer{Status: 303}
}

// TestGreeting: somebody is sent to log in only when nobody in the chain knows the
// sender or does without.
func TestGreeting(t *testing.T) {
	in := &authn.Answer{Status: 302, Why: "log in"}
	greeter := func(a *authn.Answer) authn.Named {
		return authn.Named{Name: "login", Authenticator: &greets{answers: answers{err: authn.ErrNotMine}, answer: a}}
	}
	named := func(a authn.Authenticator) authn.Named { return authn.Named{Name: "other", Authenticator: a} }
	alice := named(answers{identity: &authz.Identity{Authenticated: true, Subject: "alice"}})
	foreign := named(answers{err: authn.ErrForeign})
	for _, tt := range []struct {
		name    string
		links   []authn.Named
		greeted bool
		want    error
	}{
		{"alone", []authn.Named{greeter(in)}, true, nil},
		{"not at a browser", []authn.Named{greeter(nil)}, false, authn.ErrNoCredential},
		{"another knows the sender", []authn.Named{greeter(in), alice}, false, nil},
		{"another does without", []authn.Named{greeter(in), named(anonymous.New("other", anonymous.Config{}))}, false, nil},
		{"a bad credential", []authn.Named{greeter(in), named(answers{err: authn.ErrInvalid})}, false, authn.ErrInvalid},
		{"somebody else's credential", []authn.Named{greeter(in), foreign}, false, authn.ErrInvalid},
		{"two", []authn.Named{greeter(in), greeter(nil)}, true, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newChain(t, tt.links...)
			_, err := c.Authenticate(t.Context(), &authn.Request{})
			var answer *authn.Answer
			if errors.As(err, &answer) != tt.greeted || !tt.greeted && !errors.Is(err, tt.want) {
				t.Errorf("got %v", err)
			}
			if first := tt.links[0].Authenticator.(*greets); tt.greeted && (answer != in || first.all != len(tt.links)) {
				t.Errorf("answer %v, %d greeters", answer, first.all)
			}
		})
	}
	c := newChain(t, greeter(in), alice)
	for who, want := range map[string]int{"login": 303, "other": 0, "nobody": 0} {
		a := c.StepUp(t.Context(), &authn.Request{}, &authz.Identity{Authenticated: true, Authenticator: who}, &authz.Challenge{})
		if got := a; (got == nil) != (want == 0) || got != nil && got.Status != want {
			t.Errorf("%s: %v", who, a)
		}
	}
	if a := c.StepUp(t.Context(), &authn.Request{}, &authz.Identity{}, &authz.Challenge{}); a != in {
		t.Errorf("somebody without an identity: %v", a)
	}
}

// TestRequestHash: one request's hashes of two texts are those of the texts, in whatever
// order they are asked for.
func TestRequestHash(t *testing.T) {
	var r authn.Request
	for _, text := range []string{"", "a", "a", "b", "", "a"} {
		if got, want := r.Hash(text), authn.Hash(text); got != want {
			t.Errorf("hash of %q is %x, want %x", text, got, want)
		}
	}
	if authn.Hash("a") == authn.Hash("b") {
		t.Error("two texts have one hash")
	}
}
