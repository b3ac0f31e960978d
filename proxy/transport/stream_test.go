package transport

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/valyala/fasthttp"
)

// framings are the ways to send a body: with its length, in chunks, and up to the
// end of the connection. Only the first two let the connection be used again.
var framings = map[string]func(c net.Conn, body []byte) (goOn bool){
	"length": func(c net.Conn, body []byte) bool {
		_, err := fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		return err == nil
	},
	"chunks": func(c net.Conn, body []byte) bool {
		io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
		for part := range chunksOf(body, 30_000) {
			if _, err := fmt.Fprintf(c, "%x\r\n%s\r\n", len(part), part); err != nil {
				return false
			}
		}
		_, err := io.WriteString(c, "0\r\nX-Trailer: dropped\r\n\r\n")
		return err == nil
	},
	"close": func(c net.Conn, body []byte) bool {
		io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
		c.Write(body)
		return false
	},
}

func chunksOf(b []byte, n int) func(func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for len(b) > 0 && yield(b[:min(n, len(b))]) {
			b = b[min(n, len(b)):]
		}
	}
}

// bodyServer sends n random bytes for the path /n.
func bodyServer(t *testing.T, framing string) (*rawServer, []byte) {
	t.Helper()
	data := make([]byte, 4<<20)
	rand.NewChaCha8([32]byte{}).Read(data)
	return newRawServer(t, "http", serveHTTP(func(c net.Conn, _ *bufio.Reader, r *http.Request) bool {
		var n int
		fmt.Sscanf(r.URL.Path, "/%d", &n)
		return framings[framing](c, data[:n])
	})), data
}

func TestBodiesArriveWhole(t *testing.T) {
	for framing := range framings {
		server, data := bodyServer(t, framing)
		u := server.upstream(t)
		for _, size := range []int{0, 1, InspectLimit - 1, InspectLimit, InspectLimit + 1, 300_000, len(data)} {
			resp, err := exchange(u, "GET", fmt.Sprint("/", size))
			if err != nil {
				t.Fatalf("%s, %d bytes: %v", framing, size, err)
			}
			prefix := bytes.Clone(BodyPrefix(resp))
			// One byte more than InspectLimit may be either.
			if want := size > InspectLimit; resp.IsBodyStream() != want && size != InspectLimit+1 {
				t.Errorf("%s, %d bytes: got streamed %t, want %t", framing, size, resp.IsBodyStream(), want)
			}
			body := resp.Body()
			if resp.IsBodyStream() {
				body, err = io.ReadAll(resp.BodyStream())
			}
			if err != nil || !bytes.Equal(body, data[:size]) {
				t.Errorf("%s, %d bytes: got %d bytes, %v", framing, size, len(body), err)
			}
			if len(prefix) < min(size, InspectLimit) || !bytes.HasPrefix(data, prefix) {
				t.Errorf("%s, %d bytes: got a prefix of %d bytes", framing, size, len(prefix))
			}
			resp.CloseBodyStream()
		}
		want := int32(1)
		if framing == "close" {
			want = server.requests.Load()
		}
		if n := server.connections.Load(); n != want {
			t.Errorf("%s: got %d connections for %d exchanges, want %d", framing, n, server.requests.Load(), want)
		}
	}
}

// A client must be able to tell a part of a body from the whole.
func TestBodyCutShortIsAnError(t *testing.T) {
	const sent = InspectLimit + 100_000
	for name, head := range map[string]string{
		"length": "Content-Length: 1000000\r\n\r\n",
		"chunks": "Transfer-Encoding: chunked\r\n\r\nf4240\r\n",
	} {
		server := newRawServer(t, "http", serveHTTP(func(c net.Conn, _ *bufio.Reader, _ *http.Request) bool {
			io.WriteString(c, "HTTP/1.1 200 OK\r\n"+head+strings.Repeat("a", sent))
			return false
		}))
		resp, err := exchange(server.upstream(t), "GET", "/")
		if err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(io.Discard, resp.BodyStream())
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: got %d bytes, %v, want %v", name, n, err, io.ErrUnexpectedEOF)
		}
		resp.CloseBodyStream()
	}
}

// streamOf makes an exchange for a large body and returns its stream, with
// channels that are closed by OnUpstreamDone and OnDone.
func streamOf(t *testing.T, u *Upstream, size int) (s *Stream, upstreamDone, done chan struct{}) {
	t.Helper()
	resp, err := exchange(u, "GET", fmt.Sprint("/", size))
	if err != nil {
		t.Fatal(err)
	}
	s = resp.BodyStream().(*Stream)
	upstreamDone, done = make(chan struct{}), make(chan struct{})
	s.OnUpstreamDone = func() { close(upstreamDone) } // panics the second time
	s.OnDone = func() { close(done) }
	return s, upstreamDone, done
}

func wait(t *testing.T, c chan struct{}, what string) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(testTimeout):
		t.Fatalf("%s did not happen", what)
	}
}

