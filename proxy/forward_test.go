package proxy_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"wxproxy/internal/tcptest"
	"wxproxy/proxy"
	"wxproxy/tokens"
)

// TestHeadersOfRequestAndResponse checks which headers are forwarded, dropped
// and added, in both directions.
func TestHeadersOfRequestAndResponse(t *testing.T) {
	seen := make(chan string, 1)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		br := bufio.NewReader(conn)
		var head strings.Builder
		for {
			line, err := br.ReadString('\n')
			if err != nil {
				return
			}
			head.WriteString(line)
			if line == "\r\n" {
				break
			}
		}
		seen <- head.String()
		io.WriteString(conn, "HTTP/1.1 200 Fine\r\nContent-Type: application/json; encoding=utf-8\r\n"+
			"RetKey: 11\r\nlogicret: 0\r\nWechatmp-Signature: s\r\nSet-Cookie: a=b\r\n"+
			"Connection: X-Hop, Content-Type\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nX-Wxproxy-Token: forged\r\n"+
			"Content-Length: 2\r\n\r\n{}")
	}()
	_, addr := start(t, "http://"+ln.Addr().String(), nil)
	resp, body := send(t, addr, "POST /"+account+"/cgi-bin/a?x=1 HTTP/1.1\r\nHost: localhost:8080\r\n"+
		"User-Agent: sdk/1\r\nwechatmp-TimeStamp: 5\r\nContent-type: text/weird;x=\"y\"\r\n"+
		"Authorization: Bearer k\r\nProxy-Authorization: Basic x\r\nX-Wxproxy-Key: k\r\nCookie: c=d\r\n"+
		"X-Forwarded-For: 10.0.0.1\r\nForwarded: for=x\r\nVia: a\r\nX-Real-IP: 1\r\n"+
		"Connection: keep-alive, x-secret\r\nX-Secret: 1\r\nTE: trailers\r\nUpgrade: h2c\r\nKeep-Alive: 5\r\n"+
		"Accept-Encoding: br, gzip;q=0.5\r\nX-Request-Id: abc-1\r\nX-Custom: Two  Words\r\n"+
		"Content-Length: 3\r\n\r\nabc")
	want := "POST /cgi-bin/a?access_token=T0&x=1 HTTP/1.1\r\nHost: " + ln.Addr().String() + "\r\n" +
		"Content-type: text/weird;x=\"y\"\r\nUser-Agent: sdk/1\r\nwechatmp-TimeStamp: 5\r\n" +
		"Accept-Encoding: gzip\r\nContent-Length: 3\r\n\r\n"
	got := <-seen
	if sortedHead(got) != sortedHead(want) {
		t.Errorf("WeChat got\n%s\nwant\n%s", got, want)
	}
	if resp.StatusCode != 200 || body != "{}" {
		t.Errorf("got %s %q, want 200 {}", resp.Status, body)
	}
	for name, want := range map[string]string{
		"Retkey": "11", "Logicret": "0", "Wechatmp-Signature": "s", "Set-Cookie": "a=b",
		"Content-Type": "application/json; encoding=utf-8",
		"X-Request-Id": "abc-1", "X-Wxproxy-Token": "hit",
		"X-Hop": "", "Keep-Alive": "", "Connection": "", "Server": "", "Date": "",
	} {
		if got := resp.Header.Get(name); got != want {
			t.Errorf("header %s: got %q, want %q", name, got, want)
		}
	}
}

// sortedHead sorts the header lines, since their order means nothing.
func sortedHead(head string) string {
	lines := strings.Split(strings.ToLower(head), "\r\n")
	slices.Sort(lines[1:])
	return strings.Join(lines, "\n")
}

