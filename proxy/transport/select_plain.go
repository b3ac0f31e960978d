//go:build plainsocket || !linux || !(amd64 || arm64)

package transport

import "net"

// socket is the implementation of deferringConn that this program uses. The build
// tag plainsocket selects this one on Linux too, for tests.
type socket = plainSocket

func newSocket(c *net.TCPConn) *socket { return newPlainSocket(c) }
