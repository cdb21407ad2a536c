package engine_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sallyport/sallyport/engine"
	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/engine/meter"
	"github.com/sallyport/sallyport/engine/meter/metertest"
)

// clock is one that a test moves.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Unix(1767323000, 0)} } // before the tokens of identity end

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// cached returns an engine with a decision cache that reads the clock.
func cached(t testing.TB, c *clock, change func(*engine.Config, *engine.Deps)) *engine.Engine {
	t.Helper()
	return newEngine(t, func(cfg *engine.Config, deps *engine.Deps) {
		deps.Now = c.Now
		if change != nil {
			change(cfg, deps)
		}
	})
}

func activate(t testing.TB, e *engine.Engine, rev engine.Revision) {
	t.Helper()
	if err := e.Activate(t.Context(), rev); err != nil {
		t.Fatal(err)
	}
}

// twins are an engine with a cache and one without, on the same policies.
type twins struct {
	with, without *engine.Engine
	clock         *clock
	hits          int
}

func newTwins(t testing.TB) *twins {
	w := &twins{clock: newClock()}
	w.with = cached(t, w.clock, func(cfg *engine.Config, _ *engine.Deps) { cfg.DecisionCache.Entries = 200 })
	w.without = cached(t, w.clock, func(cfg *engine.Config, _ *engine.Deps) { cfg.DecisionCache.Entries = 0 })
	return w
}

func (w *twins) activate(t testing.TB, id, data string, modules ...string) {
	t.Helper()
	activate(t, w.with, revision(t, id, data, modules...))
	activate(t, w.without, revision(t, id, data, modules...))
}

// ask lets both decide and compares.
func (w *twins) ask(t testing.TB, in *authz.Input) {
	t.Helper()
	want, got := decide(t, w.without, in), decide(t, w.with, in)
	if got.Cached {
		w.hits++
		if got.Fault != nil {
			t.Errorf("cached decision has fault %v", got.Fault)
		}
	}
	if want.Cached {
		t.Error("a decision of a cache that is off")
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(authz.Decision{}, "Cached")); diff != "" {
		t.Fatalf("cached decision differs: %s\ninput: %s", diff, inputJSON(t, in))
	}
}

// perField are the members of the document that a key can have. For each there is
// a policy that shows the value or its absence, and one that shows its presence.
var perField = []string{
	"version", "request.method", "request.scheme", "request.host", "request.port", "request.path", "request.segments", "request.query",
	"request.query.a", "request.raw_query", "request.headers", "request.headers.accept", `request.headers["x-tenant"]`, "request.protocol",
	"request.content_length", "request.content_type", "source.ip", "source.forwarded_for", "tls.version", "tls.cipher", "tls.server_name",
	"tls.client_certificate", "tls.client_certificate.spiffe_id", "tls", "identity", "identity.authenticated", "identity.authenticator",
	"identity.kind", "identity.subject", "identity.issuer", "identity.audiences", "identity.scopes", "identity.claims", "identity.claims.roles",
	"identity.claims.n", "identity.token", "identity.token.header.alg", "identity.expires_at", "identity.actor", "identity.actor.sub",
	"route", "route.name", "route.params", "route.params.id", "route.upstream", "route.labels", "route.labels.header", "gateway", "gateway.name",
	"gateway.version", "gateway.listener", "gateway.labels", "gateway.labels.zone",
}

func cachePolicies() map[string]string {
	all := maps.Clone(decisionPolicies)
	for _, field := range perField {
		all["value of "+field] = fmt.Sprintf(`decision := {"allow": true, "reason": json.marshal([x | x := input.%s])}`, field)
		all["presence of "+field] = fmt.Sprintf(`decision := {"allow": true, "reason": json.marshal([1 | x := input.%s])}`, field)
	}
	all["several"] = `decision := {"allow": true, "reason": json.marshal([[x | x := input.request.method], [x | x := input.request.path], ` +
		`[x | x := input.request.headers["x-tenant"]], [x | x := input.request.headers.accept], [x | x := input.identity.subject], ` +
		`[x | x := input.identity.claims.roles], [x | x := input.tls.version], [x | x := input.route.params.id]])}`
	return all
}

