package decisionlog

import (
	"sync"
	"sync/atomic"

	"github.com/sallyport/sallyport/engine/authz"
)

// queue takes records from requests and gives them to the worker, many at a time.
// A channel would wake the worker for each.
type queue struct {
	limit int
	wake  chan struct{} // has room for one; may be stale

	mu      sync.Mutex
	waiting []*authz.Record
	wakeAt  int // put wakes the worker at that many; 0: it works and will look itself
	closed  bool

	taken atomic.Int64 // of the worker's batch, not begun yet; set under mu, and counted down by the worker
}

func newQueue(limit int) *queue {
	return &queue{limit: limit, wake: make(chan struct{}, 1)}
}

// put reports whether r was taken: there was room and the queue is open.
func (q *queue) put(r *authz.Record) bool {
	q.mu.Lock()
	if q.closed || q.length() >= q.limit {
		q.mu.Unlock()
		return false
	}
	q.waiting = append(q.waiting, r)
	wake := q.wakeAt > 0 && len(q.waiting) >= q.wakeAt
	if wake {
		q.wakeAt = 0
	}
	q.mu.Unlock()
	if wake {
		select {
		case q.wake <- struct{}{}:
		default:
		}
	}
	return true
}

// take returns all that waits and keeps batch, which is empty, for what comes. If
// nothing waits, the next record wakes the worker.
func (q *queue) take(batch []*authz.Record) []*authz.Record {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) == 0 {
		q.wakeAt = 1
		return batch
	}
	batch, q.waiting = q.waiting, batch
	q.wakeAt = 0
	q.taken.Store(int64(len(batch)))
	return batch
}

// begin tells that the worker begins with the next record of its batch.
func (q *queue) begin() { q.taken.Add(-1) }

// relax lets the worker sleep until the queue is half full, or reports that it is.
func (q *queue) relax() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	half := (q.limit + 1) / 2
	if len(q.waiting) >= half {
		return false
	}
	q.wakeAt = half
	return true
}

// close refuses what comes from now on, and returns how many wait.
func (q *queue) close() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	return q.length()
}

// len returns how many records wait.
func (q *queue) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.length()
}

func (q *queue) length() int { return len(q.waiting) + int(q.taken.Load()) }
