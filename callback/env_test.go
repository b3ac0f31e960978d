package callback_test

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"wxproxy/callback"
	"wxproxy/tokens"
	"wxproxy/wechat"
)

var _ callback.Accounts = (*tokens.Broker)(nil)

const (
	component    = "wx6001eeeefe06e0af"
	account      = "wxf7d2ddffc117e8de"
	otherAccount = "wx0000000000000001"
	foreign      = "wx0000000000000000" // another component

	messageToken = "messageTokenOfTheTest"
	currentKey   = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"
	previousKey  = "GFEDCBA9876543210zyxwvutsrqponmlkjihgfedcba"
	ticket       = "ticket@@@SECRET-5HCM8qgX"
	authCode     = "queryauthcode@@@SECRET-y-s2Y"
)

func newCrypt(t testing.TB, token, key, appid string) *wechat.Crypt {
	t.Helper()
	c, err := wechat.NewCrypt(wechat.NewSecret(token), wechat.NewSecret(key), appid)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// fakeAccounts records its calls as text. do, if set, decides what they return.
type fakeAccounts struct {
	mu    sync.Mutex
	calls []string
	do    func(ctx context.Context) error
}

func (a *fakeAccounts) record(ctx context.Context, format string, args ...any) error {
	a.mu.Lock()
	a.calls = append(a.calls, fmt.Sprintf(format, args...))
	do := a.do
	a.mu.Unlock()
	if do != nil {
		return do(ctx)
	}
	return nil
}

// setResult makes the next calls return what do returns; nil makes them
// succeed.
func (a *fakeAccounts) setResult(do func(ctx context.Context) error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.do = do
}

func (a *fakeAccounts) recorded() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.calls)
}

// unixOrZero returns 0 for the zero time.
func unixOrZero(at time.Time) int64 {
	if at.IsZero() {
		return 0
	}
	return at.Unix()
}

func (a *fakeAccounts) PutTicket(ctx context.Context, ticket wechat.Secret, created time.Time) error {
	return a.record(ctx, "ticket %s %d", ticket.Reveal(), unixOrZero(created))
}

func (a *fakeAccounts) Authorize(
	ctx context.Context, appid string, code wechat.Secret, expires, created time.Time,
) error {
	return a.record(ctx, "authorize %s %s %d %d", appid, code.Reveal(), unixOrZero(expires), unixOrZero(created))
}

func (a *fakeAccounts) UpdateAuthorization(
	ctx context.Context, appid string, code wechat.Secret, expires, created time.Time,
) error {
	return a.record(ctx, "update %s %s %d %d",
		appid, code.Reveal(), unixOrZero(expires), unixOrZero(created))
}

func (a *fakeAccounts) MarkRevoked(ctx context.Context, appid string, created time.Time) error {
	return a.record(ctx, "revoke %s %d", appid, unixOrZero(created))
}

// env is a callback listener on its own TCP port, and everything that it
// counts, logs and stores.
type env struct {
	t        *testing.T
	handler  *callback.Handler
	accounts *fakeAccounts
	crypt    *wechat.Crypt // makes the pushes
	addr     string

	mu     sync.Mutex
	counts []string
	log    bytes.Buffer
}

func newEnv(t *testing.T) *env {
	return &env{t: t, accounts: &fakeAccounts{}, crypt: newCrypt(t, messageToken, currentKey, component)}
}

// start serves c, with what is missing in it filled in. change alters the
// server before it serves.
func start(t *testing.T, c callback.Config, change ...func(*http.Server)) *env {
	t.Helper()
	w := newEnv(t)
	c.ComponentAppID = cmp.Or(c.ComponentAppID, component)
	if c.Crypts == nil {
		c.Crypts = []*wechat.Crypt{w.crypt}
	}
	if c.Accounts == nil {
		c.Accounts = w.accounts
	}
	// Without a test's own limit, no test depends on the speed of the machine.
	c.Timeout, c.MessageTimeout = cmp.Or(c.Timeout, 2*time.Minute), cmp.Or(c.MessageTimeout, 2*time.Minute)
	c.Observe = func(event, result string) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.counts = append(w.counts, event+" "+result)
	}
	c.Log = w.logger()
	w.handler = callback.New(c)
	srv := callback.NewServer(w.handler, c.Log)
	srv.ReadHeaderTimeout, srv.ReadTimeout, srv.WriteTimeout = 2*time.Minute, 2*time.Minute, 2*time.Minute
	w.serve(srv, change...)
	return w
}

