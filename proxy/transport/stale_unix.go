//go:build unix && !plainsocket

package transport

import (
	"errors"
	"net"
	"syscall"
)

// isStale reports whether a connection that should be silent has something to say: its end, or
// bytes that nobody asked for.
func isStale(c *net.TCPConn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return true
	}
	stale := false
	err = raw.Read(func(fd uintptr) bool {
		var one [1]byte
		_, _, err := syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		stale = !errors.Is(err, syscall.EAGAIN)
		return true
	})
	return err != nil || stale
}
