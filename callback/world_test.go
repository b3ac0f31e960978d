package callback_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"wxproxy/callback"
	"wxproxy/tokens"
	"wxproxy/wechat"
)

// The broker is what the events go to.
var _ callback.Accounts = (*tokens.Broker)(nil)

const (
	component    = "wx6001eeeefe06e0af"
	account      = "wxf7d2ddffc117e8de"
	messageToken = "messageTokenOfTheTest"
	currentKey   = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"
	previousKey  = "GFEDCBA9876543210zyxwvutsrqponmlkjihgfedcba"
	theTicket    = "ticket@@@SECRET-5HCM8qgX"
	theCode      = "queryauthcode@@@SECRET-y-s2Y"
)

func crypt(t testing.TB, token, key, appid string) *wechat.Crypt {
	t.Helper()
	c, err := wechat.NewCrypt(wechat.NewSecret(token), wechat.NewSecret(key), appid)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// accounts records what it is told, in words. do, if set, decides what it
// answers.
type accounts struct {
	mu    sync.Mutex
	calls []string
	do    func(ctx context.Context) error
}

func (a *accounts) note(ctx context.Context, format string, args ...any) error {
	a.mu.Lock()
	a.calls = append(a.calls, fmt.Sprintf(format, args...))
	do := a.do
	a.mu.Unlock()
	if do != nil {
		return do(ctx)
	}
	return nil
}

func (a *accounts) answer(do func(ctx context.Context) error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.do = do
}

func (a *accounts) told() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.calls)
}

func unix(at time.Time) int64 {
	if at.IsZero() {
		return 0
	}
	return at.Unix()
}

func (a *accounts) PutTicket(ctx context.Context, ticket wechat.Secret, created time.Time) error {
	return a.note(ctx, "ticket %s %d", ticket.Reveal(), unix(created))
}

func (a *accounts) Authorize(ctx context.Context, appid string, code wechat.Secret, expires, created time.Time) error {
	return a.note(ctx, "authorize %s %s %d %d", appid, code.Reveal(), unix(expires), unix(created))
}

func (a *accounts) MarkRevoked(ctx context.Context, appid string, created time.Time) error {
	return a.note(ctx, "withdraw %s %d", appid, unix(created))
}

// listener is a callback listener on a TCP port of its own, and all that it
// told anybody.
type listener struct {
	t        *testing.T
	handler  *callback.Handler
	accounts *accounts
	crypt    *wechat.Crypt // what pushes are made with
	addr     string

	mu       sync.Mutex
	observed []string
	log      bytes.Buffer
}

// start serves c, with what is missing in it filled in; change alters the
// server before it serves.
func start(t *testing.T, c callback.Config, change ...func(*http.Server)) *listener {
	t.Helper()
	l := &listener{t: t, accounts: &accounts{}, crypt: crypt(t, messageToken, currentKey, component)}
	if c.ComponentAppID == "" {
		c.ComponentAppID = component
	}
	if c.Crypts == nil {
		c.Crypts = []*wechat.Crypt{l.crypt}
	}
	if c.Accounts == nil {
		c.Accounts = l.accounts
	}
	c.Observe = func(event, result string) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.observed = append(l.observed, event+" "+result)
	}
	c.Log = slog.New(slog.NewTextHandler(lockedWriter{l}, &slog.HandlerOptions{Level: slog.LevelDebug}))
	l.handler = callback.New(c)
	l.serve(callback.NewServer(l.handler, c.Log), change...)
	return l
}

func (l *listener) serve(srv *http.Server, change ...func(*http.Server)) {
	l.t.Helper()
	for _, f := range change {
		f(srv)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		l.t.Fatal(err)
	}
	l.addr = ln.Addr().String()
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(ln) }()
	l.t.Cleanup(func() {
		_ = srv.Close()
		<-done
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, secret := range []string{"SECRET", messageToken, currentKey, previousKey, "msg_signature="} {
			if strings.Contains(l.log.String(), secret) {
				l.t.Errorf("the log holds %s:\n%s", secret, l.log.String())
			}
		}
	})
}

