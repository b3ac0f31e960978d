package main

import (
	"net"
	"sync"
	"testing"
	"time"

	"wxproxy/internal/proctest"
)

// cut is what is wrong with a link. The zero value is nothing.
type cut int

const (
	intact        cut = iota
	silent            // nothing passes in either direction
	requestsLost      // nothing passes to the server
	responsesLost     // nothing passes from the server
	resetting         // all connections are reset, new ones too
)

// link carries the TCP connections of one replica to a server, on a loopback
// address of its own, so that a test can cut off this replica alone.
//
// Bytes that do not pass are held. What becomes of them when the link is
// repaired is what TCP does: either they arrive late, as if they were sent
// again, or the connection is reset, as if one side had given up meanwhile.
type link struct {
	network, server string // where to
	listener        net.Listener

	mu      sync.Mutex
	changed sync.Cond // of cut, and of conns when the link closes
	cut     cut
	closed  bool
	conns   map[net.Conn]struct{}
}

// newLink starts a link to a server that ends with the test.
func newLink(t *testing.T, network, server string) *link {
	t.Helper()
	ln, err := net.Listen("tcp", proctest.FreeAddr(t)) // not one that a replica will use
	if err != nil {
		t.Fatal(err)
	}
	l := &link{network: network, server: server, listener: ln, conns: map[net.Conn]struct{}{}}
	l.changed.L = &l.mu
	t.Cleanup(func() {
		ln.Close()
		l.mu.Lock()
		l.closed = true
		l.mu.Unlock()
		l.repair(true)
	})
	go l.accept()
	return l
}

// addr returns the address on which the link listens, HOST:PORT.
func (l *link) addr() string { return l.listener.Addr().String() }

// fail starts a fault, which lasts until repair is called.
func (l *link) fail(c cut) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = c
	if c == resetting {
		l.reset()
	}
	l.changed.Broadcast()
}

// repair ends the fault. It resets the connections, or delivers what was held.
func (l *link) repair(reset bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut = intact; reset {
		l.reset()
	}
	l.changed.Broadcast()
}

// reset resets all connections. The caller holds l.mu.
func (l *link) reset() {
	for conn := range l.conns {
		abort(conn)
	}
	clear(l.conns)
}

// abort closes a connection with RST, if it is a TCP connection.
func abort(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		tcp.SetLinger(0)
	}
	conn.Close()
}

// accept serves until the listener is closed.
func (l *link) accept() {
	for {
		conn, err := l.listener.Accept()
		if err != nil {
			return
		}
		go l.carry(conn)
	}
}

// carry connects a client with the server.
func (l *link) carry(client net.Conn) {
	server, err := net.DialTimeout(l.network, l.server, 10*time.Second)
	if err != nil {
		abort(client)
		return
	}
	l.mu.Lock()
	refused := l.closed || l.cut == resetting
	if !refused {
		l.conns[client], l.conns[server] = struct{}{}, struct{}{}
	}
	l.mu.Unlock()
	if refused {
		abort(client)
		abort(server)
		return
	}
	var directions sync.WaitGroup
	directions.Go(func() { l.pump(server, client, requestsLost) })
	directions.Go(func() { l.pump(client, server, responsesLost) })
	directions.Wait()
	l.mu.Lock()
	delete(l.conns, client)
	delete(l.conns, server)
	l.mu.Unlock()
	client.Close()
	server.Close()
}

// pump copies from src to dst until src ends. It holds what it has read while
// the link is silent or loses this direction.
func (l *link) pump(dst, src net.Conn, direction cut) {
	b := make([]byte, 16<<10)
	for {
		n, err := src.Read(b)
		l.mu.Lock()
		for l.cut == silent || l.cut == direction {
			l.changed.Wait()
		}
		l.mu.Unlock()
		if _, failed := dst.Write(b[:n]); err != nil || failed != nil {
			break
		}
	}
	if half, ok := dst.(interface{ CloseWrite() error }); ok {
		half.CloseWrite()
	}
}
