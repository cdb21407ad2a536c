//go:build unix

package wire

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
)

// readiness waits for bytes on a socket without a buffer to read them into.
type readiness struct {
	raw syscall.RawConn // nil: the connection is not a plain socket
	try func(fd uintptr) bool
	n   int
	err error
}

func (r *Reader) watch() {
	var sc syscall.Conn
	switch c := r.conn.(type) {
	case *net.TCPConn:
		sc = c
	case *net.UnixConn:
		sc = c
	default:
		return // what stands between us and the socket, such as TLS, has buffers of its own
	}
	raw, err := sc.SyscallConn()
	if err == nil {
		r.raw, r.try = raw, r.tryRead
	}
}

// await reads once, and holds a buffer only when there is something to read.
func (r *Reader) await() error {
	if r.raw == nil {
		return r.fill()
	}
	r.letGo()
	if err := r.raw.Read(r.try); err != nil {
		return err
	}
	n, err := r.n, r.err
	r.n, r.err = 0, nil
	return r.filled(n, err)
}

// tryRead reads what is there. It reports false when nothing is, and is called
// again when that changes.
func (r *Reader) tryRead(fd uintptr) bool {
	r.hold()
	for {
		n, err := syscall.Read(int(fd), r.buf)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case errors.Is(err, syscall.EAGAIN):
			r.letGo()
			return false
		case err != nil:
			r.n, r.err = 0, os.NewSyscallError("read", err)
		case n == 0:
			r.n, r.err = 0, io.EOF
		default:
			r.n, r.err = n, nil
		}
		return true
	}
}