// TestRejectedTokenIsRenewedAndRetried checks every form in which WeChat
// rejects a token. Each leads to one renewal and one more attempt, byte for
// byte.
func TestRejectedTokenIsRenewedAndRetried(t *testing.T) {
	body := "--x\r\nContent-Disposition: form-data; name=\"media\"; filename=\"a.jpg\"\r\n\r\n" +
		strings.Repeat("\x00\xff\r\n", 50_000) + "\r\n--x--\r\n"
	for name, reject := range map[string]func(http.ResponseWriter){
		"40001":  func(w http.ResponseWriter) { io.WriteString(w, `{"errcode":40001,"errmsg":"invalid credential"}`) },
		"40014":  func(w http.ResponseWriter) { io.WriteString(w, `{"errcode":40014}`) },
		"string": func(w http.ResponseWriter) { io.WriteString(w, `{"errmsg":"x","errcode":"42001"}`) },
		"text/plain": func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "text/plain")
			io.WriteString(w, ` {"errcode":42001}`)
		},
		"image/jpeg": func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "image/jpeg")
			io.WriteString(w, `{"errcode":42001}`)
		},
		"gzip": func(w http.ResponseWriter) {
			w.Header().Set("Content-Encoding", "gzip")
			w.Write(compress(`{"errcode":42001}`))
		},
		"gzip, unlabeled": func(w http.ResponseWriter) { w.Write(compress(`{"errcode":42001}`)) },
		"chunked": func(w http.ResponseWriter) {
			io.WriteString(w, `{"err`)
			w.(http.Flusher).Flush()
			io.WriteString(w, `code":42001}`)
		},
		"long": func(w http.ResponseWriter) {
			io.WriteString(w, `{"errcode":42001,"errmsg":"`+strings.Repeat("x", 100_000)+`"}`)
		},
		"long and chunked": func(w http.ResponseWriter) {
			w.(http.Flusher).Flush()
			io.WriteString(w, `{"errcode":42001,"errmsg":"`+strings.Repeat("x", 1_000_000)+`"}`)
		},
		"status 500": func(w http.ResponseWriter) { w.WriteHeader(500); io.WriteString(w, `{"errcode":42001}`) },
	} {
		t.Run(name, func(t *testing.T) {
			var targets, bodies []string
			up := wechatServer(t, func(w http.ResponseWriter, r *http.Request) {
				b, _ := io.ReadAll(r.Body)
				targets, bodies = append(targets, r.RequestURI), append(bodies, string(b))
				if len(r.TransferEncoding) > 0 || r.ContentLength != int64(len(b)) {
					w.WriteHeader(http.StatusPreconditionFailed)
					return
				}
				if strings.Contains(r.RequestURI, "T0") {
					reject(w)
					return
				}
				io.WriteString(w, `{"errcode":0,"media_id":"m"}`)
			})
			_, addr := start(t, up, nil)
			// MultiReader hides the length, so that the client sends chunks.
			req, _ := http.NewRequest("POST", "http://"+addr+"/"+account+"/cgi-bin/media/upload?type=image",
				io.MultiReader(strings.NewReader(body)))
			req.Header.Set("Content-Type", "multipart/form-data; boundary=x")
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			got, err := io.ReadAll(resp.Body)
			if err != nil || string(got) != `{"errcode":0,"media_id":"m"}` {
				t.Errorf("got %.200s, error %v, want the second response", got, err)
			}
			if got := resp.Header.Get("X-Wxproxy-Token"); got != "retried" {
				t.Errorf("X-Wxproxy-Token: got %q, want retried", got)
			}
			want := []string{
				"/cgi-bin/media/upload?access_token=T0&type=image",
				"/cgi-bin/media/upload?access_token=T1&type=image",
			}
			if !slices.Equal(targets, want) {
				t.Fatalf("WeChat got %q, want %q", targets, want)
			}
			if bodies[0] != body || bodies[1] != body {
				t.Errorf("WeChat got bodies of %d and %d bytes, want twice the %d bytes sent",
					len(bodies[0]), len(bodies[1]), len(body))
			}
		})
	}
}

