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
// either side ends. Nothing of a tunnel is judged again.
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
	c.tunnel.Store(&server)
	defer c.tunnel.Store(nil)
	var wg sync.WaitGroup
	wg.Go(func() {
		_, _ = io.Copy(server, c.reader)
		endSending(server)
		_ = server.SetReadDeadline(time.Now().Add(tunnelGrace))
	})
	_, _ = io.Copy(c.nc, buffered)
	endSending(c.nc)
	_ = c.nc.SetReadDeadline(time.Now().Add(tunnelGrace))
	wg.Wait()
}

// tunnelGrace is how long one direction may go on after the other has ended.
const tunnelGrace = 5 * time.Second

func endSending(c net.Conn) {
	if half, ok := c.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
		return
	}
	_ = c.Close()
}