// serve serves srv until the test ends. Then it checks that the log holds no
// secret.
func (w *env) serve(srv *http.Server, change ...func(*http.Server)) {
	w.t.Helper()
	for _, f := range change {
		f(srv)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	w.addr = ln.Addr().String()
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(ln) }()
	w.t.Cleanup(func() {
		_ = srv.Close()
		<-done
		for _, secret := range []string{"SECRET", messageToken, currentKey, previousKey, "msg_signature="} {
			if log := w.logged(); strings.Contains(log, secret) {
				w.t.Errorf("got %s in the log:\n%s", secret, log)
			}
		}
	})
}

func (w *env) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(logWriter{w}, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

type logWriter struct{ w *env }

func (l logWriter) Write(b []byte) (int, error) {
	l.w.mu.Lock()
	defer l.w.mu.Unlock()
	return l.w.log.Write(b)
}

func (w *env) logged() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.String()
}

// wantLogged checks that each text is in the log.
func (w *env) wantLogged(texts ...string) {
	w.t.Helper()
	log := w.logged()
	for _, text := range texts {
		if !strings.Contains(log, text) {
			w.t.Errorf("got log\n%s\nwant %q in it", log, text)
		}
	}
}

// counted returns what was counted so far, "event result" for each.
func (w *env) counted() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.counts)
}

// wantCounted checks everything that was counted so far.
func (w *env) wantCounted(want ...string) {
	w.t.Helper()
	if got := w.counted(); !slices.Equal(got, want) {
		w.t.Errorf("counted: got %q, want %q", got, want)
	}
}

// wantStored checks all calls of the accounts so far.
func (w *env) wantStored(want ...string) {
	w.t.Helper()
	if got := w.accounts.recorded(); !slices.Equal(got, want) {
		w.t.Errorf("stored: got %q, want %q", got, want)
	}
}

// response is a response as it was received.
type response struct {
	status int
	body   string
	header http.Header
}

// request sends a request on its own connection and does not follow redirects.
// It can be called in goroutines.
func (w *env) request(method, target string, body io.Reader) response {
	w.t.Helper()
	req, err := http.NewRequest(method, "http://"+w.addr+target, body)
	if err != nil {
		w.t.Error(err)
		return response{}
	}
	req.Header.Set("Content-Type", "text/xml")
	transport := &http.Transport{DisableKeepAlives: true}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		w.t.Errorf("%s: %v", method, err)
		return response{}
	}
	return w.read(resp)
}

// dial opens a connection for requests that no client would send.
func (w *env) dial() net.Conn {
	w.t.Helper()
	conn, err := net.Dial("tcp", w.addr)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = conn.Close() })
	// A connection that hangs fails the test instead of the whole test binary.
	_ = conn.SetDeadline(time.Now().Add(2 * time.Minute))
	return conn
}

// raw sends a request as it is and reads one response; method is that of the
// request, because a response to HEAD has no body.
func (w *env) raw(conn net.Conn, method, request string) response {
	w.t.Helper()
	if _, err := io.WriteString(conn, request); err != nil {
		w.t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		w.t.Fatalf("%s: %v", method, err)
	}
	return w.read(resp)
}

func (w *env) read(resp *http.Response) response {
	w.t.Helper()
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Error(err)
	}
	if len(resp.TransferEncoding) > 0 {
		w.t.Errorf("transfer encoding: got %q, want none and a Content-Length", resp.TransferEncoding)
	}
	return response{resp.StatusCode, string(b), resp.Header}
}

// wantResponse checks a whole response: "success" with status 200, and
// otherwise the text of the status.
func (w *env) wantResponse(r response, status int) {
	w.t.Helper()
	want := http.StatusText(status) + "\n"
	if status == http.StatusOK {
		want = "success"
	}
	if r.status != status || r.body != want {
		w.t.Errorf("got response %d %q, want %d %q", r.status, r.body, status, want)
	}
	w.wantHeaders(r)
}