// TestOtherErrorsAreNotRetried checks that only rejected tokens are retried,
// and only once.
func TestOtherErrorsAreNotRetried(t *testing.T) {
	for name, c := range map[string]struct {
		body   string
		path   string
		sent   int    // requests that WeChat receives
		status string // X-Wxproxy-Token
	}{
		"other code":       {`{"errcode":45009,"errmsg":"reach max api daily quota limit"}`, "/" + account + "/cgi-bin/a", 1, "hit"},
		"busy":             {`{"errcode":-1}`, "/" + account + "/cgi-bin/a", 1, "hit"},
		"42006":            {`{"errcode":42006}`, "/" + account + "/cgi-bin/a", 1, "hit"},
		"42006, component": {`{"errcode":42006}`, "/wxa/gettemplatelist", 2, "retried"},
		"nested":           {`{"errcode":0,"request":{"response_body":"{\"errcode\":42001}"}}`, "/" + account + "/cgi-bin/a", 1, "hit"},
		"data":             {`{"list":[{"errcode":42001}]}`, "/" + account + "/cgi-bin/a", 1, "hit"},
		"text":             {`errcode 42001`, "/" + account + "/cgi-bin/a", 1, "hit"},
		"again and again":  {`{"errcode":42001,"errmsg":"still"}`, "/" + account + "/cgi-bin/a", 2, "retried"},
		"user's own token": {`{"errcode":40001}`, "/sns/userinfo?access_token=U", 1, "none"},
	} {
		t.Run(name, func(t *testing.T) {
			var sent atomic.Int32
			up := wechatServer(t, func(w http.ResponseWriter, r *http.Request) { sent.Add(1); io.WriteString(w, c.body) })
			_, addr := start(t, up, nil)
			resp, body := send(t, addr, "GET "+c.path+" HTTP/1.1\r\nHost: x\r\n\r\n")
			status := resp.Header.Get("X-Wxproxy-Token")
			if body != c.body || resp.StatusCode != 200 || int(sent.Load()) != c.sent || status != c.status {
				t.Errorf("got %s %q after %d requests, token %s, want 200 %q after %d, token %s",
					resp.Status, body, sent.Load(), status, c.body, c.sent, c.status)
			}
		})
	}
}

// TestTokenErrors checks the response to each error of the broker.
func TestTokenErrors(t *testing.T) {
	up := wechatServer(t, func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, `{"errcode":42001}`)
	})
	for name, c := range map[string]struct {
		broker *fakeTokens
		status int
		want   string
		body   string // if the response is WeChat's
	}{
		"unknown":             {&fakeTokens{err: tokens.ErrUnknownAccount}, 404, "has not authorized", ""},
		"revoked":             {&fakeTokens{err: tokens.ErrRevoked}, 410, "revoked its authorization", ""},
		"forgotten":           {&fakeTokens{err: tokens.ErrForgotten}, 410, "forgotten by", ""},
		"unavailable":         {&fakeTokens{err: tokens.ErrUnavailable}, 503, "no token available", ""},
		"stopping":            {&fakeTokens{err: tokens.ErrClosed}, 503, "stopping", ""},
		"timeout":             {&fakeTokens{err: context.DeadlineExceeded}, 503, "no token in time", ""},
		"internal":            {&fakeTokens{err: errors.New("secret detail")}, 500, "internal error", ""},
		"rejected, throttled": {&fakeTokens{current: "T0", renewErr: tokens.ErrThrottled}, 200, "", `{"errcode":42001}`},
		"rejected, revoked":   {&fakeTokens{current: "T0", renewErr: tokens.ErrRevoked}, 410, "revoked its", ""},
		"rejected, no token":  {&fakeTokens{current: "T0", renewErr: tokens.ErrUnavailable}, 503, "no token available", ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, addr := start(t, up, func(p *proxy.Config) { p.Tokens = c.broker })
			resp, body := send(t, addr, "GET /"+account+"/cgi-bin/a HTTP/1.1\r\nHost: x\r\n\r\n")
			checkResponse(t, name, resp, body, c.status, c.want)
			code, _, _ := strings.Cut(strings.TrimPrefix(name, "rejected, "), " ")
			if got := strings.Contains(body, `"code":"`+code+`"`); got != (c.status == 410) {
				t.Errorf("got %s, want code %q with 410 only", body, code)
			}
			if strings.Contains(body, "secret detail") {
				t.Errorf("got %s, want no details of an internal error", body)
			}
			if retryAfter := resp.Header.Get("Retry-After"); (c.status == 503) != (retryAfter != "") {
				t.Errorf("Retry-After: got %q with status %d, want it with 503 only", retryAfter, c.status)
			}
			if c.body != "" {
				if body != c.body {
					t.Errorf("got %s, want WeChat's %s", body, c.body)
				}
				return
			}
			prefix := fmt.Sprintf(`{"errcode":-%d,"errmsg":"wxproxy: `, c.status)
			contentType := resp.Header.Get("Content-Type")
			if !strings.HasPrefix(body, prefix) || !strings.Contains(body, `"hint":"`) || contentType != "application/json" {
				t.Errorf("got %s, %s, want JSON that begins with %s and has a hint", contentType, body, prefix)
			}
		})
	}
}

