package transport

import "net"

// deferringConn is what the implementations of socket have in common: linuxSocket
// and plainSocket. Nothing calls a socket through this interface, because the
// type of a socket is chosen at compile time (see select_*.go): an interface
// call per system call would be paid by every request. The interface keeps the
// implementations equal and lets one table of tests run over both.
//
// A deferringConn is a TCP connection that can hold back what is written. After
// setDeferWrite(true), Write keeps its bytes, and the next Read sends them
// before it reads. If no such Read happens, hasPending reports true: the reader
// above the socket (TLS) still had bytes of an earlier read, so the request was
// never sent. What was read then cannot be the response to this request.
// [Upstream.Exchange] depends on it.
//
// Read and Write may run concurrently, as with every [net.Conn], but not while
// writes are deferred. After an error the connection must be closed.
type deferringConn interface {
	net.Conn
	setDeferWrite(on bool)
	hasPending() bool
}

var (
	_ deferringConn = (*socket)(nil)
	_ deferringConn = (*plainSocket)(nil)
)

// maxPending is the number of bytes that a socket holds back at most: a request
// that is sent in one piece, and what TLS adds to it. What is longer is sent at
// once.
const maxPending = MaxCoalesced + 1<<10