type lockedWriter struct{ l *listener }

func (w lockedWriter) Write(b []byte) (int, error) {
	w.l.mu.Lock()
	defer w.l.mu.Unlock()
	return w.l.log.Write(b)
}

func (l *listener) logged() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.log.String()
}

func (l *listener) counted() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.observed)
}

// wants compares all that was counted so far, and all that the accounts were
// told.
func (l *listener) wants(counted []string, told ...string) {
	l.t.Helper()
	if got := l.counted(); !slices.Equal(got, counted) {
		l.t.Errorf("counted %q, want %q", got, counted)
	}
	if got := l.accounts.told(); !slices.Equal(got, told) {
		l.t.Errorf("told %q, want %q", got, told)
	}
}

// signed is a push as it goes over the wire.
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

// sealed makes a push of a document, in the shape in which WeChat sends it.
func sealed(c *wechat.Crypt, doc string) signed {
	encrypted := c.Encrypt([]byte(doc))
	s := signed{timestamp: "1512627534", nonce: "1590219412"}
	s.signature = c.Signature(s.timestamp, s.nonce, encrypted)
	s.body = []byte("<xml>\n    <AppId><![CDATA[" + component + "]]></AppId>\n    <Encrypt><![CDATA[" + encrypted + "]]></Encrypt>\n</xml>\n")
	return s
}

// reply is an answer as it came.
type reply struct {
	status int
	body   string
	header http.Header
}

// send posts to the events path. It is safe in goroutines.
func (l *listener) send(s signed) reply {
	l.t.Helper()
	return l.do(http.MethodPost, "/component/events?"+s.query(), bytes.NewReader(s.body))
}

func (l *listener) push(doc string) reply {
	l.t.Helper()
	return l.send(sealed(l.crypt, doc))
}

func (l *listener) do(method, target string, body io.Reader) reply {
	l.t.Helper()
	req, err := http.NewRequest(method, "http://"+l.addr+target, body)
	if err != nil {
		l.t.Error(err)
		return reply{}
	}
	req.Header.Set("Content-Type", "text/xml")
	client := &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       30 * time.Second,
	}
	resp, err := client.Do(req)
	if err != nil {
		l.t.Errorf("%s: %v", method, err)
		return reply{}
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		l.t.Error(err)
	}
	return reply{resp.StatusCode, string(b), resp.Header}
}

// is compares a whole answer; on success it is the seven bytes, otherwise what
// the status says.
func (l *listener) is(r reply, status int) {
	l.t.Helper()
	want := http.StatusText(status) + "\n"
	if status == http.StatusOK {
		want = "success"
	}
	if r.status != status || r.body != want {
		l.t.Errorf("answered %d %q, want %d %q", r.status, r.body, status, want)
	}
	for name, want := range map[string]string{"Content-Type": "text/plain; charset=utf-8", "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store", "Server": "", "Location": ""} {
		if got := r.header.Get(name); got != want {
			l.t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

// document is a decrypted event.
func document(appid, infoType string, fields ...string) string {
	return "<xml><AppId><![CDATA[" + appid + "]]></AppId>\n<CreateTime>1512627534</CreateTime>\n<InfoType><![CDATA[" + infoType + "]]></InfoType>\n" +
		strings.Join(fields, "\n") + "\n</xml>"
}

func ticketDoc() string {
	return document(component, "component_verify_ticket", "<ComponentVerifyTicket><![CDATA["+theTicket+"]]></ComponentVerifyTicket>")
}

const ticketTold = "ticket " + theTicket + " 1512627534"

func authorizedDoc(infoType string) string {
	return document(component, infoType, "<AuthorizerAppid><![CDATA["+account+"]]></AuthorizerAppid>",
		"<AuthorizationCode><![CDATA["+theCode+"]]></AuthorizationCode>", "<AuthorizationCodeExpiredTime>1512631134</AuthorizationCodeExpiredTime>",
		"<PreAuthCode>preauthcode@@@SECRET</PreAuthCode>")
}
