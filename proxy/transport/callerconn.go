package transport

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"runtime"
	"sync/atomic"
	"time"
)

// deadlineSlack is by how much a deadline of a caller's connection may be
// exceeded. See [CallerConn.ExtendDeadline].
const deadlineSlack = time.Second

// lingerTime and lingerBytes bound how long, and how much, is read from a
// connection before it is closed. See [CallerConn.LingerOnClose].
const (
	lingerTime  = 2 * time.Second
	lingerBytes = 256 << 20
)

// handshakeTime and handshakeBytes bound a TLS handshake. It takes memory
// before a client has shown anything: crypto/tls would buffer messages of 64
// KiB, and of 256 KiB for certificates. A chain of three certificates has less
// than 10 KiB.
const (
	handshakeTime  = 15 * time.Second
	handshakeBytes = 32 << 10
)

// errHandshakeTooLarge is the error of a TLS handshake over handshakeBytes.
var errHandshakeTooLarge = errors.New("TLS handshake too large")

// CallerConn is the TCP connection of a caller, below TLS if there is TLS.
// Apart from Close, its methods must be called by the goroutine that serves the
// connection.
type CallerConn struct {
	*socket
	idleTimeout time.Duration
	pace        Pace      // of bodies
	deadline    time.Time // of reads and writes; zero: not known
	yield       bool      // before the next Read
	eof         bool      // see sawEOF
	open        *atomic.Int64
	linger      atomic.Bool
	closed      atomic.Bool // by Close
	released    atomic.Bool // from open

	tls             *tlsConn // above this connection; nil: plain TCP
	handshake       bool     // a TLS handshake is in progress, which can have
	handshakeLeft   int      // so many more bytes
	readCertificate bool     // certificateName is valid
	certificateName string
}

func newCallerConn(c *net.TCPConn, open *atomic.Int64, idleTimeout time.Duration) *CallerConn {
	l := &CallerConn{socket: newSocket(c, fastSockets()), open: open, idleTimeout: idleTimeout}
	l.ExtendDeadline(time.Now())
	return l
}

// ConnOf returns the CallerConn below a connection that [Listener.Accept]
// returned, and nil for any other connection. ExtendDeadline, LingerOnClose and
// CertificateName do nothing on nil.
func ConnOf(c net.Conn) *CallerConn {
	if t, ok := c.(*tlsConn); ok {
		c = t.NetConn()
	}
	l, _ := c.(*CallerConn)
	return l
}

// Read implements [net.Conn].
func (c *CallerConn) Read(p []byte) (int, error) {
	if c.yield {
		// A response has just been written. The client usually sends its next
		// request as soon as it has the response. If other goroutines run
		// first, that request is there when this one reads, and the poller,
		// which costs more, is not needed. On an idle machine yielding takes
		// about 0.1 µs. BenchmarkBusy measures both.
		c.yield = false
		runtime.Gosched()
	}
	if c.handshake {
		return c.readHandshake(p)
	}
	n, err := c.socket.Read(p)
	c.eof = c.eof || err == io.EOF
	return n, err
}

// readHandshake is Read during a TLS handshake. What it returns can contain the
// beginning of what follows the handshake, so only the next call fails if that
// is too much.
func (c *CallerConn) readHandshake(p []byte) (int, error) {
	if c.handshakeLeft == 0 {
		return 0, errHandshakeTooLarge
	}
	n, err := c.socket.Read(p[:min(len(p), c.handshakeLeft)])
	c.handshakeLeft -= n
	return n, err
}

// ExtendDeadline lets the next reads and writes take the idle timeout from now,
// and up to deadlineSlack more. Setting a deadline costs more than a
// comparison, and with the slack it has to be set once a second and not with
// every request. fasthttp would set three per request and read the clock for
// each.
func (c *CallerConn) ExtendDeadline(now time.Time) {
	if c == nil {
		return
	}
	c.yield = true
	c.setDeadline(now.Add(c.idleTimeout))
}

// setDeadline makes reads and writes fail after deadline, or up to
// deadlineSlack later.
func (c *CallerConn) setDeadline(deadline time.Time) {
	if over := c.deadline.Sub(deadline); over >= 0 && over <= deadlineSlack {
		return
	}
	c.deadline = deadline.Add(deadlineSlack)
	c.TCPConn.SetDeadline(c.deadline)
}

// SetWriteDeadline implements [net.Conn]. The deadline is exact, and holds
// until the next ExtendDeadline.
func (c *CallerConn) SetWriteDeadline(t time.Time) error {
	c.deadline = time.Time{}
	return c.TCPConn.SetWriteDeadline(t)
}

// CertificateName returns the common name of the client's certificate, or "" if
// the client sent none or it was not verified. A certificate does not change
// while the connection lasts, so it is read once.
func (c *CallerConn) CertificateName() string {
	switch {
	case c == nil || c.tls == nil:
		return ""
	case c.readCertificate:
		return c.certificateName
	}
	if state := c.tls.ConnectionState(); len(state.VerifiedChains) > 0 {
		c.certificateName = state.PeerCertificates[0].Subject.CommonName
	}
	c.readCertificate = true
	return c.certificateName
}

// LingerOnClose makes Close read for a while what the client still sends. Call
// it for a response to a request that was not read to its end. If such a
// connection were closed at once, the kernel would answer the client's data
// with a reset, upon which the client's kernel discards the response.
func (c *CallerConn) LingerOnClose() {
	if c != nil {
		c.linger.Store(true)
	}
}

// Close implements [net.Conn]. It does not wait: lingering goes on in another
// goroutine. The connection counts as open until that has ended, because it has
// a file descriptor. Otherwise rejected requests could use up all of them.
func (c *CallerConn) Close() error {
	if c.closed.Swap(true) || !c.linger.Load() || c.TCPConn.CloseWrite() != nil {
		return c.closeNow()
	}
	c.TCPConn.SetReadDeadline(time.Now().Add(lingerTime))
	go func() {
		io.CopyN(io.Discard, c.TCPConn, lingerBytes)
		c.closeNow()
	}()
	return nil
}

// closeNow closes the connection without lingering.
func (c *CallerConn) closeNow() error {
	err := c.TCPConn.Close()
	if !c.released.Swap(true) {
		c.open.Add(-1)
	}
	return err
}

// tlsConn is TLS on a CallerConn.
type tlsConn struct {
	*tls.Conn
	eof bool // see sawEOF
}

// Handshake makes the handshake within handshakeTime and handshakeBytes.
// fasthttp calls it before it reads.
func (c *tlsConn) Handshake() error {
	inner := ConnOf(c)
	if inner == nil {
		return c.Conn.Handshake()
	}
	inner.handshake, inner.handshakeLeft = true, handshakeBytes
	inner.setDeadline(time.Now().Add(min(handshakeTime, inner.idleTimeout)))
	err := c.Conn.Handshake()
	if err == nil {
		inner.handshake = false
		inner.ExtendDeadline(time.Now())
	}
	return err
}

// Read implements [net.Conn].
func (c *tlsConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.eof = c.eof || err == io.EOF
	return n, err
}

// sawEOF reports whether a read has returned the end of what the client sends.
// It must be called by the goroutine that serves the connection.
func sawEOF(c net.Conn) bool {
	switch c := c.(type) {
	case *CallerConn:
		return c.eof
	case *tlsConn:
		return c.eof
	}
	return false
}
