package callback_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"wxproxy/callback"
	"wxproxy/callback/pages"
	"wxproxy/wechat"
)

// dial opens a connection for requests that no client would make.
func (l *listener) dial() net.Conn {
	l.t.Helper()
	conn, err := net.Dial("tcp", l.addr)
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { _ = conn.Close() })
	// What hangs is a failure, and not the end of the test binary.
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	return conn
}

// raw sends bytes and reads one answer; method is that of the request, as
// HEAD's has no body.
func (l *listener) raw(conn net.Conn, method, request string) reply {
	l.t.Helper()
	if _, err := io.WriteString(conn, request); err != nil {
		l.t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		l.t.Fatalf("%s: %v", method, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		l.t.Fatal(err)
	}
	return reply{resp.StatusCode, string(b), resp.Header}
}

func TestRoutes(t *testing.T) {
	l := start(t, callback.Config{})
	f := func(method, target string, status int, allow string) {
		t.Helper()
		got := l.raw(l.dial(), method, method+" "+target+" HTTP/1.1\r\nHost: wx.example.com\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		if allowed := got.header.Get("Allow"); allowed != allow {
			t.Errorf("%s %s: Allow %q, want %q", method, target, allowed, allow)
		}
		if method == http.MethodHead {
			got.body = http.StatusText(status) + "\n"
		}
		if status == http.StatusOK {
			if got.body != "ok" && method != http.MethodHead {
				t.Errorf("%s %s: %q", method, target, got.body)
			}
			got.body = "success"
		}
		l.is(got, status)
	}
	f("GET", "/healthz", 200, "")
	f("GET", "/healthz?a=b", 200, "")
	f("HEAD", "/healthz", 200, "")
	for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "get", "BREW"} {
		f(method, "/healthz", 405, "GET, HEAD")
	}
	for _, method := range []string{"GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "post"} {
		f(method, "/component/events", 405, "POST")
	}
	f("POST", "/component/events", 400, "") // there, and without a query
	for _, method := range []string{"GET", "HEAD", "PUT", "DELETE", "OPTIONS", "post"} {
		f(method, "/wxf7d2ddffc117e8de/events", 405, "POST")
	}
	f("POST", "/wxf7d2ddffc117e8de/events", 400, "")
	for _, target := range []string{
		"/", "//", "/healthz/", "//healthz", "/./healthz", "/component/../healthz", "/Healthz", "/health%7a", "/healthz%00", "/healthz;a",
		"/component/events/", "//component/events", "/component//events", "/component/./events", "/component/x/../events",
		"/component/event%73", "/component%2fevents", "/component", "/metrics", "/api/status", "/cgi-bin/token",
		"/wxf7d2ddffc117e8de/events/", "/wxf7d2ddffc117e8d/events", "/WXf7d2ddffc117e8de/events", "/wxf7d2ddffc117e8de/event", "/wxf7d2ddffc117e8de//events",
		"//wxf7d2ddffc117e8de/events", "/wxf7d2ddffc117e8de/event%73", "/wxf7d2ddffc117e8d%65/events", "/a/wxf7d2ddffc117e8de/events", "/authorize", "*", "http://api.weixin.qq.com/cgi-bin/token",
	} {
		for _, method := range []string{"GET", "POST", "OPTIONS"} {
			if target == "*" && method != "OPTIONS" {
				continue // net/http refuses that before us
			}
			f(method, target, 404, "")
		}
	}
	f("CONNECT", "api.weixin.qq.com:443", 404, "")
	if got, want := l.counted(), []string{"other bad_message", "message bad_message"}; !slices.Equal(got, want) {
		t.Errorf("counted %q, want %q: only what is on the paths for events", got, want)
	}
}

