package transport

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// testTimeout is how long a test waits for something that has to happen. It is
// generous because the machine may be busy.
const testTimeout = time.Minute

// eachSocket runs a test for each implementation. pair makes both ends of a
// connection, the first of which is a socket.
func eachSocket(t *testing.T, test func(t *testing.T, pair func() (*socket, *net.TCPConn))) {
	for _, fast := range []bool{false, hasFastPath} {
		t.Run(fmt.Sprintf("fast %t", fast), func(t *testing.T) {
			test(t, func() (*socket, *net.TCPConn) {
				local, peer := tcpPair(t)
				s := newSocket(local, fast)
				if err := s.allowProbes(); err != nil {
					t.Fatal(err)
				}
				return s, peer
			})
		})
	}
}

// tcpPair returns both ends of a TCP connection, which is closed at the end of
// the test.
func tcpPair(t testing.TB) (local, peer *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	l, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	p, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close(); p.Close() })
	for _, c := range []net.Conn{l, p} {
		c.SetDeadline(time.Now().Add(testTimeout))
	}
	return l.(*net.TCPConn), p.(*net.TCPConn)
}

func TestSocketSendsDeferredWriteBeforeReading(t *testing.T) {
	eachSocket(t, func(t *testing.T, pair func() (*socket, *net.TCPConn)) {
		s, peer := pair()
		response := make([]byte, 16)
		for _, request := range []string{"one", strings.Repeat("two", 2000), "three"} {
			s.deferWrites(true)
			if n, err := io.WriteString(s, request); n != len(request) || err != nil {
				t.Fatalf("Write of %d bytes: got %d, %v", len(request), n, err)
			}
			if !s.hasPending() {
				t.Error("after a deferred write: got nothing pending")
			}
			received := make(chan string)
			go func() {
				b := make([]byte, len(request))
				io.ReadFull(peer, b)
				io.WriteString(peer, "response")
				received <- string(b)
			}()
			n, err := s.Read(response)
			if string(response[:n]) != "response" || err != nil {
				t.Fatalf("Read: got %q, %v, want %q", response[:n], err, "response")
			}
			if got := <-received; got != request {
				t.Fatalf("peer: got %.20q, want %.20q", got, request)
			}
			if s.hasPending() {
				t.Error("after the read: got something pending")
			}
		}
	})
}

// Before Read, nothing of a deferred write may reach the peer: the exchange
// relies on it when it tries another connection.
func TestSocketKeepsDeferredWriteUntilRead(t *testing.T) {
	eachSocket(t, func(t *testing.T, pair func() (*socket, *net.TCPConn)) {
		s, peer := pair()
		s.deferWrites(true)
		io.WriteString(s, "request")
		s.Close()
		if b, err := io.ReadAll(peer); len(b) != 0 || err != nil {
			t.Errorf("peer: got %q, %v, want nothing", b, err)
		}
	})
}

func TestSocketSendsOtherWritesAtOnce(t *testing.T) {
	eachSocket(t, func(t *testing.T, pair func() (*socket, *net.TCPConn)) {
		s, peer := pair()
		io.WriteString(s, "request")
		if s.hasPending() {
			t.Error("got something pending")
		}
		b := make([]byte, 7)
		if _, err := io.ReadFull(peer, b); err != nil {
			t.Errorf("peer: got %v", err)
		}
	})
}

// A response that arrives between sending and waiting must end the wait:
// nothing else would arrive later.
func TestSocketSeesResponseThatComesAtOnce(t *testing.T) {
	eachSocket(t, func(t *testing.T, pair func() (*socket, *net.TCPConn)) {
		s, peer := pair()
		go io.Copy(peer, peer)
		response := make([]byte, 16)
		for i := range 20_000 {
			s.deferWrites(true)
			s.Write([]byte("ping"))
			if n, err := s.Read(response); n != 4 || err != nil {
				t.Fatalf("round %d: got %d bytes, %v, want 4", i, n, err)
			}
		}
	})
}

