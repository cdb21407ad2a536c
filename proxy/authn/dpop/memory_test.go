package dpop

import (
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/sallyport/sallyport/proxy/authn/replay"
)

// remembering makes a verifier with its defaults, and a function that shows it a proof of
// one key that it has not seen.
func remembering(t *testing.T) func(made, now time.Time) error {
	t.Helper()
	const leeway = 30 * time.Second
	v, err := New(Config{}, leeway, Deps{Name: "corp"})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	return func(made, now time.Time) error {
		n++
		return v.seen.Use(t.Context(), replay.Use{
			Key: "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I", ID: "6d08e35a-0f52-4de6-a348-" + strconv.Itoa(n),
			Made: made.Unix(), Oldest: now.Add(-v.cfg.Window - leeway).Unix(),
		})
	}
}

// TestBusyClient: a service with one key and a clock that is right is not refused at a
// thousand requests per second, however long it goes on.
func TestBusyClient(t *testing.T) {
	now, show := time.Unix(1_800_000_000, 0), remembering(t)
	for second := range 100 { // proofs are forgotten after 90
		for range 1000 {
			if err := show(now, now); err != nil {
				t.Fatalf("after %d seconds: %v", second, err)
			}
		}
		now = now.Add(time.Second)
	}
}

// TestReplayFootprint holds what the documentation says a remembered proof takes.
func TestReplayFootprint(t *testing.T) {
	const most = 256 // bytes
	now := time.Unix(1_800_000_000, 0)
	for _, proofs := range []int{30_000, 60_000} { // maps have most room to spare soon after they grew
		show, before := remembering(t), heap()
		for i := range proofs {
			if err := show(now.Add(-time.Duration(i%90)*time.Second), now); err != nil {
				t.Fatal(err)
			}
		}
		if each := (heap() - before) / int64(proofs); each > most {
			t.Errorf("each of %d proofs takes %d bytes, want at most %d", proofs, each, most)
		}
		runtime.KeepAlive(show)
	}
}

// heap is how many bytes are in use.
func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
