package transport

import (
	"errors"
	"net"
	"os"
	"time"
)

// staleReadWait is how long isStaleByRead waits for input. It must not be 0:
// package net does not even try to read after the deadline.
const staleReadWait = time.Millisecond

// isStaleByRead is isStale for systems on which a socket cannot be inspected
// without reading: it reads with a deadline that is almost over. It changes the
// read deadline of c. A byte that it reads is lost, which does no harm, because a
// stale connection is closed.
//
// If the goroutine is not scheduled until the deadline is over, a stale
// connection goes undetected. The exchange then fails with ErrBroken.
func isStaleByRead(c *net.TCPConn) bool {
	if c.SetReadDeadline(time.Now().Add(staleReadWait)) != nil {
		return true
	}
	var b [1]byte
	_, err := c.Read(b[:])
	return !errors.Is(err, os.ErrDeadlineExceeded)
}
