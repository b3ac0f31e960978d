//go:build !unix || plainsocket

package transport

import "net"

// isStale reports whether an idle connection must not be used for a request,
// because it has input: unsolicited bytes, or the end of the connection. It can
// change the read deadline.
func isStale(c *net.TCPConn) bool { return isStaleByRead(c) }
