package transport

import (
	"crypto/tls"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// maxRejecting bounds the excess connections that get a response. Each of them
// stays open for a moment, and few file descriptors are left for that. In a
// flood the others are closed without a response.
const maxRejecting = 64

// Listener accepts the connections of callers, as [CallerConn], up to a limit.
// It implements [net.Listener]. Accept must be called by one goroutine at a
// time.
type Listener struct {
	net.Listener
	config ListenerConfig

	open      atomic.Int64 // connections that were accepted and not closed, lingering ones too
	rejecting atomic.Int64 // excess connections that have got the response and are not closed
	close     func() error
}

// ListenerConfig configures a [Listener].
type ListenerConfig struct {
	// MaxConns is the number of connections that can be open.
	MaxConns int
	// IdleTimeout is how long a read or write may take, counted from the last
	// [CallerConn.ExtendDeadline].
	IdleTimeout time.Duration
	// Pace is how fast the bodies of requests have to arrive. default:
	// DefaultPace
	Pace Pace
	// TLS makes the connections speak TLS. nil: plain TCP.
	TLS *tls.Config
	// TooManyConns is a whole HTTP response. A connection in excess of MaxConns
	// gets it without a request being read, then it is closed. With TLS it is
	// closed at once, because a handshake would cost too much.
	TooManyConns []byte
}

// NewListener returns a listener for the connections of ln, which it closes.
func NewListener(ln net.Listener, c ListenerConfig) *Listener {
	if c.Pace == (Pace{}) {
		c.Pace = DefaultPace
	}
	c.Pace.MaxPause = min(c.Pace.MaxPause, c.IdleTimeout)
	return &Listener{Listener: ln, config: c, close: sync.OnceValue(ln.Close)}
}

// Accept returns the next connection, and rejects those in excess of the limit.
// Connections that are not TCP are not counted.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		tcp, ok := c.(*net.TCPConn)
		switch {
		case !ok:
			return l.secure(c), nil
		case l.open.Add(1) <= int64(l.config.MaxConns):
			conn := newCallerConn(tcp, &l.open, l.config.IdleTimeout)
			conn.pace = l.config.Pace
			return l.secure(conn), nil
		}
		l.open.Add(-1)
		l.reject(tcp)
	}
}

// secure returns c with TLS on it, if TLS is configured.
func (l *Listener) secure(c net.Conn) net.Conn {
	if l.config.TLS == nil {
		return c
	}
	t := &tlsConn{Conn: tls.Server(c, l.config.TLS)}
	if inner, ok := c.(*CallerConn); ok {
		inner.tls = t
	}
	return t
}

// reject closes an excess connection, if possible after the response.
func (l *Listener) reject(c *net.TCPConn) {
	// Only Accept increments rejecting, so two calls cannot pass here together.
	if l.config.TLS != nil || l.rejecting.Load() >= maxRejecting {
		c.Close()
		return
	}
	l.rejecting.Add(1)
	// The send buffer of a new connection has space for the response, so this
	// does not wait. The request is not read. A full close would make the
	// kernel answer the unread request with a reset, and the client would lose
	// the response; so only writing is closed for now.
	c.Write(l.config.TooManyConns)
	c.CloseWrite()
	time.AfterFunc(lingerTime/4, func() {
		c.Close()
		l.rejecting.Add(-1)
	})
}

// Open returns the number of connections that were accepted and not closed.
// Those that linger count.
func (l *Listener) Open() int { return int(l.open.Load()) }

// Close stops accepting. Accepted connections stay open. Later calls return the
// error of the first.
func (l *Listener) Close() error { return l.close() }
