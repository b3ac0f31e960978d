//go:build !linux || !(amd64 || arm64)

package proxy

import "net"

// wire is a TCP connection; on Linux it is one that costs less.
type wire struct {
	*net.TCPConn
	hold bool // means nothing here
}

func newWire(c *net.TCPConn) *wire { return &wire{TCPConn: c} }

func (w *wire) unsent() bool { return false }
