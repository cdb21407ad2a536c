package judge

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/engine/meter"
	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/ratelimit"
	"github.com/sallyport/sallyport/proxy/route"
)

// takes notes what tokens are taken.
type takes struct {
	Limiter
	keys []string
}

func (l *takes) Take(key string, b authz.Bucket, now time.Time) (ratelimit.Left, error) {
	l.keys = append(l.keys, key)
	return l.Limiter.Take(key, b, now)
}

// limiting returns a judge of two routes that takes tokens of a limiter with that room.
func limiting(t *testing.T, room int, d *authz.Decision) (*Judge, *takes) {
	t.Helper()
	j := newJudge(t, d,
		route.Config{Name: "orders", Match: route.Match{Path: "/v1/orders/**"}, Authenticate: []string{"a"}, Upstream: "u"},
		route.Config{Name: "items", Match: route.Match{Path: "/v1/items/**"}, Authenticate: []string{"a"}, Upstream: "u"},
	)
	l := &takes{Limiter: ratelimit.New(ratelimit.Config{MaxKeys: room}, meter.New())}
	j.cfg.Limiter = l
	j.cfg.Now = func() time.Time { return time.Unix(1767323045, 0) }
	return j, l
}

func limited(key, rate string, burst int) *authz.Decision {
	return &authz.Decision{Allow: true, RateLimit: &authz.RateLimit{Key: key, Rate: rate, Burst: burst}, Memo: &authz.Memo{}}
}

// TestRateLimit: each request takes a token, also of a decision that was given before
// and on another route; what has none is answered with 429.
func TestRateLimit(t *testing.T) {
	j, l := limiting(t, 10, limited("alice", "100/m", 2))
	for i, path := range []string{"/v1/orders/1", "/v1/items/1"} {
		v := j.Judge(t.Context(), arrival("GET", path))
		if v.Outcome != authz.OutcomeAllowed || v.Forward == nil || v.Answer != nil || v.Err != nil {
			t.Fatalf("request %d: %s, %v", i, v.Outcome, v.Err)
		}
		want := []authz.Header{
			{Name: "ratelimit-policy", Value: `"requests";q=2;w=2`}, {Name: "ratelimit", Value: `"requests";r=` + []string{"1", "0"}[i] + `;t=1`},
		}
		if d := cmp.Diff(want, v.Response); d != "" {
			t.Errorf("request %d: %s", i, d)
		}
		if slices.ContainsFunc(v.Forward.Headers, func(h authz.Header) bool { return strings.HasPrefix(h.Name, "ratelimit") }) {
			t.Errorf("request %d: the upstream gets %v", i, v.Forward.Headers)
		}
	}
	v := j.Judge(t.Context(), arrival("GET", "/v1/orders/1"))
	if v.Outcome != authz.OutcomeLimited || v.Forward != nil || v.Answer == nil || v.Answer.Status != 429 || !errors.Is(v.Err, ratelimit.ErrLimited) {
		t.Fatalf("%s, %+v, %v", v.Outcome, v.Answer, v.Err)
	}
	for field, want := range map[string]string{
		"retry-after": "1", "ratelimit": `"requests";r=0;t=1`, "ratelimit-policy": `"requests";q=2;w=2`,
		"content-type": "application/problem+json", "cache-control": "no-store",
	} {
		if got := values(v.Answer.Headers, field); !slices.Equal(got, []string{want}) {
			t.Errorf("%s: %q, want %q", field, got, want)
		}
	}
	if len(v.Response) != 0 || v.Decision == nil || v.DecisionID == "" || !strings.Contains(string(v.Answer.Body), v.DecisionID) {
		t.Errorf("%v, decision %q: %s", v.Response, v.DecisionID, v.Answer.Body)
	}
	if rec := v.Record(); rec.Outcome != authz.OutcomeLimited || rec.Upstream != "" || strings.Contains(rec.Error, "alice") {
		t.Errorf("record: %+v", rec)
	}
	if d := cmp.Diff([]string{"alice", "alice", "alice"}, l.keys); d != "" {
		t.Error(d)
	}
}

