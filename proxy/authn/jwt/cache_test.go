package jwt

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/engine/meter"
	"github.com/sallyport/sallyport/proxy/authn"
)

func (c *cache) len() (n int) {
	for i := range c.shards {
		n += len(c.shards[i].entries)
	}
	return n
}

func TestCacheIsBounded(t *testing.T) {
	for _, size := range []int{1, 10, 64, 1000} {
		c := newCache(size)
		for i := range 10 * size {
			c.put(&entry{token: fmt.Sprint(i), until: testNow.Add(time.Minute), key: &key{}, identity: &authz.Identity{}})
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

// TestCacheKeepsWhatIsUsed: tokens in use stay when others come only once.
func TestCacheKeepsWhatIsUsed(t *testing.T) {
	c := newCache(1024)
	used := make([]string, 100)
	for i := range used {
		used[i] = fmt.Sprintf("used-%d", i)
		c.put(&entry{token: used[i], until: testNow.Add(time.Minute), key: &key{}, identity: &authz.Identity{}})
	}
	for i := range 10000 {
		for _, token := range used {
			c.get(token, c.hash(token), testNow)
		}
		c.put(&entry{token: fmt.Sprintf("once-%d", i), until: testNow.Add(time.Minute), key: &key{}, identity: &authz.Identity{}})
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
	c := newCache(64)
	const mine, other = "mine", "other"
	h := c.hash(other)
	c.shard(h).put(&entry{token: mine, hash: h, until: testNow.Add(time.Minute), key: &key{}, identity: &authz.Identity{}})
	if c.get(other, h, testNow) != nil {
		t.Error("a token got the identity of another with the same hash")
	}
}

// TestCacheEnds: an entry ends with the token, to the same moment as a first look.
func TestCacheEnds(t *testing.T) {
	k := newSigner(t, "k1", "ES256")
	for _, warm := range []bool{false, true} {
		for _, leeway := range []time.Duration{0, 30 * time.Second} {
			a := newFromFile(t, func(c *Config) { c.Leeway = leeway }, k)
			token := k.sign(t, k.header(), claims(testIssuer, map[string]any{"exp": testNow.Add(time.Minute).Unix()}))
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
	c, f := newCache(64), &foreign{}
	buffer := strings.Repeat("x", 100)
	c.put(&entry{token: buffer, until: testNow.Add(time.Minute), key: &key{}, identity: &authz.Identity{}})
	f.add(buffer, c.hash(buffer))
	for i := range c.shards {
		for _, e := range c.shards[i].entries {
			if sameMemory(e.token, buffer) {
				t.Error("the cache keeps the request's memory")
			}
		}
	}
	if sameMemory(*f.slot(c.hash(buffer)).Load(), buffer) {
		t.Error("the foreign tokens keep the request's memory")
	}
}

func sameMemory(a, b string) bool { return unsafe.StringData(a) == unsafe.StringData(b) }

func TestCacheConcurrently(t *testing.T) {
	c := newCache(128)
	var group sync.WaitGroup
	for g := range 8 {
		group.Go(func() {
			for i := range 2000 {
				token := fmt.Sprint((i * (g + 1)) % 300)
				if e := c.get(token, c.hash(token), testNow); e != nil && e.identity.Subject != token {
					t.Errorf("token %s is of %s", token, e.identity.Subject)
				}
				c.put(&entry{token: token, until: testNow.Add(time.Minute), key: &key{}, identity: &authz.Identity{Subject: token}})
			}
		})
	}
	group.Wait()
	if n := c.len(); n > 128 {
		t.Errorf("%d entries", n)
	}
}

// TestForeignIsRemembered: the answer to a token of another issuer is the same
// the second time, and to no other token.
func TestForeignIsRemembered(t *testing.T) {
	k := newSigner(t, "k1", "ES256")
	a := newFromFile(t, nil, k)
	token := k.sign(t, k.header(), claims("https://other.example", nil))
	for range 2 {
		if _, err := present(t, a, token); !errors.Is(err, authn.ErrForeign) {
			t.Errorf("got %v, want ErrForeign", err)
		}
	}
	if h := a.cache.hash(token); !a.foreign.has(token, h) || a.foreign.has(token+"x", h) {
		t.Error("the token is not remembered, or another is")
	}
	if _, err := present(t, a, k.sign(t, k.header(), claims(testIssuer, nil))); err != nil {
		t.Errorf("our issuer's token: %v", err)
	}
}

// chainOf returns a route's chain of n issuers that counts. The last one is the
// issuer of k's tokens.
func chainOf(t testing.TB, n int, k *signer) *authn.Chain {
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
	k := newSigner(t, "k1", "ES256")
	r := &authn.Request{Authorization: "Bearer " + k.sign(t, k.header(), claims(testIssuer, nil)), Now: testNow}
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

// BenchmarkChain is what further issuers in front cost a cached token.
func BenchmarkChain(b *testing.B) {
	k := newSigner(b, "k1", "RS256")
	r := &authn.Request{Authorization: "Bearer " + k.sign(b, k.header(), claims(testIssuer, map[string]any{"padding": strings.Repeat("x", 300)})), Now: testNow}
	for n := 1; n <= 3; n++ {
		chain := chainOf(b, n, k)
		b.Run(fmt.Sprint(n, " issuers"), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				*r = authn.Request{Authorization: r.Authorization, Now: testNow} // as each request begins
				if _, err := chain.Authenticate(b.Context(), r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkAuthenticate(b *testing.B) {
	k := newSigner(b, "k1", "RS256")
	a := newFromFile(b, nil, k)
	requests := make([]*authn.Request, 1000)
	for i := range requests {
		token := k.sign(b, k.header(), claims(testIssuer, map[string]any{"sub": fmt.Sprint(i), "padding": strings.Repeat("x", 300)}))
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
			_, _ = a.verify(b.Context(), token, token, "", testNow)
		}
	})
}
