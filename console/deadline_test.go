package console_test

import (
	"errors"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"
)

// deadlines records the last deadlines of all connections of a listener, so
// that tests need not wait for one to pass.
type deadlines struct {
	net.Listener

	mu          sync.Mutex
	read, write time.Time
}

// remaining returns the times until the last deadlines.
func (d *deadlines) remaining() (read, write time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return time.Until(d.read), time.Until(d.write)
}

func (d *deadlines) Accept() (net.Conn, error) {
	c, err := d.Listener.Accept()
	return deadlineConn{c, d}, err
}

type deadlineConn struct {
	net.Conn
	d *deadlines
}

func (c deadlineConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

func (c deadlineConn) SetReadDeadline(t time.Time) error {
	c.d.mu.Lock()
	defer c.d.mu.Unlock()
	c.d.read = t
	return c.Conn.SetReadDeadline(t)
}

func (c deadlineConn) SetWriteDeadline(t time.Time) error {
	c.d.mu.Lock()
	defer c.d.mu.Unlock()
	c.d.write = t
	return c.Conn.SetWriteDeadline(t)
}

// serveWithDeadlines is serve with a record of the deadlines that the server
// sets.
func serveWithDeadlines(t *testing.T, server *http.Server) (string, *deadlines) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &deadlines{Listener: l}
	serveOn(t, server, d)
	return l.Addr().String(), d
}
