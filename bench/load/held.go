package load

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Held is connections that wait, each with one request behind it.
type Held struct {
	conns []*connection
}

// perSource is how many connections come from one source address. A server sees
// an address and a port, of which the ephemeral ones are some 28,000.
const perSource = 5_000

// openers is how many connections are opened at a time: fewer than any backlog.
const openers = 32

// Hold opens count connections and has one request answered on each.
func Hold(ctx context.Context, address string, count int, request []byte) (*Held, error) {
	h := &Held{conns: make([]*connection, count)}
	var next atomic.Int64
	errs := make([]error, openers)
	var wg sync.WaitGroup
	for o := range openers {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= count || errs[o] != nil {
					return
				}
				h.conns[i], errs[o] = open(ctx, address, source(address, i), request)
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, errors.Join(fmt.Errorf("hold %d connections to %s: %w", count, address, err), h.Close())
	}
	return h, nil
}

func open(ctx context.Context, address, source string, request []byte) (*connection, error) {
	c, err := dial(ctx, address, source)
	if err != nil {
		return nil, err
	}
	status, err := c.exchange(request, nil)
	if err == nil && status >= 400 {
		err = fmt.Errorf("status %d", status)
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// source is the address that the i-th connection comes from. All of 127.0.0.0/8
// is loopback on Linux; elsewhere the system chooses.
func source(address string, i int) string {
	host, _, err := net.SplitHostPort(address)
	if ip := net.ParseIP(host); err != nil || ip == nil || !ip.IsLoopback() || ip.To4() == nil {
		return ""
	}
	return fmt.Sprintf("127.0.0.%d", 1+i/perSource%250)
}

// Woken is what happened when all sent a request at once.
type Woken struct {
	All    time.Duration // until the last was answered
	Failed int
	Err    error // of the first that failed
}

// Wake sends request on all connections at once and waits for all answers.
func (h *Held) Wake(request []byte) Woken {
	var ready, wg sync.WaitGroup
	gun, ended, errs := make(chan struct{}), make([]time.Time, len(h.conns)), make([]error, len(h.conns))
	ready.Add(len(h.conns))
	for i, c := range h.conns {
		wg.Go(func() {
			ready.Done()
			<-gun
			var status int
			if status, errs[i] = c.exchange(request, nil); errs[i] == nil && status >= 400 {
				errs[i] = fmt.Errorf("status %d", status)
			}
			ended[i] = time.Now()
		})
	}
	ready.Wait()
	begin := time.Now()
	close(gun)
	wg.Wait()
	var w Woken
	for i := range h.conns {
		w.All = max(w.All, ended[i].Sub(begin))
		if errs[i] == nil {
			continue
		}
		if w.Failed++; w.Err == nil {
			w.Err = fmt.Errorf("connection %d: %w", i, errs[i])
		}
	}
	return w
}

// Close closes all connections.
func (h *Held) Close() error {
	var errs []error
	for _, c := range h.conns {
		if c != nil {
			errs = append(errs, c.Close())
		}
	}
	return errors.Join(errs...)
}

// And returns the connections of both, which stay theirs to close.
func (h *Held) And(other *Held) *Held { return &Held{conns: slices.Concat(h.conns, other.conns)} }
