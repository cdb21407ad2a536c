package ratelimit

import (
	"errors"
	"fmt"
	"math/big"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/engine/meter"
	"github.com/sallyport/sallyport/engine/setting"
)

var testNow = time.Unix(1_700_000_000, 0)

func limiter(t testing.TB, room int) *Limiter {
	t.Helper()
	c := Config{MaxKeys: room}
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	return New(c, meter.New())
}

func rate(t testing.TB, text string, burst int) authz.Bucket {
	t.Helper()
	b, err := (&authz.RateLimit{Key: "k", Rate: text, Burst: burst}).Bucket()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// passes returns how many of n requests pass at once.
func passes(t testing.TB, l *Limiter, key string, b authz.Bucket, now time.Time, n int) (passed int) {
	t.Helper()
	for range n {
		_, err := l.Take(key, b, now)
		switch {
		case err == nil:
			passed++
		case !errors.Is(err, ErrLimited):
			t.Fatal(err)
		}
	}
	return passed
}

func TestTake(t *testing.T) {
	l, b := limiter(t, 10), rate(t, "100/m", 3)
	for i, want := range []Left{{3, 2, 2, 600 * time.Millisecond}, {3, 2, 1, 600 * time.Millisecond}, {3, 2, 0, 600 * time.Millisecond}} {
		if got, err := l.Take("alice", b, testNow); err != nil || got != want {
			t.Errorf("request %d: %+v, %v, want %+v", i, got, err, want)
		}
	}
	_, err := l.Take("alice", b, testNow.Add(500*time.Millisecond))
	var got *LimitedError
	if !errors.As(err, &got) || !errors.Is(err, ErrLimited) {
		t.Fatalf("got %v, want ErrLimited", err)
	}
	if d := cmp.Diff(Left{Quota: 3, Window: 2, Next: 100 * time.Millisecond}, got.Left); d != "" {
		t.Error(d)
	}
	if strings.Contains(err.Error(), "alice") {
		t.Errorf("the key stands in %q", err)
	}
	if n := passes(t, l, "bob", b, testNow, 5); n != 3 {
		t.Errorf("another key: %d pass, want 3", n)
	}
	if n := passes(t, l, "alice", b, testNow.Add(600*time.Millisecond-time.Microsecond), 1); n != 0 {
		t.Error("passes before the time that it was told")
	}
	if n := passes(t, l, "alice", b, testNow.Add(600*time.Millisecond), 2); n != 1 {
		t.Errorf("after the time that it was told: %d pass, want 1", n)
	}
	if n := passes(t, l, "alice", b, testNow.Add(time.Hour), 9); n != 3 {
		t.Errorf("after an hour: %d pass, want the burst", n)
	}
}

// TestBucketsAreKnownByAll of key, rate and burst.
func TestBucketsAreKnownByAll(t *testing.T) {
	l := limiter(t, 10)
	for _, b := range []authz.Bucket{rate(t, "2/h", 0), rate(t, "2/d", 0), rate(t, "3/h", 2), rate(t, "2/h", 3)} {
		for _, key := range []string{"alice", "alice ", "Alice"} {
			l.config.MaxKeys++
			if n := passes(t, l, key, b, testNow, 9); n != int(b.Burst) {
				t.Errorf("%q %+v: %d pass", key, b, n)
			}
		}
	}
	if n := passes(t, l, "alice", rate(t, "2/h", 2), testNow, 1); n != 0 {
		t.Error("a burst that is the default is another bucket")
	}
}

// TestExact compares random histories with fractions: no token more, and none less.
func TestExact(t *testing.T) {
	for _, b := range []authz.Bucket{
		rate(t, "7/s", 3), rate(t, "1/d", 1), rate(t, "10000000/s", 10_000_000), rate(t, "10000000/d", 10_000_000), rate(t, "1/d", 10_000_000),
		rate(t, "3/m", 7), rate(t, "999983/h", 5), rate(t, "13/d", 0),
	} {
		r := rand.New(rand.NewPCG(1, uint64(b.Count)))
		l, now := limiter(t, 1), testNow
		level, capacity := new(big.Rat).SetInt64(b.Burst), new(big.Rat).SetInt64(b.Burst)
		one := big.NewRat(1, 1)
		perMicro := big.NewRat(b.Count, b.Per.Microseconds())
		mean := b.Per.Microseconds() / b.Count * 2
		for i := range 2000 {
			step := r.Int64N(mean + 2)
			if i%100 == 0 {
				step = r.Int64N(b.Per.Microseconds())
			}
			now = now.Add(time.Duration(step) * time.Microsecond)
			level.Add(level, new(big.Rat).Mul(perMicro, new(big.Rat).SetInt64(step)))
			if level.Cmp(capacity) > 0 {
				level.Set(capacity)
			}
			want := level.Cmp(one) >= 0
			if want {
				level.Sub(level, one)
			}
			left, err := l.Take("k", b, now)
			if (err == nil) != want {
				t.Fatalf("%+v, request %d: %v, want pass %v at level %v", b, i, err, want, level.FloatString(9))
			}
			if whole := new(big.Int).Quo(level.Num(), level.Denom()); err == nil && int64(left.Remaining) != whole.Int64() {
				t.Fatalf("%+v, request %d: %d remain, want %v", b, i, left.Remaining, whole)
			}
		}
	}
}

// TestClockGoesBack: nobody earns a second for a second time.
func TestClockGoesBack(t *testing.T) {
	l, b := limiter(t, 10), rate(t, "1/s", 2)
	if n := passes(t, l, "k", b, testNow, 3); n != 2 {
		t.Fatalf("%d pass", n)
	}
	for i := range 10 {
		back := testNow.Add(-time.Duration(i) * time.Hour)
		left, err := l.Take("k", b, back)
		var e *LimitedError
		if !errors.As(err, &e) || e.Next != time.Duration(i)*time.Hour+time.Second {
			t.Fatalf("%d hours back: %+v, %v", i, left, err)
		}
		if n := passes(t, l, "k", b, testNow, 1); n != 0 {
			t.Fatalf("back and forth again: %d pass", n)
		}
	}
	if n := passes(t, l, "k", b, testNow.Add(time.Second), 2); n != 1 {
		t.Errorf("a second later: %d pass, want 1", n)
	}
	if n := passes(t, limiter(t, 1), "k", b, testNow.Add(-500_000*time.Hour), 3); n != 2 {
		t.Errorf("before the gateway began: %d pass", n)
	}
}

// TestFull: what cannot be counted does not pass, and full buckets make room.
func TestFull(t *testing.T) {
	const room = 100
	l, slow, fast := limiter(t, room), rate(t, "1/h", 0), rate(t, "1/s", 0)
	for i := range room {
		b := slow
		if i%10 == 0 {
			b = fast
		}
		if _, err := l.Take(fmt.Sprint(i), b, testNow); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 50 {
		if left, err := l.Take(fmt.Sprint("more", i), slow, testNow); !errors.Is(err, ErrFull) || left != (Left{}) {
			t.Fatalf("%+v, %v, want ErrFull", left, err)
		}
	}
	if _, err := l.Take("1", slow, testNow); !errors.Is(err, ErrLimited) {
		t.Errorf("a key that is known: %v, want ErrLimited", err)
	}
	later, passed := testNow.Add(time.Second), 0
	for i := range 50 {
		if _, err := l.Take(fmt.Sprint("more", i), slow, later); err == nil {
			passed++
		} else if !errors.Is(err, ErrFull) {
			t.Fatal(err)
		}
	}
	if passed != room/10 || l.buckets.size.Load() != room {
		t.Errorf("%d find room, want %d; %d buckets", passed, room/10, l.buckets.size.Load())
	}
	for i := range room { // those that used their token up still have none
		if i%10 == 0 {
			continue
		}
		if _, err := l.Take(fmt.Sprint(i), slow, later); !errors.Is(err, ErrLimited) {
			t.Fatalf("key %d was forgotten: %v", i, err)
		}
	}
}

// TestForgetting: a rush leaves nothing behind once others come, and a bucket that is
// used all the time stays.
func TestForgetting(t *testing.T) {
	l, b := limiter(t, 10_000), rate(t, "1/s", 10)
	now := testNow
	for i := range 5000 {
		if _, err := l.Take(fmt.Sprint("rush", i), b, now); err != nil {
			t.Fatal(err)
		}
	}
	busy := passes(t, l, "busy", b, now, 20)
	for i := range 6000 {
		now = now.Add(2 * time.Millisecond)
		if _, err := l.Take(fmt.Sprint("later", i), b, now); err != nil {
			t.Fatal(err)
		}
		busy += passes(t, l, "busy", b, now, 1)
	}
	if busy != 10+12 {
		t.Errorf("%d of a bucket in use pass in 12 seconds, want 22", busy)
	}
	kept, indexed, waiting := l.buckets.size.Load(), 0, 0
	for i := range l.buckets.parts {
		s := &l.buckets.parts[i]
		indexed, waiting = indexed+len(s.buckets), waiting+len(s.due)
	}
	if kept > 1000 || int(kept) != indexed || indexed != waiting {
		t.Errorf("%d buckets, %d indexed, %d waiting, want about 500", kept, indexed, waiting)
	}
}

// TestInherit: a reload gives no tokens, and may change the room.
func TestInherit(t *testing.T) {
	old, b := limiter(t, 2), rate(t, "1/h", 0)
	for _, k := range []string{"alice", "bob"} {
		if n := passes(t, old, k, b, testNow, 2); n != 1 {
			t.Fatalf("%d pass", n)
		}
	}
	next := limiter(t, 3)
	next.Inherit(old)
	for i, want := range []error{nil, ErrFull} {
		if _, err := next.Take(fmt.Sprint(i), b, testNow); !errors.Is(err, want) {
			t.Errorf("further key %d: %v, want %v", i, err, want)
		}
	}
	small := limiter(t, 1)
	small.Inherit(next)
	for _, k := range []string{"alice", "bob", "0"} {
		if _, err := small.Take(k, b, testNow); !errors.Is(err, ErrLimited) {
			t.Errorf("%s: %v, want ErrLimited", k, err)
		}
	}
	if _, err := small.Take("carol", b, testNow); !errors.Is(err, ErrFull) {
		t.Errorf("with less room: %v, want ErrFull", err)
	}
}

// TestAtOnce: of many at once as many pass as there are tokens, and no more keys are
// remembered than there is room for.
func TestAtOnce(t *testing.T) {
	const room, each = 50, 200
	l, b := limiter(t, room), rate(t, "5/h", 0)
	var passed, full atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range each {
				switch _, err := l.Take(fmt.Sprint(i), b, testNow); {
				case err == nil:
					passed.Add(1)
				case errors.Is(err, ErrFull):
					full.Add(1)
				}
				if n := l.buckets.size.Load(); n > room+8 { // each may have reserved one that it gives back
					t.Errorf("%d buckets", n)
				}
			}
		})
	}
	wg.Wait()
	if passed.Load() != room*5 || l.buckets.size.Load() != room || full.Load() != 8*(each-room) {
		t.Errorf("%d passed, %d found no room, %d buckets", passed.Load(), full.Load(), l.buckets.size.Load())
	}
}