// A decision from the cache is the one that the policy would make: for requests
// and ones that differ from them in one field, over time and over activations.
func TestCachedDecidesLikeUncached(t *testing.T) {
	policies := cachePolicies()
	names := slices.Sorted(maps.Keys(policies))
	r := rand.New(rand.NewPCG(3, 4))
	hits := 0
	for i, name := range names {
		t.Run(name, func(t *testing.T) {
			w := newTwins(t)
			other := policies[names[(i+1)%len(names)]]
			for range 2 {
				w.activate(t, "one", `{"readers": ["reader"]}`, policyText(policies[name]))
				askAround(t, r, w)
				w.activate(t, "one", `{"readers": ["writer"]}`, policyText(policies[name]))
				askAround(t, r, w)
				w.activate(t, "two", `{"readers": []}`, policyText(other))
				askAround(t, r, w)
			}
			hits += w.hits
		})
	}
	if t.Logf("%d hits", hits); hits < 100*len(names) {
		t.Error("the cache was hardly used")
	}
}

// askAround asks for random requests and their neighbours.
func askAround(t *testing.T, r *rand.Rand, w *twins) {
	for range 8 {
		in := anyInput(r)
		if in.Identity != nil && r.IntN(2) == 0 {
			in.Identity.ExpiresAt = w.clock.Now().Add(time.Duration(r.IntN(5)-1) * time.Second)
		}
		w.ask(t, in)
		w.ask(t, in)
		for range 12 {
			w.ask(t, neighbour(r, in))
		}
		w.ask(t, in)
		w.clock.advance(time.Duration(r.IntN(1000)) * time.Millisecond)
		w.ask(t, in)
	}
}

// Every member that can be in a key is cached, and a field of the input that no
// key knows keeps the policy that reads it out of the cache.
func TestWhatIsCached(t *testing.T) {
	for _, field := range perField {
		checkCached(t, fmt.Sprintf(`decision := {"allow": true, "reason": json.marshal([x | x := input.%s])}`, field))
	}
	for policy, why := range map[string][]string{
		`decision := true if input.request.id`:                                                       {"input.request.id"},
		`decision := true if input.request.time`:                                                     {"input.request.time"},
		`decision := true if input.source.port`:                                                      {"input.source.port"},
		`decision := true if input.source`:                                                           {"input.source.port"},
		`decision := true if not input.request.body.x`:                                               {"input.request.body"},
		`decision := true if not input.request.raw_body`:                                             {"input.request.raw_body"},
		`decision := true if not input.request.body_truncated`:                                       {"input.request.body_truncated"},
		`decision := true if not input.request.body_error`:                                           {"input.request.body_error"},
		`decision := true if { x := input.request.time }`:                                            {"input.request.time"},
		`decision := true if time.now_ns() > 0`:                                                      {"time.now_ns"},
		`decision := true if f(input.request.path)` + "\n\n" + `f(_) if rand.intn("x", 3) >= 0`:      {"rand.intn"},
		`decision := true if { some f in ["id", "path"]; input.request[f] }`:                         {"input.request.id", "input.request.body", "input.request.raw_body", "input.request.body_truncated", "input.request.body_error", "input.request.time"},
		`decision := true if not io.jwt.decode_verify("x", {})[0]`:                                   {"io.jwt.decode_verify"},
		`decision := true if not crypto.x509.parse_and_verify_certificates("x")[0]`:                  {"crypto.x509.parse_and_verify_certificates"},
		`decision := true if not crypto.x509.parse_and_verify_certificates_with_options("x", {})[0]`: {"crypto.x509.parse_and_verify_certificates_with_options"},
		`decision := true if uuid.rfc4122(input.request.path)`:                                       {"uuid.rfc4122"},
		`decision := true if json.match_schema({}, {})[0]`:                                           {"json.match_schema"},
		`decision := true if test.wait("x")`:                                                         {"test.wait"},
	} {
		checkCached(t, policy, why...)
	}
}