// TestUpstreamFailures checks the status of each way in which an exchange with
// WeChat can fail. No request is sent twice.
func TestUpstreamFailures(t *testing.T) {
	for name, c := range map[string]struct {
		serve  func(net.Conn)
		status int
	}{
		"closes at once": {func(c net.Conn) { c.Close() }, 502},
		"resets":         {func(c net.Conn) { c.(*net.TCPConn).SetLinger(0); c.Close() }, 502},
		"not HTTP":       {func(c net.Conn) { io.WriteString(c, "SSH-2.0\r\n\r\n") }, 502},
		"half a header":  {func(c net.Conn) { io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Le") }, 502},
		"half a body":    {func(c net.Conn) { io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{") }, 502},
		"half a chunked body": {func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{")
		}, 502},
		"endless header": {func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\n")
			for range 1000 {
				io.WriteString(c, "X-A: "+strings.Repeat("y", 100)+"\r\n")
			}
		}, 502},
		"no response": {func(c net.Conn) { io.Copy(io.Discard, c) }, 504},
		"502":         {func(c net.Conn) { io.WriteString(c, "HTTP/1.1 502 Bad\r\nContent-Length: 6\r\n\r\n<html>") }, 502},
		"empty 200":   {func(c net.Conn) { io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") }, 200},
		"no length":   {func(c net.Conn) { io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n{}") }, 200},
		"1xx first": {func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
		}, 200},
		"204":      {func(c net.Conn) { io.WriteString(c, "HTTP/1.1 204 None\r\n\r\n") }, 204},
		"101":      {func(c net.Conn) { io.WriteString(c, "HTTP/1.1 101 Switch\r\nUpgrade: x\r\n\r\n") }, 502},
		"only 1xx": {func(c net.Conn) { io.WriteString(c, strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 50)) }, 502},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			var sent atomic.Int32
			go func() {
				for {
					conn, err := ln.Accept()
					if err != nil {
						return
					}
					sent.Add(1)
					go func() {
						defer conn.Close()
						if _, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
							c.serve(conn)
						}
					}()
				}
			}()
			_, addr := start(t, "http://"+ln.Addr().String(), func(p *proxy.Config) { p.Timeout = time.Second })
			// HTTP clients repeat GET most readily.
			resp, body := send(t, addr, "GET /"+account+"/cgi-bin/a HTTP/1.1\r\nHost: x\r\n\r\n")
			checkResponse(t, name, resp, body, c.status, "")
			if strings.Contains(body, "T0") {
				t.Errorf("got %s, want no token in it", body)
			}
			if n := sent.Load(); n != 1 {
				t.Errorf("got %d requests at WeChat, want 1", n)
			}
		})
	}
	t.Run("unreachable", func(t *testing.T) {
		ln, _ := net.Listen("tcp", "127.0.0.1:0")
		ln.Close()
		_, addr := start(t, "http://"+ln.Addr().String(), nil)
		raw := get("/" + account + "/cgi-bin/a")
		resp, body := send(t, addr, raw)
		checkResponse(t, raw, resp, body, 502, "could not be reached")
	})
	t.Run("unverified certificate", func(t *testing.T) {
		s := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			t.Error("got a request over an unverified connection, want none")
		}))
		defer s.Close()
		_, addr := start(t, s.URL, nil)
		raw := get("/" + account + "/cgi-bin/a")
		resp, body := send(t, addr, raw)
		checkResponse(t, raw, resp, body, 502, "certificate")
	})
}

