//go:build unix && !(linux && (amd64 || arm64))

package transport

import "syscall"

// recvNow receives into b without waiting, because package net makes its
// sockets non-blocking. It returns EAGAIN if there is no input, and 0 bytes at
// the end of the connection.
func recvNow(fd uintptr, b []byte) (int, syscall.Errno) {
	for {
		n, err := syscall.Read(int(fd), b)
		if errno, _ := err.(syscall.Errno); errno != syscall.EINTR {
			return max(n, 0), errno
		}
	}
}

func allowRecvNow(uintptr) error { return nil }
