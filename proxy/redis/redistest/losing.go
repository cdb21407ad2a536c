package redistest

import (
	"context"
	"io"
	"net"
	"sync"
	"sync/atomic"
)

// Losing is a way to a server on which an answer can be lost.
type Losing struct {
	Address string // host:port
	lose    atomic.Bool
}

// Losing opens a way to s that ends with the test.
func (s *Server) Losing() *Losing {
	s.t.Helper()
	l, err := new(net.ListenConfig).Listen(s.t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		s.t.Fatal(err)
	}
	way, to := &Losing{Address: l.Addr().String()}, s.Address
	var all sync.WaitGroup
	all.Go(func() {
		for {
			from, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { way.carry(s.t.Context(), from, to) })
		}
	})
	s.t.Cleanup(func() {
		_ = l.Close()
		s.Kill() // ends what is still carried
		all.Wait()
	})
	return way
}

// Lose has the server hear the next question, and nobody its answer.
func (w *Losing) Lose() { w.lose.Store(true) }

func (w *Losing) carry(ctx context.Context, from net.Conn, address string) {
	defer from.Close() //nolint:errcheck // a way ends either way
	to, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return
	}
	defer to.Close() //nolint:errcheck // as above
	go func() { _, _ = io.Copy(to, from) }()
	answer := make([]byte, 64<<10)
	for {
		n, err := to.Read(answer)
		if err != nil || w.lose.CompareAndSwap(true, false) {
			return
		}
		if _, err := from.Write(answer[:n]); err != nil {
			return
		}
	}
}
