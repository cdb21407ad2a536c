package decisioncache

import (
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport/sallyport/engine/authz"
)

var start = time.Unix(1767323045, 0)

func reason(s string) *authz.Decision { return &authz.Decision{Allow: true, Reason: s} }

func TestKeepsUntilItsTime(t *testing.T) {
	c := New(100, 1<<20)
	key := []byte("GET /")
	d := reason("one")
	c.Put(key, d, start, start.Add(time.Second))
	key[0] = 'X' // the cache has its own
	for _, tc := range []struct {
		key  string
		at   time.Duration
		want *authz.Decision
	}{
		{"GET /", 0, d},
		{"GET /", time.Second - 1, d},
		{"GET /", time.Second, nil},
		{"GET /", time.Hour, nil},
		{"GET /a", 0, nil},
		{"XET /", 0, nil},
		{"", 0, nil},
	} {
		if got := c.Get([]byte(tc.key), start.Add(tc.at)); got != tc.want {
			t.Errorf("%q after %v: %v, want %v", tc.key, tc.at, got, tc.want)
		}
	}
	if c.Put([]byte("late"), d, start, start); c.Len() != 1 {
		t.Error("what is over already was kept")
	}
}

func TestReplacesUnderTheSameKey(t *testing.T) {
	c := New(100, 1<<20)
	for i := range 10 {
		if n := c.Put([]byte("k"), reason(fmt.Sprint(i)), start, start.Add(time.Hour)); n != 0 {
			t.Errorf("%d evicted", n)
		}
	}
	if d := c.Get([]byte("k"), start); d == nil || d.Reason != "9" || c.Len() != 1 {
		t.Errorf("decision %v of %d", d, c.Len())
	}
}

// Keys whose hashes are equal must not share a decision. Real ones cannot be
// found, so the entry is moved to the hash of the other key.
func TestComparesTheWholeKey(t *testing.T) {
	c := New(1, 1<<20)
	c.Put([]byte("mine"), reason("mine"), start, start.Add(time.Hour))
	s := &c.shards[0]
	e := s.ring[0]
	delete(s.entries, e.hash)
	e.hash = maphash.Bytes(c.seed, []byte("theirs"))
	s.entries[e.hash] = e
	if d := c.Get([]byte("theirs"), start); d != nil {
		t.Errorf("decision %q for another key of the same hash", d.Reason)
	}
}

func TestIsBounded(t *testing.T) {
	for _, tc := range []struct {
		name     string
		entries  int
		bytes    int64
		reason   int
		atMost   int
		atLeast  int
		inserted int
	}{
		{"entries", 1000, 1 << 30, 0, 1000, 900, 20_000},
		{"fewer entries than shards", 3, 1 << 30, 0, 3, 3, 1000},
		{"bytes", 1 << 20, 1 << 20, 1000, 1 << 20 / 1000, 400, 20_000},
		{"too large for any shard", 1 << 20, 1 << 20, 1 << 20, 0, 0, 10},
		{"off", 0, 1 << 20, 0, 0, 0, 10},
	} {
		c := New(tc.entries, tc.bytes)
		d := reason(strings.Repeat("x", tc.reason))
		evicted := 0
		for i := range tc.inserted {
			evicted += c.Put(fmt.Appendf(nil, "key %d", i), d, start, start.Add(time.Hour))
		}
		n := c.Len()
		if n > tc.atMost || n < tc.atLeast {
			t.Errorf("%s: %d entries, want %d to %d", tc.name, n, tc.atLeast, tc.atMost)
		}
		if n > 0 && n+evicted != tc.inserted {
			t.Errorf("%s: %d entries and %d evicted of %d", tc.name, n, evicted, tc.inserted)
		}
		for i := range c.shards {
			s := &c.shards[i]
			var sum int64
			for _, e := range s.ring {
				sum += e.size
			}
			if len(s.entries) != len(s.ring) || sum != s.bytes || s.bytes > s.maxBytes {
				t.Fatalf("%s: shard of %d and %d entries counts %d bytes, has %d, may have %d", tc.name, len(s.entries), len(s.ring), s.bytes, sum, s.maxBytes)
			}
		}
	}
}

// What is asked for again and again stays while others pass through.
func TestKeepsWhatIsUsed(t *testing.T) {
	c := New(640, 1<<30)
	hot := []byte("hot")
	c.Put(hot, reason("hot"), start, start.Add(time.Hour))
	for i := range 10_000 {
		if c.Get(hot, start) == nil {
			t.Fatalf("evicted after %d others", i)
		}
		c.Put(fmt.Appendf(nil, "cold %d", i), reason(""), start, start.Add(time.Hour))
	}
}

func TestMakesRoomOfWhatIsOverFirst(t *testing.T) {
	c := New(2, 1<<30)
	c.shards = c.shards[:1]
	c.shards[0].maxEntries = 2
	c.Put([]byte("short"), reason(""), start, start.Add(time.Second))
	c.Put([]byte("long"), reason(""), start, start.Add(time.Hour))
	c.Get([]byte("short"), start)
	c.Get([]byte("long"), start)
	later := start.Add(time.Minute)
	c.Put([]byte("new"), reason(""), later, later.Add(time.Hour))
	if c.Get([]byte("long"), later) == nil || c.Get([]byte("new"), later) == nil {
		t.Error("a live entry made room, not the one whose time was over")
	}
}

func TestConcurrently(t *testing.T) {
	c := New(200, 1<<20)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(g), 1))
			for range 20_000 {
				key := fmt.Sprint(r.IntN(400))
				if d := c.Get([]byte(key), start); d != nil {
					if d.Reason != key {
						t.Errorf("decision of %q for %q", d.Reason, key)
					}
					continue
				}
				c.Put([]byte(key), reason(key), start, start.Add(time.Hour))
			}
		})
	}
	wg.Wait()
	if n := c.Len(); n > 200 {
		t.Errorf("%d entries", n)
	}
}

func TestHitAllocates(t *testing.T) {
	c := New(100, 1<<20)
	key := []byte(strings.Repeat("k", 150))
	c.Put(key, reason(""), start, start.Add(time.Hour))
	if n := testing.AllocsPerRun(1000, func() { c.Get(key, start) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkGet(b *testing.B) {
	c := New(10_000, 1<<30)
	keys := make([][]byte, 10_000)
	for i := range keys {
		keys[i] = fmt.Appendf(nil, "%0150d", i)
		c.Put(keys[i], reason(""), start, start.Add(time.Hour))
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			c.Get(keys[i%len(keys)], start)
		}
	})
}