func checkCached(t *testing.T, policy string, why ...string) {
	t.Helper()
	e := cached(t, newClock(), nil)
	activate(t, e, revision(t, "one", `{}`, policyText(policy)))
	in := fullInput()
	in.Request.Body = &body{data: []byte("{}")}
	first, second := decide(t, e, in), decide(t, e, in)
	if first.Cached || second.Cached != (len(why) == 0) {
		t.Errorf("%s: first decision cached %v, second %v (fault %v)", policy, first.Cached, second.Cached, second.Fault)
	}
	x, err := e.Explain(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(why, x.Uncached, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("%s: what keeps it out of the cache: %s", policy, diff)
	}
	if x.Decision.Cached {
		t.Error("an explanation is of a cached decision")
	}
}

const tenants = `package gateway

decision := {"allow": true, "reason": input.request.path}
`

func TestEntryEndsWithTheCredential(t *testing.T) {
	for _, tc := range []struct {
		name    string
		expires time.Duration // 0: never
		after   time.Duration
		want    bool
	}{
		{"just asked", 10 * time.Second, 0, true},
		{"just before the token ends", 10 * time.Second, 10*time.Second - 1, true},
		{"when it ends", 10 * time.Second, 10 * time.Second, false},
		{"later", 10 * time.Second, time.Minute, false},
		{"no end, young", 0, 5*time.Minute - 1, true},
		{"no end, old", 0, 5 * time.Minute, false},
		{"end after the maximum age", time.Hour, 5 * time.Minute, false},
		{"end in another era", 1 << 62, time.Second, true},
		{"over", -time.Second, 0, false},
	} {
		c := newClock()
		e := cached(t, c, nil)
		activate(t, e, revision(t, "one", `{}`, tenants))
		in := order()
		in.Identity.ExpiresAt = time.Time{}
		if tc.expires != 0 {
			in.Identity.ExpiresAt = c.Now().Add(tc.expires)
		}
		decide(t, e, in)
		c.advance(tc.after)
		if d := decide(t, e, in); d.Cached != tc.want {
			t.Errorf("%s: cached %v", tc.name, d.Cached)
		}
	}
}

// An expired token gets nothing from the cache, also not what a token that is good
// for longer left there.
func TestNoEntryForAnExpiredToken(t *testing.T) {
	c := newClock()
	e := cached(t, c, nil)
	activate(t, e, revision(t, "one", `{}`, tenants))
	long, short := order(), order()
	long.Identity.ExpiresAt, short.Identity.ExpiresAt = c.Now().Add(time.Minute), c.Now().Add(time.Second)
	decide(t, e, long)
	if !decide(t, e, short).Cached {
		t.Error("the same to the policy, but not found")
	}
	c.advance(time.Second)
	if decide(t, e, short).Cached || !decide(t, e, long).Cached {
		t.Error("the cache answered for a token that is over, or not for the one that is good")
	}
}

// What a token left in the cache goes with it, also for those that are good for
// longer.
func TestEntryGoesWithTheTokenThatMadeIt(t *testing.T) {
	c := newClock()
	e := cached(t, c, nil)
	activate(t, e, revision(t, "one", `{}`, tenants))
	long, short := order(), order()
	long.Identity.ExpiresAt, short.Identity.ExpiresAt = c.Now().Add(time.Minute), c.Now().Add(time.Second)
	decide(t, e, short)
	if !decide(t, e, long).Cached {
		t.Error("the same to the policy, but not found")
	}
	c.advance(time.Second)
	if decide(t, e, long).Cached {
		t.Error("an entry outlived the token that made it")
	}
}

func TestWhatIsNeverKept(t *testing.T) {
	for name, policy := range map[string]string{
		"undefined":          `decision := true if input.request.path == ""`,
		"wrong type":         `decision := "yes" if input.request.path`,
		"unknown member":     `decision := {"allow": true, "alow": input.request.path}`,
		"bad obligation":     `decision := {"allow": true, "rate_limit": {"key": input.request.path, "rate": "1/y"}}`,
		"conflict":           "decision := true if input.request.path\n\ndecision := false if input.request.method",
		"failing built-in":   "default decision := false\n\ndecision := true if to_number(input.request.path) == 1",
		"panicking built-in": `decision := true if test.panic(input.request.path)`,
	} {
		e := cached(t, newClock(), nil)
		activate(t, e, revision(t, "one", `{}`, policyText(policy)))
		decide(t, e, order())
		if d := decide(t, e, order()); d.Cached {
			t.Errorf("%s: %+v is cached", name, d)
		}
	}
}

// What this gateway cannot carry out is asked anew: another one may.
func TestUnsupportedIsNeverKept(t *testing.T) {
	e := cached(t, newClock(), func(_ *engine.Config, deps *engine.Deps) {
		deps.Supported = func(*authz.Decision) error { return errors.New("not here") }
	})
	activate(t, e, revision(t, "one", `{}`, policyText(`decision := {"allow": true, "reason": input.request.path}`)))
	decide(t, e, order())
	if d := decide(t, e, order()); d.Cached || d.Fault == nil {
		t.Errorf("%+v is cached", d)
	}
}

func TestRouteWithoutCache(t *testing.T) {
	e := cached(t, newClock(), nil)
	activate(t, e, revision(t, "one", `{}`, tenants))
	in := order()
	in.Route.Uncached = true
	decide(t, e, in)
	if decide(t, e, in).Cached {
		t.Error("cached although the route says no")
	}
	decide(t, e, order())
	if !decide(t, e, order()).Cached || decide(t, e, in).Cached {
		t.Error("another route's decision is not cached, or serves this one")
	}
}

// Entrypoints share a cache, not their decisions.
func TestEntrypointsAreKeptApart(t *testing.T) {
	e := cached(t, newClock(), nil)
	if err := e.Require("gateway/other"); err != nil {
		t.Fatal(err)
	}
	activate(t, e, revision(t, "one", `{}`, "package gateway\n\ndecision := {\"allow\": true, \"reason\": \"one\"}\n\nother := {\"reason\": \"two\"}"))
	for range 2 {
		for entrypoint, want := range map[string]string{"": "one", "gateway/other": "two"} {
			in := order()
			in.Route.Entrypoint = entrypoint
			if d := decide(t, e, in); d.Reason != want {
				t.Errorf("%q: %q", entrypoint, d.Reason)
			}
		}
	}
}

// What one entrypoint reads of an identity is not what another one reads of it.
func TestEntrypointsReadIdentitiesEachTheirOwnWay(t *testing.T) {
	e := cached(t, newClock(), nil)
	if err := e.Require("gateway/other"); err != nil {
		t.Fatal(err)
	}
	activate(t, e, revision(t, "one", `{}`, "package gateway\n\ndecision := {\"allow\": true, \"reason\": input.identity.claims.a}\n\n"+
		"other := {\"allow\": true, \"reason\": input.identity.claims.b}"))
	for _, b := range []string{"b1", "b2"} {
		in := order()
		in.Identity = &authz.Identity{Subject: "alice", Claims: map[string]any{"a": "a", "b": b}}
		for _, entrypoint := range []string{"", "gateway/other", ""} {
			want := "a"
			if in.Route.Entrypoint = entrypoint; entrypoint != "" {
				want = b
			}
			if d := decide(t, e, in); d.Reason != want {
				t.Errorf("%q of a and %s: %q", entrypoint, b, d.Reason)
			}
		}
	}
}

// Two activations with one id are two policies.
func TestActivationBeginsAnew(t *testing.T) {
	e := cached(t, newClock(), nil)
	for i := range 3 {
		activate(t, e, revision(t, "same", fmt.Sprintf(`{"v": "%d"}`, i), "package gateway\n\ndecision := {\"allow\": true, \"reason\": data.v}"))
		for range 2 {
			if d := decide(t, e, order()); d.Reason != fmt.Sprint(i) {
				t.Errorf("decision %q of activation %d", d.Reason, i)
			}
		}
	}
	e.Withdraw("test")
	if d, err := e.Decide(t.Context(), order()); err == nil {
		t.Errorf("decision %+v without a policy", d)
	}
}

// While revisions come and go, no decision mixes two of them.
func TestCacheWhileActivating(t *testing.T) {
	e := cached(t, newClock(), func(cfg *engine.Config, _ *engine.Deps) { cfg.DecisionCache.Entries = 20 })
	next := func(i int) {
		id := fmt.Sprint(i)
		activate(t, e, revision(t, id, `{"v": "`+id+`"}`, "package gateway\n\ndecision := {\"allow\": true, \"reason\": sprintf(\"%s %s\", [data.v, input.request.path])}"))
	}
	next(0)
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for g := range 4 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(g), 9))
			for {
				select {
				case <-stop:
					return
				default:
				}
				in := order()
				in.Request.Path = fmt.Sprint("/", r.IntN(40))
				d, err := e.Decide(t.Context(), in)
				if err != nil || d.Reason != d.Revision+" "+in.Request.Path || d.Bundles["app"] != d.Revision {
					t.Errorf("decision %+v for %s, error %v", d, in.Request.Path, err)
					return
				}
			}
		})
	}
	for i := range 40 {
		next(i + 1)
		if err := e.Require("gateway/decision"); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	wg.Wait()
}

