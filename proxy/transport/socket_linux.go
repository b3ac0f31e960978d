//go:build linux && (amd64 || arm64)

package transport

import "syscall"

// hasFastPath reports that a socket can use less CPU time than package net.
// Most of the CPU time of a request is the kernel's, for five system calls:
// receive and send the request, check the connection to WeChat, send on it and
// receive the response. Package net adds to each of them:
//
//   - It uses read(2) and write(2), which also work on files. recv(2) and
//     send(2) take a shorter path through the kernel.
//   - It tells the scheduler about each system call, since any could block. With
//     MSG_DONTWAIT these cannot. But a send on loopback does the receiver's work
//     too and takes long enough for the scheduler to hand the CPU to another
//     thread, and to take it back afterwards.
//   - It tries to read first and waits for input if there is none. After sending
//     a request there is never any input yet, so that first read is wasted. A
//     fast socket sends the pending request as part of starting to wait, and
//     reads when the kernel reports input.
//
// BenchmarkSocket measures the difference. Waiting, deadlines and closing are
// left to package net, by way of [syscall.RawConn].
const hasFastPath = true

// sendPending is the step of tryReceive that sends. It reports whether all of
// pending was sent.
func (s *socket) sendPending(fd uintptr) bool {
	n, _ := sendNow(fd, s.pending)
	s.sent = n
	if n < len(s.pending) {
		return false
	}
	s.endDeferring()
	return true
}

// write sends all of b.
func (s *socket) write(b []byte) (int, error) {
	if !s.fast {
		return s.TCPConn.Write(b)
	}
	if len(b) == 0 {
		return 0, nil
	}
	s.out = transfer{b: b}
	defer s.out.release()
	err := s.raw.Write(s.send)
	n, errno := s.out.n, s.out.errno
	if err == nil && errno != 0 {
		err = s.opError("write", errno)
	}
	return n, err
}

// trySend is one step of writing. It reports whether write is done; if not, the
// runtime waits for space in the send buffer and calls it again.
func (s *socket) trySend(fd uintptr) bool {
	n, errno := sendNow(fd, s.out.b[s.out.n:])
	s.out.n += n
	if errno == syscall.EAGAIN || errno == 0 && s.out.n < len(s.out.b) {
		return false
	}
	s.out.errno = errno
	return true
}

func allowRecvNow(uintptr) error { return nil }
