//go:build linux && (amd64 || arm64) && race

package transport

import "syscall"

// The race detector treats what a goroutine did before it wrote to a connection
// as done before what another one does after it read from that connection. It
// knows that only of calls that it sees: these, and not those of
// socket_linux_raw.go.

func recvNow(fd uintptr, b []byte) (int, syscall.Errno) {
	return withErrno(syscall.Read(int(fd), b))
}

func sendNow(fd uintptr, b []byte) (int, syscall.Errno) {
	return withErrno(syscall.Write(int(fd), b))
}

func withErrno(n int, err error) (int, syscall.Errno) {
	errno, _ := err.(syscall.Errno)
	return max(n, 0), errno
}
