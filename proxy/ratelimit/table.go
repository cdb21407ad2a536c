package ratelimit

import (
	"container/heap"
	"hash/maphash"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sallyport/sallyport/engine/authz"
)

// shards keep cores from waiting for each other. It is a power of two.
const shards = 32

// table has the buckets that are not full. A full one says nothing: it is the same as
// one that is made anew.
type table struct {
	seed  maphash.Seed
	begin time.Time
	size  atomic.Int64 // buckets of all shards
	parts [shards]shard
}

// shard is a part of a table.
type shard struct {
	mu      sync.Mutex
	buckets map[identity]*bucket
	due     byDue
	_       [64]byte // of the next shard's cache line
}

func newTable() *table {
	t := &table{seed: maphash.MakeSeed(), begin: time.Now()}
	for i := range t.parts {
		t.parts[i].buckets = map[identity]*bucket{}
	}
	return t
}

// take takes a token of the bucket and says how many buckets there are more. Left is
// zero without room.
func (t *table) take(key string, b authz.Bucket, now time.Time, room int) (left Left, ok bool, change int) {
	// Both times have Go's monotonic clock, so that nobody earns tokens by setting the
	// clock of the machine.
	micros := now.Sub(t.begin).Microseconds()
	id := identity{key, b}
	s := &t.parts[maphash.String(t.seed, key)&(shards-1)]
	for {
		left, ok, grown := t.takeFrom(s, id, micros, room)
		change += grown
		if left.Quota > 0 {
			return left, ok, change
		}
		freed := t.forgetOne(micros)
		if !freed {
			return Left{}, false, change
		}
		change--
	}
}

// takeFrom is take of one shard.
func (t *table) takeFrom(s *shard, id identity, now int64, room int) (left Left, ok bool, change int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b := s.buckets[id]; b != nil {
		left, ok = b.take(now)
		return left, ok, 0
	}
	// Two for one, so that those of a rush are gone when it is over.
	for range 2 {
		if !s.forget(now) {
			break
		}
		t.size.Add(-1)
		change--
	}
	if t.size.Add(1) > int64(room) {
		t.size.Add(-1)
		return Left{}, false, change
	}
	id.key = strings.Clone(id.key) // it may be a part of a whole request
	b := &bucket{identity: id, at: now}
	b.level = b.capacity()
	left, ok = b.take(now)
	b.due = b.full()
	s.buckets[id] = b
	heap.Push(&s.due, b)
	return left, ok, change + 1
}

// forgetOne makes room in any shard.
func (t *table) forgetOne(now int64) bool {
	for i := range t.parts {
		s := &t.parts[i]
		s.mu.Lock()
		freed := s.forget(now)
		s.mu.Unlock()
		if freed {
			t.size.Add(-1)
			return true
		}
	}
	return false
}

// forget drops one bucket that is full. Of those that are due it moves the others to
// where they belong, once for each time that they were used.
func (s *shard) forget(now int64) bool {
	for s.due.next() <= now {
		b := s.due[0]
		if full := b.full(); full > now {
			b.due = full
			heap.Fix(&s.due, 0)
			continue
		}
		heap.Pop(&s.due)
		delete(s.buckets, b.identity)
		return true
	}
	return false
}