func TestMetrics(t *testing.T) {
	m := meter.New()
	l, b := New(Config{MaxKeys: 1}, m), rate(t, "2/m", 0)
	for _, key := range []string{"alice", "alice", "alice", "bob", "bob"} {
		_, _ = l.Take(key, b, testNow)
	}
	if _, err := l.Take("bob", b, testNow.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	got := map[string]int64{}
	for _, metric := range m.Snapshot() {
		for _, s := range metric.Series {
			name := metric.Name
			for _, a := range s.Attrs {
				name += " " + a.Value
			}
			got[name] = s.Value
		}
	}
	want := map[string]int64{
		"sallyport.rate_limits passed": 3, "sallyport.rate_limits limited": 1, "sallyport.rate_limits full": 2, "sallyport.rate_limits.keys": 1,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestFree(t *testing.T) {
	b := rate(t, "1/d", 0)
	for range 3 {
		if got, err := (Free{}).Take("k", b, testNow); err != nil || got != (Left{Quota: 1, Window: 86400, Remaining: 1}) {
			t.Errorf("%+v, %v", got, err)
		}
	}
}

func TestValidate(t *testing.T) {
	for n, good := range map[int]bool{0: false, -1: false, 1: true, Default().MaxKeys: true, maxMaxKeys: true, maxMaxKeys + 1: false} {
		err := Config{MaxKeys: n}.Validate()
		if (err == nil) != good {
			t.Errorf("%d: %v", n, err)
		}
		if p := setting.Problems(err); err != nil && (len(p) != 1 || p[0].Key != "max_keys") {
			t.Errorf("%d: problems %v", n, p)
		}
	}
}

// TestMemory holds the comment of Config.MaxKeys.
func TestMemory(t *testing.T) {
	const keys, length = 100_000, 36
	l, b := limiter(t, keys), rate(t, "100/m", 20)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range keys {
		if _, err := l.Take(fmt.Sprintf("%0*d", length, i), b, testNow); err != nil {
			t.Fatal(err)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	each := int64(after.HeapAlloc-before.HeapAlloc)/keys - 48 // of the key's size class
	t.Logf("%d bytes each, beside the key", each)
	if each > 290 {
		t.Errorf("%d bytes each, beside the key", each)
	}
	runtime.KeepAlive(l)
}

func BenchmarkTake(b *testing.B) {
	l, r := limiter(b, 1000), rate(b, "10000000/s", 0)
	keys := make([]string, 500)
	for i := range keys {
		keys[i] = fmt.Sprint("user", i)
	}
	b.ReportAllocs()
	b.RunParallel(func(p *testing.PB) {
		for i := 0; p.Next(); i++ {
			_, _ = l.Take(keys[i%len(keys)], r, testNow)
		}
	})
}
