//go:build linux && (amd64 || arm64)

package transport

import (
	"io"
	"net"
	"os"
	"syscall"
)

// linuxSocket implements deferringConn at less cost than package net. Most of the
// CPU time of a request is the kernel's, for four system calls: receive and send
// the request, receive and send the response. Package net adds to each of them:
//
//   - It uses read(2) and write(2), which also work on files. recv(2) and
//     send(2) take a shorter path through the kernel.
//   - It tells the scheduler about each system call, since any could block. With
//     MSG_DONTWAIT these cannot. But a send on loopback does the receiver's work
//     too and takes long enough for the scheduler to hand the CPU to another
//     thread, and to take it back afterwards.
//   - It tries to read first and waits for input if there is none. After sending
//     a request there is never any input yet, so that first read is wasted. A
//     linuxSocket sends the pending request as part of starting to wait, and
//     reads when the kernel reports input.
//
// BenchmarkSocket measures the difference. Waiting, deadlines and closing are
// left to package net, by way of [syscall.RawConn].
type linuxSocket struct {
	*net.TCPConn
	raw         syscall.RawConn
	recv, send  func(fd uintptr) bool // tryRecv and trySend, bound once to save an allocation per call
	in, out     transfer
	deferWrite  bool   // what is written waits for the next Read
	pending     []byte // what waits
	flushOnRead bool   // the next step of reading has to send pending
}

// transfer is the state of one Read or Write, shared with tryRecv or trySend.
type transfer struct {
	b     []byte
	n     int
	errno syscall.Errno
}

func newLinuxSocket(c *net.TCPConn) *linuxSocket {
	s := &linuxSocket{TCPConn: c}
	s.raw, _ = c.SyscallConn() // fails only if c is nil
	s.recv, s.send = s.tryRecv, s.trySend
	return s
}

func (s *linuxSocket) setDeferWrite(on bool) { s.deferWrite = on }

// hasPending reports whether bytes that were written have not been sent.
func (s *linuxSocket) hasPending() bool { return len(s.pending) > 0 }

// Read sends what is pending and then reads. It returns the error of sending, if
// there is one.
func (s *linuxSocket) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	s.in = transfer{b: b}
	s.deferWrite, s.flushOnRead = false, len(s.pending) > 0
	err := s.raw.Read(s.recv)
	if err == nil && len(s.pending) > 0 {
		// The kernel's send buffer is full, or the connection is broken. Write
		// waits for space, and meets the same error again.
		pending := s.pending
		s.pending = s.pending[:0]
		if _, err = s.Write(pending); err == nil {
			err = s.raw.Read(s.recv)
		}
	}
	n, errno := s.in.n, s.in.errno
	s.in.b = nil // do not keep the caller's buffer alive
	switch {
	case err != nil:
		return 0, err
	case errno != 0:
		return 0, s.opError("read", errno)
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

// tryRecv is one step of reading. It reports whether Read is done; if not, the
// runtime waits for input and calls it again.
func (s *linuxSocket) tryRecv(fd uintptr) bool {
	if s.flushOnRead {
		// The runtime reset the readiness of this connection before the call. A
		// response that arrives between this send and the wait sets it again, so
		// the wait ends at once and no response is missed. Input that was there
		// before the call does not end the wait. It is not a response to this
		// request; if it is the end of the connection, the kernel reports an
		// error when the request reaches the other side.
		s.flushOnRead = false
		n, errno := sendNow(fd, s.pending)
		s.pending = s.pending[:copy(s.pending, s.pending[n:])]
		return errno != 0 || len(s.pending) > 0
	}
	s.in.n, s.in.errno = recvNow(fd, s.in.b)
	return s.in.errno != syscall.EAGAIN
}

// Write sends all of b. If writes are deferred and b is short enough, it keeps a
// copy of b instead, and the next Read returns the error of sending.
func (s *linuxSocket) Write(b []byte) (int, error) {
	if s.deferWrite && len(s.pending)+len(b) <= maxPending {
		s.pending = append(s.pending, b...)
		return len(b), nil
	}
	if pending := s.pending; len(pending) > 0 {
		// Together with b it is too much to hold back: send it first.
		s.deferWrite, s.pending = false, nil
		if _, err := s.Write(pending); err != nil {
			return 0, err
		}
	}
	if len(b) == 0 {
		return 0, nil
	}
	s.out = transfer{b: b}
	err := s.raw.Write(s.send)
	n, errno := s.out.n, s.out.errno
	s.out.b = nil
	if err == nil && errno != 0 {
		err = s.opError("write", errno)
	}
	return n, err
}

// trySend is one step of writing. It reports whether Write is done; if not, the
// runtime waits for space in the send buffer and calls it again.
func (s *linuxSocket) trySend(fd uintptr) bool {
	n, errno := sendNow(fd, s.out.b[s.out.n:])
	s.out.n += n
	if errno == syscall.EAGAIN || errno == 0 && s.out.n < len(s.out.b) {
		return false
	}
	s.out.errno = errno
	return true
}

// opError returns the error that package net would return.
func (s *linuxSocket) opError(op string, errno syscall.Errno) error {
	return &net.OpError{
		Op: op, Net: "tcp", Source: s.LocalAddr(), Addr: s.RemoteAddr(),
		Err: os.NewSyscallError(op, errno),
	}
}