// TestNoTokenIsTaken by what is not forwarded anyway.
func TestNoTokenIsTaken(t *testing.T) {
	for name, change := range map[string]func(*authz.Decision){
		"no limit":                  func(d *authz.Decision) { d.RateLimit = nil },
		"denied":                    func(d *authz.Decision) { d.Allow = false },
		"fault":                     func(d *authz.Decision) { d.Allow, d.Fault = false, &authz.Fault{Kind: authz.FaultEval} },
		"upstream of nobody":        func(d *authz.Decision) { d.Upstream.Name = "nobody" },
		"header that nobody sets":   func(d *authz.Decision) { d.Upstream.SetHeaders = map[string]string{"connection": "x"} },
		"exchange that nobody does": func(d *authz.Decision) { d.Upstream.TokenExchange = &authz.TokenExchange{} },
		"rate that is none":         func(d *authz.Decision) { d.RateLimit.Rate = "1/y" },
		"key that is none":          func(d *authz.Decision) { d.RateLimit.Key = "" },
		"key that is too long":      func(d *authz.Decision) { d.RateLimit.Key = strings.Repeat("k", 513) },
	} {
		d := limited("alice", "1/h", 0)
		change(d)
		j, l := limiting(t, 10, d)
		v := j.Judge(t.Context(), arrival("GET", "/v1/orders/1"))
		if len(l.keys) != 0 || len(v.Response) != 0 {
			t.Errorf("%s: took %v, said %v", name, l.keys, v.Response)
		}
		if allowed := v.Outcome == authz.OutcomeAllowed; allowed != (name == "no limit") || allowed != (v.Forward != nil) {
			t.Errorf("%s: %s", name, v.Outcome)
		}
	}
}

// TestNothingIsUnlimited: what cannot be counted does not pass.
func TestNothingIsUnlimited(t *testing.T) {
	d := limited("alice", "1/h", 0)
	j, _ := limiting(t, 1, d)
	if v := j.Judge(t.Context(), arrival("GET", "/v1/orders/1")); v.Forward == nil {
		t.Fatal(v.Err)
	}
	d.RateLimit = &authz.RateLimit{Key: "bob", Rate: "1/h"}
	v := j.Judge(t.Context(), arrival("GET", "/v1/orders/1"))
	if v.Forward != nil || v.Outcome != authz.OutcomeUnavailable || v.Answer.Status != 503 || !errors.Is(v.Err, ratelimit.ErrFull) {
		t.Errorf("no room: %s, %v", v.Outcome, v.Err)
	}
	j.cfg.Limiter = nil
	v = j.Judge(t.Context(), arrival("GET", "/v1/orders/1"))
	if v.Forward != nil || v.Outcome != authz.OutcomeFault || v.Answer.Status != 403 {
		t.Errorf("without limiter: %s, %v", v.Outcome, v.Err)
	}
}

// asked is an outbound that notes that it was asked.
type asked struct{ n int }

func (a *asked) Headers(context.Context, *Outgoing) ([]authz.Header, error) { a.n++; return nil, nil }

// TestLimitedAsksNobody for a token for the upstream, and a response keeps what
// authenticators say.
func TestLimitedAsksNobody(t *testing.T) {
	j, _ := limiting(t, 10, limited("alice", "1/h", 0))
	out := &asked{}
	j.cfg.Outbound = []Outbound{out, out}
	j.cfg.Chains[0] = chainFunc(func(r *authn.Request) (*authz.Identity, error) {
		r.Response = append(r.Response, authz.Header{Name: "set-cookie", Value: "s=1"})
		return &authz.Identity{}, nil
	})
	for i, want := range []int{3, 1} { // fields
		v := j.Judge(t.Context(), arrival("GET", "/v1/orders/1"))
		if len(v.Response) != want || v.Response[0].Name != "set-cookie" {
			t.Errorf("request %d: %v", i, v.Response)
		}
	}
	if out.n != 1 {
		t.Errorf("asked %d times, want once", out.n)
	}
}

type chainFunc func(*authn.Request) (*authz.Identity, error)

func (f chainFunc) Authenticate(_ context.Context, r *authn.Request) (*authz.Identity, error) {
	return f(r)
}

func (chainFunc) Challenges(error) []string { return nil }
