//go:build !linux || !(amd64 || arm64)

package transport

import "net"

// wire is a TCP connection; on Linux it is one that costs less.
type socket struct {
	*net.TCPConn
	deferWrite bool // means nothing here
}

func newSocket(c *net.TCPConn) *socket { return &socket{TCPConn: c} }

func (w *socket) hasPending() bool { return false }
