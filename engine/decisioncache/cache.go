// Package decisioncache keeps decisions by what was asked.
//
// A key is the encoding of everything that the answer can depend on; building it
// is the engine's. It is compared whole: a hash alone finds the place, and two
// requests whose hashes meet must never share an answer. A cache belongs to one
// revision of the policy and is thrown away with it, so the revision is in no key.
//
// The cache is bounded in entries and in bytes, because clients choose the keys.
// What makes room is what was not asked for since the hand last passed (CLOCK).
package decisioncache

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sallyport/sallyport/engine/authz"
)

// maxShards keeps processors from waiting for each other.
const maxShards = 64

// Cache keeps decisions. It is safe for concurrent use.
type Cache struct {
	seed   maphash.Seed
	shards []shard
}

type shard struct {
	mu      sync.RWMutex
	entries map[uint64]*entry // by hash; a second key of the same hash takes the place
	ring    []*entry          // the same entries, as the hand passes
	hand    int
	bytes   int64

	maxEntries int
	maxBytes   int64
}

// entry is immutable but for its place and its mark.
type entry struct {
	key      string
	hash     uint64
	until    int64 // Unix time in nanoseconds; the first moment without the entry
	size     int64
	decision *authz.Decision
	slot     int         // place in the ring
	used     atomic.Bool // since the hand last passed
}

// New returns a cache of at most that many entries, which take about as many
// bytes at most.
func New(entries int, bytes int64) *Cache {
	n := max(1, min(entries, maxShards))
	c := &Cache{seed: maphash.MakeSeed(), shards: make([]shard, n)}
	for i := range c.shards {
		c.shards[i] = shard{entries: map[uint64]*entry{}, maxEntries: entries / n, maxBytes: bytes / int64(n)}
	}
	return c
}

// Get returns the decision kept under key, nil if there is none whose time is not
// over. It is shared and not to be changed.
func (c *Cache) Get(key []byte, now time.Time) *authz.Decision {
	hash := maphash.Bytes(c.seed, key)
	e := c.shard(hash).get(hash)
	if e == nil || e.key != string(key) || now.UnixNano() >= e.until {
		return nil
	}
	if !e.used.Load() { // a store for each hit would move the line between processors
		e.used.Store(true)
	}
	return e.decision
}

// Put keeps d under key until then, and returns how many entries had to go. It
// copies key. The decision must not change any more.
func (c *Cache) Put(key []byte, d *authz.Decision, now, until time.Time) (evicted int) {
	e := &entry{key: string(key), until: until.UnixNano(), decision: d}
	e.size = int64(len(key)) + sizeOf(d)
	e.hash = maphash.Bytes(c.seed, key)
	return c.shard(e.hash).put(e, now.UnixNano())
}

// Len returns how many entries there are, those included whose time is over.
func (c *Cache) Len() int {
	n := 0
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.RLock()
		n += len(s.ring)
		s.mu.RUnlock()
	}
	return n
}

func (c *Cache) shard(hash uint64) *shard { return &c.shards[hash%uint64(len(c.shards))] }

func (s *shard) get(hash uint64) *entry {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.entries[hash]
}

func (s *shard) put(e *entry, now int64) (evicted int) {
	if e.size > s.maxBytes || s.maxEntries == 0 || now >= e.until {
		return 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.entries[e.hash]; old != nil {
		s.remove(old)
	}
	for len(s.ring) >= s.maxEntries || s.bytes+e.size > s.maxBytes {
		s.remove(s.victim(now))
		evicted++
	}
	e.slot = len(s.ring)
	s.entries[e.hash], s.ring = e, append(s.ring, e)
	s.bytes += e.size
	return evicted
}

// victim moves the hand to an entry whose time is over or that was not used since
// the hand last passed.
func (s *shard) victim(now int64) *entry {
	for {
		s.hand = (s.hand + 1) % len(s.ring)
		if e := s.ring[s.hand]; now >= e.until || !e.used.Swap(false) {
			return e
		}
	}
}

// remove takes e out; the last of the ring gets its place.
func (s *shard) remove(e *entry) {
	end := len(s.ring) - 1
	last := s.ring[end]
	s.ring[e.slot], last.slot = last, e.slot
	s.ring[end] = nil
	s.ring = s.ring[:end]
	s.bytes -= e.size
	delete(s.entries, e.hash)
}

// What an entry costs beside its texts, about: the entry, the decision, its place
// in map and ring; and what a map or slice costs for each of its members.
const (
	entryOverhead  = 640
	memberOverhead = 48
)

func sizeOf(d *authz.Decision) int64 {
	n := entryOverhead + len(d.Reason) + len(d.Body) + len(d.Redirect) + len(d.Upstream.Name)
	n += sizeOfMap(d.Labels) + sizeOfMap(d.Headers) + sizeOfMap(d.Upstream.SetHeaders) + sizeOfMap(d.Response.SetHeaders)
	n += sizeOfList(d.Upstream.RemoveHeaders) + sizeOfList(d.Response.RemoveHeaders)
	if t := d.Upstream.TokenExchange; t != nil {
		n += memberOverhead + len(t.Audience) + len(t.Scope)
	}
	if c := d.Challenge; c != nil {
		n += 2*memberOverhead + len(c.Error) + len(c.Scope) + len(c.ACRValues)
	}
	if r := d.RateLimit; r != nil {
		n += memberOverhead + len(r.Key) + len(r.Rate)
	}
	return int64(n)
}

func sizeOfMap(m map[string]string) (n int) {
	for k, v := range m {
		n += memberOverhead + len(k) + len(v)
	}
	return n
}

func sizeOfList(l []string) (n int) {
	for _, s := range l {
		n += memberOverhead/2 + len(s)
	}
	return n
}
