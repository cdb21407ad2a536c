package proxy

import (
	"io"
	"net"
	"sync"
	"time"

	"github.com/sallyport/sallyport/proxy/upstream"
	"github.com/sallyport/sallyport/proxy/wire"
)

// tunnel carries a WebSocket: the upstream's 101 and then bytes both ways until
// either side ends, or the gateway does. Nothing of a tunnel is judged again.
func (r *request) tunnel(x *upstream.Exchange) {
	c := r.c
	server, buffered := x.Tunnel()
	r.statusLine(101)
	r.copyFields(&x.Response.Header)
	wire.WriteField(c.writer.Writer, "connection", "Upgrade")
	wire.WriteField(c.writer.Writer, "upgrade", "websocket")
	r.verdictFields()
	_, _ = c.writer.WriteString("\r\n")
	c.wrote = true
	if c.writer.Flush() != nil || c.nc.SetDeadline(time.Time{}) != nil {
		return
	}
	c.awaiting.Store(0)
	t := &tunnel{client: c.nc, server: server}
	c.tunnel.Store(t)
	defer c.tunnel.Store(nil)
	if c.s.closing.Load() { // since before Shutdown could see it
		t.retire()
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		_, _ = io.Copy(server, c.reader)
		endSending(server)
		t.hurry(server)
	})
	_, _ = io.Copy(c.nc, buffered)
	endSending(c.nc)
	t.hurry(c.nc)
	wg.Wait()
	t.linger(c.s.linger)
}

// tunnel is both ends of one.
type tunnel struct {
	client, server net.Conn

	mu      sync.Mutex
	retired bool
}

// tunnelGrace is how long one direction may go on after the other has ended, and how
// long what was read may take to be written at shutdown.
const tunnelGrace = 5 * time.Second

// hurry bounds what is still read from c once the other direction has ended.
func (t *tunnel) hurry(c net.Conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.retired {
		_ = c.SetReadDeadline(time.Now().Add(tunnelGrace))
	}
}

// retire ends the tunnel: what was read is still written, and then both sides see the
// end of the stream. There is no Close frame (RFC 6455 section 5.5.1): in the middle of
// another frame it would be taken for its data, and many clients that hear a reason do
// not come back.
func (t *tunnel) retire() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.retired = true
	now := time.Now()
	for _, c := range []net.Conn{t.client, t.server} {
		_ = c.SetReadDeadline(now)
		_ = c.SetWriteDeadline(now.Add(tunnelGrace))
	}
}

// linger waits a moment for both sides of a retired tunnel to end too. To close before
// they have read what was written could take it from them: what they send meanwhile
// would reset the connection (RFC 9112 section 9.6).
func (t *tunnel) linger(d time.Duration) {
	t.mu.Lock()
	retired := t.retired
	t.mu.Unlock()
	if !retired {
		return
	}
	var wg sync.WaitGroup
	for _, c := range []net.Conn{t.client, t.server} {
		_ = c.SetReadDeadline(time.Now().Add(d))
		wg.Go(func() { _, _ = io.Copy(io.Discard, c) })
	}
	wg.Wait()
}

// cut ends the tunnel at once.
func (t *tunnel) cut() {
	_ = t.client.Close()
	_ = t.server.Close()
}

func endSending(c net.Conn) {
	if half, ok := c.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
		return
	}
	_ = c.Close()
}
