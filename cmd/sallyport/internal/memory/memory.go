// Package memory owns how the process trades memory for the work of the garbage
// collector: the pace of collections, and the limit that a container sets.
//
// A gateway's live heap is small and its requests make garbage fast, so that Go's
// own pace (a collection each time the heap has doubled) collects dozens of times
// a second. A floor under what piles up between two collections makes that rare
// for a small heap, and leaves a large one, with its large policy data, to Go's
// pace: the price is at most the floor, whatever the heap.
package memory

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"
)

// Floor is how much the heap may grow between two collections in any case, in
// bytes. See docs/decisions/0008-garbage.md for what it was chosen by.
const Floor = 64 << 20

const (
	// standard is Go's default for GOGC: the heap may double.
	standard = 100
	// share is how much of a container's memory the process uses before it collects
	// without pause; the rest is for what Go does not count, and for stacks.
	share = 0.9
	// refresh is how often a limit that was changed in place is looked for.
	refresh = time.Minute
)

// Govern sets the pace for the life of the process, and follows the limit until
// ctx ends. GOGC and GOMEMLIMIT in the environment are the operator's word: what
// one of them sets stays as it is.
func Govern(ctx context.Context) error {
	if os.Getenv("GOGC") == "" {
		(&pacer{}).adjust()
	}
	return limit(ctx)
}

// limit makes the memory of the container the limit that Go collects towards. A
// machine without one has no limit.
func limit(ctx context.Context) error {
	_, err := memlimit.Set(
		memlimit.WithProvider(memlimit.FromCgroup), memlimit.WithRatio(share), memlimit.WithRefreshInterval(ctx, refresh),
	)
	if err == nil || errors.Is(err, memlimit.ErrNoCgroup) || errors.Is(err, memlimit.ErrCgroupsNotSupported) {
		return nil
	}
	return fmt.Errorf("read the memory limit of the container (set GOMEMLIMIT if there is one): %w", err)
}

// pacer keeps the floor: after each collection it looks at what is live.
type pacer struct{ percent int }

// cycle becomes garbage at once, and its cleanup runs after the next collection.
type cycle struct{ _ [16]byte }

func (p *pacer) adjust() {
	if next := percent(liveHeap()); next != p.percent {
		debug.SetGCPercent(next)
		p.percent = next
	}
	runtime.AddCleanup(&cycle{}, func(p *pacer) { p.adjust() }, p)
}

// percent is the GOGC with which a heap of this many live bytes grows by the
// floor, or by itself if that is more. It is rounded, because each change stops
// the world for a moment.
func percent(live uint64) int {
	const step, least = 50, 8 << 20 // before the first collection nothing is known to be live
	live = max(live, least)
	return max(standard, int(Floor*100/live)/step*step) //nolint:gosec // G115: at most 800
}

const liveBytes = "/gc/heap/live:bytes"

func liveHeap() uint64 {
	sample := []metrics.Sample{{Name: liveBytes}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}
