package transport

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/valyala/fasthttp"

	"wxproxy/internal/tcptest"
)

// foreignResponse is what a server sends without a request.
const foreignResponse = "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nforeign"

// unsolicited is what a server does to a connection without a request: it sends
// something, and ends the connection. Each makes the connection unfit.
var unsolicited = map[string]struct {
	write   func(c net.Conn) // nil: nothing
	end     func(c net.Conn) // nil: not
	onlyTLS bool
}{
	"a response":       {write: func(c net.Conn) { io.WriteString(c, foreignResponse) }},
	"a byte":           {write: func(c net.Conn) { io.WriteString(c, "H") }},
	"half a response":  {write: func(c net.Conn) { io.WriteString(c, foreignResponse[:20]) }},
	"interim response": {write: func(c net.Conn) { io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\n") }},
	"half-close":       {end: func(c net.Conn) { tcpOf(c).CloseWrite() }},
	"response and FIN": {
		write: func(c net.Conn) { io.WriteString(c, foreignResponse) },
		end:   func(c net.Conn) { tcpOf(c).CloseWrite() },
	},
	"FIN": {end: func(c net.Conn) { tcpOf(c).CloseWrite() }}, // then answer returns
	"RST": {end: func(c net.Conn) { tcpOf(c).SetLinger(0); tcpOf(c).Close() }},
	"close_notify": {write: func(c net.Conn) {
		c.(*tlsGatheringConn).CloseWrite()
		tcpOf(c).SetWriteDeadline(time.Time{}) // CloseWrite has set it
	}, onlyTLS: true},
	"cut record": {write: func(c net.Conn) { writeCutRecord(c, 0.5) }, onlyTLS: true},
	"cut header": {write: func(c net.Conn) { writeCutRecord(c, 0) }, onlyTLS: true},
	"record and cut record": {
		write:   func(c net.Conn) { io.WriteString(c, "H"); writeCutRecord(c, 0.9) },
		onlyTLS: true,
	},
	"plain text": {write: func(c net.Conn) { io.WriteString(gatheringOf(c), foreignResponse) }, onlyTLS: true},
}

// writeCutRecord sends a part of a TLS record that holds foreignResponse, at
// least three bytes.
func writeCutRecord(c net.Conn, part float64) {
	g := gatheringOf(c)
	b := g.take(func() { io.WriteString(c, foreignResponse) })
	g.Write(b[:max(3, int(part*float64(len(b))))])
}

// isolationServer answers the requests of isolationCases. A request's query
// says its number n, the size of its response, and what is done to the
// connection afterwards: do, after delay.
type isolationServer struct {
	*rawServer
	t     *testing.T
	cases sync.Map // n: *isolationCase
}

// isolationCase is two requests, one after the other, with something
// unsolicited between them.
type isolationCase struct {
	n                    int
	do                   string
	delay                time.Duration // between the first response and do; negative: sent together
	firstSize, bodyOfNew int

	dialed   *net.TCPConn  // the client's connection
	received chan struct{} // the client has the first response
	ready    chan struct{} // do has been done, and its effect is there, unless err says
	err      error
	requests atomic.Int32
}

func newIsolationServer(t *testing.T, protocol string) *isolationServer {
	s := &isolationServer{t: t}
	s.rawServer = newRawServer(t, protocol, serveHTTP(s.answer))
	return s
}

// answer serves one request.
func (s *isolationServer) answer(c net.Conn, _ *bufio.Reader, r *http.Request) bool {
	n, _ := strconv.Atoi(r.URL.Query().Get("n"))
	loaded, _ := s.cases.Load(n)
	ic := loaded.(*isolationCase)
	ic.requests.Add(1)
	if r.URL.Path != "/first" {
		io.WriteString(c, respond(fmt.Sprintf("second %d", n)))
		return true
	}
	response := respond(fmt.Sprintf("%-*d", ic.firstSize, n))
	do := unsolicited[ic.do]
	write := func() {
		if do.write != nil {
			do.write(c)
		}
	}
	if ic.delay < 0 {
		together(c, func() { io.WriteString(c, response); write() })
	} else {
		io.WriteString(c, response)
		<-time.After(ic.delay)
		if ic.do == "RST" {
			<-ic.received // a reset discards what the client has not read
		}
		write()
	}
	if do.end != nil {
		do.end(c)
	}
	if ic.do == "RST" {
		ic.err = tcptest.WaitReset(ic.dialed)
	} else {
		ic.err = tcptest.WaitDelivered(tcpOf(c))
	}
	close(ic.ready)
	return ic.do != "FIN"
}

// run makes the two requests, and then a third one on whatever connection is
// left.
func (s *isolationServer) run(ic *isolationCase) error {
	ic.received, ic.ready = make(chan struct{}), make(chan struct{})
	s.cases.Store(ic.n, ic)
	u := s.upstream(s.t)
	dial := u.pool.DialTimeout
	u.pool.DialTimeout = func(addr string, timeout time.Duration) (net.Conn, error) {
		c, err := dial(addr, timeout)
		if err == nil && ic.dialed == nil {
			ic.dialed = c.(*upstreamConn).socket.TCPConn
		}
		return c, err
	}
	for request, want := range []string{
		fmt.Sprintf("%-*d", ic.firstSize, ic.n), fmt.Sprintf("second %d", ic.n), fmt.Sprintf("second %d", ic.n),
	} {
		path, body := "/first", 0
		if request > 0 {
			path, body = "/second", ic.bodyOfNew
		}
		got, err := exchangeBody(u, fmt.Sprintf("%s?n=%d", path, ic.n), body)
		if err != nil || got != want {
			return fmt.Errorf("request %d: got %.40q, %v, want %.40q", request, got, err, want)
		}
		if request == 0 {
			close(ic.received)
			if <-ic.ready; ic.err != nil {
				return ic.err
			}
		}
	}
	if n := ic.requests.Load(); n != 3 {
		return fmt.Errorf("server got %d requests, want 3", n)
	}
	return nil
}

// exchangeBody makes an exchange with a body of size bytes and returns the
// body of the response. Short bodies are part of the head.
func exchangeBody(u *Upstream, path string, size int) (string, error) {
	now, body := time.Now(), strings.Repeat("b", size)
	r := &Request{
		Head:   fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", path, size),
		Client: clientConn{}, Timeout: testTimeout, Now: now, Deadline: now.Add(testTimeout),
	}
	if len(r.Head)+size <= MaxCoalesced {
		r.Head = append(r.Head, body...)
	} else {
		r.Body = []byte(body)
	}
	resp := new(fasthttp.Response)
	if err := u.Exchange(r, resp); err != nil {
		return "", err
	}
	if !resp.IsBodyStream() {
		return string(resp.Body()), nil
	}
	b, err := io.ReadAll(resp.BodyStream())
	resp.CloseBodyStream()
	return string(b), err
}

// A response reaches no other request, and a connection that the server has
// ended costs no request: for everything in unsolicited, on plain TCP and both
// versions of TLS, sent in one TCP segment with the first response or 0 to 200
// ms after it, if that response has 10 B to 300 KB (which is buffered or
// streamed), and if the next request has no body, 9 KB or 100 KB. For what is
// unlikely, fewer of these are combined. The test waits until the effect has
// arrived in the client's kernel.
func TestUnsolicitedInputReachesNoRequest(t *testing.T) {
	var total atomic.Int32
	t.Run("all", func(t *testing.T) {
		for _, protocol := range protocols {
			for name, u := range unsolicited {
				if u.onlyTLS && protocol == "http" {
					continue
				}
				t.Run(protocol+", "+name, func(t *testing.T) {
					t.Parallel()
					total.Add(int32(newIsolationServer(t, protocol).runAll(name)))
				})
			}
		}
	})
	t.Logf("%d cases", total.Load())
}

const sentTogether = -1 * time.Millisecond

// runAll runs the cases of one entry of unsolicited and returns their number.
func (s *isolationServer) runAll(name string) (n int) {
	delays := []time.Duration{sentTogether, 0, 50 * time.Millisecond}
	sizes := []int{10, 62_000, 100_000}
	bodies := []int{0, 9000}
	switch name {
	case "a response", "half-close", "FIN", "RST", "close_notify":
		delays = append(delays, 5*time.Millisecond, 95*time.Millisecond, 200*time.Millisecond)
		sizes = append(sizes, 16<<10, 60<<10, 64<<10, 65<<10, 300_000)
		bodies = append(bodies, 100_000)
	}
	var running sync.WaitGroup
	slots := make(chan struct{}, 16)
	for _, delay := range delays {
		for _, size := range sizes {
			for _, body := range bodies {
				if delay == sentTogether && name == "RST" {
					continue // it would destroy the first response
				}
				n++
				ic := &isolationCase{n: n, do: name, delay: delay, firstSize: size, bodyOfNew: body}
				slots <- struct{}{}
				running.Go(func() {
					if err := s.run(ic); err != nil {
						s.t.Errorf("delay %v, first response %d B, next body %d B: %v", delay, size, body, err)
					}
					<-slots
				})
			}
		}
	}
	running.Wait()
	return n
}

// A server that sends something first on each new connection gets no request,
// and one request opens maxUnfitDials connections at most. If a later
// connection is fit, it is used. With TLS 1.2, what is sent is in the segment
// that ends the handshake.
func TestServerThatSpeaksFirst(t *testing.T) {
	for _, protocol := range protocols {
		for _, first := range []string{foreignResponse, "H", "close"} {
			for _, unfit := range []int{maxUnfitDials - 1, 1 << 30} {
				for _, body := range []int{0, 9000} {
					name := fmt.Sprintf("%s, %.5q, %d connections, body %d B", protocol, first, unfit, body)
					t.Run(url.PathEscape(name), func(t *testing.T) {
						t.Parallel()
						testSpeaksFirst(t, protocol, first, unfit, body)
					})
				}
			}
		}
	}
}

func testSpeaksFirst(t *testing.T, protocol, first string, unfit, body int) {
	spoken := make(chan struct{}, 100)
	answer := serveHTTP(func(c net.Conn, _ *bufio.Reader, _ *http.Request) bool {
		io.WriteString(c, respond("mine"))
		return true
	})
	early := first
	if first == "close" || unfit < 1<<30 {
		early = ""
	}
	server := newEarlyRawServer(t, protocol, early, func(s *rawServer, c net.Conn) {
		switch speaks := int(s.connections.Load()) <= unfit; {
		case speaks && first == "close":
			tcpOf(c).CloseWrite()
		case speaks && early == "":
			io.WriteString(c, first)
		}
		tcptest.WaitDelivered(tcpOf(c))
		spoken <- struct{}{}
		answer(s, c)
	})
	u := server.upstream(t)
	dial := u.pool.DialTimeout
	u.pool.DialTimeout = func(addr string, timeout time.Duration) (net.Conn, error) {
		c, err := dial(addr, timeout)
		if err == nil {
			<-spoken
		}
		return c, err
	}
	got, err := exchangeBody(u, "/", body)
	if unfit < maxUnfitDials {
		if got != "mine" || err != nil {
			t.Errorf("got %q, %v, want the response of the last connection", got, err)
		}
	} else if err == nil || !strings.HasPrefix(err.Error(), ErrUnreachable.Error()) {
		t.Errorf("got %q, %v, want %v", got, err, ErrUnreachable)
	}
	if n := server.connections.Load(); n != maxUnfitDials {
		t.Errorf("got %d connections, want %d", n, maxUnfitDials)
	}
}
