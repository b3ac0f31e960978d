package proxy

import (
	"crypto/tls"
	"io"
	"net"
	"sync/atomic"
	"time"
)

// A connection that is closed while the caller still sends makes his kernel throw away our
// answer. So after a refusal in the middle of a request we stop writing, and read on for a
// while, before the connection is closed.
const (
	lingerTime  = 2 * time.Second
	lingerBytes = 256 << 20
)

type lingering struct{ net.Listener }

func (l lingering) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if t, ok := c.(*net.TCPConn); ok && err == nil {
		return &lingerConn{TCPConn: t}, nil
	}
	return c, err
}

type lingerConn struct {
	*net.TCPConn
	refused atomic.Bool
}

// linger marks the connection of a request that was refused unread.
func linger(c net.Conn) {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	if l, ok := c.(*lingerConn); ok {
		l.refused.Store(true)
	}
}

func (c *lingerConn) Close() error {
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
