package engine

import (
	"context"
	"sync/atomic"
	"time"
)

// deadline ends an evaluation that takes too long. It is a topdown.Cancel that
// looks at the clock when the evaluator asks, which it does per expression: no
// timer, goroutine or channel per decision.
//
// It bounds the time that the evaluation runs, not the time that passes: on a
// machine without free processors, or in a container whose quota is used up, a
// goroutine stands still for longer than any policy may take, and denying what it
// would have decided helps nobody. A gap between two looks that is too long for
// the few expressions between them is such a pause and is not counted, up to a
// bound, since one built-in function can take that long as well.
type deadline struct {
	ctx    context.Context
	at     time.Time // when it is over; moves with pauses
	latest time.Time // at never moves beyond
	last   time.Time // the look before
	asks   atomic.Uint32
	hit    atomic.Bool
}

const (
	// clockStride is how many questions pass between two looks at the clock.
	clockStride = 16
	// pause is the shortest gap between two looks that is not counted.
	pause = 5 * time.Millisecond
	// maxStretch is how many times its timeout an evaluation may last, pauses
	// included.
	maxStretch = 10
)

// begin starts the deadline. Strict counts pauses too: where the policy may wait
// for the network, waiting is what is to be bounded.
func (d *deadline) begin(ctx context.Context, now time.Time, timeout time.Duration, strict bool) {
	d.ctx, d.last = ctx, now
	d.at = now.Add(timeout)
	d.latest = d.at
	if !strict {
		d.latest = now.Add(maxStretch * timeout)
	}
}

// Cancel ends the evaluation.
func (d *deadline) Cancel() { d.hit.Store(true) }

// Cancelled reports whether the evaluation is to end.
func (d *deadline) Cancelled() bool {
	if d.hit.Load() {
		return true
	}
	if d.asks.Add(1)%clockStride != 1 {
		return false
	}
	if d.over(time.Now()) || d.ctx.Err() != nil {
		d.hit.Store(true)
		return true
	}
	return false
}

// over looks at the clock.
func (d *deadline) over(now time.Time) bool {
	if gap := now.Sub(d.last); gap > pause {
		if d.at = d.at.Add(gap); d.at.After(d.latest) {
			d.at = d.latest
		}
	}
	d.last = now
	return now.After(d.at)
}

// passed reports whether the evaluation took too long, also when the evaluator
// did not ask in time: a built-in function that gave up at the deadline is
// undefined to the policy, and what it then decides is not to be relied on.
func (d *deadline) passed() bool {
	return d.hit.Load() || d.over(time.Now())
}
