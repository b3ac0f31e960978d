package transport

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/valyala/fasthttp"
)

// The error has to tell whether WeChat may have executed the request, and the
// request is sent once, whatever happens.
func TestExchangeErrors(t *testing.T) {
	const ok, chunked = "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
	send := func(text string) func(net.Conn) { return func(c net.Conn) { io.WriteString(c, text) } }
	sendAndStall := func(text string) func(net.Conn) {
		return func(c net.Conn) { io.WriteString(c, text); io.Copy(io.Discard, c) }
	}
	for name, c := range map[string]struct {
		serve func(net.Conn) // then the connection is closed
		want  error          // nil: a response
	}{
		"closed at once": {send(""), ErrBroken},
		"reset": {func(c net.Conn) {
			c.(*gatheringConn).Conn.(*net.TCPConn).SetLinger(0)
		}, ErrBroken},
		"no HTTP":               {send("SSH-2.0\r\n\r\n"), ErrBroken},
		"half a header":         {send(ok + "Content-Le"), ErrBroken},
		"half a body":           {send(ok + "Content-Length: 10\r\n\r\n{"), ErrBroken},
		"half a chunk":          {send(chunked + "5\r\n{"), ErrBroken},
		"half a last chunk":     {send(chunked + "1\r\n{\r\n0\r\n"), ErrBroken},
		"too many trailers":     {send(chunked + "0\r\n" + strings.Repeat("X-A: b\r\n", 2*maxTrailers) + "\r\n"), ErrBroken},
		"too long header":       {send(ok + strings.Repeat("X-A: "+strings.Repeat("y", 100)+"\r\n", 1000)), ErrBroken},
		"only interim":          {send(strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 50)), ErrBroken},
		"silence":               {sendAndStall(""), ErrTimeout},
		"silence after headers": {sendAndStall(ok + "Content-Length: 2\r\n\r\n"), ErrTimeout},
		"interim first":         {send("HTTP/1.1 103 Early\r\n\r\n" + respond("{}")), nil},
		"empty":                 {send(respond("")), nil},
		"no length":             {send(ok + "\r\n{}"), nil},
		"204":                   {send("HTTP/1.1 204 None\r\n\r\n"), nil},
	} {
		for _, body := range []string{"", "body"} {
			t.Run(fmt.Sprintf("%s, body %q", name, body), func(t *testing.T) {
				t.Parallel()
				server := newRawServer(t, "http", serveHTTP(func(conn net.Conn, _ *bufio.Reader, _ *http.Request) bool {
					c.serve(conn)
					return false
				}))
				u := server.upstream(t)
				timeout := testTimeout
				if c.want == ErrTimeout {
					timeout = 3 * time.Second // enough to connect on a busy machine
				}
				now := time.Now()
				// GET is a method that HTTP clients like to repeat.
				err := u.Exchange(&Request{
					Head:   fmt.Appendf(nil, "GET /a HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", len(body)),
					Body:   []byte(body),
					Client: clientConn{}, Timeout: timeout, Now: now, Deadline: now.Add(timeout),
				}, new(fasthttp.Response))
				if !errors.Is(err, c.want) {
					t.Errorf("got %v, want %v", err, c.want)
				}
				if n := server.requests.Load(); n != 1 {
					t.Errorf("server got %d requests, want 1", n)
				}
			})
		}
	}
}

func TestExchangeReportsThatNothingWasSent(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	untrusted := newRawServer(t, "https", func(*rawServer, net.Conn) {})
	untrusted.roots = nil
	for name, c := range map[string]struct {
		url  string
		want string
	}{
		"refused":                 {"http://" + ln.Addr().String(), "refused"},
		"certificate not trusted": {untrusted.url, "certificate"},
	} {
		u, err := NewUpstream(UpstreamConfig{URL: c.url})
		if err != nil {
			t.Fatal(err)
		}
		_, err = exchange(u, "GET", "/a?access_token=secret")
		if !errors.Is(err, ErrUnreachable) || errors.Is(err, ErrBroken) || errors.Is(err, ErrTimeout) {
			t.Errorf("%s: got %v, want ErrUnreachable", name, err)
		}
		text := fmt.Sprint(err)
		if !strings.Contains(text, c.want) || strings.Contains(text, "127.0.0.1:") || strings.Contains(text, "secret") {
			t.Errorf("%s: got %q, want the reason %q and no address", name, text, c.want)
		}
	}
	u, err := NewUpstream(UpstreamConfig{URL: "http://x", Dial: func(string, time.Duration) (net.Conn, error) {
		return nil, fasthttp.ErrDialTimeout
	}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := exchange(u, "GET", "/"); !errors.Is(err, ErrUnreachable) || !strings.Contains(err.Error(), "too long") {
		t.Errorf("dial timeout: got %v, want ErrUnreachable and the reason", err)
	}
}

func TestNewUpstreamRejectsOtherThanURLs(t *testing.T) {
	for _, url := range []string{"", "api.weixin.qq.com", "/path", "http://", "http://a b/", "%"} {
		if _, err := NewUpstream(UpstreamConfig{URL: url}); err == nil {
			t.Errorf("%q: got no error", url)
		}
	}
}

// A connection that a program makes itself, without TCP, cannot be inspected,
// so it is used for one exchange only, unless it can say that it is idle.
func TestReuseOfDialedConnections(t *testing.T) {
	for _, c := range []struct {
		name      string
		wrap      func(net.Conn) net.Conn
		wantDials int
	}{
		{"unknown", func(c net.Conn) net.Conn { return c }, 3},
		{"idle", func(c net.Conn) net.Conn { return inspectableConn{c, true} }, 1},
	} {
		server := newRawServer(t, "http", serveHTTP(func(c net.Conn, _ *bufio.Reader, _ *http.Request) bool {
			io.WriteString(c, respond("{}"))
			return true
		}))
		dials := 0
		u, err := NewUpstream(UpstreamConfig{URL: server.url, Dial: func(addr string, d time.Duration) (net.Conn, error) {
			dials++
			conn, err := net.DialTimeout("tcp", addr, d)
			return c.wrap(conn), err
		}})
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if _, err := exchange(u, "GET", "/a"); err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
		}
		u.Close()
		if dials != c.wantDials {
			t.Errorf("%s: got %d connections, want %d", c.name, dials, c.wantDials)
		}
	}
	u, err := NewUpstream(UpstreamConfig{URL: "http://x", Dial: func(string, time.Duration) (net.Conn, error) {
		return inspectableConn{idle: false}, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := exchange(u, "GET", "/a"); !errors.Is(err, ErrUnreachable) {
		t.Errorf("never idle: got %v, want ErrUnreachable", err)
	}
}

type inspectableConn struct {
	net.Conn
	idle bool
}

func (c inspectableConn) Idle() bool                  { return c.idle }
func (c inspectableConn) SetDeadline(time.Time) error { return nil }
func (c inspectableConn) Close() error                { return nil }
