package transport

import (
	"os"
	"syscall"
	"unsafe"
)

const (
	fionbio       = 0x8004667e
	wsaWouldBlock = syscall.Errno(10035)
)

// allowRecvNow makes a socket non-blocking. The calls of package net are
// overlapped, so they behave as before.
func allowRecvNow(fd uintptr) error {
	on, size := uint32(1), uint32(0)
	err := syscall.WSAIoctl(syscall.Handle(fd), fionbio, (*byte)(unsafe.Pointer(&on)),
		uint32(unsafe.Sizeof(on)), nil, 0, &size, nil, 0)
	return os.NewSyscallError("ioctlsocket", err)
}

// recvNow receives into b without waiting, from a socket after allowRecvNow.
// It returns EAGAIN if there is no input, and 0 bytes at the end of the
// connection.
func recvNow(fd uintptr, b []byte) (int, syscall.Errno) {
	buf := syscall.WSABuf{Len: uint32(len(b)), Buf: unsafe.SliceData(b)}
	var n, flags uint32
	switch err := syscall.WSARecv(syscall.Handle(fd), &buf, 1, &n, &flags, nil, nil).(type) {
	case nil:
		return int(n), 0
	case syscall.Errno:
		if err == wsaWouldBlock {
			return 0, syscall.EAGAIN
		}
		return 0, err
	default:
		return 0, syscall.EINVAL
	}
}
