package proxy_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"

	"wxproxy/proxy"
	"wxproxy/tokens"
	"wxproxy/wechat"
)

// longToken is a token of realistic length.
const longToken = "75_9QdZkLx0bW1vTt-Real_Token_Of_The_Platform-0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJ"

// compress returns s as gzip.
func compress(s string) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	io.WriteString(z, s)
	z.Close()
	return b.Bytes()
}

// TestInjectedTokenIsMaskedInResponses checks that a response which contains
// the injected token is masked, wherever the token is and however it is
// encoded.
func TestInjectedTokenIsMaskedInResponses(t *testing.T) {
	echo := func(r *http.Request) string {
		return `{"errcode":40066,"errmsg":"invalid url ` + r.URL.RequestURI() + `"}`
	}
	up := wechatServer(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Debug", "from "+r.URL.RequestURI())
		w.Header().Set("X-Kept", "1")
		switch r.URL.Path {
		case "/cgi-bin/gzip":
			w.Header().Set("Content-Encoding", "gzip")
			w.Write(compress(echo(r)))
		case "/cgi-bin/redirect":
			w.Header().Set("Location", "https://api2.weixin.qq.com"+r.URL.RequestURI())
			w.WriteHeader(http.StatusFound)
		case "/cgi-bin/html":
			w.Header().Set("Content-Type", "text/html")
			w.WriteHeader(http.StatusBadGateway)
			fmt.Fprintf(w, "<html>%s</html>", r.URL.RequestURI())
		case "/cgi-bin/large":
			io.WriteString(w, `{"url":"`+r.URL.RequestURI()+`","x":"`+strings.Repeat("x", 1<<20)+`"}`)
		case "/cgi-bin/retried":
			if r.URL.Query().Get("access_token") == longToken {
				io.WriteString(w, `{"errcode":42001}`)
				return
			}
			io.WriteString(w, echo(r))
		default:
			io.WriteString(w, echo(r))
		}
	})
	second := longToken + "-renewed"
	_, addr := start(t, up, func(c *proxy.Config) {
		c.Tokens = &renewOnce{fakeTokens{current: longToken}, second}
	})
	for _, method := range []string{"GET", "POST", "HEAD", "OPTIONS", "DELETE"} {
		for _, path := range []string{
			"/cgi-bin/user/info", "/cgi-bin/gzip", "/cgi-bin/redirect", "/cgi-bin/html", "/cgi-bin/large",
			"/cgi-bin/retried", "/cgi-bin/component/api_x",
		} {
			resp, body := send(t, addr, method+" /"+account+path+"?a=1 HTTP/1.1\r\nHost: x\r\n"+
				"Accept-Encoding: gzip\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
			if strings.HasPrefix(body, "\x1f\x8b") {
				t.Errorf("%s %s: got gzip, want a body that was searched", method, path)
			}
			all := fmt.Sprint(resp.Header) + body
			if strings.Contains(all, longToken) {
				t.Errorf("%s %s: got %.300s, want no token in it", method, path, all)
			}
			if resp.Header.Get("X-Kept") != "1" {
				t.Errorf("%s %s: got %s, headers %v, want X-Kept among them", method, path, resp.Status, resp.Header)
			}
			const want = `{"errcode":40066,"errmsg":"invalid url /cgi-bin/user/info?access_token=***&a=1"}`
			if method == "GET" && path == "/cgi-bin/user/info" && body != want {
				t.Errorf("%s %s: got %s, want %s", method, path, body, want)
			}
		}
	}
}

// TestEscapedTokenIsMaskedInResponses checks that a token is masked as it was
// sent, with percent-escapes, and as WeChat has decoded it.
func TestEscapedTokenIsMaskedInResponses(t *testing.T) {
	up := wechatServer(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"uri":"%s","token":"%s"}`, r.URL.RequestURI(), r.URL.Query().Get("access_token"))
	})
	_, addr := start(t, up, func(c *proxy.Config) { c.Tokens = &escapedToken{value: longToken + "+/="} })
	raw := get("/" + account + "/cgi-bin/user/info")
	resp, body := send(t, addr, raw)
	checkResponse(t, raw, resp, body, 200, `{"uri":"/cgi-bin/user/info?access_token=***","token":"***"}`)
}

// escapedToken is a broker with one token, whose escaped form differs.
type escapedToken struct {
	fakeTokens
	value string
}

func (e *escapedToken) Cached(string) (tokens.Token, bool) {
	return tokens.Token{Value: wechat.NewSecret(e.value), Escaped: url.QueryEscape(e.value), Hit: true}, true
}

// renewOnce is fakeTokens with a fixed token after the renewal.
type renewOnce struct {
	fakeTokens
	next string
}

func (c *renewOnce) Renew(context.Context, string, wechat.Secret) (tokens.Token, error) {
	return tokens.Token{Value: wechat.NewSecret(c.next), Escaped: c.next}, nil
}

// TestTokensInResponsesBecomeStandIns checks that tokens of accounts become
// working stand-ins and refresh tokens are masked. The rest stays byte for
// byte.
func TestTokensInResponsesBecomeStandIns(t *testing.T) {
	const before = "{\"errcode\" : 0,\"n\":1234567890123456789,\"nick\":\"a\x01\\/\\u003c\","
	up := wechatServer(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/cgi-bin/user/info" {
			io.WriteString(w, `{"ok":1}`)
			return
		}
		io.WriteString(w, before+`"authorization_info":{"authorizer_appid":"`+account+
			`","authorizer_access_token":"`+longToken+`","authorizer_refresh_token":"refreshtoken@@@x"}}`)
	})
	ofComponent := named("component only", stockKey)
	ofComponent.AppIDs = []string{component}
	_, addr := start(t, up, func(c *proxy.Config) {
		c.Tokens = &fakeTokens{current: "T0"}
		c.Callers = []proxy.Caller{named("orders", ordersKey), ofComponent}
	})
	_, body := send(t, addr, post("/cgi-bin/component/api_get_authorizer_info", "{}", "X-Wxproxy-Key: "+ordersKey))
	head, rest, _ := strings.Cut(body, `"authorizer_access_token":"`)
	standIn, rest, _ := strings.Cut(rest, `"`)
	if !strings.HasPrefix(head, before) || rest != `,"authorizer_refresh_token":"***"}}` {
		t.Errorf("got %q, want a stand-in, a mask, and the rest unchanged", body)
	}
	if _, body := send(t, addr, get("/cgi-bin/user/info?access_token="+standIn)); body != `{"ok":1}` {
		t.Errorf("request with the stand-in %s: got %s, want WeChat's response", standIn, body)
	}
	// A caller without permission for the account receives no stand-in for it.
	_, body = send(t, addr, post("/cgi-bin/component/api_get_authorizer_info", "{}", "X-Wxproxy-Key: "+stockKey))
	if want := `"authorizer_access_token":"***"`; !strings.Contains(body, want) {
		t.Errorf("caller of the component only: got %q, want %s in it", body, want)
	}
}

