package memory

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"testing"
	"time"
)

func TestPercentKeepsTheFloor(t *testing.T) {
	for _, tc := range []struct {
		live uint64
		want int
	}{
		{0, 800},
		{8 << 20, 800},
		{10 << 20, 600},
		{32 << 20, 200},
		{64 << 20, 100},
		{1 << 30, 100}, // Go's own pace
	} {
		if got := percent(tc.live); got != tc.want {
			t.Errorf("%d live bytes: %d %%, want %d", tc.live, got, tc.want)
		}
	}
}

func gogc() uint64 {
	s := []metrics.Sample{{Name: "/gc/gogc:percent"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// collectUntil collects until the pace is such that ok.
func collectUntil(t *testing.T, what string, ok func(percent uint64) bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(gogc()); {
		if time.Now().After(end) {
			t.Fatalf("%s: GOGC is %d", what, gogc())
		}
		runtime.GC()
	}
}

// The pace follows what is live, up and down, for as long as the process lives.
func TestPaceFollowsTheHeap(t *testing.T) {
	t.Setenv("GOGC", "")
	t.Setenv("GOMEMLIMIT", "1GiB") // whatever this machine has
	defer debug.SetGCPercent(debug.SetGCPercent(standard))
	if err := Govern(t.Context()); err != nil {
		t.Fatal(err)
	}
	few := func(percent uint64) bool { return percent > standard }
	collectUntil(t, "small heap", few)
	for range 2 {
		large := make([]byte, 2*Floor)
		collectUntil(t, "large heap", func(percent uint64) bool { return percent == standard })
		runtime.KeepAlive(large)
		large = nil
		collectUntil(t, "small heap again", few)
	}
}

func TestTheOperatorsPaceStays(t *testing.T) {
	t.Setenv("GOGC", "73")
	t.Setenv("GOMEMLIMIT", "1GiB")
	defer debug.SetGCPercent(debug.SetGCPercent(73))
	if err := Govern(t.Context()); err != nil {
		t.Fatal(err)
	}
	runtime.GC()
	if got := gogc(); got != 73 {
		t.Errorf("GOGC is %d, the environment says 73", got)
	}
}
