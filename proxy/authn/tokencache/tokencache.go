// Package tokencache keeps for a while what was found out about bearer tokens. It
// is bounded in entries and in bytes, and what was not looked up lately leaves
// first.
//
// It is keyed by the whole token: a hash only finds the place, the text is compared,
// so that nobody gets the answer to another token. It does not know what may be kept
// or for how long; that is for the mechanism that found it out.
package tokencache

import (
	"hash/maphash"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const shards = 64

// Cache keeps values of one kind. It is safe for concurrent use.
type Cache[V any] struct {
	seed  maphash.Seed
	parts []shard[V]
}

type shard[V any] struct {
	mu      sync.RWMutex
	entries map[uint64]*entry[V]
	ring    []*entry[V] // the same entries, in the order in which the hand passes
	hand    int
	bytes   int

	maxEntries, maxBytes int
}

type entry[V any] struct {
	token string
	hash  uint64
	value V
	until time.Time // first moment at which the value is not given out any more
	size  int
	slot  int         // place in the ring
	used  atomic.Bool // since the hand last passed
}

// overhead is what an entry takes beside its token and its value, about.
const overhead = 192

// New makes a cache of about so many entries and bytes, never more.
func New[V any](entries, bytes int) *Cache[V] {
	c := &Cache[V]{seed: maphash.MakeSeed(), parts: make([]shard[V], max(1, min(entries, shards)))}
	for i := range c.parts {
		c.parts[i] = shard[V]{entries: make(map[uint64]*entry[V]), maxEntries: max(1, entries/len(c.parts)), maxBytes: bytes / len(c.parts)}
	}
	return c
}

func (c *Cache[V]) find(token string) (*shard[V], uint64) {
	h := maphash.String(c.seed, token)
	return &c.parts[h%uint64(len(c.parts))], h
}

// Get returns the value of token, and whether there is one that is still good.
func (c *Cache[V]) Get(token string, now time.Time) (value V, ok bool) {
	s, h := c.find(token)
	s.mu.RLock()
	e := s.entries[h]
	s.mu.RUnlock()
	if e == nil || e.token != token || !now.Before(e.until) {
		return value, false
	}
	if !e.used.Load() {
		e.used.Store(true)
	}
	return e.value, true
}

// Put keeps value, which takes size bytes, until a time. It copies the token, which
// may belong to a connection's buffer. What alone takes more than a shard may is not
// kept.
func (c *Cache[V]) Put(token string, value V, size int, until time.Time) {
	s, h := c.find(token)
	e := &entry[V]{token: strings.Clone(token), hash: h, value: value, until: until, size: size + len(token) + overhead}
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.entries[h]; old != nil {
		s.remove(old)
	}
	if e.size > s.maxBytes {
		return
	}
	for len(s.ring) >= s.maxEntries || s.bytes+e.size > s.maxBytes {
		s.remove(s.victim())
	}
	e.slot = len(s.ring)
	s.ring = append(s.ring, e)
	s.entries[h] = e
	s.bytes += e.size
}

// Len returns how many entries there are, and how many bytes they take.
func (c *Cache[V]) Len() (entries, bytes int) {
	for i := range c.parts {
		s := &c.parts[i]
		s.mu.RLock()
		entries += len(s.ring)
		bytes += s.bytes
		s.mu.RUnlock()
	}
	return entries, bytes
}

func (s *shard[V]) remove(e *entry[V]) {
	last := len(s.ring) - 1
	s.ring[e.slot] = s.ring[last]
	s.ring[e.slot].slot = e.slot
	s.ring[last] = nil
	s.ring = s.ring[:last]
	delete(s.entries, e.hash)
	s.bytes -= e.size
}

// victim moves the hand to an entry that was not used since the hand last passed
// (CLOCK).
func (s *shard[V]) victim() *entry[V] {
	for {
		s.hand = (s.hand + 1) % len(s.ring)
		if e := s.ring[s.hand]; !e.used.Swap(false) {
			return e
		}
	}
}
