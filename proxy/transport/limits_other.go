//go:build !unix

package transport

// openFileLimit returns a number that is safe on Windows, where a process has no
// limit of this kind: sockets are bounded by memory and by the ports for outgoing
// connections, of which there are 16384 by default.
func openFileLimit() uint64 { return 1 << 16 }
