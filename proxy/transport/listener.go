package transport

import (
	"crypto/tls"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Listener accepts the callers' connections.
type Listener struct {
	net.Listener
	config ListenerConfig

	open      atomic.Int64 // connections that were accepted and not closed
	rejecting atomic.Int64 // connections too many that are told so
	close     func() error // once
}

// ListenerConfig is what a [Listener] does with the connections.
type ListenerConfig struct {
	MaxConns    int           // open ones
	IdleTimeout time.Duration // of reading and writing, see [CallerConn.ExtendDeadline]
	TLS         *tls.Config   // nil: none
	// TooManyConns is the response that one connection too many gets, before it has sent anything.
	TooManyConns []byte
}

// NewListener returns a listener of the connections of ln.
func NewListener(ln net.Listener, c ListenerConfig) *Listener {
	return &Listener{Listener: ln, config: c, close: sync.OnceValue(ln.Close)}
}

// maxRejecting bounds the connections too many that get an answer. Each stays open for a moment, and the files for that are few:
// of a flood the others are closed without a word.
const maxRejecting = 64

// Accept returns the next connection that there is room for.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		t, ok := c.(*net.TCPConn)
		switch {
		case !ok:
			return l.secure(c), nil
		case l.open.Add(1) <= int64(l.config.MaxConns):
			return l.secure(newCallerConn(t, &l.open, l.config.IdleTimeout)), nil
		}
		l.open.Add(-1)
		// Only this goroutine adds, so the bound holds.
		if l.config.TLS != nil || l.rejecting.Load() >= maxRejecting {
			t.Close()
			continue
		}
		l.rejecting.Add(1)
		// There is room for this much in the kernel's buffer. What the caller has sent is not read, so the connection is
		// ended in one direction first, or the answer would be thrown away with it.
		t.Write(l.config.TooManyConns)
		t.CloseWrite()
		time.AfterFunc(lingerTime/4, func() { t.Close(); l.rejecting.Add(-1) })
	}
}

// secure puts TLS on c, if there is to be any.
func (l *Listener) secure(c net.Conn) net.Conn {
	if l.config.TLS == nil {
		return c
	}
	t := &tlsConn{Conn: tls.Server(c, l.config.TLS)}
	if under, ok := c.(*CallerConn); ok {
		under.tls = t
	}
	return t
}

// Open returns the number of connections that were accepted and not closed.
func (l *Listener) Open() int { return int(l.open.Load()) }

// Close stops accepting. Connections that were accepted stay.
func (l *Listener) Close() error { return l.close() }