func TestZeroConfig(t *testing.T) {
	l := &listener{t: t, accounts: &accounts{}, crypt: crypt(t, messageToken, currentKey, component)}
	l.serve(callback.NewServer(callback.New(callback.Config{}), nil))
	if r := l.do(http.MethodGet, "/healthz", nil); r.status != 200 || r.body != "ok" {
		t.Errorf("%d %q", r.status, r.body)
	}
	l.is(l.push(ticketDoc()), http.StatusNotFound)
}

// A body that says that it is too long is refused before a byte of it has come.
func TestTooLongBodyIsNotWaitedFor(t *testing.T) {
	l := start(t, callback.Config{})
	head := func(more string) string {
		return "POST /component/events?" + sealed(l.crypt, ticketDoc()).query() + " HTTP/1.1\r\nHost: a\r\n" + more + "\r\n"
	}
	l.is(l.raw(l.dial(), "POST", head("Content-Length: 1048577\r\n")), http.StatusRequestEntityTooLarge)
	// Nor is the sender told to go on; http.ReadResponse would show that 100.
	l.is(l.raw(l.dial(), "POST", head("Content-Length: 1048577\r\nExpect: 100-continue\r\n")), http.StatusRequestEntityTooLarge)
	l.wants([]string{"other too_large", "other too_large"})

	// One that does not say so is refused when it is too long, and not read to
	// its end.
	conn := l.dial()
	request := head("Transfer-Encoding: chunked\r\n") + "100001\r\n" + strings.Repeat(" ", 1<<20+1) + "\r\n"
	l.is(l.raw(conn, "POST", request), http.StatusRequestEntityTooLarge)
	l.wants([]string{"other too_large", "other too_large", "other too_large"})
}

func TestSlowBodyIsEnded(t *testing.T) {
	// Without the server's own limit, so that it is the push's that is seen.
	l := start(t, callback.Config{Timeout: 50 * time.Millisecond}, func(srv *http.Server) { srv.ReadTimeout, srv.WriteTimeout = 0, 0 })
	s := sealed(l.crypt, ticketDoc())
	conn := l.dial()
	got := l.raw(conn, "POST", fmt.Sprintf("POST /component/events?%s HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", s.query(), len(s.body), s.body[:10]))
	l.is(got, http.StatusRequestTimeout)
	if _, err := conn.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the connection is still open: %v", err)
	}
	l.wants([]string{"other bad_message"})
	l.is(l.send(s), http.StatusOK) // and nobody else suffers
}

func TestSlowHeadersAreEnded(t *testing.T) {
	l := start(t, callback.Config{}, func(srv *http.Server) { srv.ReadHeaderTimeout = 50 * time.Millisecond })
	conn := l.dial()
	_, _ = io.WriteString(conn, "POST /component/events HTTP/1.1\r\nHost: a\r\nX-Slow")
	if got, err := io.ReadAll(conn); err != nil || strings.Contains(string(got), "200") {
		t.Errorf("%q, %v", got, err)
	}
	l.wants(nil)
}

func TestBrokenOffBody(t *testing.T) {
	l := start(t, callback.Config{})
	s := sealed(l.crypt, ticketDoc())
	conn := l.dial()
	_, _ = fmt.Fprintf(conn, "POST /component/events?%s HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", s.query(), len(s.body), s.body[:10])
	_ = conn.(*net.TCPConn).CloseWrite()
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusBadRequest {
		t.Errorf("answered %d", resp.StatusCode)
	}
	l.wants([]string{"other bad_message"})
}

func TestEndlessHeadersAreRefused(t *testing.T) {
	l := start(t, callback.Config{})
	got := l.raw(l.dial(), "GET", "GET /healthz HTTP/1.1\r\nHost: a\r\nX: "+strings.Repeat("a", 64<<10))
	if got.status != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("answered %d", got.status)
	}
}

// The deadline of one push is not that of the next on the same connection.
func TestConnectionIsUsedAgain(t *testing.T) {
	l := start(t, callback.Config{})
	conn := l.dial()
	for range 3 {
		s := sealed(l.crypt, ticketDoc())
		l.is(l.raw(conn, "POST", fmt.Sprintf("POST /component/events?%s HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", s.query(), len(s.body), s.body)), http.StatusOK)
	}
	l.wants([]string{"component_verify_ticket ok", "component_verify_ticket ok", "component_verify_ticket ok"}, ticketTold, ticketTold, ticketTold)
}

