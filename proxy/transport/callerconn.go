package transport

import (
	"crypto/tls"
	"io"
	"net"
	"runtime"
	"sync/atomic"
	"time"
)

// tlsConn is a caller's connection with TLS on it.
type tlsConn struct {
	*tls.Conn
	eof bool // see sawEOF
}

func (c *tlsConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.eof = c.eof || err == io.EOF
	return n, err
}

// sawEOF reports whether it was tried to read more than the client has sent before he ended his side. Only the
// connection's own goroutine may ask.
func sawEOF(c net.Conn) bool {
	switch c := c.(type) {
	case *CallerConn:
		return c.eof
	case *tlsConn:
		return c.eof
	}
	return false
}

// CallerConn is a caller's connection.
type CallerConn struct {
	*socket
	idleTimeout time.Duration
	deadline    time.Time // the deadline of reading and writing; only the connection's own goroutine asks
	yield       bool      // before the next Read; likewise
	refused     atomic.Bool
	closed      atomic.Bool
	open        *atomic.Int64
	eof         bool // see sawEOF

	tls         *tlsConn // on this connection; nil: none
	asked       bool     // whether the client has shown a certificate; see CertificateName
	certificate string   // its common name
}

func newCallerConn(c *net.TCPConn, open *atomic.Int64, idleTimeout time.Duration) *CallerConn {
	l := &CallerConn{socket: newSocket(c), open: open, idleTimeout: idleTimeout}
	l.ExtendDeadline(time.Now())
	return l
}

// ConnOf gives the caller's connection below TLS, nil if it is not one of ours.
func ConnOf(c net.Conn) *CallerConn {
	if t, ok := c.(*tlsConn); ok {
		c = t.NetConn()
	}
	l, _ := c.(*CallerConn)
	return l
}

func (c *CallerConn) Read(p []byte) (int, error) {
	if c.yield {
		// An answer has just gone out, and its caller has to get it before he has another call. Whoever else has something
		// to do is let in first: a caller in a hurry has sent by then, and is not waited for, which costs more. With nobody
		// else there this takes a tenth of a microsecond. (BenchmarkBusy)
		c.yield = false
		runtime.Gosched()
	}
	n, err := c.socket.Read(p)
	c.eof = c.eof || err == io.EOF
	return n, err
}

// deadlineSlack is by how much a deadline may be exceeded.
const deadlineSlack = time.Second

// ExtendDeadline lets reading and writing take the server's idleTimeout from now on, and a little more: then the deadline, which costs more
// to move than to look at, need not be moved with each call. fasthttp would move three of them, and ask the clock each time.
//
// nil, a connection that is none of ours, has no deadline.
func (c *CallerConn) ExtendDeadline(now time.Time) {
	if c == nil {
		return
	}
	c.yield = true
	deadline := now.Add(c.idleTimeout)
	if slack := c.deadline.Sub(deadline); slack >= 0 && slack <= deadlineSlack {
		return
	}
	c.deadline = deadline.Add(deadlineSlack)
	c.TCPConn.SetDeadline(c.deadline)
}

// SetWriteDeadline is exact, until it is put off.
func (c *CallerConn) SetWriteDeadline(t time.Time) error {
	c.deadline = time.Time{}
	return c.TCPConn.SetWriteDeadline(t)
}

// A connection that is closed while the caller still sends makes his kernel throw away our
// answer. So after a refusal in the middle of a request we stop writing, and read on for a
// while, before the connection is closed.
const (
	lingerTime  = 2 * time.Second
	lingerBytes = 256 << 20
)

// LingerOnClose marks the connection of a request that was refused unread.
func (c *CallerConn) LingerOnClose() {
	if c != nil {
		c.refused.Store(true)
	}
}

// CertificateName is the common name of the certificate that the client has shown and that was verified;
// "" without one. It is read once: it does not change during the life of a connection.
func (c *CallerConn) CertificateName() string {
	switch {
	case c == nil || c.tls == nil:
		return ""
	case c.asked:
		return c.certificate
	}
	if state := c.tls.ConnectionState(); len(state.VerifiedChains) > 0 {
		c.certificate = state.PeerCertificates[0].Subject.CommonName
	}
	c.asked = true
	return c.certificate
}

func (c *CallerConn) Close() error {
	if !c.closed.Swap(true) {
		c.open.Add(-1)
	}
	if !c.refused.Load() || c.TCPConn.CloseWrite() != nil {
		return c.TCPConn.Close()
	}
	c.TCPConn.SetReadDeadline(time.Now().Add(lingerTime))
	go func() {
		io.CopyN(io.Discard, c.TCPConn, lingerBytes)
		c.TCPConn.Close()
	}()
	return nil
}
