//go:build !plainsocket && linux && (amd64 || arm64)

package transport

import "net"

// socket is the implementation of deferringConn that this program uses.
type socket = linuxSocket

func newSocket(c *net.TCPConn) *socket { return newLinuxSocket(c) }
