//go:build linux && (amd64 || arm64) && !race

package transport

import (
	"syscall"
	"unsafe"
)

// recvNow receives into b without waiting. It returns EAGAIN if there is no
// input, and 0 bytes at the end of the connection.
func recvNow(fd uintptr, b []byte) (int, syscall.Errno) {
	return socketCall(syscall.SYS_RECVFROM, fd, b, 0)
}

// sendNow sends as much of b as there is space for without waiting. It returns
// EAGAIN if there is none.
func sendNow(fd uintptr, b []byte) (int, syscall.Errno) {
	return socketCall(syscall.SYS_SENDTO, fd, b, syscall.MSG_NOSIGNAL)
}

// socketCall makes a system call with MSG_DONTWAIT. It must never be one that
// can block: RawSyscall6 does not tell the scheduler, so a blocked call would
// hold back all other goroutines of its P, and garbage collection.
func socketCall(number, fd uintptr, b []byte, flags uintptr) (int, syscall.Errno) {
	flags |= syscall.MSG_DONTWAIT
	n := uintptr(len(b))
	for {
		// The conversion has to stand in the call, or the compiler would not
		// keep b in place (see unsafe.Pointer, rule 4).
		done, _, errno := syscall.RawSyscall6(number, fd, uintptr(unsafe.Pointer(unsafe.SliceData(b))), n, flags, 0, 0)
		switch errno {
		case 0:
			return int(done), 0
		case syscall.EINTR:
			continue
		}
		return 0, errno
	}
}
