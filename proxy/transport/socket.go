package transport

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
)

// maxPending is the capacity that a socket keeps for what it holds back,
// bytes: a request that is sent in one piece, and what TLS adds to it.
const maxPending = MaxCoalesced + 1<<10

// PlainSocketsEnv names an environment variable. Unless it is empty, all
// sockets are read and written by package net, as on other systems than Linux
// (docs/operating.md).
const PlainSocketsEnv = "WXPROXY_PLAIN_SOCKETS"

// fastSockets returns the parameter of newSocket for this process.
var fastSockets = sync.OnceValue(func() bool { return os.Getenv(PlainSocketsEnv) == "" })

// PlainSockets reports whether PlainSocketsEnv has replaced faster sockets.
func PlainSockets() bool { return hasFastPath && !fastSockets() }

// errUnfit is the error of a connection that a request must not be sent on:
// unread input lies on it, or its end.
var errUnfit = errors.New("unsolicited input, or closed")

// errNoInput is the error of a probing read that found nothing.
var errNoInput error = noInputError{}

// noInputError is a temporary error, so crypto/tls does not keep it.
type noInputError struct{}

func (noInputError) Error() string   { return "no input" }
func (noInputError) Timeout() bool   { return true }
func (noInputError) Temporary() bool { return true }

// socket is a TCP connection that can hold a write back until nothing unread
// lies on the connection. Otherwise it behaves like the [net.TCPConn] in it.
//
// After deferWrites, Write keeps its bytes, and Read sends them only when the
// kernel has no input. Input that is there is returned first, and the bytes
// stay pending. So a reader above the socket that gets anything while
// hasPending reports true has read what was not requested, and nothing has
// been sent. With TLS that reader is [tls.Conn]. It can process session
// tickets and key updates, and then reads again. TLS can also hold a part of a
// record back, which the socket notices by following the framing.
//
// The kernel is asked and the bytes are sent in one step, so very little can
// arrive in between. On Linux the same step begins to wait for the response.
//
// Read and Write may run concurrently, as with every [net.Conn], but not while
// writes are deferred. After an error the connection must be closed. In the
// zero value TCPConn is nil; only deferWrites and hasPending can be called
// then.
type socket struct {
	*net.TCPConn
	raw           syscall.RawConn
	fast          bool                  // see socket_linux.go
	receive, send func(fd uintptr) bool // tryReceive and trySend, bound once to save an allocation per call
	in, out       transfer
	deferring     bool   // what is written becomes pending
	probing       bool   // Read returns errNoInput instead of waiting
	pending       []byte // what waits for the next Read; only while deferring
	sent          int    // bytes of pending that have been sent
	framed        bool   // the input is TLS records
	records       recordScanner
}

// transfer is the state of one Read or Write, shared with tryReceive or
// trySend.
type transfer struct {
	b     []byte
	n     int
	errno syscall.Errno
}

// release ends a transfer, so that the caller's buffer is not kept alive.
func (t *transfer) release() { t.b = nil }

// newSocket returns a socket. fast selects the implementation for Linux, where
// there is one.
func newSocket(c *net.TCPConn, fast bool) *socket {
	s := &socket{TCPConn: c, fast: fast && hasFastPath}
	s.raw, _ = c.SyscallConn() // fails only if c is nil
	s.receive, s.send = s.tryReceive, s.trySend
	return s
}

// allowProbes has to be called before the first deferred write or probing read.
func (s *socket) allowProbes() error {
	var failed error
	if err := s.raw.Control(func(fd uintptr) { failed = allowRecvNow(fd) }); err != nil {
		return err
	}
	return failed
}

// deferWrites selects whether what is written becomes pending. It must not be
// called while something is.
func (s *socket) deferWrites(on bool) { s.deferring = on }

// hasPending reports whether bytes were written and none of them has been sent.
func (s *socket) hasPending() bool { return len(s.pending) > 0 && s.sent == 0 }

// Read implements [io.Reader]. It sends what is pending when there is no input,
// and returns the error of sending, if there is one. Then it waits for input.
func (s *socket) Read(b []byte) (n int, err error) {
	if len(b) == 0 {
		return 0, nil
	}
	if s.fast || s.probing || s.hasPending() {
		n, err = s.readRaw(b)
	} else {
		n, err = s.TCPConn.Read(b)
	}
	if s.framed {
		s.records.scan(b[:n])
	}
	return n, err
}

// readRaw is Read with the system calls of this package.
func (s *socket) readRaw(b []byte) (int, error) {
	s.in = transfer{b: b}
	defer s.in.release()
	err := s.raw.Read(s.receive)
	if err == nil && s.in.errno == syscall.EAGAIN {
		// There was no input.
		switch {
		case s.sent == 0 && s.records.inRecord():
			return 0, errUnfit
		case s.probing:
			return 0, errNoInput
		}
		if err := s.flush(); err != nil {
			return 0, err
		}
		if !s.fast {
			return s.TCPConn.Read(b)
		}
		err = s.raw.Read(s.receive)
	}
	n, errno := s.in.n, s.in.errno
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

// tryReceive is one step of readRaw. It reports whether that goes on; if not,
// the runtime waits for input and calls it again.
func (s *socket) tryReceive(fd uintptr) bool {
	s.in.n, s.in.errno = recvNow(fd, s.in.b)
	if s.in.errno != syscall.EAGAIN {
		return true
	}
	if !s.hasPending() && !s.probing {
		return false
	}
	if s.probing || s.records.inRecord() || !s.fast {
		return true
	}
	// The runtime reset the readiness of this connection before the first
	// step. A response that arrives after recvNow sets it again, and so does
	// the end of the connection. So the wait ends, and nothing is missed.
	return !s.sendPending(fd)
}

// flush sends what is left of pending. If the send buffer is full, it waits for
// space. If the connection is broken, it meets the error of sendPending again.
func (s *socket) flush() error {
	n, err := s.write(s.pending[s.sent:])
	if s.sent += n; s.sent > 0 {
		s.endDeferring()
	}
	return err
}

// endDeferring discards pending, of which something has been sent.
func (s *socket) endDeferring() {
	s.deferring, s.sent = false, 0
	if s.pending = s.pending[:0]; cap(s.pending) > maxPending {
		s.pending = nil
	}
}

// Write implements [io.Writer]. While writes are deferred it keeps a copy of b.
func (s *socket) Write(b []byte) (int, error) {
	if s.deferring {
		s.pending = append(s.pending, b...)
		return len(b), nil
	}
	return s.write(b)
}

// opError returns the error that package net would return.
func (s *socket) opError(op string, errno syscall.Errno) error {
	return &net.OpError{
		Op: op, Net: "tcp", Source: s.LocalAddr(), Addr: s.RemoteAddr(),
		Err: os.NewSyscallError(op, errno),
	}
}
