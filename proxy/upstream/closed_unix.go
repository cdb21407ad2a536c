//go:build unix

package upstream

import (
	"net"
	"syscall"
)

// closed reports whether the server has closed a kept connection, or sent
// something that nobody asked for. It does not block and consumes nothing.
func closed(c net.Conn) bool {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return true
	}
	dead := false
	err = raw.Read(func(fd uintptr) bool {
		var b [1]byte
		_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		dead = err != syscall.EAGAIN && err != syscall.EWOULDBLOCK
		return true
	})
	return dead || err != nil
}
