//go:build linux && (amd64 || arm64)

package transport

import (
	"io"
	"net"
	"os"
	"syscall"
)

// wire is a TCP connection whose reads and writes cost less than net's own. What a call costs is for the most part the
// kernel's work for four system calls (request in, request out, answer in, answer out), and net adds to each:
//
//   - It uses read and write, which are made for files, too; recv and send take a shorter way.
//   - It tells the scheduler of each system call, for it could block. On a socket that is told not to it cannot; but a
//     send takes long on loopback, where it does the receiver's work as well, and then the scheduler gives the processor
//     to another thread and takes it back again.
//   - It reads first and waits when there is nothing. Who has just sent a request knows that there is nothing yet: a
//     request that is held (hold) goes out as the wait for its answer begins, and nothing is read before there is something.
//
// BenchmarkWire tells what that gives. The waiting itself, deadlines and closing are net's ([syscall.RawConn]).
type socket struct {
	*net.TCPConn
	raw         syscall.RawConn
	recv, send  func(fd uintptr) bool // made once for a connection
	in, out     transfer
	deferWrite  bool   // what is written now waits for the next Read
	pending     []byte // what was
	flushOnRead bool
}

// transfer is what one Read or Write works on.
type transfer struct {
	b     []byte
	n     int
	errno syscall.Errno
}

func newSocket(c *net.TCPConn) *socket {
	w := &socket{TCPConn: c}
	w.raw, _ = c.SyscallConn() // fails for a nil connection only
	w.recv, w.send = w.tryRecv, w.trySend
	return w
}

// Read reads. What is held goes out before; if it cannot, that is the error.
func (w *socket) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	w.in = transfer{b: b}
	w.deferWrite, w.flushOnRead = false, len(w.pending) > 0
	err := w.raw.Read(w.recv)
	if err == nil && len(w.pending) > 0 { // there was no room for it, or an error that comes again
		pending := w.pending
		w.pending = w.pending[:0]
		if _, err = w.Write(pending); err == nil {
			err = w.raw.Read(w.recv)
		}
	}
	n, errno := w.in.n, w.in.errno
	w.in.b = nil
	switch {
	case err != nil:
		return 0, err
	case errno != 0:
		return 0, w.failed("read", errno)
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

// hasPending reports whether what was held still is.
func (w *socket) hasPending() bool { return len(w.pending) > 0 }

// tryRecv is one step of reading: it says whether that is all, or whether to wait until there is something to read.
func (w *socket) tryRecv(fd uintptr) bool {
	if w.flushOnRead {
		// The runtime has begun to listen for something to read before it came here. So an answer that is there before
		// the wait begins ends it at once, and none is missed. What came before the request was sent is no answer:
		// the connection may be at its end, and then says so again when the request reaches the other side.
		w.flushOnRead = false
		n, errno := sendNow(fd, w.pending)
		w.pending = w.pending[:copy(w.pending, w.pending[n:])]
		return errno != 0 || len(w.pending) > 0
	}
	w.in.n, w.in.errno = recvNow(fd, w.in.b)
	return w.in.errno != syscall.EAGAIN
}

// Write writes all of b, or holds it: then it is copied, and an error comes with the next Read.
func (w *socket) Write(b []byte) (int, error) {
	if w.deferWrite && len(w.pending)+len(b) <= maxPending {
		w.pending = append(w.pending, b...)
		return len(b), nil
	}
	if pending := w.pending; len(pending) > 0 { // more than can be held
		w.deferWrite, w.pending = false, nil
		if _, err := w.Write(pending); err != nil {
			return 0, err
		}
	}
	if len(b) == 0 {
		return 0, nil
	}
	w.out = transfer{b: b}
	err := w.raw.Write(w.send)
	n, errno := w.out.n, w.out.errno
	w.out.b = nil
	if err == nil && errno != 0 {
		err = w.failed("write", errno)
	}
	return n, err
}

// trySend is one step of writing: it says whether that is all, or whether to wait until there is room for more.
func (w *socket) trySend(fd uintptr) bool {
	n, errno := sendNow(fd, w.out.b[w.out.n:])
	w.out.n += n
	if errno == syscall.EAGAIN || errno == 0 && w.out.n < len(w.out.b) {
		return false
	}
	w.out.errno = errno
	return true
}

// failed makes the error that net would.
func (w *socket) failed(what string, errno syscall.Errno) error {
	return &net.OpError{Op: what, Net: "tcp", Source: w.LocalAddr(), Addr: w.RemoteAddr(), Err: os.NewSyscallError(what, errno)}
}
