package callback_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"wxproxy/callback"
	"wxproxy/callback/pages"
	"wxproxy/wechat"
)

func TestRoutes(t *testing.T) {
	w := start(t, callback.Config{})
	f := func(method, target string, status int, allow string) {
		t.Helper()
		r := w.raw(w.dial(), method, method+" "+target+
			" HTTP/1.1\r\nHost: wx.example.com\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		want := http.StatusText(status) + "\n"
		switch {
		case method == http.MethodHead:
			want = ""
		case status == http.StatusOK:
			want = "ok"
		}
		if r.status != status || r.body != want || r.header.Get("Allow") != allow {
			t.Errorf("%s %s: got status %d, body %q and Allow %q, want %d, %q and %q",
				method, target, r.status, r.body, r.header.Get("Allow"), status, want, allow)
		}
		w.wantHeaders(r)
	}
	f("GET", "/healthz", 200, "")
	f("GET", "/healthz?a=b", 200, "")
	f("HEAD", "/healthz", 200, "")
	for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "get", "BREW"} {
		f(method, "/healthz", 405, "GET, HEAD")
	}
	for _, path := range []string{"/component/events", "/wxf7d2ddffc117e8de/events"} {
		for _, method := range []string{"GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "post"} {
			f(method, path, 405, "POST")
		}
		f("POST", path, 400, "") // it has no query
	}
	for _, target := range []string{
		"/", "//", "*", "http://api.weixin.qq.com/cgi-bin/token", "/metrics", "/api/status", "/cgi-bin/token",
		"/healthz/", "//healthz", "/./healthz", "/component/../healthz", "/Healthz",
		"/health%7a", "/healthz%00", "/healthz;a",
		"/component", "/component/events/", "//component/events", "/component//events", "/component/./events",
		"/component/x/../events", "/component/event%73", "/component%2fevents",
		"/wxf7d2ddffc117e8de/events/", "/wxf7d2ddffc117e8d/events", "/WXf7d2ddffc117e8de/events",
		"/wxf7d2ddffc117e8de/event", "/wxf7d2ddffc117e8de//events", "//wxf7d2ddffc117e8de/events",
		"/wxf7d2ddffc117e8de/event%73", "/wxf7d2ddffc117e8d%65/events", "/a/wxf7d2ddffc117e8de/events",
		"/authorize", "/authorized", // there is no CodeExchanger
	} {
		for _, method := range []string{"GET", "POST", "OPTIONS"} {
			if target == "*" && method != "OPTIONS" {
				continue // net/http rejects it before the handler
			}
			f(method, target, 404, "")
		}
	}
	f("CONNECT", "api.weixin.qq.com:443", 404, "")
	w.wantCounted("other bad_message", "message bad_message") // only pushes are counted
}

// panickingExchanger panics when a page calls it.
type panickingExchanger struct{ pages.CodeExchanger }

func (panickingExchanger) PreAuthCode(context.Context) (wechat.Secret, time.Duration, error) {
	panic(authCode)
}

// The pages are on this listener, and a panic in one of them is answered.
func TestPagesAreServed(t *testing.T) {
	const publicURL = "https://wx.example.com"
	w := start(t, callback.Config{Pages: pages.Config{CodeExchanger: panickingExchanger{}, PublicURL: publicURL}})
	w.wantResponse(w.request(http.MethodGet, "/authorize", nil), 500)
	if r := w.request(http.MethodGet, "/authorized", nil); r.status != 400 ||
		!strings.Contains(r.body, "没有收到授权") {
		t.Errorf("/authorized: got response %d %q, want 400 and a page", r.status, r.body)
	}
	w.handler.Reconfigure(callback.Config{Pages: pages.Config{PublicURL: publicURL}}) // without a component
	w.wantResponse(w.request(http.MethodGet, "/authorize", nil), 404)
	w.wantCounted()
}

func TestZeroConfigServesHealthOnly(t *testing.T) {
	w := newEnv(t)
	w.serve(callback.NewServer(callback.New(callback.Config{}), nil))
	if r := w.request(http.MethodGet, "/healthz", nil); r.status != 200 || r.body != "ok" {
		t.Errorf("/healthz: got response %d %q, want 200 ok", r.status, r.body)
	}
	w.wantResponse(w.push(ticketDoc()), http.StatusNotFound)
	w.wantResponse(w.message(textDoc("hello")), http.StatusNotFound)
	w.wantResponse(w.request(http.MethodGet, "/authorize", nil), http.StatusNotFound)
}

// A body that says that it is too large is rejected before a byte of it
// arrives. One that does not say so is rejected when it is, and not read to its
// end.
func TestTooLargeBodyIsRejectedEarly(t *testing.T) {
	w := start(t, callback.Config{})
	head := func(headers string) string {
		query := seal(w.crypt, ticketDoc()).query()
		return "POST /component/events?" + query + " HTTP/1.1\r\nHost: a\r\n" + headers + "\r\n"
	}
	for _, request := range []string{
		head("Content-Length: 1048577\r\n"),
		// The sender must not get a 100, which http.ReadResponse would return.
		head("Content-Length: 1048577\r\nExpect: 100-continue\r\n"),
		head("Transfer-Encoding: chunked\r\n") + "100001\r\n" + strings.Repeat(" ", 1<<20+1) + "\r\n",
		// The path of an account has the same limit.
		strings.Replace(head("Content-Length: 1048577\r\n"), "component", account, 1),
	} {
		w.wantResponse(w.raw(w.dial(), "POST", request), http.StatusRequestEntityTooLarge)
	}
	w.wantCounted("other too_large", "other too_large", "other too_large", "message too_large")
}

