package meter

import (
	"sync/atomic"
	"time"
	"unsafe"
)

// Histogram is a metric of durations.
type Histogram struct {
	id     identity
	bounds []time.Duration
	family *family[Durations]
}

// With returns the series of these attributes. Keep it: finding it costs more
// than all the counting.
func (h *Histogram) With(attrs ...Attr) *Durations { return h.family.with(attrs) }

func (h *Histogram) snapshot() Metric {
	out := Metric{Kind: h.id.kind, Name: h.id.name, Unit: h.id.unit, Description: h.id.description, Bounds: h.bounds}
	for _, m := range h.family.members() {
		if s, counted := m.series.read(); counted {
			s.Attrs = m.attrs
			out.Series = append(out.Series, s)
		}
	}
	return out
}

// Durations is one series of a Histogram. It is safe for concurrent use.
type Durations struct {
	bounds []time.Duration
	mask   uint32
	stride int // cells of a shard, whole cache lines
	// cells are, shard by shard, the sum in nanoseconds and the buckets. The sum
	// is of integers, so that it is exact in whatever order it is made.
	cells []atomic.Int64
}

func newDurations(shards int, bounds []time.Duration) *Durations {
	const line = cacheLine / int(unsafe.Sizeof(atomic.Int64{}))
	stride := (len(bounds) + 2 + line - 1) / line * line
	return &Durations{
		bounds: bounds, mask: uint32(shards - 1), stride: stride, //nolint:gosec // at most maxShards
		cells: make([]atomic.Int64, shards*stride),
	}
}

// Record counts one duration. Most are short, so the buckets are searched from
// the first on.
func (d *Durations) Record(took time.Duration) {
	bucket := 0
	for bucket < len(d.bounds) && took > d.bounds[bucket] {
		bucket++
	}
	shard := d.cells[pick(d.mask)*d.stride:]
	shard[0].Add(int64(took))
	shard[1+bucket].Add(1)
}

// read sums the shards up and reports whether anything was counted.
func (d *Durations) read() (s Series, counted bool) {
	s.Buckets = make([]uint64, len(d.bounds)+1)
	for at := 0; at < len(d.cells); at += d.stride {
		s.Sum += time.Duration(d.cells[at].Load())
		for i := range s.Buckets {
			n := d.cells[at+1+i].Load()
			s.Buckets[i] += uint64(n) //nolint:gosec // only ever grows
			counted = counted || n > 0
		}
	}
	return s, counted
}
