//go:build !race

package decisionlog

import (
	"context"
	"io"
	"testing"

	"github.com/sallyport/sallyport/engine/authz"
)

// A line of traffic as it mostly is allocates nothing.
func TestLineAllocatesNothing(t *testing.T) {
	records := traffic(10)
	l, err := New(Default(), io.Discard, Deps{Sinks: []Sink{ignore{}}})
	if err != nil {
		t.Fatal(err)
	}
	round := func() {
		for _, r := range records {
			l.handle(t.Context(), r)
		}
		l.flush(t.Context())
	}
	for range 20 { // the tail has its memory, and each identity was seen
		round()
	}
	if n := testing.AllocsPerRun(20, round); n != 0 {
		t.Errorf("%v allocations for %d records", n, len(records))
	}
}

type ignore struct{}

func (ignore) Emit(context.Context, *Event) {}

// Handing a record over allocates nothing but, now and then, room to wait in.
func TestRecordAllocatesNothing(t *testing.T) {
	l, err := New(Default(), io.Discard, Deps{})
	if err != nil {
		t.Fatal(err)
	}
	r, batch := golden(), make([]*authz.Record, 0, 100)
	n := testing.AllocsPerRun(100, func() {
		for range 100 {
			l.Record(r)
		}
		batch = l.queue.take(batch[:0])
		l.queue.taken.Store(0)
	})
	if n != 0 {
		t.Errorf("%v allocations for 100 records", n)
	}
}
