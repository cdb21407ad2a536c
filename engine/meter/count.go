package meter

import (
	"math/rand/v2"
	"runtime"
	"sync/atomic"
	"unsafe"
)

// maxShards bounds the memory of a series. More cores than that share cells.
const maxShards = 32

// cacheLine is the unit, in bytes, that cores fight over.
const cacheLine = 64

// shards returns how many cells a series has: a power of two, so that a mask
// picks one, and about one for each goroutine that can run at a time.
func shards() int {
	n := 1
	for n < runtime.GOMAXPROCS(0) && n < maxShards {
		n *= 2
	}
	return n
}

// pick returns a shard. Which core runs this is not to be had from Go, and chance
// spreads as well.
func pick(mask uint32) int {
	if mask == 0 {
		return 0
	}
	return int(rand.Uint32() & mask) //nolint:gosec // not a secret
}

// Counter is a metric that counts.
type Counter struct {
	id     identity
	family *family[Count]
}

// With returns the series of these attributes. Keep it: finding it costs more
// than all the counting.
func (c *Counter) With(attrs ...Attr) *Count { return c.family.with(attrs) }

func (c *Counter) snapshot() Metric {
	out := Metric{Kind: c.id.kind, Name: c.id.name, Unit: c.id.unit, Description: c.id.description}
	for _, m := range c.family.members() {
		if n := m.series.value(); n != 0 || c.id.kind == KindUpDown {
			out.Series = append(out.Series, Series{Attrs: m.attrs, Value: n})
		}
	}
	return out
}

// Count is one series of a Counter. It is safe for concurrent use.
type Count struct {
	mask  uint32
	cells []cell
}

// cell has a cache line of its own.
type cell struct {
	n atomic.Int64
	_ [cacheLine - unsafe.Sizeof(atomic.Int64{})]byte
}

func newCount(shards int) *Count {
	return &Count{mask: uint32(shards - 1), cells: make([]cell, shards)} //nolint:gosec // at most maxShards
}

// Add adds n. Only a series of an UpDownCounter takes what is below zero.
func (c *Count) Add(n int64) { c.cells[pick(c.mask)].n.Add(n) }

func (c *Count) value() (sum int64) {
	for i := range c.cells {
		sum += c.cells[i].n.Load()
	}
	return sum
}
