package decisionlog

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport/sallyport/engine/authz"
)

func (q *queue) woken() bool {
	select {
	case <-q.wake:
		return true
	default:
		return false
	}
}

// The bound holds for what waits and what the worker took but has not begun.
func TestQueueIsBounded(t *testing.T) {
	q, all := newQueue(3), []*authz.Record{{Error: "a"}, {Error: "b"}, {Error: "c"}, {Error: "d"}}
	for i, r := range all {
		if got, want := q.put(r), i < 3; got != want {
			t.Errorf("record %d: taken %v", i, got)
		}
	}
	batch := q.take(nil)
	if diff := cmp.Diff(all[:3], batch); diff != "" {
		t.Error(diff)
	}
	if q.put(all[3]) || q.len() != 3 {
		t.Errorf("the batch does not count: %d", q.len())
	}
	q.begin()
	if !q.put(all[3]) || q.put(all[0]) || q.len() != 3 {
		t.Errorf("%d wait, after one of three was begun", q.len())
	}
	if n := q.close(); n != 3 {
		t.Errorf("%d wait at the end", n)
	}
	q.begin()
	if q.put(all[0]) {
		t.Error("taken after the end")
	}
}

func TestQueueWakesASleepingWorkerOnly(t *testing.T) {
	q, r := newQueue(5), &authz.Record{}
	if q.put(r); q.woken() {
		t.Error("woken, although it never looked")
	}
	batch := q.take(nil)
	if q.put(r); q.woken() {
		t.Error("woken while it works")
	}
	batch = q.take(batch[:0])
	if len(q.take(nil)) != 0 || len(batch) != 1 {
		t.Fatalf("took %d", len(batch))
	}
	q.begin()
	if q.put(r); !q.woken() {
		t.Error("not woken from its sleep")
	}
	if q.put(r); q.woken() {
		t.Error("woken twice")
	}
	if !q.relax() {
		t.Error("no rest although the queue is not half full")
	}
	if q.put(r); !q.woken() {
		t.Error("not woken by a half full queue")
	}
	if q.relax() {
		t.Error("it rests although the queue is half full")
	}
}

// tally counts writes.
type tally struct {
	mu     sync.Mutex
	writes int
	bytes.Buffer
}

func (c *tally) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writes++
	return c.Buffer.Write(p)
}

func (c *tally) seen() (writes, lines int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.writes, bytes.Count(c.Bytes(), []byte("\n"))
}

// The first record after a quiet time is written at once, those that follow within
// the time to gather are written together, and a half full queue ends that time.
func TestRecordsAreWrittenTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg, out := Default(), &tally{}
		cfg.Queue = 20
		l, err := New(cfg, out, Deps{})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- l.Run(ctx) }()
		synctest.Wait() // the worker waits
		for _, step := range []struct {
			records       int
			wait          time.Duration
			writes, lines int
		}{
			{1, 0, 1, 1},
			{3, gather - 1, 1, 1},
			{0, 1, 2, 4},
			{9, 0, 2, 4},
			{1, 0, 3, 14}, // half of the queue
			{0, time.Hour, 3, 14},
			{1, 0, 4, 15},
			{1, 0, 4, 15},
		} {
			for range step.records {
				l.Record(golden())
			}
			time.Sleep(step.wait) // of the bubble
			synctest.Wait()
			if writes, lines := out.seen(); writes != step.writes || lines != step.lines {
				t.Errorf("%+v: %d writes of %d lines", step, writes, lines)
			}
		}
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if writes, lines := out.seen(); writes != 5 || lines != 16 {
			t.Errorf("at the end %d writes of %d lines", writes, lines)
		}
	})
}

// Each record is written or refused, those of one request goroutine in its order.
func TestNothingIsLostBetweenRequestsAndWorker(t *testing.T) {
	const producers, each = 8, 500
	cfg, out := Default(), &tally{}
	cfg.Queue = 64
	l, err := New(cfg, out, Deps{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	var wg sync.WaitGroup
	var refused atomic.Int64
	for p := range producers {
		wg.Go(func() {
			for i := range each {
				if !l.queue.put(&authz.Record{Upstream: fmt.Sprint(p), Status: i + 1}) {
					refused.Add(1)
				}
			}
		})
	}
	wg.Wait()
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	last, lines := map[string]int{}, 0
	for line := range strings.Lines(out.String()) {
		var r struct {
			Upstream string
			Status   int
		}
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatal(err)
		}
		if r.Status <= last[r.Upstream] {
			t.Errorf("%d after %d of %s", r.Status, last[r.Upstream], r.Upstream)
		}
		last[r.Upstream] = r.Status
		lines++
	}
	if got := lines + int(refused.Load()); got != producers*each {
		t.Errorf("%d written and %d refused of %d", lines, refused.Load(), producers*each)
	}
}

type bomb struct{}

func (bomb) MarshalJSON() ([]byte, error) { panic("a mistake") }

// A record that cannot be encoded leaves nothing of its line.
func TestPanicCostsOneRecord(t *testing.T) {
	bad := golden()
	bad.Input.Identity.Claims["x"] = bomb{}
	out := &tally{}
	l, err := New(Default(), out, Deps{})
	if err != nil {
		t.Fatal(err)
	}
	l.handleAll(t.Context(), []*authz.Record{golden(), bad, golden()})
	l.flush(t.Context())
	lines := strings.Split(out.String(), "\n")
	if len(lines) != 3 || lines[0] == "" || lines[0] != lines[1] || lines[2] != "" {
		t.Errorf("written %q", lines)
	}
}