// TestTruncatedStreamIsNotComplete checks that the caller can tell that a
// streamed response was cut off.
func TestTruncatedStreamIsNotComplete(t *testing.T) {
	up := wechatServer(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("sized") != "" {
			w.Header().Set("Content-Length", "1000000")
		}
		w.Write(make([]byte, 500_000))
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})
	_, addr := start(t, up, nil)
	for _, query := range []string{"sized=1", ""} {
		resp, err := http.Get("http://" + addr + "/" + account + "/cgi-bin/media/get?" + query)
		if err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if err == nil {
			t.Errorf("%q: got %d bytes and no error, want an error", query, n)
		}
	}
}

// TestClientDisconnectEndsDownload checks that WeChat's connection is closed if
// the caller closes its own in the middle of a download.
func TestClientDisconnectEndsDownload(t *testing.T) {
	closed := make(chan struct{})
	up := wechatServer(t, func(w http.ResponseWriter, r *http.Request) {
		defer close(closed)
		for {
			if _, err := w.Write(make([]byte, 64<<10)); err != nil {
				return
			}
		}
	})
	_, addr := start(t, up, nil)
	resp, err := http.Get("http://" + addr + "/" + account + "/cgi-bin/media/get")
	if err != nil {
		t.Fatal(err)
	}
	io.CopyN(io.Discard, resp.Body, 1<<20)
	resp.Body.Close()
	select {
	case <-closed:
	case <-time.After(testTimeout):
		t.Error("WeChat's connection is still open, want it closed")
	}
}

func TestResponseToHead(t *testing.T) {
	up := wechatServer(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "12345")
		w.Header().Set("Content-Type", "image/jpeg")
	})
	_, addr := start(t, up, nil)
	for range 2 { // the second time on the same connection to WeChat
		resp, body := send(t, addr, "HEAD /"+account+"/cgi-bin/a HTTP/1.1\r\nHost: x\r\n\r\n")
		if resp.StatusCode != 200 || resp.ContentLength != 12345 || body != "" ||
			resp.Header.Get("Content-Type") != "image/jpeg" {
			t.Errorf("got %s, length %d, body %q, headers %v, want 200, length 12345, no body, image/jpeg",
				resp.Status, resp.ContentLength, body, resp.Header)
		}
	}
}

// unruly is a WeChat that does something to the connection after a response,
// without a request. Its responses repeat the parameter n.
type unruly struct {
	do    string // response, FIN, half-close
	delay time.Duration
	size  int  // of the first response of a connection, bytes
	after int  // the number of the response after which it does it
	once  bool // on the first connection only
	conns atomic.Int32

	received chan struct{} // the caller has that response
	done     chan error    // it has been done, and its effect is there
}

func (w *unruly) start(t *testing.T) (url string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	w.received, w.done = make(chan struct{}, 1), make(chan error, 1)
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go w.serve(c.(*net.TCPConn))
		}
	}()
	return "http://" + ln.Addr().String()
}

