//go:build !unix || plainsocket

package transport

import "net"

// isStale reports whether a connection that should be silent has something to say: its end, or
// bytes that nobody asked for.
func isStale(c *net.TCPConn) bool { return isStaleByRead(c) }
