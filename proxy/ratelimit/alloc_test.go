//go:build !race

package ratelimit

import "testing"

func TestTakingAllocatesNothing(t *testing.T) {
	l, b := limiter(t, 10), rate(t, "10000000/d", 0)
	if _, err := l.Take("alice", b, testNow); err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(1000, func() { _, _ = l.Take("alice", b, testNow) }); n != 0 {
		t.Errorf("%v allocations for a known key, want none", n)
	}
}