// TestUnsearchableResponsesAreWithheld checks that a partial response, in which
// a credential could be cut in two, and one in an unknown encoding are
// withheld.
func TestUnsearchableResponsesAreWithheld(t *testing.T) {
	up := wechatServer(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Range") != "" {
			w.Header().Set("Content-Range", "bytes 0-9/100")
			w.WriteHeader(http.StatusPartialContent)
		} else {
			w.Header().Set("Content-Encoding", "br")
		}
		io.WriteString(w, `refresh_to`)
	})
	_, addr := start(t, up, nil)
	for _, header := range []string{"Range: bytes=0-9", "Accept-Encoding: br"} {
		resp, body := send(t, addr, get("/cgi-bin/component/api_get_authorizer_list", header))
		checkResponse(t, header, resp, body, http.StatusBadGateway, "response withheld")
		if strings.Contains(body, "refresh_to") {
			t.Errorf("%s: got %s, want nothing of the response", header, body)
		}
	}
}

// TestCodeOfRegisteredAccountIsExchanged checks that the authorization code in
// the response to a registration is exchanged, and masked for the caller, in
// every spelling of the path.
func TestCodeOfRegisteredAccountIsExchanged(t *testing.T) {
	up := wechatServer(t, func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, `{"errcode":0,"errmsg":"ok","appid":"`+other+`",`+
			`"authorization_code":"queryauthcode@@@new","is_wx_verify_succ":"true"}`)
	})
	exchanged := make(chan string, 1)
	_, addr := start(t, up, func(c *proxy.Config) {
		c.Exchange = func(_ context.Context, code wechat.Secret) (tokens.Authorization, error) {
			exchanged <- code.Reveal()
			return tokens.Authorization{AppID: other}, nil
		}
	})
	const path = "/cgi-bin/account/fastregister"
	for _, path := range []string{path, path + "/", strings.ToUpper(path), "/cgi-bin/account/f%61stregister"} {
		_, body := send(t, addr, post("/"+account+path, "{}"))
		want := `{"errcode":0,"errmsg":"ok","appid":"` + other + `","authorization_code":"***","is_wx_verify_succ":"true"}`
		if body != want {
			t.Fatalf("%s: got %s, want %s", path, body, want)
		}
		if code := <-exchanged; code != "queryauthcode@@@new" {
			t.Errorf("%s: exchanged: got %q, want queryauthcode@@@new", path, code)
		}
	}
}

// panicking is a broker that panics with a value that contains a token.
type panicking struct{ fakeTokens }

func (*panicking) Cached(string) (tokens.Token, bool) { panic("BUG: token " + longToken) }

// TestPanicIsLoggedWithoutItsValue checks that a panic ends one call only, and
// that neither the response nor the log quotes the request.
func TestPanicIsLoggedWithoutItsValue(t *testing.T) {
	up := wechatServer(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{}`) })
	log := new(lockedBuffer)
	_, addr := start(t, up, func(c *proxy.Config) {
		c.Tokens = &panicking{}
		c.Log = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	for range 2 {
		resp, body := send(t, addr, get("/"+account+"/cgi-bin/user/info?x=hidden-in-the-query", "X-A: hidden-in-a-header"))
		checkResponse(t, "call that panics", resp, body, http.StatusInternalServerError, `{"errcode":-500,`)
		if strings.Contains(body, longToken) {
			t.Errorf("got %s, want no token in it", body)
		}
	}
	text := log.String()
	if strings.Contains(text, longToken) || strings.Contains(text, "hidden-in") || !strings.Contains(text, "leak_test.go") {
		t.Errorf("got the log %s, want the stack without the token and the request", text)
	}
	resp, body := send(t, addr, get("/sns/userinfo?access_token=users"))
	checkResponse(t, "next call", resp, body, http.StatusOK, "{}")
}

// lockedBuffer is a buffer for concurrent use.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (p *lockedBuffer) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.buf.Write(b)
}

func (p *lockedBuffer) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.buf.String()
}