func TestCacheIsCounted(t *testing.T) {
	metrics := meter.New()
	e := cached(t, newClock(), func(cfg *engine.Config, deps *engine.Deps) {
		deps.Metrics = metrics
		cfg.DecisionCache.Entries = 1
	})
	activate(t, e, revision(t, "one", `{}`, tenants))
	other, off, large := order(), order(), order()
	other.Request.Path, off.Route.Uncached, large.Request.Path = "/other", true, "/"+strings.Repeat("x", 1<<15)
	for _, in := range []*authz.Input{order(), order(), other, off, large, large, order()} {
		decide(t, e, in)
	}
	want := map[string]int64{
		"sallyport.decision_cache.lookups result=hit": 1, "sallyport.decision_cache.lookups result=miss": 3,
		"sallyport.decision_cache.lookups result=off": 3, "sallyport.decision_cache.evictions ": 2,
	}
	got := metertest.Counts(metrics)
	maps.DeleteFunc(got, func(name string, _ int64) bool { return !strings.HasPrefix(name, "sallyport.decision_cache") })
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// An identity that no document can hold stays an error beside ones that can.
func TestBrokenIdentityIsNotInTheCache(t *testing.T) {
	e := cached(t, newClock(), nil)
	activate(t, e, revision(t, "one", `{}`, policyText(`decision := true if not input.identity.claims.blocked`)))
	in := order()
	in.Identity = &authz.Identity{Claims: map[string]any{"x": json.Number("1e999999999999")}}
	for _, good := range []*authz.Identity{{}, nil, {Claims: map[string]any{}}} {
		if d, err := e.Decide(t.Context(), in); err == nil {
			t.Errorf("decision %+v", d)
		}
		other := order()
		other.Identity = good
		decide(t, e, other)
	}
}

// Each part of a key, and the headers, are told from what comes after them: without
// that, these would write the same bytes.
func TestPartsOfAKeyEnd(t *testing.T) {
	w := newTwins(t)
	w.activate(t, "one", `{}`, policyText(`decision := {"allow": true, "reason": json.marshal([[x | x := input.request.headers["x-a"]], `+
		`[x | x := input.request.content_type], [x | x := input.source.ip]])}`))
	left, right := order(), order()
	left.Request.ContentType, left.Source.IP = "ab", "c"
	right.Request.ContentType, right.Source.IP = "a", "bc"
	w.ask(t, left)
	w.ask(t, right)
	a, b := order(), order()
	a.Request.Headers, a.Request.ContentType, a.Source.IP = []authz.Header{{Name: "x-a", Value: "\x02"}}, "", ""
	b.Request.Headers, b.Request.ContentType, b.Source.IP = nil, "\x01", "\x00\x00"
	for range 2 {
		w.ask(t, a)
		w.ask(t, b)
	}
	if w.hits != 2 {
		t.Errorf("%d hits", w.hits)
	}
}

// FuzzCache moves text between neighbouring parts of a key.
func FuzzCache(f *testing.F) {
	f.Add("GET", "/a", "t", "x", "GET/", "a", "tx", "")
	f.Add("", "\x00", "\x01", "\x00\x01", "\x00", "", "\x00\x01", "\x01")
	f.Add("a", "b", "c", "d", "a", "b", "d", "c")
	w := newTwins(f)
	w.activate(f, "one", `{}`, policyText(cachePolicies()["several"]))
	f.Fuzz(func(t *testing.T, a, b, c, d, e, g, h, i string) {
		w.ask(t, fuzzed(a, b, c, d))
		w.ask(t, fuzzed(e, g, h, i))
		w.ask(t, fuzzed(b, a, d, c))
	})
}

func fuzzed(a, b, c, d string) *authz.Input {
	in := order(c, d)
	in.Request.Method, in.Request.Path, in.Identity.Subject = a, b, c
	in.Request.Headers = []authz.Header{{Name: "x-tenant", Value: c}, {Name: "accept", Value: d}, {Name: b, Value: a}}
	if d != "" {
		in.Route.Params = map[string]string{d: a, "id": b}
	}
	return in
}

// A member that is empty is not one that is absent, and a claim is part of the key.
func TestDefinednessIsInTheKey(t *testing.T) {
	w := newTwins(t)
	w.activate(t, "one", `{}`, policyText(`decision := {"allow": true, "reason": json.marshal([[x | x := input.route.params.id], [x | x := input.identity.claims.roles]])}`))
	for _, params := range []map[string]string{nil, {"id": ""}, {"id": "1"}} {
		for _, claims := range []map[string]any{nil, {}, {"roles": ""}, {"roles": []any{}}, {"roles": []any{"a"}}, {"roles": "a"}} {
			in := order()
			in.Route.Params, in.Identity = params, &authz.Identity{Claims: claims}
			w.ask(t, in)
		}
	}
}
