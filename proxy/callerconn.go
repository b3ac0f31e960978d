package proxy

import (
	"crypto/tls"
	"io"
	"net"
	"runtime"
	"sync/atomic"
	"time"
)

// callers accepts the callers' connections.
type callers struct {
	net.Listener
	open     *atomic.Int64 // connections that were accepted and not closed
	most     int64         // of them
	secure   bool          // they speak TLS
	patience time.Duration
	close    func() error // once

	ending atomic.Int64 // connections too many that are told so
}

// mostEnding bounds the connections too many that get an answer. Each stays open for a moment, and the files for that are few:
// of a flood the others are closed without a word.
const mostEnding = 64

// fullHouse is what one connection too many hears, before it has said anything.
const fullHouse = "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\nX-Wxproxy-Token: none\r\nConnection: close\r\nContent-Length: 134\r\n\r\n" +
	`{"errcode":-503,"errmsg":"wxproxy: as many connections are open as there may be","hint":"use connections again; start more replicas"}` + "\n"

func (l *callers) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		t, ok := c.(*net.TCPConn)
		if !ok || err != nil {
			return c, err
		}
		if l.open.Add(1) <= l.most {
			return newCallerConn(t, l.open, l.patience), nil
		}
		l.open.Add(-1)
		// Only this goroutine adds, so the bound holds.
		if l.secure || l.ending.Load() >= mostEnding {
			t.Close()
			continue
		}
		l.ending.Add(1)
		// There is room for this much in the kernel's buffer. What the caller has sent is not read, so the connection is
		// ended in one direction first, or the answer would be thrown away with it.
		t.Write([]byte(fullHouse))
		t.CloseWrite()
		time.AfterFunc(lingerTime/4, func() { t.Close(); l.ending.Add(-1) })
	}
}

func (l *callers) Close() error { return l.close() }

// securedCallers puts TLS on the callers' connections.
type securedCallers struct {
	net.Listener
	conf *tls.Config
}

func (l securedCallers) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &securedConn{Conn: tls.Server(c, l.conf)}, nil
}

// securedConn is a caller's connection with TLS on it.
type securedConn struct {
	*tls.Conn
	over bool
}

func (c *securedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.over = c.over || err == io.EOF
	return n, err
}

// ended reports whether it was tried to read more than the client has sent before he ended his side. Only the
// connection's own goroutine may ask.
func ended(c net.Conn) bool {
	switch c := c.(type) {
	case *callerConn:
		return c.over
	case *securedConn:
		return c.over
	}
	return false
}

// callerConn is a caller's connection.
type callerConn struct {
	*wire
	patience time.Duration
	until    time.Time // the deadline of reading and writing; only the connection's own goroutine asks
	yield    bool      // before the next Read; likewise
	refused  atomic.Bool
	closed   atomic.Bool
	open     *atomic.Int64
	over     bool // see ended

	asked       bool   // whether the client has shown a certificate; see certificateName
	certificate string // its common name
}

func newCallerConn(c *net.TCPConn, open *atomic.Int64, patience time.Duration) *callerConn {
	l := &callerConn{wire: newWire(c), open: open, patience: patience}
	l.putOff(time.Now())
	return l
}

// underneath gives the caller's connection below TLS, nil if it is not one of ours.
func underneath(c net.Conn) *callerConn {
	if t, ok := c.(*securedConn); ok {
		c = t.NetConn()
	}
	l, _ := c.(*callerConn)
	return l
}

func (c *callerConn) Read(p []byte) (int, error) {
	if c.yield {
		// An answer has just gone out, and its caller has to get it before he has another call. Whoever else has something
		// to do is let in first: a caller in a hurry has sent by then, and is not waited for, which costs more. With nobody
		// else there this takes a tenth of a microsecond. (BenchmarkBusy)
		c.yield = false
		runtime.Gosched()
	}
	n, err := c.wire.Read(p)
	c.over = c.over || err == io.EOF
	return n, err
}

// late is by how much a deadline may be exceeded.
const late = time.Second

// putOff lets reading and writing take the server's patience from now on, and a little more: then the deadline, which costs more
// to move than to look at, need not be moved with each call. fasthttp would move three of them, and ask the clock each time.
//
// nil, a connection that is none of ours, has no deadline.
func (c *callerConn) putOff(now time.Time) {
	if c == nil {
		return
	}
	c.yield = true
	until := now.Add(c.patience)
	if over := c.until.Sub(until); over >= 0 && over <= late {
		return
	}
	c.until = until.Add(late)
	c.TCPConn.SetDeadline(c.until)
}

// SetWriteDeadline is exact, until it is put off.
func (c *callerConn) SetWriteDeadline(t time.Time) error {
	c.until = time.Time{}
	return c.TCPConn.SetWriteDeadline(t)
}

// A connection that is closed while the caller still sends makes his kernel throw away our
// answer. So after a refusal in the middle of a request we stop writing, and read on for a
// while, before the connection is closed.
const (
	lingerTime  = 2 * time.Second
	lingerBytes = 256 << 20
)

// linger marks the connection of a request that was refused unread.
func linger(c net.Conn) {
	if l := underneath(c); l != nil {
		l.refused.Store(true)
	}
}

func (c *callerConn) Close() error {
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