// fillSendBuffer writes until the connection has no space for another byte. It
// returns how many bytes the peer has to read before there is some.
func fillSendBuffer(t *testing.T, s *socket) (written int) {
	t.Helper()
	filler := bytes.Repeat([]byte("f"), 64<<10)
	s.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
	for {
		n, err := s.Write(filler)
		written += n
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	s.SetWriteDeadline(time.Now().Add(testTimeout))
	return written
}

func TestSocketWaitsForSpaceInSendBuffer(t *testing.T) {
	eachSocket(t, func(t *testing.T, pair func() (*socket, *net.TCPConn)) {
		for _, sizes := range [][]int{{4}, {maxPending}, {maxPending, 1}, {maxPending, 2 << 20, 5}} {
			s, peer := pair()
			filled := fillSendBuffer(t, s)
			var sent []byte
			for i, n := range sizes {
				sent = append(sent, bytes.Repeat([]byte{byte('a' + i)}, n)...)
			}
			go func() {
				b := make([]byte, filled+len(sent))
				if _, err := io.ReadFull(peer, b); err == nil && bytes.Equal(b[filled:], sent) {
					io.WriteString(peer, "complete")
				}
				peer.Close()
			}()
			s.deferWrites(true)
			rest := sent
			for _, n := range sizes {
				if m, err := s.Write(rest[:n]); m != n || err != nil {
					t.Fatalf("writes of %d, Write of %d bytes: got %d, %v", sizes, n, m, err)
				}
				rest = rest[n:]
			}
			response := make([]byte, 16)
			if n, err := s.Read(response); string(response[:n]) != "complete" || err != nil {
				t.Fatalf("writes of %d: got %q, %v, want %q", sizes, response[:n], err, "complete")
			}
		}
	})
}

func TestSocketErrors(t *testing.T) {
	isReset := func(err error) bool { return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) }
	isTimeout := func(err error) bool {
		var timeout net.Error
		return errors.Is(err, os.ErrDeadlineExceeded) && errors.As(err, &timeout) && timeout.Timeout()
	}
	isClosed := func(err error) bool { return errors.Is(err, net.ErrClosed) }
	cases := map[string]struct {
		fault func(*socket, *net.TCPConn)
		want  func(error) bool
	}{
		"reset": {func(_ *socket, peer *net.TCPConn) { peer.SetLinger(0); peer.Close() }, isReset},
		"deadline": {func(s *socket, _ *net.TCPConn) {
			s.SetDeadline(time.Now().Add(10 * time.Millisecond))
		}, isTimeout},
		"closed before": {func(s *socket, _ *net.TCPConn) { s.Close() }, isClosed},
		"closed during": {func(s *socket, _ *net.TCPConn) {
			time.AfterFunc(10*time.Millisecond, func() { s.Close() })
		}, isClosed},
	}
	eachSocket(t, func(t *testing.T, pair func() (*socket, *net.TCPConn)) {
		b := make([]byte, 1)
		for _, deferred := range []bool{false, true} {
			for name, c := range cases {
				t.Run(fmt.Sprintf("%s, deferred write %t", name, deferred), func(t *testing.T) {
					s, peer := pair()
					if deferred {
						s.deferWrites(true)
						io.WriteString(s, "request")
					}
					c.fault(s, peer)
					if n, err := s.Read(b); n != 0 || !c.want(err) {
						t.Errorf("Read: got %d, %v", n, err)
					}
				})
			}
		}
		s, peer := pair()
		peer.CloseWrite()
		if n, err := s.Read(b); n != 0 || err != io.EOF {
			t.Errorf("Read at the end: got %d, %v, want 0, EOF", n, err)
		}
		s, peer = pair()
		peer.Close()
		var err error
		for end := time.Now().Add(testTimeout); err == nil && time.Now().Before(end); {
			_, err = s.Write(b)
		}
		if !isReset(err) {
			t.Errorf("Write to a closed connection: got %v, want EPIPE or ECONNRESET", err)
		}
	})
}
