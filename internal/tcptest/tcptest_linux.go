// Package tcptest tells tests what has arrived at the other end of a TCP
// connection on this machine, so that they need not guess how long it takes.
package tcptest

import (
	"fmt"
	"net"
	"syscall"
	"time"
	"unsafe"
)

const (
	// timeout bounds the waiting. It is generous because the machine may be
	// busy.
	timeout      = time.Minute
	pollInterval = 100 * time.Microsecond
)

// WaitDelivered waits until the kernel of the peer has everything that was
// sent on c, the end included.
func WaitDelivered(c *net.TCPConn) error {
	return waitFor("delivery", func() bool {
		var unacknowledged int32
		control(c, func(fd uintptr) {
			// SIOCOUTQ
			_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, fd, syscall.TIOCOUTQ,
				uintptr(unsafe.Pointer(&unacknowledged)))
			if errno != 0 {
				unacknowledged = 0
			}
		})
		return unacknowledged == 0
	})
}

// WaitReset waits until the kernel has noticed that the peer has reset c.
func WaitReset(c *net.TCPConn) error {
	const stateClosed = 7 // TCP_CLOSE
	return waitFor("reset", func() bool {
		closed := true
		control(c, func(fd uintptr) {
			state, err := syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_INFO)
			closed = err != nil || state&0xff == stateClosed
		})
		return closed
	})
}

func control(c *net.TCPConn, f func(fd uintptr)) {
	if raw, err := c.SyscallConn(); err == nil {
		raw.Control(f)
	}
}

// waitFor waits until condition holds.
func waitFor(what string, condition func() bool) error {
	for end := time.Now().Add(timeout); !condition(); {
		if time.Now().After(end) {
			return fmt.Errorf("waiting for %s: got none", what)
		}
		<-time.After(pollInterval)
	}
	return nil
}
