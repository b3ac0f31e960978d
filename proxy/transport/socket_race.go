//go:build linux && (amd64 || arm64) && race

package transport

import "syscall"

// The race detector takes what one goroutine did before it wrote to a connection as done before what another does after it
// read from it, if it sees both. It sees these calls, and not those of wire_raw.go.

func recvNow(fd uintptr, b []byte) (int, syscall.Errno) { return seen(syscall.Read(int(fd), b)) }

func sendNow(fd uintptr, b []byte) (int, syscall.Errno) { return seen(syscall.Write(int(fd), b)) }

func seen(n int, err error) (int, syscall.Errno) {
	errno, _ := err.(syscall.Errno)
	return max(n, 0), errno
}
