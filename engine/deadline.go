package engine

import (
	"context"
	"sync/atomic"
	"time"
)

// deadline ends an evaluation that takes too long. It is a topdown.Cancel that
// looks at the clock when the evaluator asks, which it does per expression: no
// timer, goroutine or channel per decision.
type deadline struct {
	ctx  context.Context
	at   time.Time
	asks atomic.Uint32
	hit  atomic.Bool
}

// clockStride is how many questions pass between two looks at the clock.
const clockStride = 16

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
	if time.Now().After(d.at) || d.ctx.Err() != nil {
		d.hit.Store(true)
		return true
	}
	return false
}

// passed reports whether the evaluation took too long, also when the evaluator
// did not ask in time: a built-in function that gave up at the deadline is
// undefined to the policy, and what it then decides is not to be relied on.
func (d *deadline) passed() bool {
	return d.hit.Load() || time.Now().After(d.at)
}
