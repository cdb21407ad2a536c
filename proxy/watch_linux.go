package proxy

import (
	"context"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// watchInterval is how often clients that wait are looked at, and how long one
// must have waited. A client that leaves costs its upstream that much.
const watchInterval = 500 * time.Millisecond

// watchClients breaks off the exchanges of clients that have gone. Reading
// ahead to notice would cost every request a goroutine and could swallow the
// next request; asking the kernel costs only those that wait long.
func (s *Server) watchClients(ctx context.Context, listener string) {
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			limit := now.Add(-watchInterval).UnixNano()
			for _, c := range s.all(func(c *conn) bool {
				since := c.awaiting.Load()
				return c.listener == listener && since != 0 && since < limit
			}) {
				if hungUp(c.nc) {
					if x := c.exchange.Load(); x != nil {
						x.Cut()
					}
				}
			}
		}
	}
}

// hungUp reports whether the peer has closed its side or reset the connection.
func hungUp(nc net.Conn) bool {
	if t, ok := nc.(interface{ NetConn() net.Conn }); ok { // TLS
		nc = t.NetConn()
	}
	if p, ok := nc.(interface{ Raw() net.Conn }); ok {
		nc = p.Raw()
	}
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	gone := false
	_ = raw.Control(func(fd uintptr) {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}} //nolint:gosec // descriptors are small
		n, err := unix.Poll(fds, 0)
		gone = err == nil && n > 0 && fds[0].Revents&(unix.POLLRDHUP|unix.POLLHUP|unix.POLLERR) != 0
	})
	return gone
}
