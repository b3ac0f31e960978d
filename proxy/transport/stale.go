package transport

import (
	"errors"
	"net"
	"os"
	"time"
)

// staleReadWait is how long isStaleByRead waits for something to read.
const staleReadWait = time.Millisecond

// isStaleByRead does what isStale does, on any system: it reads, for a moment. What it reads is lost, but then the connection is
// not used again. It changes the read deadline.
func isStaleByRead(c *net.TCPConn) bool {
	if c.SetReadDeadline(time.Now().Add(staleReadWait)) != nil {
		return true
	}
	var one [1]byte
	_, err := c.Read(one[:])
	return !errors.Is(err, os.ErrDeadlineExceeded)
}
