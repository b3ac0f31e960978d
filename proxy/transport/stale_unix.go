//go:build unix && !plainsocket

package transport

import (
	"errors"
	"net"
	"syscall"
)

// isStale reports whether an idle connection must not be used for a request,
// because it has input: unsolicited bytes, or the end of the connection. It
// takes nothing out of the socket and does not wait.
func isStale(c *net.TCPConn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return true
	}
	stale := false
	err = raw.Read(func(fd uintptr) bool {
		var b [1]byte
		_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		stale = !errors.Is(err, syscall.EAGAIN)
		return true // never wait
	})
	return err != nil || stale
}
