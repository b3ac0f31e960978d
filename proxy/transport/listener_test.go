package transport

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"wxproxy/sandbox"
)

const rejection = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"

// startListener returns a listener, and the connections that it accepts.
func startListener(t *testing.T, c ListenerConfig) (*Listener, chan net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if c.IdleTimeout == 0 {
		c.IdleTimeout = testTimeout
	}
	l := NewListener(ln, c)
	conns := make(chan net.Conn, 1000)
	go func() {
		defer close(conns)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conns <- conn
		}
	}()
	t.Cleanup(func() { l.Close() })
	return l, conns
}

func dial(t *testing.T, l *Listener) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(testTimeout))
	return c
}

func TestExcessConnectionsAreRejected(t *testing.T) {
	l, conns := startListener(t, ListenerConfig{MaxConns: 2, TooManyConns: []byte(rejection)})
	dial(t, l)
	dial(t, l)
	first, second := <-conns, <-conns
	for range 20 {
		began := time.Now()
		c := dial(t, l)
		// What the client sends is never read, and must not cost it the
		// response.
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		b, err := io.ReadAll(c)
		if time.Since(began) > lingerTime/4 {
			continue // too slow to get it: the machine is busy
		}
		if string(b) != rejection || err != nil {
			t.Fatalf("third connection: got %q, %v, want %q", b, err, rejection)
		}
	}
	if n := l.Open(); n != 2 {
		t.Errorf("got %d open connections, want 2", n)
	}
	first.Close()
	first.Close() // counts once
	if n := l.Open(); n != 1 {
		t.Errorf("after one was closed: got %d open connections, want 1", n)
	}
	// rejecting connections do not count, so there is room at once.
	dial(t, l)
	select {
	case c := <-conns:
		c.Close()
	case <-time.After(testTimeout):
		t.Error("no connection is accepted after one was closed")
	}
	second.Close()
}

// In a flood most of the excess connections get no response, because each of
// those that do keeps a file descriptor for a moment.
func TestFloodOfConnectionsIsClosedWithoutResponse(t *testing.T) {
	l, _ := startListener(t, ListenerConfig{MaxConns: 0, TooManyConns: []byte(rejection)})
	for range 5 * maxRejecting {
		io.ReadAll(dial(t, l))
		if n := l.rejecting.Load(); n > maxRejecting {
			t.Fatalf("got %d connections open after their response, want %d at most", n, maxRejecting)
		}
	}
	for end := time.Now().Add(testTimeout); l.rejecting.Load() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d connections are never closed after their response", l.rejecting.Load())
		}
	}
	// Without the flood's timing:
	for rejecting, want := range map[int64]string{maxRejecting - 1: rejection, maxRejecting: ""} {
		l.rejecting.Store(rejecting)
		if b, _ := io.ReadAll(dial(t, l)); string(b) != want {
			t.Errorf("with %d others: got %q, want %q", rejecting, b, want)
		}
	}
}

func TestExcessConnectionsAreClosedWithTLS(t *testing.T) {
	certificate, ca, err := sandbox.NewCertificate("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	l, conns := startListener(t, ListenerConfig{MaxConns: 1, TooManyConns: []byte(rejection),
		TLS: &tls.Config{Certificates: []tls.Certificate{certificate}}})
	client := tls.Client(dial(t, l), &tls.Config{RootCAs: roots, ServerName: "127.0.0.1"})
	server := <-conns
	go io.WriteString(server, "hello")
	b := make([]byte, 5)
	if _, err := io.ReadFull(client, b); err != nil || string(b) != "hello" {
		t.Errorf("first connection: got %q, %v", b, err)
	}
	if got := ConnOf(server).CertificateName(); got != "" {
		t.Errorf("certificate of a client without one: got %q", got)
	}
	if b, _ := io.ReadAll(dial(t, l)); len(b) != 0 {
		t.Errorf("second connection: got %q, want nothing", b)
	}
	server.Close()
	if n := l.Open(); n != 0 {
		t.Errorf("got %d open connections at the end, want 0", n)
	}
}

// A client that sends an endless TLS handshake is disconnected before it takes
// much memory, and one with a chain of certificates of 20 KiB is not. What a
// client sends right after its handshake does not count.
func TestHandshakesAreLimited(t *testing.T) {
	certificate, ca, err := sandbox.NewCertificate("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	l, conns := startListener(t, ListenerConfig{MaxConns: 10, TLS: &tls.Config{
		Certificates: []tls.Certificate{certificate}, ClientAuth: tls.RequestClientCert,
	}})

	// A client hello that announces 65,535 bytes, in records of 16 KiB.
	hostile := dial(t, l)
	server := <-conns
	handshake := make(chan error, 1)
	go func() { handshake <- server.(*tlsConn).Handshake() }()
	record := append([]byte{22, 3, 1, 0x40, 0}, make([]byte, 16<<10)...)
	copy(record[5:], []byte{1, 0, 0xff, 0xff})
	for range 2 {
		hostile.Write(record) // the last byte of the hello is never sent
		clear(record[5:9])
	}
	if err := <-handshake; !errors.Is(err, errHandshakeTooLarge) {
		t.Errorf("got %v, want %v", err, errHandshakeTooLarge)
	}

	const size = 1 << 20 // more than a handshake can have
	large := certificate
	for len(bytes.Join(large.Certificate, nil)) < 20<<10 {
		large.Certificate = append(large.Certificate, certificate.Certificate[0])
	}
	client := tls.Client(dial(t, l), &tls.Config{
		RootCAs: roots, ServerName: "127.0.0.1", Certificates: []tls.Certificate{large},
	})
	server = <-conns
	go client.Write(make([]byte, size))
	if err := server.(*tlsConn).Handshake(); err != nil {
		t.Fatalf("large chain: got %v", err)
	}
	if n, err := io.CopyN(io.Discard, server, size); err != nil {
		t.Errorf("large chain: got %d bytes, %v, want %d", n, err, size)
	}
}

func TestListenerClose(t *testing.T) {
	l, conns := startListener(t, ListenerConfig{MaxConns: 10})
	client := dial(t, l)
	server := <-conns
	if err := errors.Join(l.Close(), l.Close()); err != nil {
		t.Errorf("Close: got %v", err)
	}
	if _, open := <-conns; open {
		t.Error("a connection was accepted after Close")
	}
	go io.WriteString(server, "hello")
	b := make([]byte, 5)
	if _, err := io.ReadFull(client, b); err != nil {
		t.Errorf("connection that was accepted before: got %v", err)
	}
}
