package meter_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"

	"github.com/sallyport/sallyport/engine/meter"
	"github.com/sallyport/sallyport/engine/meter/metertest"
)

// find returns the metric of that name.
func find(t *testing.T, r *meter.Registry, name string) meter.Metric {
	t.Helper()
	for _, m := range r.Snapshot() {
		if m.Name == name {
			return m
		}
	}
	t.Fatalf("no metric %s", name)
	return meter.Metric{}
}

// TestNothingIsLost counts from many goroutines, each of which asks for its series
// itself, and reads meanwhile.
func TestNothingIsLost(t *testing.T) {
	const workers, each = 16, 2000
	r := meter.New()
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			c := r.Counter("c", "", "d").With(meter.String("k", "v"))
			u := r.UpDownCounter("u", "", "d").With()
			h := r.Histogram("h", "d", meter.Bounds()).With(meter.String("k", "v"))
			for i := range each {
				c.Add(int64(w))
				u.Add(1)
				u.Add(-1)
				h.Record(time.Duration(i) * time.Microsecond)
			}
		})
	}
	stop := make(chan struct{})
	var reader sync.WaitGroup
	reader.Go(func() {
		var last int64
		for {
			select {
			case <-stop:
				return
			default:
			}
			now := metertest.Counts(r)["c k=v"]
			if now < last {
				t.Errorf("a counter shrank from %d to %d", last, now)
				return
			}
			last = now
		}
	})
	wg.Wait()
	close(stop)
	reader.Wait()
	want := map[string]int64{"c k=v": each * workers * (workers - 1) / 2, "u ": 0, "h k=v": workers * each}
	if diff := cmp.Diff(want, metertest.Counts(r)); diff != "" {
		t.Errorf("counts (-want +got):\n%s", diff)
	}
	sum := workers * each * (each - 1) / 2 * time.Microsecond
	if got := find(t, r, "h").Series[0].Sum; got != sum {
		t.Errorf("sum %v, want %v", got, sum)
	}
}

// TestBoundsAreInclusive holds the buckets to Prometheus's le: a value that is
// equal to a bound is in the bucket below it.
func TestBoundsAreInclusive(t *testing.T) {
	bounds := meter.Bounds()
	for i, bound := range bounds {
		r := meter.New()
		h := r.Histogram("h", "d", bounds).With()
		for _, d := range []time.Duration{bound - 1, bound, bound + 1} {
			h.Record(d)
		}
		want := make([]uint64, len(bounds)+1)
		want[i], want[i+1] = 2, 1
		if diff := cmp.Diff(want, find(t, r, "h").Series[0].Buckets); diff != "" {
			t.Errorf("around %v (-want +got):\n%s", bound, diff)
		}
	}
}

func TestSeries(t *testing.T) {
	r := meter.New()
	c := r.Counter("c", "{x}", "d")
	if c.With(meter.String("a", "1"), meter.String("b", "2")) != c.With(meter.String("b", "2"), meter.String("a", "1")) {
		t.Error("the order of attributes makes another series")
	}
	if c.With(meter.String("a", "1b"), meter.String("c", "")) == c.With(meter.String("a", "1"), meter.String("bc", "")) {
		t.Error("two lists of attributes have one series")
	}
	if r.Counter("c", "{x}", "d") != c {
		t.Error("asking again makes another counter")
	}
	if r.UpDownCounter("c", "{x}", "d") == c {
		t.Error("a counter that can shrink is one that cannot")
	}
	h := r.Histogram("h", "d", nil)
	if r.Histogram("h", "d", meter.Bounds()) != h {
		t.Error("asking again makes another histogram")
	}
}

// TestPreparedSeriesAreNotShown: handles for what never happened would fill the
// page, but a level of zero says something.
func TestPreparedSeriesAreNotShown(t *testing.T) {
	r := meter.New()
	r.Counter("c", "", "d").With(meter.String("k", "v"))
	r.Histogram("h", "d", meter.Bounds()).With()
	r.UpDownCounter("u", "", "d").With()
	if diff := cmp.Diff(map[string]int64{"u ": 0}, metertest.Counts(r)); diff != "" {
		t.Errorf("counts (-want +got):\n%s", diff)
	}
	r.Histogram("h", "d", nil).With().Record(0)
	if got := metertest.Counts(r)["h "]; got != 1 {
		t.Errorf("a duration of nothing is counted %d times", got)
	}
}

func TestSeriesAreBounded(t *testing.T) {
	r := meter.New()
	c := r.Counter("c", "", "d")
	first := c.With(meter.String("k", "0"))
	for i := range meter.MaxSeries + 100 {
		c.With(meter.String("k", fmt.Sprint(i))).Add(1)
	}
	if c.With(meter.String("k", "0")) != first {
		t.Error("the first series is another one now")
	}
	got := metertest.Counts(r)
	if len(got) != meter.MaxSeries || got["c otel.metric.overflow=true"] != 101 {
		t.Errorf("%d series, %d counted beyond them", len(got), got["c otel.metric.overflow=true"])
	}
}

func TestCountingAllocs(t *testing.T) {
	r := meter.New()
	c, h := r.Counter("c", "", "d").With(), r.Histogram("h", "d", meter.Bounds()).With()
	if n := testing.AllocsPerRun(1000, func() { c.Add(1); h.Record(time.Millisecond) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkRequest counts as the path of a request does, with series that were
// prepared: one counter and one histogram. It does so with this package and, for
// the ratio, with the OpenTelemetry SDK.
func BenchmarkRequest(b *testing.B) {
	const took = 700 * time.Microsecond
	pairs := []string{"listener", "public", "route", "orders", "outcome", "allowed", "code", "2xx"}
	var ours []meter.Attr
	var theirs []attribute.KeyValue
	for i := 0; i < len(pairs); i += 2 {
		ours = append(ours, meter.String(pairs[i], pairs[i+1]))
		theirs = append(theirs, attribute.String(pairs[i], pairs[i+1]))
	}
	r := meter.New()
	count, durations := r.Counter("c", "", "d").With(ours...), r.Histogram("h", "d", meter.Bounds()).With(ours...)
	sdk := sdkmetric.NewMeterProvider(sdkmetric.WithReader(sdkmetric.NewManualReader())).Meter("test")
	counter, err := sdk.Int64Counter("c")
	if err != nil {
		b.Fatal(err)
	}
	histogram, err := sdk.Float64Histogram("h", metric.WithUnit("s"))
	if err != nil {
		b.Fatal(err)
	}
	set := metric.WithAttributeSet(attribute.NewSet(theirs...))
	add, record := []metric.AddOption{set}, []metric.RecordOption{set}
	for name, once := range map[string]func(){
		"own": func() { count.Add(1); durations.Record(took) },
		"sdk": func() {
			counter.Add(b.Context(), 1, add...)
			histogram.Record(b.Context(), took.Seconds(), record...)
		},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				once()
			}
		})
		b.Run(name+" from many", func(b *testing.B) {
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					once()
				}
			})
		})
	}
}
