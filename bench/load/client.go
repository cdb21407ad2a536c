package load

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"
)

// Client loads a server from this process.
type Client struct {
	Address     string
	Connections int
	// Request appends the n-th request, counted from 0 over all runs, to dst: its
	// head, and Body follows. It is called from all connections at once.
	Request func(dst []byte, n int64) []byte
	Body    []byte
	// Rate is how many requests are sent a second, over all connections; 0 is as
	// many as are answered.
	Rate float64

	sent atomic.Int64
}

// Until ends a run: after Length, or when Count requests were sent, if one is 0
// the other counts.
type Until struct {
	Length time.Duration
	Count  int64
}

// patience is how long a request may take.
const patience = 30 * time.Second

// Run opens the connections, loads the server and closes them. Failed requests
// are counted; when more fail than are tolerated, that is an error.
func (c *Client) Run(ctx context.Context, until Until) (Result, error) {
	workers := make([]*worker, c.Connections)
	begin := time.Now()
	r := run{Client: c, begin: begin, last: c.sent.Load() + until.Count, counted: until.Count > 0}
	if until.Length > 0 {
		r.end = begin.Add(until.Length)
	}
	var wg sync.WaitGroup
	for i := range workers {
		workers[i] = &worker{run: &r, place: i}
		wg.Go(func() { workers[i].work(ctx) })
	}
	wg.Wait()
	out, err := summarize(workers, time.Since(begin))
	if err = cmp.Or(ctx.Err(), err); err != nil {
		return out, fmt.Errorf("load %s: %w", c.Address, err)
	}
	return out, nil
}

// run is what all connections of a run share.
type run struct {
	*Client
	begin, end time.Time // end is zero when the run ends by count
	last       int64
	counted    bool
}

// worker is one connection.
type worker struct {
	*run
	place   int
	conn    *connection
	buffer  []byte
	latency []int64 // microseconds
	failed  int64
	err     error // the first
}

func (w *worker) work(ctx context.Context) {
	defer func() {
		if w.conn != nil {
			_ = w.conn.Close() // all that was asked has been answered or counted
		}
	}()
	for i := 0; ctx.Err() == nil; i++ {
		due, late := w.wait(ctx, i)
		now := time.Now()
		if !late {
			due = now // the harness woke up late, which is not the server's
		}
		if !w.end.IsZero() && now.After(w.end) {
			return
		}
		n := w.sent.Add(1) - 1
		if w.counted && n >= w.last {
			w.sent.Add(-1)
			return
		}
		w.one(ctx, n, due)
	}
}

// wait waits until the i-th request of this connection is due. It is late when
// that was before now: the request before took longer than the rate allows, and
// this one would have waited for it.
func (w *worker) wait(ctx context.Context, i int) (due time.Time, late bool) {
	if w.Rate == 0 {
		return time.Time{}, false
	}
	turn := float64(i*w.Connections + w.place)
	due = w.begin.Add(time.Duration(turn / w.Rate * float64(time.Second)))
	left := time.Until(due)
	if left <= 0 {
		return due, i > 0
	}
	t := time.NewTimer(left)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
	return due, false
}

// one sends a request and reads the answer.
func (w *worker) one(ctx context.Context, n int64, due time.Time) {
	err := w.exchange(ctx, n)
	if err == nil {
		w.latency = append(w.latency, time.Since(due).Microseconds())
		return
	}
	w.failed++
	if w.err == nil {
		w.err = fmt.Errorf("request %d: %w", n, err)
	}
}

func (w *worker) exchange(ctx context.Context, n int64) error {
	if w.conn == nil {
		var err error
		if w.conn, err = dial(ctx, w.Address, ""); err != nil {
			return err
		}
	}
	w.buffer = w.Request(w.buffer[:0], n)
	status, err := w.conn.exchange(w.buffer, w.Body)
	if err != nil {
		_ = w.conn.Close() // the error is what counts
		w.conn = nil
		return err
	}
	if status >= 400 {
		return fmt.Errorf("status %d", status)
	}
	return nil
}

func summarize(workers []*worker, took time.Duration) (Result, error) {
	var all []int64
	r := Result{Micros: took.Microseconds()}
	var first error
	for _, w := range workers {
		all = append(all, w.latency...)
		r.Failed += w.failed
		first = cmp.Or(first, w.err)
	}
	slices.Sort(all)
	if r.Requests = int64(len(all)); r.Requests > 0 {
		r.P50, r.P99, r.Longest = all[len(all)/2], all[len(all)*99/100], all[len(all)-1]
	}
	if err := r.check(); err != nil {
		return r, fmt.Errorf("%w: %w", err, first)
	}
	return r, nil
}

// connection is a kept connection with what is needed to read from it.
type connection struct {
	net.Conn
	reader   *bufio.Reader
	response fasthttp.Response
}

// dial connects from source, an IP address, or from any when it is empty.
func dial(ctx context.Context, address, source string) (*connection, error) {
	d := net.Dialer{Timeout: patience}
	if source != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(source)}
	}
	nc, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return &connection{Conn: nc, reader: bufio.NewReaderSize(nc, 2048)}, nil
}

// exchange sends a request and returns the status of the answer, all of which is
// read. The answer may come before the body is sent, and says then why.
func (c *connection) exchange(head, body []byte) (int, error) {
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return 0, err
	}
	_, err := c.Write(head)
	if err == nil && len(body) > 0 {
		_, err = c.Write(body)
	}
	if readErr := c.response.Read(c.reader); readErr != nil {
		return 0, errors.Join(err, readErr)
	}
	status := c.response.StatusCode()
	if c.response.ConnectionClose() {
		err = errors.Join(err, fmt.Errorf("the server closes the connection with status %d", status))
	}
	return status, err
}

// Ask sends one request on a connection of its own and returns the status.
func Ask(ctx context.Context, address string, head, body []byte) (int, error) {
	c, err := dial(ctx, address, "")
	if err != nil {
		return 0, fmt.Errorf("ask %s: %w", address, err)
	}
	status, err := c.exchange(head, body)
	if err = errors.Join(err, c.Close()); err != nil {
		return 0, fmt.Errorf("ask %s: %w", address, err)
	}
	return status, nil
}
