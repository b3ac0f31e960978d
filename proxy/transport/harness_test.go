package transport

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/valyala/fasthttp"

	"wxproxy/sandbox"
)

// rawServer is a server that misbehaves as a test wants it to. It speaks plain
// TCP or TLS.
type rawServer struct {
	url                   string
	roots                 *x509.CertPool
	connections, requests atomic.Int32
}

// protocols are those that a rawServer speaks, besides "https": TLS of a
// version that both sides choose.
var protocols = []string{"http", "TLS 1.2", "TLS 1.3"}

// newRawServer starts a server that calls serve for each connection and then
// closes it. protocol is https or one of protocols.
func newRawServer(t testing.TB, protocol string, serve func(s *rawServer, c net.Conn)) *rawServer {
	return newEarlyRawServer(t, protocol, "", serve)
}

// newEarlyRawServer is newRawServer, and sends early first. With TLS it is in
// the TCP segment that ends the handshake of TLS 1.2.
func newEarlyRawServer(
	t testing.TB, protocol, early string, serve func(s *rawServer, c net.Conn),
) *rawServer {
	t.Helper()
	scheme := "http"
	if protocol != "http" {
		scheme = "https"
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	s := &rawServer{url: scheme + "://" + ln.Addr().String()}
	var conf *tls.Config
	if scheme == "https" {
		certificate, roots := testCertificate(t)
		s.roots = roots
		conf = &tls.Config{Certificates: []tls.Certificate{certificate}}
		switch protocol {
		case "TLS 1.2":
			conf.MaxVersion = tls.VersionTLS12
		case "TLS 1.3":
			conf.MinVersion = tls.VersionTLS13
		}
	}
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			s.connections.Add(1)
			go func() {
				defer c.Close()
				g := &gatheringConn{Conn: c}
				var conn net.Conn = g
				if conf != nil {
					g.gatherAfterFirst = early != "" && protocol == "TLS 1.2"
					secure := tls.Server(g, conf)
					if secure.Handshake() != nil {
						return
					}
					conn = &tlsGatheringConn{secure, g}
				}
				together(conn, func() { io.WriteString(conn, early) })
				serve(s, conn)
			}()
		}
	}()
	return s
}

// testCertificate returns a certificate for 127.0.0.1 and the CA of it.
func testCertificate(t testing.TB) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	certificate, ca, err := sandbox.NewCertificate("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	return certificate, roots
}

// upstream returns an Upstream for the server.
func (s *rawServer) upstream(t testing.TB) *Upstream {
	t.Helper()
	b := new(Budget)
	b.SetLimit(ReadAheadLimit)
	u, err := NewUpstream(UpstreamConfig{URL: s.url, Roots: s.roots, ReadAhead: b})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(u.Close)
	return u
}

// serveHTTP reads requests from a connection and calls answer for each, until
// that returns false.
func serveHTTP(answer func(c net.Conn, br *bufio.Reader, r *http.Request) bool) func(*rawServer, net.Conn) {
	return func(s *rawServer, c net.Conn) {
		for br := bufio.NewReader(c); ; {
			r, err := http.ReadRequest(br)
			if err != nil {
				return
			}
			io.Copy(io.Discard, r.Body)
			s.requests.Add(1)
			if !answer(c, br, r) {
				return
			}
		}
	}
}

// gatheringConn keeps what is written while gather is set, so that it leaves in
// one TCP segment.
type gatheringConn struct {
	net.Conn
	gather           bool
	gatherAfterFirst bool // the first Write sets gather
	b                bytes.Buffer
}

func (g *gatheringConn) Write(b []byte) (int, error) {
	if g.gather {
		return g.b.Write(b)
	}
	g.gather, g.gatherAfterFirst = g.gatherAfterFirst, false
	return g.Conn.Write(b)
}

// together calls write and sends everything that it wrote at once.
func (g *gatheringConn) together(write func()) {
	b := g.take(write)
	g.gather = false
	g.b.Write(b)
	g.Conn.Write(g.b.Bytes())
	g.b.Reset()
}

// take calls write and returns what it wrote, which is not sent.
func (g *gatheringConn) take(write func()) []byte {
	before, gather := g.b.Len(), g.gather
	g.gather = true
	write()
	g.gather = gather
	b := bytes.Clone(g.b.Bytes()[before:])
	g.b.Truncate(before)
	return b
}

// tlsGatheringConn is TLS on a gatheringConn: two writes are two records.
type tlsGatheringConn struct {
	*tls.Conn
	inner *gatheringConn
}

func (g *tlsGatheringConn) together(write func()) { g.inner.together(write) }

// tcpOf returns the TCP connection below a connection of a rawServer.
func tcpOf(c net.Conn) *net.TCPConn { return gatheringOf(c).Conn.(*net.TCPConn) }

func gatheringOf(c net.Conn) *gatheringConn {
	if g, ok := c.(*tlsGatheringConn); ok {
		return g.inner
	}
	return c.(*gatheringConn)
}

// together sends what write writes to c in one TCP segment. c is from a
// rawServer.
func together(c net.Conn, write func()) { c.(interface{ together(func()) }).together(write) }

// respond returns a whole response.
func respond(body string) string {
	return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}

// clientConn is a connection that a stream is written to; only its deadline
// matters.
type clientConn struct{ net.Conn }

func (clientConn) SetWriteDeadline(time.Time) error { return nil }

// exchange makes one exchange without a body.
func exchange(u *Upstream, method, path string) (*fasthttp.Response, error) {
	now := time.Now()
	resp := new(fasthttp.Response)
	err := u.Exchange(&Request{
		Head:   fmt.Appendf(nil, "%s %s HTTP/1.1\r\nHost: %s\r\n\r\n", method, path, u.Host()),
		IsHead: method == http.MethodHead, Client: clientConn{},
		Timeout: testTimeout, Now: now, Deadline: now.Add(testTimeout),
	}, resp)
	return resp, err
}
