package proxy_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"

	"wxproxy/proxy"
	"wxproxy/tokens"
	"wxproxy/wechat"
)

// longToken is as long as tokens are.
const longToken = "75_9QdZkLx0bW1vTt-Real_Token_Of_The_Platform-0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJ"

func zipped(s string) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	io.WriteString(z, s)
	z.Close()
	return b.Bytes()
}

// An answer that shows the token that went out does not leave as it is, wherever it stands and however it is wrapped.
func TestEchoedToken(t *testing.T) {
	echo := func(r *http.Request) string {
		return `{"errcode":40066,"errmsg":"invalid url ` + r.URL.RequestURI() + `"}`
	}
	up := wechatServer(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Debug", "from "+r.URL.RequestURI())
		w.Header().Set("X-Kept", "1")
		switch r.URL.Path {
		case "/cgi-bin/gzip":
			w.Header().Set("Content-Encoding", "gzip")
			w.Write(zipped(echo(r)))
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
	_, addr := start(t, up, func(c *proxy.Config) { c.Tokens = &changing{fakeTokens{current: longToken}, second} })
	for _, method := range []string{"GET", "POST", "HEAD", "OPTIONS", "DELETE"} {
		for _, path := range []string{"/cgi-bin/user/info", "/cgi-bin/gzip", "/cgi-bin/redirect", "/cgi-bin/html", "/cgi-bin/large", "/cgi-bin/retried", "/cgi-bin/component/api_x"} {
			resp, body := send(t, addr, method+" /"+account+path+"?a=1 HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
			if bytes.HasPrefix([]byte(body), []byte{0x1f, 0x8b}) {
				t.Errorf("%s %s: still compressed", method, path)
			}
			all := fmt.Sprint(resp.Header) + body
			if strings.Contains(all, longToken) {
				t.Errorf("%s %s: %.300s", method, path, all)
			}
			if resp.Header.Get("X-Kept") != "1" {
				t.Errorf("%s %s: %s %v", method, path, resp.Status, resp.Header)
			}
			if method == "GET" && path == "/cgi-bin/user/info" && body != `{"errcode":40066,"errmsg":"invalid url /cgi-bin/user/info?access_token=***&a=1"}` {
				t.Error(body)
			}
		}
	}
}

// changing is fakeTokens with one other token after the renewal.
type changing struct {
	fakeTokens
	next string
}

func (c *changing) Renew(context.Context, string, wechat.Secret) (tokens.Token, error) {
	return tokens.Token{Value: wechat.NewSecret(c.next), Escaped: c.next}, nil
}

// Tokens of accounts become stand-ins that work, refresh tokens a mask; the rest stays byte for byte.
func TestTokensBecomeStandIns(t *testing.T) {
	const before = "{\"errcode\" : 0,\"n\":1234567890123456789,\"nick\":\"a\x01\\/\\u003c\","
	up := wechatServer(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/cgi-bin/user/info" {
			io.WriteString(w, `{"ok":1}`)
			return
		}
		io.WriteString(w, before+`"authorization_info":{"authorizer_appid":"`+account+`","authorizer_access_token":"`+longToken+`","authorizer_refresh_token":"refreshtoken@@@x"}}`)
	})
	_, addr := start(t, up, func(c *proxy.Config) {
		c.Tokens = &fakeTokens{current: "T0"}
		c.Callers = []proxy.Caller{named("orders", ordersKey)}
	})
	_, body := send(t, addr, "POST /cgi-bin/component/api_get_authorizer_info HTTP/1.1\r\nHost: x\r\nX-Wxproxy-Key: "+ordersKey+"\r\nContent-Length: 2\r\n\r\n{}")
	head, rest, _ := strings.Cut(body, `"authorizer_access_token":"`)
	standIn, rest, _ := strings.Cut(rest, `"`)
	if !strings.HasPrefix(head, before) || rest != `,"authorizer_refresh_token":"***"}}` {
		t.Errorf("%q", body)
	}
	if _, body := send(t, addr, get("/cgi-bin/user/info?access_token="+standIn)); body != `{"ok":1}` {
		t.Errorf("the stand-in %s: %s", standIn, body)
	}
}

// A part of an answer could show a credential cut in two; a compression that nobody knows could hide it.
func TestUnsearchableAnswers(t *testing.T) {
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
		if resp.StatusCode != http.StatusBadGateway || strings.Contains(body, "refresh_to") {
			t.Errorf("%s: %s %s", header, resp.Status, body)
		}
	}
}

// The code of an account that a call registered is exchanged here, and masked.
func TestRegisteredAccountIsClaimed(t *testing.T) {
	up := wechatServer(t, func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, `{"errcode":0,"errmsg":"ok","appid":"wxbbbbbbbbbbbbbbbb","authorization_code":"queryauthcode@@@new","is_wx_verify_succ":"true"}`)
	})
	spent := make(chan string, 1)
	_, addr := start(t, up, func(c *proxy.Config) {
		c.Exchange = func(_ context.Context, code wechat.Secret) (tokens.Authorization, error) {
			spent <- code.Reveal()
			return tokens.Authorization{AppID: "wxbbbbbbbbbbbbbbbb"}, nil
		}
	})
	_, body := send(t, addr, "POST /"+account+"/cgi-bin/account/fastregister HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
	if body != `{"errcode":0,"errmsg":"ok","appid":"wxbbbbbbbbbbbbbbbb","authorization_code":"***","is_wx_verify_succ":"true"}` {
		t.Error(body)
	}
	if code := <-spent; code != "queryauthcode@@@new" {
		t.Error(code)
	}
}

// panicking breaks down over a token, with the token in its mouth.
type panicking struct{ fakeTokens }

func (*panicking) Cached(string) (tokens.Token, bool) { panic("BUG: what about " + longToken) }

// A defect of ours is told with its place, without what it was about, and ends one call only.
func TestPanicQuotesNothing(t *testing.T) {
	up := wechatServer(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{}`) })
	said := new(printed)
	_, addr := start(t, up, func(c *proxy.Config) {
		c.Tokens = &panicking{}
		c.Log = slog.New(slog.NewTextHandler(said, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	for range 2 {
		resp, body := send(t, addr, get("/"+account+"/cgi-bin/user/info?x=hidden-in-the-query", "X-A: hidden-in-a-header"))
		if resp.StatusCode != http.StatusInternalServerError || !strings.HasPrefix(body, `{"errcode":-500,`) || strings.Contains(body, longToken) {
			t.Errorf("%s %s", resp.Status, body)
		}
	}
	if text := said.String(); strings.Contains(text, longToken) || strings.Contains(text, "hidden-in") || !strings.Contains(text, "leak_test.go") {
		t.Errorf("the log: %s", text)
	}
	if resp, body := send(t, addr, get("/sns/userinfo?access_token=users")); resp.StatusCode != http.StatusOK {
		t.Errorf("the next call: %s %s", resp.Status, body)
	}
}

// printed keeps a log.
type printed struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (p *printed) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.buf.Write(b)
}

func (p *printed) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.buf.String()
}