func TestSlowBodyTimesOut(t *testing.T) {
	// Without the server's own limits, so that the limit of the push applies.
	noLimits := func(srv *http.Server) { srv.ReadTimeout, srv.WriteTimeout = 0, 0 }
	w := start(t, callback.Config{Timeout: 50 * time.Millisecond}, noLimits)
	s := seal(w.crypt, ticketDoc())
	conn := w.dial()
	w.wantResponse(w.raw(conn, "POST", rawPush(s, 10)), http.StatusRequestTimeout)
	if _, err := conn.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("reading from the connection: got error %v, want EOF", err)
	}
	w.wantCounted("other bad_message")
	// Other connections are not affected. On a busy machine the short timeout
	// can also end a complete push, so it is repeated as WeChat would.
	eventually(t, "a complete push is accepted", func() bool { return w.send(s).status == http.StatusOK })
}

func TestSlowHeadersTimeOut(t *testing.T) {
	w := start(t, callback.Config{}, func(srv *http.Server) { srv.ReadHeaderTimeout = 50 * time.Millisecond })
	conn := w.dial()
	_, _ = io.WriteString(conn, "POST /component/events HTTP/1.1\r\nHost: a\r\nX-Slow")
	if got, err := io.ReadAll(conn); err != nil || strings.Contains(string(got), "200") {
		t.Errorf("got %q, error %v, want a closed connection", got, err)
	}
	w.wantCounted()
}

func TestTruncatedBodyIsRejected(t *testing.T) {
	w := start(t, callback.Config{})
	conn := w.dial()
	_, _ = io.WriteString(conn, rawPush(seal(w.crypt, ticketDoc()), 10))
	_ = conn.(*net.TCPConn).CloseWrite()
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	w.wantResponse(w.read(resp), http.StatusBadRequest)
	w.wantCounted("other bad_message")
}

func TestTooLargeHeadersAreRejected(t *testing.T) {
	w := start(t, callback.Config{})
	r := w.raw(w.dial(), "GET", "GET /healthz HTTP/1.1\r\nHost: a\r\nX: "+strings.Repeat("a", 64<<10))
	if r.status != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("got status %d, want 431", r.status)
	}
}

// The read deadline of one push does not apply to the next on the same
// connection.
func TestConnectionIsReused(t *testing.T) {
	w := start(t, callback.Config{})
	conn := w.dial()
	for range 3 {
		s := seal(w.crypt, ticketDoc())
		w.wantResponse(w.raw(conn, "POST", rawPush(s, len(s.body))), http.StatusOK)
	}
	w.wantStored(ticketStored, ticketStored, ticketStored)
}

// A sender that has disconnected has still sent a ticket.
func TestTicketOfDisconnectedSenderIsStored(t *testing.T) {
	w := newEnv(t)
	h := callback.New(callback.Config{
		ComponentAppID: component, Crypts: []*wechat.Crypt{w.crypt}, Accounts: w.accounts, Timeout: 2 * time.Minute,
	})
	requests := make(chan context.Context, 1)
	w.serve(callback.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		requests <- r.Context()
		h.ServeHTTP(rw, r)
	}), nil))

	arrived, result := make(chan struct{}), make(chan error, 1)
	w.accounts.setResult(func(ctx context.Context) error {
		close(arrived)
		<-(<-requests).Done() // net/http has seen the end of the connection
		result <- ctx.Err()
		return ctx.Err()
	})
	s := seal(w.crypt, ticketDoc())
	conn := w.dial()
	_, _ = fmt.Fprint(conn, rawPush(s, len(s.body)))
	<-arrived
	_ = conn.Close()
	if err := <-result; err != nil {
		t.Errorf("context of the accounts: got error %v, want none", err)
	}
}

func TestServerHasLimits(t *testing.T) {
	srv := callback.NewServer(http.NotFoundHandler(), nil)
	for name, limit := range map[string]time.Duration{
		"header": srv.ReadHeaderTimeout, "read": srv.ReadTimeout, "write": srv.WriteTimeout, "idle": srv.IdleTimeout,
	} {
		if limit <= 0 || limit > time.Minute {
			t.Errorf("%s timeout: got %v, want at most a minute", name, limit)
		}
	}
	if srv.WriteTimeout <= 5*time.Second {
		t.Errorf("write timeout: got %v, want more than the 5 s that a push can take", srv.WriteTimeout)
	}
	if srv.MaxHeaderBytes <= 0 || srv.ErrorLog == nil || !srv.DisableGeneralOptionsHandler {
		t.Errorf("got server %+v, want a header limit, a log and no answer to OPTIONS *", srv)
	}
}
