package proxy_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"runtime"
	"sync/atomic"
	"testing"

	"wxproxy/proxy"
	"wxproxy/sandbox"
)

// gathered is a connection whose writes go out together, once gather is set.
type gathered struct {
	net.Conn
	gather bool
	b      bytes.Buffer
}

func (g *gathered) Write(b []byte) (int, error) {
	if g.gather {
		return g.b.Write(b)
	}
	return g.Conn.Write(b)
}

func (g *gathered) flush() {
	g.Conn.Write(g.b.Bytes())
	g.b.Reset()
}

// What WeChat sends behind an answer, without having been asked, is nobody's answer.
func TestUnaskedAnswers(t *testing.T) {
	certificate, ca, err := sandbox.NewCertificate("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	for _, scheme := range []string{"http", "https"} {
		if scheme == "https" && runtime.GOOS != "linux" {
			t.Skip("only the wire of Linux knows whether a request has gone out")
		}
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		var connections, requests atomic.Int32
		go func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				connections.Add(1)
				go func() {
					defer c.Close()
					g := &gathered{Conn: c}
					conn := net.Conn(g)
					if scheme == "https" {
						s := tls.Server(g, &tls.Config{Certificates: []tls.Certificate{certificate}})
						if s.Handshake() != nil {
							return
						}
						conn = s // two answers are two records then
					}
					g.gather = true
					for br := bufio.NewReader(conn); ; {
						req, err := http.ReadRequest(br)
						if err != nil {
							return
						}
						requests.Add(1)
						answer := func(body string) string {
							return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
						}
						fmt.Fprint(conn, answer(req.URL.Query().Get("n")))
						fmt.Fprint(conn, answer("nobody's"))
						g.flush()
					}
				}()
			}
		}()
		_, addr := start(t, scheme+"://"+ln.Addr().String(), func(c *proxy.Config) { c.Roots = roots })
		const calls = 50
		for n := range calls {
			resp, body := send(t, addr, fmt.Sprintf("GET /%s/cgi-bin/a?n=%d HTTP/1.1\r\nHost: x\r\n\r\n", account, n))
			if resp.StatusCode != 200 || body != fmt.Sprint(n) {
				t.Fatalf("%s, call %d: %d %s", scheme, n, resp.StatusCode, body)
			}
		}
		if n := connections.Load(); n != calls {
			t.Errorf("%s: %d connections were used for %d calls", scheme, n, calls)
		}
		if n := requests.Load(); n != calls {
			t.Errorf("%s: %d requests were sent for %d calls", scheme, n, calls)
		}
	}
}
