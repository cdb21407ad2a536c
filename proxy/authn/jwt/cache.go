package jwt

import (
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/jose"
)

const cacheShards = 64

// cache keeps verified tokens. Only tokens whose signature and claims held get
// in, so a stranger cannot push others out.
//
// It is keyed by the whole token: the hash only finds the place, the text is
// compared. An entry ends with its token's lifetime and with its key.
type cache struct {
	shards [cacheShards]shard
}

type shard struct {
	mu      sync.RWMutex
	entries map[uint64]*entry
	ring    []*entry // the same entries, in the order in which the hand passes
	hand    int
	limit   int
	bytes   int

	maxBytes int
}

type entry struct {
	token    string
	hash     uint64
	until    time.Time // first moment at which the token is refused
	key      *jose.Key
	identity *authz.Identity
	bound    Binding
	joined   string      // the JWT of which token is the signature; empty: token is whole
	size     int         // bytes, about
	slot     int         // place in the ring
	used     atomic.Bool // since the hand last passed
}

// good reports whether the token is still one to accept.
func (e *entry) good(now time.Time) bool { return now.Before(e.until) && e.key.Good() }

// newCache makes a cache of about size entries and bytes, never more.
func newCache(size, bytes int) *cache {
	c := &cache{}
	shards := min(size, cacheShards)
	for i := range shards {
		c.shards[i] = shard{entries: make(map[uint64]*entry), limit: size / shards, maxBytes: bytes / shards}
	}
	return c
}

// decoded is what the claims of a token take in memory, for each byte of the token:
// as Go values, as terms for the policy, and as text for the decision log. Overhead is
// what an entry takes beside. A test holds both against what is allocated.
const decoded, overhead = 8, 3 << 10

// hash returns what get takes beside the token. It is that of authn.Request, where it
// is made once for all that is looked up by a token, by whichever authenticator.
func (c *cache) hash(token string) uint64 { return authn.Hash(token) }

// get returns the entry of token with this hash, nil if it is not there or no
// longer good.
func (c *cache) get(token string, h uint64, now time.Time) *entry {
	s := c.shard(h)
	s.mu.RLock()
	e := s.entries[h]
	s.mu.RUnlock()
	if e == nil || e.token != token || !e.good(now) {
		return nil
	}
	if !e.used.Load() {
		e.used.Store(true)
	}
	return e
}

// put keeps e under its token. It copies the token, which may belong to a
// connection's buffer.
func (c *cache) put(e *entry) {
	e.token = strings.Clone(e.token)
	e.size = decoded*max(len(e.token), len(e.joined)) + overhead
	e.hash = c.hash(e.token)
	c.shard(e.hash).put(e)
}

func (c *cache) shard(h uint64) *shard {
	s := &c.shards[h%cacheShards]
	if s.limit == 0 { // a cache smaller than the number of shards
		return &c.shards[0]
	}
	return s
}

// put takes what alone is larger than the shard may be for nothing to keep.
func (s *shard) put(e *entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.entries[e.hash]; old != nil {
		s.remove(old)
	}
	if e.size > s.maxBytes {
		return
	}
	for len(s.ring) >= s.limit || s.bytes+e.size > s.maxBytes {
		s.remove(s.victim())
	}
	e.slot = len(s.ring)
	s.ring = append(s.ring, e)
	s.entries[e.hash] = e
	s.bytes += e.size
}

func (s *shard) remove(e *entry) {
	last := len(s.ring) - 1
	s.ring[e.slot] = s.ring[last]
	s.ring[e.slot].slot = e.slot
	s.ring[last] = nil
	s.ring = s.ring[:last]
	delete(s.entries, e.hash)
	s.bytes -= e.size
}

// victim moves the hand to an entry that was not used since the hand last
// passed, or is dead anyway (CLOCK).
func (s *shard) victim() *entry {
	for {
		s.hand = (s.hand + 1) % len(s.ring)
		e := s.ring[s.hand]
		if !e.key.Good() || !e.used.Swap(false) {
			return e
		}
	}
}
