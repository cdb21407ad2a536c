package jwt

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/engine/meter"
	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/jose"
	"github.com/sallyport/sallyport/proxy/authn/jose/josetest"
)

func (c *cache) len() (n int) {
	for i := range c.shards {
		n += len(c.shards[i].entries)
	}
	return n
}

func TestCacheIsBounded(t *testing.T) {
	for _, size := range []int{1, 10, 64, 1000} {
		c := newCache(size, 1<<30)
		for i := range 10 * size {
			c.put(&entry{token: fmt.Sprint(i), until: testNow.Add(time.Minute), key: &jose.Key{}, identity: &authz.Identity{}})
		}
		if n := c.len(); n > size || n < size/2 {
			t.Errorf("size %d: %d entries", size, n)
		}
		for i := range c.shards {
			if s := &c.shards[i]; len(s.ring) != len(s.entries) {
				t.Errorf("size %d: %d in the ring of shard %d, %d in its map", size, len(s.ring), i, len(s.entries))
			}
		}
	}
}

func TestCacheIsBoundedInBytes(t *testing.T) {
	const limit = 1 << 20
	c := newCache(1<<20, limit)
	for i := range 5000 {
		token := fmt.Sprint(i, strings.Repeat("x", i))
		c.put(&entry{token: token, until: testNow.Add(time.Minute), key: &jose.Key{}, identity: &authz.Identity{}})
		c.put(&entry{token: token, until: testNow.Add(time.Minute), key: &jose.Key{}, identity: &authz.Identity{}}) // again
	}
	total := 0
	for i := range c.shards {
		s, sum := &c.shards[i], 0
		for j, e := range s.ring {
			if sum += e.size; e.slot != j || s.entries[e.hash] != e {
				t.Fatalf("entry %d of shard %d is not where it says", j, i)
			}
		}
		if total += sum; sum != s.bytes || sum > s.maxBytes || len(s.ring) != len(s.entries) {
			t.Errorf("shard %d has %d bytes in %d entries, counts %d, may have %d", i, sum, len(s.ring), s.bytes, s.maxBytes)
		}
	}
	if total > limit || total < limit/4 {
		t.Errorf("%d bytes of %d", total, limit)
	}
	huge := strings.Repeat("x", limit)
	c.put(&entry{token: huge, until: testNow.Add(time.Minute), key: &jose.Key{}, identity: &authz.Identity{}})
	if c.get(huge, c.hash(huge), testNow) != nil {
		t.Error("one entry is larger than a shard may be")
	}
}

// The smallest cache that can be configured keeps the longest token.
func TestSmallestCacheKeepsTheLongestToken(t *testing.T) {
	c := newCache(65536, int(minCacheBytes))
	longest := strings.Repeat("x", jose.MaxToken)
	c.put(&entry{token: longest, until: testNow.Add(time.Minute), key: &jose.Key{}, identity: &authz.Identity{}})
	if c.get(longest, c.hash(longest), testNow) == nil {
		t.Error("the longest token is verified each time")
	}
}

// What is counted is not less than what the cache holds of a token: the rest is for
// what others make of the identity.
func TestCacheCountsWhatTokensTake(t *testing.T) {
	k := josetest.New(t, "k1", "ES256")
	roles := make([]string, 200)
	for i := range roles {
		roles[i] = fmt.Sprint("role-", i)
	}
	for name, more := range map[string]map[string]any{
		"usual": {"name": "Alice", "email": "alice@example.com", "roles": []string{"reader"}},
		"roles": {"roles": roles},
	} {
		a := newFromFile(t, nil, k)
		tokens := make([]string, 300)
		for i := range tokens {
			more["jti"] = fmt.Sprint("token-", i)
			tokens[i] = k.Sign(t, k.Header(), claims(testIssuer, more))
		}
		if _, err := present(t, a, tokens[0]); err != nil {
			t.Fatal(err)
		}
		before := heap()
		for _, token := range tokens {
			if _, err := present(t, a, token); err != nil {
				t.Fatal(err)
			}
		}
		taken, counted := heap()-before, 0
		for i := range a.cache.shards {
			counted += a.cache.shards[i].bytes
		}
		if t.Logf("%s: %d bytes taken, %d counted", name, taken, counted); taken > counted {
			t.Errorf("%s: %d bytes are taken and %d counted", name, taken, counted)
		}
		runtime.KeepAlive(tokens)
	}
}