// wantHeaders checks what holds for all responses except pages and replies.
func (w *env) wantHeaders(r response) {
	w.t.Helper()
	for name, want := range map[string]string{
		"Content-Type": "text/plain; charset=utf-8", "X-Content-Type-Options": "nosniff",
		"Cache-Control": "no-store", "Server": "", "Location": "",
	} {
		if got := r.header.Get(name); got != want {
			w.t.Errorf("header %s: got %q, want %q", name, got, want)
		}
	}
}

// signed is a push as it is sent.
type signed struct {
	timestamp, nonce, signature string
	body                        []byte
}

func (s signed) query() string {
	return url.Values{
		"signature": {"0123456789012345678901234567890123456789"}, "timestamp": {s.timestamp}, "nonce": {s.nonce},
		"encrypt_type": {"aes"}, "msg_signature": {s.signature},
	}.Encode()
}

// seal makes a push of a document, in the form in which WeChat sends it.
func seal(c *wechat.Crypt, doc string) signed { return sealAt(c, doc, time.Now()) }

// sealAt makes a push that was signed at a time.
func sealAt(c *wechat.Crypt, doc string, at time.Time) signed {
	encrypted := c.Encrypt([]byte(doc))
	s := signed{timestamp: strconv.FormatInt(at.Unix(), 10), nonce: "1990219412"}
	s.signature = c.Signature(s.timestamp, s.nonce, encrypted)
	s.body = []byte("<xml>\n    <AppId><![CDATA[" + component + "]]></AppId>\n" +
		"    <Encrypt><![CDATA[" + encrypted + "]]></Encrypt>\n</xml>\n")
	return s
}

// send sends a push to the path of authorization events.
func (w *env) send(s signed) response {
	w.t.Helper()
	return w.request(http.MethodPost, "/component/events?"+s.query(), bytes.NewReader(s.body))
}

// push sends a document to the path of authorization events.
func (w *env) push(doc string) response {
	w.t.Helper()
	return w.send(seal(w.crypt, doc))
}

// rawPush returns a push as a request for a connection of its own, with a body
// that ends after the given number of bytes.
func rawPush(s signed, bodyBytes int) string {
	return fmt.Sprintf("POST /component/events?%s HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s",
		s.query(), len(s.body), s.body[:bodyBytes])
}

// eventDoc is a decrypted authorization event.
func eventDoc(appid, infoType string, fields ...string) string {
	return "<xml><AppId><![CDATA[" + appid + "]]></AppId>\n<CreateTime>1512627534</CreateTime>\n" +
		"<InfoType><![CDATA[" + infoType + "]]></InfoType>\n" + strings.Join(fields, "\n") + "\n</xml>"
}

func ticketDoc() string {
	return eventDoc(component, "component_verify_ticket",
		"<ComponentVerifyTicket><![CDATA["+ticket+"]]></ComponentVerifyTicket>")
}

func authorizedDoc(infoType string) string {
	return eventDoc(component, infoType,
		"<AuthorizerAppid><![CDATA["+account+"]]></AuthorizerAppid>",
		"<AuthorizationCode><![CDATA["+authCode+"]]></AuthorizationCode>",
		"<AuthorizationCodeExpiredTime>1512631134</AuthorizationCodeExpiredTime>",
		"<PreAuthCode>preauthcode@@@SECRET</PreAuthCode>")
}

func unauthorizedDoc() string {
	return eventDoc(component, "unauthorized", "<AuthorizerAppid>"+account+"</AuthorizerAppid>")
}

// registeredDoc is the result of a fast registration.
func registeredDoc(fields string) string {
	return eventDoc(component, "notify_third_fasteregister", fields,
		"<info><name>公司</name><appid>wx0</appid></info>")
}

// What the accounts record for these documents.
const (
	ticketStored    = "ticket " + ticket + " 1512627534"
	authorizeStored = "authorize " + account + " " + authCode + " 1512631134 1512627534"
)

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !holds(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("got no end of the wait, want: %s", what)
		}
	}
}