func (w *unruly) serve(c *net.TCPConn) {
	defer c.Close()
	br, quiet := bufio.NewReader(c), w.conns.Add(1) > 1 && w.once
	for served := 1; ; served++ {
		r, err := http.ReadRequest(br)
		if err != nil {
			return
		}
		io.Copy(io.Discard, r.Body)
		body := fmt.Sprintf("%-*s", w.size, r.URL.Query().Get("n"))
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		if served != w.after || quiet {
			continue
		}
		<-w.received
		<-time.After(w.delay)
		if w.do == "response" {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nforeign")
		} else {
			c.CloseWrite()
		}
		w.done <- tcptest.WaitDelivered(c)
		if w.do == "FIN" {
			return
		}
	}
}

// A response that WeChat sends without a request reaches no caller, and a
// connection that WeChat has ended costs no request: if it happens 0 to 200 ms
// after a response of 10 B to 300 KB, and the next request has no body, 9 KB or
// 100 KB.
func TestUnsolicitedResponseReachesNoCaller(t *testing.T) {
	for _, do := range []string{"response", "FIN", "half-close"} {
		for _, delay := range []time.Duration{0, 5 * time.Millisecond, 95 * time.Millisecond, 200 * time.Millisecond} {
			for _, size := range []int{10, 62_000, 300_000} {
				for _, next := range []int{0, 9000, 100_000} {
					t.Run(fmt.Sprintf("%s after %v, response %d B, next body %d B", do, delay, size, next), func(t *testing.T) {
						t.Parallel()
						w := &unruly{do: do, delay: delay, size: size, after: 1, once: true}
						_, addr := start(t, w.start(t), nil)
						path := "/" + account + "/cgi-bin/a?n="
						resp, body := send(t, addr, get(path+"1"))
						checkResponse(t, "first", resp, body, 200, "1 ")
						w.received <- struct{}{}
						if err := <-w.done; err != nil {
							t.Error(err)
						}
						for n := 2; n < 5; n++ {
							request := post(fmt.Sprint(path, n), strings.Repeat("b", next))
							resp, body := send(t, addr, request)
							checkResponse(t, request, resp, body, 200, fmt.Sprint(n, " "))
						}
					})
				}
			}
		}
	}
}

// A WeChat that closes each connection after three responses costs no request.
func TestServerThatClosesAfterThreeResponses(t *testing.T) {
	w := &unruly{do: "FIN", size: 10, after: 3}
	_, addr := start(t, w.start(t), nil)
	for n := range 300 {
		resp, body := send(t, addr, get(fmt.Sprintf("/%s/cgi-bin/a?n=%d", account, n)))
		checkResponse(t, fmt.Sprint(n), resp, body, 200, fmt.Sprint(n, " "))
		if n%3 == 2 {
			w.received <- struct{}{}
			if err := <-w.done; err != nil {
				t.Error(err)
			}
		}
	}
}

// TestRevocationHints checks which responses report that an account may have
// revoked its authorization. A changed password of an end user is none.
func TestRevocationHints(t *testing.T) {
	for _, c := range []struct {
		path, body, want string
	}{
		{"/" + account + "/cgi-bin/a", `{"errcode":61003}`, account + " 61003"},
		{"/" + account + "/cgi-bin/a", `{"errcode":42007}`, account + " 42007"},
		{"/" + account + "/cgi-bin/a", `{"errcode":45009}`, ""},
		{"/" + account + "/cgi-bin/a", `{"errcode":0}`, ""},
		{"/" + account + "/sns/userinfo?access_token=USER", `{"errcode":42007}`, ""},
		{"/sns/jscode2session?appid=" + account, `{"errcode":61003}`, account + " 61003"},
		{"/sns/jscode2session?appid=" + account, `{"errcode":42007}`, ""},
	} {
		up := wechatServer(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, c.body) })
		got := ""
		_, addr := start(t, up, func(config *proxy.Config) {
			config.Revalidate = func(appid string, errcode int) { got += fmt.Sprint(appid, " ", errcode) }
		})
		resp, body := send(t, addr, get(c.path))
		checkResponse(t, c.path, resp, body, 200, c.body)
		if got != c.want {
			t.Errorf("%s, response %s: got hint %q, want %q", c.path, c.body, got, c.want)
		}
	}
}
