package decisionlog

import (
	"context"
	"sync"
)

// followerQueue is how many events may wait for one follower.
const followerQueue = 256

// tail keeps the newest events and tells followers of new ones.
type tail struct {
	mu        sync.Mutex
	ring      []*Event // of the configured length; the oldest at next
	next      int
	followers map[chan *Event]struct{}
	closed    bool
}

func newTail(size int) *tail {
	return &tail{ring: make([]*Event, size), followers: map[chan *Event]struct{}{}}
}

func (t *tail) add(e *Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.ring) > 0 {
		t.ring[t.next] = e
		t.next = (t.next + 1) % len(t.ring)
	}
	for f := range t.followers {
		select {
		case f <- e:
		default: // too slow: it misses this one
		}
	}
}

func (t *tail) recent(n int) []*Event {
	t.mu.Lock()
	defer t.mu.Unlock()
	size := len(t.ring)
	out := make([]*Event, 0, max(0, min(n, size)))
	for i := 1; i <= size && len(out) < n; i++ {
		e := t.ring[(t.next-i+size)%size]
		if e == nil {
			break
		}
		out = append(out, e)
	}
	return out
}

func (t *tail) follow(ctx context.Context) <-chan *Event {
	f := make(chan *Event, followerQueue)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed || ctx.Err() != nil {
		close(f)
		return f
	}
	t.followers[f] = struct{}{}
	context.AfterFunc(ctx, func() { t.leave(f) })
	return f
}

func (t *tail) leave(f chan *Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.followers[f]; ok {
		delete(t.followers, f)
		close(f)
	}
}

func (t *tail) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	for f := range t.followers {
		delete(t.followers, f)
		close(f)
	}
}