func isDone(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// While a client takes its time over a large body, the connection is free for
// others. The client gets everything nevertheless.
func TestSlowClientFreesConnection(t *testing.T) {
	for _, framing := range []string{"length", "chunks"} {
		server, data := bodyServer(t, framing)
		u := server.upstream(t)
		var streams []*Stream
		for range 3 {
			s, upstreamDone, done := streamOf(t, u, len(data))
			streams = append(streams, s)
			// Read the prefix and a little more, then stop.
			first := make([]byte, InspectLimit+1000)
			if _, err := io.ReadFull(s, first); err != nil || !bytes.Equal(first, data[:len(first)]) {
				t.Fatalf("%s: got other bytes than were sent, %v", framing, err)
			}
			wait(t, upstreamDone, framing+": OnUpstreamDone")
			if isDone(done) {
				t.Errorf("%s: OnDone was called before Close", framing)
			}
		}
		if n := server.connections.Load(); n != 1 {
			t.Errorf("%s: got %d connections for 3 streams, want 1", framing, n)
		}
		if n := u.readAhead.Used(); n == 0 {
			t.Errorf("%s: what is read ahead does not count against the budget", framing)
		}
		for _, s := range streams {
			rest, err := io.ReadAll(s)
			if err != nil || !bytes.Equal(rest, data[InspectLimit+1000:]) {
				t.Errorf("%s: got %d bytes of the rest, %v, want %d", framing, len(rest), err, len(data)-InspectLimit-1000)
			}
			s.Close()
		}
		if n := u.readAhead.Used(); n != 0 {
			t.Errorf("%s: got %d bytes of the budget in use at the end, want 0", framing, n)
		}
	}
}

// A stream that is closed early ends at once, and its connection, on which the
// rest would follow, is not used again. That holds before the first read, in the
// middle, and while a goroutine reads ahead.
func TestStreamClosedEarlyClosesConnection(t *testing.T) {
	const size = 1 << 30 // more than is ever read ahead
	server := newRawServer(t, "http", serveHTTP(func(c net.Conn, _ *bufio.Reader, r *http.Request) bool {
		if r.URL.Path == "/0" {
			io.WriteString(c, respond("{}"))
			return true
		}
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", size)
		for b := make([]byte, 64<<10); ; {
			if _, err := c.Write(b); err != nil {
				return false
			}
		}
	}))
	u := server.upstream(t)
	for i, read := range []func(*Stream){
		func(*Stream) {},
		func(s *Stream) { io.CopyN(io.Discard, s, InspectLimit+100_000) },
		func(s *Stream) {
			io.CopyN(io.Discard, s, InspectLimit+100_000)
			for end := time.Now().Add(testTimeout); u.readAhead.Used() == 0 && time.Now().Before(end); {
				time.Sleep(time.Millisecond)
			}
			if u.readAhead.Used() == 0 {
				t.Error("nothing was read ahead")
			}
		},
	} {
		s, upstreamDone, done := streamOf(t, u, size)
		read(s)
		s.Close()
		s.Close() // does nothing
		wait(t, upstreamDone, "OnUpstreamDone")
		wait(t, done, "OnDone")
		if n := u.readAhead.Used(); n != 0 {
			t.Errorf("case %d: got %d bytes of the budget in use, want 0", i, n)
		}
		if resp, err := exchange(u, "GET", "/0"); err != nil || string(resp.Body()) != "{}" {
			t.Errorf("case %d: next exchange: got %v, %v", i, resp, err)
		}
	}
}

// A transfer that stalls fails after the timeout. One that makes progress can take
// longer.
func TestStreamTimeout(t *testing.T) {
	// Long enough that a busy machine does not look like a stall.
	const timeout = 4 * time.Second
	const parts = 12
	for name, c := range map[string]struct {
		pause time.Duration
		want  bool
	}{
		"progress": {timeout / 10, true},
		"stall":    {testTimeout, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := newRawServer(t, "http", serveHTTP(func(conn net.Conn, _ *bufio.Reader, _ *http.Request) bool {
				fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", 2*InspectLimit+parts)
				conn.Write(make([]byte, 2*InspectLimit))
				closed := make(chan struct{})
				go func() { io.Copy(io.Discard, conn); close(closed) }()
				for range parts {
					select {
					case <-time.After(c.pause):
					case <-closed:
						return false
					}
					conn.Write([]byte("x"))
				}
				return false
			}))
			now := time.Now()
			resp := new(fasthttp.Response)
			err := server.upstream(t).Exchange(&Request{
				Head: []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), Client: clientConn{},
				Timeout: timeout, Now: now, Deadline: now.Add(testTimeout),
			}, resp)
			if err != nil {
				t.Fatal(err)
			}
			n, err := io.Copy(io.Discard, resp.BodyStream())
			if (err == nil) != c.want {
				t.Errorf("got %d bytes, %v, want success %t", n, err, c.want)
			}
			if took := time.Since(now); took < timeout || took > testTimeout/2 {
				t.Errorf("got an end after %v, want one after the timeout of %v", took, timeout)
			}
			resp.CloseBodyStream()
		})
	}
}
