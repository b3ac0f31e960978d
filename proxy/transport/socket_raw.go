//go:build linux && (amd64 || arm64) && !race

package transport

import (
	"syscall"
	"unsafe"
)

// recvNow receives what is there, EAGAIN where that is nothing, and 0 bytes at the end.
func recvNow(fd uintptr, b []byte) (int, syscall.Errno) {
	return socketCall(syscall.SYS_RECVFROM, fd, b, 0)
}

// sendNow sends what there is room for, EAGAIN where that is nothing.
func sendNow(fd uintptr, b []byte) (int, syscall.Errno) {
	return socketCall(syscall.SYS_SENDTO, fd, b, syscall.MSG_NOSIGNAL)
}

// socketCall must not be one that can block: the scheduler does not know of it.
func socketCall(number, fd uintptr, b []byte, flags uintptr) (int, syscall.Errno) {
	for {
		n, _, errno := syscall.RawSyscall6(number, fd, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), syscall.MSG_DONTWAIT|flags, 0, 0)
		switch errno {
		case 0:
			return int(n), 0
		case syscall.EINTR:
			continue
		}
		return 0, errno
	}
}