// The store is slower than WeChat waits.
func TestDeadline(t *testing.T) {
	l := start(t, callback.Config{Timeout: 50 * time.Millisecond})
	l.accounts.answer(func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
	l.is(l.push(ticketDoc()), http.StatusInternalServerError)
	l.wants([]string{"component_verify_ticket store"}, ticketTold)
}

func TestDefaultDeadlineIsShorterThanWeChats(t *testing.T) {
	l := start(t, callback.Config{})
	var left time.Duration
	l.accounts.answer(func(ctx context.Context) error {
		at, _ := ctx.Deadline()
		left = time.Until(at)
		return nil
	})
	l.is(l.push(ticketDoc()), http.StatusOK)
	if left <= 0 || left > 4*time.Second {
		t.Errorf("%v are left for the store", left)
	}
}

// A sender who has hung up has still sent a ticket.
func TestHungUpPushIsStored(t *testing.T) {
	l := &listener{t: t, accounts: &accounts{}, crypt: crypt(t, messageToken, currentKey, component)}
	h := callback.New(callback.Config{ComponentAppID: component, Crypts: []*wechat.Crypt{l.crypt}, Accounts: l.accounts, Timeout: 20 * time.Second})
	requests := make(chan context.Context, 1)
	l.serve(callback.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests <- r.Context()
		h.ServeHTTP(w, r)
	}), nil))

	arrived, result := make(chan struct{}), make(chan error, 1)
	l.accounts.answer(func(ctx context.Context) error {
		close(arrived)
		<-(<-requests).Done() // net/http has seen it
		result <- ctx.Err()
		return ctx.Err()
	})
	s := sealed(l.crypt, ticketDoc())
	conn := l.dial()
	_, _ = fmt.Fprintf(conn, "POST /component/events?%s HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", s.query(), len(s.body), s.body)
	<-arrived
	_ = conn.Close()
	if err := <-result; err != nil {
		t.Errorf("the store was interrupted: %v", err)
	}
}

func TestServerHasLimits(t *testing.T) {
	srv := callback.NewServer(http.NotFoundHandler(), nil)
	for name, limit := range map[string]time.Duration{"header": srv.ReadHeaderTimeout, "read": srv.ReadTimeout, "write": srv.WriteTimeout, "idle": srv.IdleTimeout} {
		if limit <= 0 || limit > time.Minute {
			t.Errorf("%s: %v", name, limit)
		}
	}
	if srv.WriteTimeout <= 5*time.Second || srv.MaxHeaderBytes <= 0 || srv.ErrorLog == nil || !srv.DisableGeneralOptionsHandler {
		t.Errorf("%+v", srv)
	}
}

// panickingExchanger has a defect that a page runs into.
type panickingExchanger struct{ pages.CodeExchanger }

func (panickingExchanger) PreAuthCode(context.Context) (wechat.Secret, time.Duration, error) {
	panic(theCode)
}

// The pages are on the listener, with its protection against panics.
func TestPagesAreServed(t *testing.T) {
	l := start(t, callback.Config{Pages: pages.Config{CodeExchanger: panickingExchanger{}, PublicURL: "https://wx.example.com"}})
	l.is(l.do(http.MethodGet, "/authorize", nil), 500)
	if r := l.do(http.MethodGet, "/authorized", nil); r.status != 400 || !strings.Contains(r.body, "没有收到授权") {
		t.Errorf("%d %q", r.status, r.body)
	}
	l.handler.Reconfigure(callback.Config{Pages: pages.Config{PublicURL: "https://wx.example.com"}}) // without a component
	l.is(l.do(http.MethodGet, "/authorize", nil), 404)
	l.wants(nil) // pages are no events
}