// heap is what is live.
func heap() int {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// TestCacheKeepsWhatIsUsed: tokens in use stay when others come only once.
func TestCacheKeepsWhatIsUsed(t *testing.T) {
	c := newCache(1024, 1<<30)
	used := make([]string, 100)
	for i := range used {
		used[i] = fmt.Sprintf("used-%d", i)
		c.put(&entry{token: used[i], until: testNow.Add(time.Minute), key: &jose.Key{}, identity: &authz.Identity{}})
	}
	for i := range 10000 {
		for _, token := range used {
			c.get(token, c.hash(token), testNow)
		}
		c.put(&entry{token: fmt.Sprintf("once-%d", i), until: testNow.Add(time.Minute), key: &jose.Key{}, identity: &authz.Identity{}})
	}
	kept := 0
	for _, token := range used {
		if c.get(token, c.hash(token), testNow) != nil {
			kept++
		}
	}
	if kept < 95 {
		t.Errorf("%d of 100 tokens in use are still there", kept)
	}
}

// TestCacheComparesTheToken: the hash only finds the place.
func TestCacheComparesTheToken(t *testing.T) {
	c := newCache(64, 1<<30)
	const mine, other = "mine", "other"
	h := c.hash(other)
	c.shard(h).put(&entry{token: mine, hash: h, until: testNow.Add(time.Minute), key: &jose.Key{}, identity: &authz.Identity{}})
	if c.get(other, h, testNow) != nil {
		t.Error("a token got the identity of another with the same hash")
	}
}

// TestCacheEnds: an entry ends with the token, to the same moment as a first look.
func TestCacheEnds(t *testing.T) {
	k := josetest.New(t, "k1", "ES256")
	for _, warm := range []bool{false, true} {
		for _, leeway := range []time.Duration{0, 30 * time.Second} {
			a := newFromFile(t, func(c *Config) { c.Leeway = leeway }, k)
			token := k.Sign(t, k.Header(), claims(testIssuer, map[string]any{"exp": testNow.Add(time.Minute).Unix()}))
			if warm {
				if _, err := present(t, a, token); err != nil {
					t.Fatal(err)
				}
			}
			end := testNow.Add(time.Minute + leeway)
			if _, err := presentAt(t, a, token, end.Add(-time.Second)); err != nil {
				t.Errorf("cached %v, leeway %s: a second before the end: %v", warm, leeway, err)
			}
			if _, err := presentAt(t, a, token, end); !errors.Is(err, authn.ErrInvalid) {
				t.Errorf("cached %v, leeway %s: at the end: got %v, want ErrInvalid", warm, leeway, err)
			}
		}
	}
}

// TestCacheOwnsItsTokens: the request's text may be a connection's buffer.
func TestCacheOwnsItsTokens(t *testing.T) {
	c := newCache(64, 1<<30)
	buffer := strings.Repeat("x", 100)
	c.put(&entry{token: buffer, until: testNow.Add(time.Minute), key: &jose.Key{}, identity: &authz.Identity{}})
	for i := range c.shards {
		for _, e := range c.shards[i].entries {
			if sameMemory(e.token, buffer) {
				t.Error("the cache keeps the request's memory")
			}
		}
	}
	if c.len() != 1 {
		t.Errorf("%d entries, want 1", c.len())
	}
}

func sameMemory(a, b string) bool { return unsafe.StringData(a) == unsafe.StringData(b) }

func TestCacheConcurrently(t *testing.T) {
	c := newCache(128, 1<<30)
	var group sync.WaitGroup
	for g := range 8 {
		group.Go(func() {
			for i := range 2000 {
				token := fmt.Sprint((i * (g + 1)) % 300)
				if e := c.get(token, c.hash(token), testNow); e != nil && e.identity.Subject != token {
					t.Errorf("token %s is of %s", token, e.identity.Subject)
				}
				c.put(&entry{token: token, until: testNow.Add(time.Minute), key: &jose.Key{}, identity: &authz.Identity{Subject: token}})
			}
		})
	}
	group.Wait()
	if n := c.len(); n > 128 {
		t.Errorf("%d entries", n)
	}
}

// TestForeignTokensStay: a quarter of the tokens that there is room for, in turn, hardly
// drive each other out.
func TestForeignTokensStay(t *testing.T) {
	f, missed := newForeign(4096), 0
	tokens := make([]string, 1024)
	for i := range tokens {
		tokens[i] = fmt.Sprint("token-", i)
	}
	for round := range 10 {
		for _, token := range tokens {
			h := authn.Hash(token)
			if round > 4 && !f.has(token, h) {
				missed++
			}
			f.add(token, h)
		}
	}
	if share := float64(missed) / float64(5*len(tokens)); share > 0.05 {
		t.Errorf("%.0f %% of the looks were in vain", 100*share)
	}
}

// TestForeignTokensAreToldApart: neither the hash alone nor the end and length alone make
// two tokens one, and what is too short to be told apart is not remembered.
func TestForeignTokensAreToldApart(t *testing.T) {
	f := newForeign(64)
	f.add("token-of-somebody", 42)
	for _, tc := range []struct {
		token string
		hash  uint64
		want  bool
	}{
		{"token-of-somebody", 42, true},
		{"token-of-everybody", 42, false},
		{"a-token-of-somebody", 42, false},
		{"token-of-somebody", 43, false},
		{"token-of-somebody", 42 + f.sets, false},
	} {
		if got := f.has(tc.token, tc.hash); got != tc.want {
			t.Errorf("%s with hash %d: %v, want %v", tc.token, tc.hash, got, tc.want)
		}
	}
	if f.add("short", 7); f.has("short", 7) || f.has("", 7) || f.has("", 0) {
		t.Error("what has no mark is somebody's")
	}
}

// TestForeignIsRemembered: the answer to a token of another issuer is the same
// the second time, and to no other token.
func TestForeignIsRemembered(t *testing.T) {
	k := josetest.New(t, "k1", "ES256")
	a := newFromFile(t, nil, k)
	token := k.Sign(t, k.Header(), claims("https://other.example", nil))
	for range 2 {
		if _, err := present(t, a, token); !errors.Is(err, authn.ErrForeign) {
			t.Errorf("got %v, want ErrForeign", err)
		}
	}
	if h := a.cache.hash(token); !a.foreign.has(token, h) || a.foreign.has(token+"x", h) {
		t.Error("the token is not remembered, or another is")
	}
	if _, err := present(t, a, k.Sign(t, k.Header(), claims(testIssuer, nil))); err != nil {
		t.Errorf("our issuer's token: %v", err)
	}
}

// chainOf returns a route's chain of n issuers that counts. The last one is the
// issuer of k's tokens.
func chainOf(t testing.TB, n int, k *josetest.Signer) *authn.Chain {
	t.Helper()
	var links []authn.Named
	for i := range n - 1 {
		other := newFromFile(t, func(c *Config) { c.Issuer = fmt.Sprintf("https://other-%d.example", i) }, k)
		links = append(links, authn.Named{Name: fmt.Sprint("other-", i), Authenticator: other})
	}
	links = append(links, authn.Named{Name: "corp", Authenticator: newFromFile(t, nil, k)})
	chain, err := authn.New(links, meter.New())
	if err != nil {
		t.Fatal(err)
	}
	return chain
}

// TestAllocations pins the paths that most requests take.
func TestAllocations(t *testing.T) {
	k := josetest.New(t, "k1", "ES256")
	r := &authn.Request{Authorization: "Bearer " + k.Sign(t, k.Header(), claims(testIssuer, nil)), Now: testNow}
	for name, x := range map[string]authn.Authenticator{
		"jwt": newFromFile(t, nil, k), "one issuer": chainOf(t, 1, k), "two issuers": chainOf(t, 2, k), "three issuers": chainOf(t, 3, k),
	} {
		allocs := testing.AllocsPerRun(100, func() {
			*r = authn.Request{Authorization: r.Authorization, Now: testNow}
			if _, err := x.Authenticate(t.Context(), r); err != nil {
				t.Error(err)
			}
		})
		if allocs != 0 {
			t.Errorf("%s: %v allocations for a cached token, want 0", name, allocs)
		}
	}
}

// BenchmarkChain is what further issuers in front cost a cached token. There are so many
// tokens that one is in no processor's cache when it comes again.
func BenchmarkChain(b *testing.B) {
	k := josetest.New(b, "k1", "ES256")
	requests := make([]authn.Request, 4000)
	for i := range requests {
		token := k.Sign(b, k.Header(), claims(testIssuer, map[string]any{"sub": fmt.Sprint(i), "padding": strings.Repeat("x", 400)}))
		requests[i] = authn.Request{Authorization: "Bearer " + token, Now: testNow}
	}
	for n := 1; n <= 3; n++ {
		chain := chainOf(b, n, k)
		for i := range requests { // each is verified once
			if _, err := chain.Authenticate(b.Context(), &requests[i]); err != nil {
				b.Fatal(err)
			}
		}
		b.Run(fmt.Sprint(n, " issuers"), func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				r := &requests[i%len(requests)]
				*r = authn.Request{Authorization: r.Authorization, Now: testNow} // as each request begins
				if _, err := chain.Authenticate(b.Context(), r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkAuthenticate(b *testing.B) {
	k := josetest.New(b, "k1", "RS256")
	a := newFromFile(b, nil, k)
	requests := make([]*authn.Request, 1000)
	for i := range requests {
		token := k.Sign(b, k.Header(), claims(testIssuer, map[string]any{"sub": fmt.Sprint(i), "padding": strings.Repeat("x", 300)}))
		requests[i] = &authn.Request{Authorization: "Bearer " + token, Now: testNow}
		if _, err := a.Authenticate(b.Context(), requests[i]); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("cached", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			_, _ = a.Authenticate(b.Context(), requests[i%len(requests)])
		}
	})
	chain, err := authn.New([]authn.Named{{Name: "corp", Authenticator: a}},
		meter.New())
	if err != nil {
		b.Fatal(err)
	}
	b.Run("cached, through a chain that counts", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			_, _ = chain.Authenticate(b.Context(), requests[i%len(requests)])
		}
	})
	b.Run("first", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			token := requests[i%len(requests)].Authorization[len("Bearer "):]
			_, _ = a.verify(b.Context(), presented{token: token, text: token}, "", testNow)
		}
	})
}
