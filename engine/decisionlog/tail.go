package decisionlog

import (
	"bytes"
	"context"
	"sync"
)

// followerQueue is how many lines may wait for one follower.
const followerQueue = 256

// tail keeps the newest lines and tells followers of new ones. The memory of a
// line that has gone is that of one to come, so it copies when somebody looks.
type tail struct {
	mu        sync.Mutex
	ring      [][]byte // of the configured length; the oldest at next
	next      int
	followers map[chan []byte]struct{}
	closed    bool
}

func newTail(size int) *tail {
	return &tail{ring: make([][]byte, size), followers: map[chan []byte]struct{}{}}
}

// add copies line.
func (t *tail) add(line []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.ring) > 0 {
		slot := t.ring[t.next]
		if cap(slot) > 4*len(line)+4096 {
			slot = nil // one long line must not keep its memory for ever
		}
		t.ring[t.next] = append(slot[:0], line...)
		t.next = (t.next + 1) % len(t.ring)
	}
	if len(t.followers) == 0 {
		return
	}
	line = bytes.Clone(line)
	for f := range t.followers {
		select {
		case f <- line:
		default: // too slow: it misses this one
		}
	}
}

func (t *tail) recent(n int) [][]byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	size := len(t.ring)
	out := make([][]byte, 0, max(0, min(n, size)))
	for i := 1; i <= size && len(out) < n; i++ {
		line := t.ring[(t.next-i+size)%size]
		if line == nil {
			break
		}
		out = append(out, bytes.Clone(line))
	}
	return out
}

func (t *tail) follow(ctx context.Context) <-chan []byte {
	f := make(chan []byte, followerQueue)
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

func (t *tail) leave(f chan []byte) {
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
