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

// rawServer is a server that misbehaves as a test wants it to. It speaks plain TCP
// or TLS.
type rawServer struct {
	url                   string
	roots                 *x509.CertPool
	connections, requests atomic.Int32
}

// newRawServer starts a server that calls serve for each connection and then
// closes it. scheme is http or https.
func newRawServer(t *testing.T, scheme string, serve func(s *rawServer, c net.Conn)) *rawServer {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	s := &rawServer{url: scheme + "://" + ln.Addr().String()}
	var conf *tls.Config
	if scheme == "https" {
		certificate, ca, err := sandbox.NewCertificate("127.0.0.1")
		if err != nil {
			t.Fatal(err)
		}
		s.roots = x509.NewCertPool()
		s.roots.AppendCertsFromPEM(ca)
		conf = &tls.Config{Certificates: []tls.Certificate{certificate}}
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
					secure := tls.Server(g, conf)
					if secure.Handshake() != nil {
						return
					}
					conn = &tlsGatheringConn{secure, g}
				}
				serve(s, conn)
			}()
		}
	}()
	return s
}

// upstream returns an Upstream for the server.
func (s *rawServer) upstream(t *testing.T) *Upstream {
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
	gather bool
	b      bytes.Buffer
}

func (g *gatheringConn) Write(b []byte) (int, error) {
	if g.gather {
		return g.b.Write(b)
	}
	return g.Conn.Write(b)
}

// together calls write and sends everything that it wrote at once.
func (g *gatheringConn) together(write func()) {
	g.gather = true
	write()
	g.gather = false
	g.Conn.Write(g.b.Bytes())
	g.b.Reset()
}

// tlsGatheringConn is TLS on a gatheringConn: two writes are two records.
type tlsGatheringConn struct {
	*tls.Conn
	inner *gatheringConn
}

func (g *tlsGatheringConn) together(write func()) { g.inner.together(write) }

// together sends what write writes to c in one TCP segment. c is from a rawServer.
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
