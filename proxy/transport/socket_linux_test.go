//go:build linux && (amd64 || arm64)

package transport

import "net"

func init() {
	implementations["linux"] = func(c *net.TCPConn) deferringConn { return newLinuxSocket(c) }
}
