package ratelimit

import (
	"math"
	"time"

	"github.com/sallyport/sallyport/engine/authz"
)

// identity is what a bucket is known by.
type identity struct {
	key string
	authz.Bucket
}

// bucket counts in parts of a token, as many as a unit of time has microseconds: with
// each of these it earns as many parts as the rate has tokens, so that nothing is ever
// rounded. The greatest bucket, authz.MaxRate tokens of a day, has room in 64 bits.
type bucket struct {
	identity
	level int64 // parts that are there
	at    int64 // when, in microseconds since the beginning of the table
	due   int64 // no later than that it is full; its place in the heap
}

func (b *bucket) token() int64    { return b.Per.Microseconds() }
func (b *bucket) capacity() int64 { return b.Burst * b.token() }

// after is how long it takes to earn that many parts, in microseconds, rounded up.
func (b *bucket) after(parts int64) int64 { return (parts + b.Count - 1) / b.Count }

// window is how long it takes to earn all tokens, in seconds, rounded up.
func (b *bucket) window() int64 { return (b.after(b.capacity()) + 999_999) / 1_000_000 }

// full is when the bucket holds all of its tokens if none is taken.
func (b *bucket) full() int64 { return b.at + b.after(b.capacity()-b.level) }

// earn brings the bucket up to now. A clock that went back earns nothing, and nothing
// for a second time when it comes by again.
func (b *bucket) earn(now int64) {
	if now <= b.at {
		return
	}
	if now >= b.full() {
		b.level = b.capacity()
	} else {
		b.level += (now - b.at) * b.Count
	}
	b.at = now
}

// take takes a token if there is one.
func (b *bucket) take(now int64) (left Left, ok bool) {
	b.earn(now)
	if ok = b.level >= b.token(); ok {
		b.level -= b.token()
	}
	return Left{
		Quota: int(b.Burst), Window: b.window(), Remaining: int(b.level / b.token()),
		Next: time.Duration(b.after(b.token()-b.level%b.token())+max(0, b.at-now)) * time.Microsecond,
	}, ok
}

// byDue is a heap of buckets, with the one that can be full first at its top. A bucket
// does not move when a token is taken: it is found too early at the top, and moved then.
type byDue []*bucket

func (h byDue) Len() int           { return len(h) }
func (h byDue) Less(i, j int) bool { return h[i].due < h[j].due }
func (h byDue) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }

// Push implements heap.Interface.
func (h *byDue) Push(x any) { *h = append(*h, x.(*bucket)) } //nolint:forcetypeassert // it is nothing else

// Pop implements heap.Interface.
func (h *byDue) Pop() any {
	last := len(*h) - 1
	b := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return b
}

// next returns when the first could be full.
func (h byDue) next() int64 {
	if len(h) == 0 {
		return math.MaxInt64
	}
	return h[0].due
}
