package proxy_test

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"wxproxy/internal/proctest"
	"wxproxy/proxy"
	"wxproxy/wechat"
)

// rawServer is a fake WeChat that answers each connection's first request with
// response, and returns its URL and the heads that it has received.
func rawServer(t *testing.T, response func(head string) string) (url string, heads <-chan string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	seen := make(chan string, 64)
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				br := bufio.NewReader(conn)
				var head strings.Builder
				for {
					line, err := br.ReadString('\n')
					if err != nil {
						return
					}
					if line == "\r\n" {
						break
					}
					head.WriteString(line)
				}
				seen <- head.String()
				io.WriteString(conn, response(head.String()))
			}()
		}
	}()
	return "http://" + ln.Addr().String(), seen
}

// ok is a response of WeChat that ends its connection.
func ok(string) string {
	return "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}"
}

// linesOf returns the header lines of a request, without those that wxproxy
// writes into every one.
func linesOf(head string) []string {
	lines := strings.Split(strings.TrimSuffix(head, "\r\n"), "\r\n")[1:]
	return slices.DeleteFunc(lines, func(line string) bool {
		return strings.HasPrefix(line, "Host: ") || line == "Content-Length: 2"
	})
}

// droppedHeaders do not reach WeChat, whatever their spelling.
var droppedHeaders = strings.Split(`traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01
tracestate: internal=1
baggage: user=17,tier=internal
b3: 80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1
X-B3-TraceId: 80f198ee56343ba8
X-B3-SpanId: e457b5a2e4d86bd1
X-B3-ParentSpanId: 05e3ac9a4f6e3b90
X-B3-Sampled: 1
X-B3-Flags: 1
sentry-trace: 771a43a4192642f0b136d5159a501700-a9c8c2b7d6e5f4a3-1
X-Amzn-Trace-Id: Root=1-67891233-abcdef012345678912345678
uber-trace-id: 1:2:3:4
X-Cloud-Trace-Context: 105445aa7843bc8bf206b12000100000/1
x-datadog-trace-id: 1
sw8: 1-a-b-1-c-d-e-f
grpc-trace-bin: AAAA
elastic-apm-traceparent: x
eagleeye-traceid: 1
Cookie: session=internal
Cookie2: a
X-Api-Key: internal
Api-Key: internal
X-Auth-Token: internal
X-Amz-Security-Token: internal
X-Csrf-Token: internal
X-Wxproxy-Token: hit
X-Wxproxy-Anything: a
Proxy-Authenticate: Basic
X-Access-Token: internal
access_token: internal
X-HTTP-Method-Override: DELETE
X-HTTP-Method: DELETE
X-Method-Override: DELETE
X-Original-URL: /a
X-Rewrite-URL: /a
X-Original-Host: a
X-Host: a
X-Override-URL: /a
X-Forwarded-For: 10.0.0.1
X-Forwarded-Host: a
X-Forwarded-Prefix: /a
Forwarded: for=10.0.0.1
Via: 1.1 a
X-Real-IP: 10.0.0.1
True-Client-IP: 10.0.0.1
X-Envoy-Original-Path: /a
Content_Length: 5
Content_Type: a
Wechatmp_Signature: a
Referer: /internal
Date: a
From: a@b
Pragma: no-cache
Warning: a
Accept-Charset: a
Acceptx: a
Max-Forwards: 1
X-Custom: Two  Words
Priority: u=1
DNT: 1
Cont: a
Content: a
If: a
Wechatmp: a
X-Request-Id: abc-1
Expect: a
TE: trailers
Upgrade: h2c
HTTP2-Settings: a
Keep-Alive: timeout=5
Proxy-Connection: keep-alive
Last-Event-ID: 1
Access-Control-Request-Method: GET
Depth: 1
Destination: a
Accept-Encoding: br
Accept-Encoding: identity
Accept-Encoding: gzip;q=0`, "\n")

// passedHeaders reach WeChat as they are spelled.
var passedHeaders = strings.Split(`Accept: application/json, text/plain
Accept:
Accept-Language: zh-CN,zh;q=0.9
Content-Type: text/weird;x="y"
Content-Disposition: attachment
Content-Encoding: gzip
Content-Language: zh
Content-MD5: a
Content-Range: a
Content-Some-Very-Long-Name-That-Is-Not-Known: a
User-Agent: sdk/1
Range: bytes=0-5
If-None-Match: "a"
If-Modified-Since: a
If-Range: a
Cache-Control: no-cache
Wechatmp-Appid: a
Wechatmp-TimeStamp: 5
Wechatmp-Signature: ab+c/=
Wechatmp-Serial-Deprecated: a
Wechatmp-Signature-Deprecated: a
X-Gateway-Key: k
X-Tenant-Name: 小`, "\n")

// headerCases are the cases in which a header can be written.
var headerCases = []func(string) string{strings.Clone, strings.ToLower, strings.ToUpper}

// sameHeader reports whether WeChat got the line that was sent. fasthttp writes
// the names of two headers itself.
func sameHeader(got, sent string) bool {
	name, value, _ := strings.Cut(got, ":")
	sentName, sentValue, _ := strings.Cut(sent, ":")
	if strings.EqualFold(name, "Content-Type") || strings.EqualFold(name, "User-Agent") {
		return strings.EqualFold(name, sentName) && value == sentValue
	}
	return got == sent
}

// TestRequestHeadersAreForwardedByAllowList sends headers of every kind: each
// name × as it is, in lower case, in upper case × alone, twice, and listed in
// Connection × GET, POST with a body. WeChat receives those of the list and of
// the configuration byte for byte, and no others.
func TestRequestHeadersAreForwardedByAllowList(t *testing.T) {
	up, heads := rawServer(t, ok)
	_, addr := start(t, up, func(c *proxy.Config) {
		c.ForwardHeaders = []string{"X-Gateway-Key", "x-tenant-name"}
	})
	check := func(want []string, sent ...string) {
		t.Helper()
		lines := strings.Join(sent, "\r\n")
		for _, raw := range []string{
			get("/"+account+"/cgi-bin/a", sent...),
			"POST /" + account + "/cgi-bin/a HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n" +
				lines + "\r\n\r\n{}",
		} {
			resp, body := send(t, addr, raw)
			if resp.StatusCode != 200 {
				t.Errorf("%q: got %s %s, want 200", raw, resp.Status, body)
				continue
			}
			if got := linesOf(<-heads); !slices.EqualFunc(got, want, sameHeader) {
				t.Errorf("%q: WeChat got the headers %q, want %q", raw, got, want)
			}
		}
	}
	for _, spell := range headerCases {
		for _, header := range droppedHeaders {
			name, value, _ := strings.Cut(header, ":")
			check(nil, spell(name)+":"+value)
		}
		for _, header := range passedHeaders {
			name, value, _ := strings.Cut(header, ":")
			line := spell(name) + ": " + strings.TrimSpace(value)
			check([]string{line}, line)
			// A client can ask for a header to be dropped.
			check(nil, line, "Connection: keep-alive, "+name)
			check(nil, "Connection: close", "connection: "+name, line)
			if name != "Content-Type" && name != "User-Agent" { // of these the last one counts
				check([]string{line, line}, line, line)
			}
		}
	}
}

// oddLines are header lines that two parsers could read differently, and what
// WeChat gets of them. 400 means that the request is rejected.
var oddLines = map[string]string{
	"Accept : a":               "400",
	"Accept\t: a":              "400",
	" Accept: a":               "400",
	"X-Api-Key : a":            "400",
	"X Api Key: a":             "400",
	"Content-Type x: a":        "400",
	"If-\x00: a":               "400",
	"If-\xe5: a":               "400",
	"If-(a): a":                "400",
	": a":                      "400",
	"Accept":                   "400",
	"Accept: a\x01b":           "400",
	"X-Api-Key: a\x01b":        "400",
	"Accept: a\rX-Api-Key: b":  "400",
	"Accept:\t a \t":           "Accept: a",
	"Accept:a:b":               "Accept: a:b",
	"Accept: a\nX-Api-Key: b":  "Accept: a",
	"X-Api-Key: b\nAccept: a":  "Accept: a",
	"X-Api-Key: a\r\n\tAccept": "",
	// Folded values are one value.
	"Accept: a\r\n X-Api-Key: b":            "Accept: a X-Api-Key: b",
	"X-Gateway-Key: a\r\n X-Api-Key: b":     "X-Gateway-Key: a X-Api-Key: b",
	"Connection: accept\r\nAccept: a":       "",
	"Accept: a\r\nConnection: , ,accept ,,": "",
	"Connection: x-b\r\nAccept: a":          "Accept: a",
}

// TestOddHeaderLines checks that odd lines are rejected, or that WeChat
// receives one line with one meaning. None of them adds a header that is not on
// the list.
func TestOddHeaderLines(t *testing.T) {
	up, heads := rawServer(t, ok)
	_, addr := start(t, up, func(c *proxy.Config) { c.ForwardHeaders = []string{"X-Gateway-Key"} })
	for lines, want := range oddLines {
		raw := get("/"+account+"/cgi-bin/a", lines)
		resp, body := send(t, addr, raw)
		if want == "400" {
			checkResponse(t, raw, resp, body, 400, `{"errcode":-400`)
			continue
		}
		if resp.StatusCode != 200 {
			t.Errorf("%q: got %s %s, want 200", raw, resp.Status, body)
			continue
		}
		if got := strings.Join(linesOf(<-heads), "\r\n"); got != want {
			t.Errorf("%q: WeChat got %q, want %q", raw, got, want)
		}
	}
	select {
	case head := <-heads:
		t.Errorf("WeChat got %q, want no request that was rejected", head)
	default:
	}
}

// TestForwardHeaderProblem checks which names the configuration cannot add: in
// any case, and with underscores in place of hyphens.
func TestForwardHeaderProblem(t *testing.T) {
	for want, names := range map[string][]string{
		"":               {"X-Gateway-Key", "x-api-key", "Accept", "X_Tenant", "DNT", "X-Forwarded", "Sec"},
		"is not":         {"", "a b", "a:", "a\r\nHost: b", "小"},
		"writes":         {"Host", "content-length", "Content_Length", "Transfer-Encoding", "Expect"},
		"one connection": {"CONNECTION", "proxy-status", "Te"},
		"credential":     {"Authorization", "cookie", "X-Wxproxy-Key", "X_WX_APPID"},
		"network":        {"X-Forwarded-For", "x_real_ip"},
		"trace":          {"TraceParent", "x-b3-flags", "X-Datadog-Sampling-Priority"},
		"browsers":       {"Origin", "sec-ch-ua-mobile"},
		"permissions":    {"X-HTTP-Method-Override", "X_HTTP_METHOD", "X-Original-URL"},
	} {
		for _, name := range names {
			got := proxy.ForwardHeaderProblem(name)
			if (got == "") != (want == "") || !strings.Contains(got, want) {
				t.Errorf("ForwardHeaderProblem(%q): got %q, want %q in it", name, got, want)
			}
			c := proxy.Config{Upstream: "http://127.0.0.1:1", ForwardHeaders: []string{"X-A", name}}
			if _, err := proxy.New(c); (err == nil) != (want == "") {
				t.Errorf("New with the header %q: got error %v, want one: %v", name, err, want != "")
			}
		}
	}
}

// Parts of trace headers.
const (
	traceID      = "4bf92f3577b34da6a3ce929d0e0e4736"
	shortTraceID = "80f198ee56343ba8"
	amazonID     = "1-67891233-abcdef012345678912345678"
	span         = "-00f067aa0ba902b7"
)

// traceHeaders are headers of requests, and the trace id that is logged.
var traceHeaders = map[string]string{
	"Accept: a": "",
	"traceparent: 00-" + traceID + span + "-01":                   traceID,
	"TRACEPARENT: cc-" + traceID + span + "-01-what-will-be":      traceID,
	"traceparent: ff-" + traceID + span + "-01":                   "",
	"traceparent: 00-" + strings.Repeat("0", 32) + span + "-01":   "",
	"traceparent: 00-" + traceID + "-0000000000000000-01":         "",
	"traceparent: 00-" + traceID + span:                           "",
	"traceparent: 00-" + traceID[:31] + span + "-01":              "",
	"traceparent: 00-" + traceID[:31] + "g" + span + "-01":        "",
	"traceparent: 00-" + traceID[:30] + "\xc3\xa9" + span + "-01": "",
	"traceparent: " + strings.Repeat("-", 500):                    "",
	"traceparent:":                 "",
	"b3: " + traceID + span + "-1": traceID,
	"b3: " + shortTraceID + span:   shortTraceID,
	"b3: 0":                        "",
	"b3: " + traceID:               "",
	"X-B3-TraceId: " + shortTraceID + "\r\nX-B3-SpanId: 00f067aa0ba902b7": shortTraceID,
	"x-b3-traceid: " + traceID:                                      traceID,
	"x-b3-traceid: level=ERROR msg=forged":                          "",
	"sentry-trace: " + traceID + span + "-1":                        traceID,
	"sentry-trace: " + shortTraceID + span:                          "",
	"X-Amzn-Trace-Id: Self=1-5-6; Root=" + amazonID + "; Sampled=1": amazonID,
	"X-Amzn-Trace-Id: Root=" + amazonID[:34] + " " + traceID:        "",
	"X-Amzn-Trace-Id: Root=" + traceID:                              "",
	"traceparent: none\r\nb3: " + shortTraceID + span:               shortTraceID,
	"b3: " + shortTraceID + span +
		"\r\ntraceparent: 00-" + traceID + span + "-01": traceID,
}

// TestTraceIDIsLogged checks that the trace id of a request is in its log line
// and in its report, if the header is valid: formats × valid, malformed,
// hostile × forwarded, streamed, rejected. The first of several formats counts.
func TestTraceIDIsLogged(t *testing.T) {
	up := wechatServer(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "large") {
			w.Write(make([]byte, 300_000))
			return
		}
		io.WriteString(w, `{}`)
	})
	log, calls := new(proctest.Output), make(chan proxy.Call, 1)
	_, addr := start(t, up, func(c *proxy.Config) {
		c.Log = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		c.Watch = func(c proxy.Call) { calls <- c }
		c.Routes = []wechat.Endpoint{{Path: "/cgi-bin/refused", Need: wechat.NeedRefusal}}
	})
	statuses := map[string]int{"/cgi-bin/a": 200, "/cgi-bin/large": 200, "/cgi-bin/refused": 403}
	n := 0
	for headers, want := range traceHeaders {
		for path, status := range statuses {
			n++
			raw := get("/"+account+path, fmt.Sprintf("X-Request-Id: r%d", n), headers)
			resp, body := send(t, addr, raw)
			checkResponse(t, raw, resp, body, status, "")
			if got := <-calls; got.TraceID != want {
				t.Errorf("%q: got a report with trace id %q, want %q", raw, got.TraceID, want)
			}
			value := want
			if want == "" {
				value = `""`
			}
			line := fmt.Sprintf("msg=call id=r%d trace_id=%s caller", n, value)
			waitUntil(t, line+" is logged", func() bool { return strings.Contains(log.String(), line) })
		}
	}
	if strings.Contains(log.String(), "forged") {
		t.Errorf("the log contains the value of a header, want only valid ids:\n%s", log)
	}
}

// rejectedOnce returns a WeChat that rejects the first token if retried is
// true, and otherwise answers with response.
func rejectedOnce(retried bool, response string) func(head string) string {
	return func(head string) string {
		if retried && strings.Contains(head, "=T0") {
			return "HTTP/1.1 200 OK\r\nx-request-id: forged\r\nX-First: forged\r\n" +
				"Connection: close\r\nContent-Length: 17\r\n\r\n{\"errcode\":42001}"
		}
		return response
	}
}

// ownHeaders are header lines of WeChat's response that must not reach a
// caller.
var ownHeaders = []string{
	"X-Request-Id: forged", "x-request-id: forged", "X-REQUEST-ID: forged", "X-Request-ID: forged",
	"X-Request-Id: forged\r\nx-request-id: forged\r\nX-Request-Id: forged", "X-Request-Id : forged",
	"X-Wxproxy-Token: forged", "x-wxproxy-token: forged", "X-WXPROXY-Anything: forged",
	"x-wxproxy-: forged", "connection: keep-alive\r\nKEEP-ALIVE: forged",
	"Connection: x-hop\r\nX-Hop: forged", "Connection: close\r\nconnection: X-HOP\r\nx-hop: forged",
	"X Spaced Name: forged", "Proxy-Authenticate: forged", "upgrade: forged", "trailer: forged",
	"te: forged", "Accept: kept",
}

// TestResponseHeadersOfWxproxyAreItsOwn checks headers of WeChat's response
// that would stand beside wxproxy's, or that concern the connection: name and
// spelling × short, chunked, streamed, without a length, with a trailer of the
// name × first and second attempt. The caller receives one X-Request-Id and one
// X-Wxproxy-Token, wxproxy's, and the other headers as they are.
func TestResponseHeadersOfWxproxyAreItsOwn(t *testing.T) {
	large := strings.Repeat("x", 200_000)
	const chunks = "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n"
	shapes := map[string]string{
		"short":    "Content-Length: 2\r\n\r\n{}",
		"chunked":  chunks + "\r\n",
		"trailer":  "Trailer: X-Request-Id, X-Wxproxy-Token\r\n" + chunks + "X-Request-Id: forged\r\n\r\n",
		"streamed": fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(large), large),
		"endless":  "\r\n{}",
	}
	check := func(name string, resp *http.Response, body, token string) {
		t.Helper()
		if resp.StatusCode != 200 || body != "{}" && body != large {
			t.Errorf("%s: got %s %.80q, want 200 and WeChat's body", name, resp.Status, body)
		}
		for header, want := range map[string][]string{
			"X-Request-Id": {"mine"}, "X-Wxproxy-Token": {token}, "Retkey": {"0"}, "Set-Cookie": {"a=b"},
		} {
			if got := resp.Header.Values(header); !slices.Equal(got, want) {
				t.Errorf("%s: got %s %q, want %q", name, header, got, want)
			}
		}
		var all strings.Builder
		resp.Header.Write(&all)
		if s := all.String() + fmt.Sprint(resp.Trailer); strings.Contains(s, "forged") {
			t.Errorf("%s: got headers and trailers\n%s, want none that is forged", name, s)
		}
	}
	for _, line := range ownHeaders {
		for shape, rest := range shapes {
			for retried, token := range map[bool]string{false: "hit", true: "retried"} {
				up, _ := rawServer(t, rejectedOnce(retried, "HTTP/1.1 200 OK\r\n"+line+
					"\r\nRetKey: 0\r\nSet-Cookie: a=b\r\n"+rest))
				_, addr := start(t, up, nil)
				resp, body := send(t, addr, get("/"+account+"/cgi-bin/a", "X-Request-Id: mine"))
				check(fmt.Sprintf("%q, %s, %s", line, shape, token), resp, body, token)
			}
		}
	}
}

// TestSwitchedProtocols checks that status 101 never reaches a caller, and that
// Upgrade never reaches WeChat: plain requests, Upgrade to a WebSocket, to
// HTTP/2 and to TLS, Expect × first and second attempt × after no, one and two
// interim responses.
func TestSwitchedProtocols(t *testing.T) {
	for _, headers := range []string{
		"Accept: a",
		"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-Websocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
		"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA",
		"Expect: 100-continue\r\nConnection: upgrade\r\nUpgrade: websocket",
		"Upgrade: TLS/1.0\r\nContent-Length: 0",
	} {
		for sent, retried := range map[int]bool{1: false, 2: true} {
			for _, interim := range []string{
				"", "HTTP/1.1 100 Continue\r\n\r\n",
				"HTTP/1.1 103 Early\r\nLink: a\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n",
			} {
				testSwitchedProtocols(t, headers, interim, sent, retried)
			}
		}
	}
}

func testSwitchedProtocols(t *testing.T, headers, interim string, sent int, retried bool) {
	t.Helper()
	up, heads := rawServer(t, rejectedOnce(retried, interim+"HTTP/1.1 101 Switching Protocols\r\n"+
		"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\nraw bytes"))
	_, addr := start(t, up, nil)
	raw := get("/"+account+"/cgi-bin/a", headers)
	name := fmt.Sprintf("%q, second attempt %v, after %q", raw, retried, interim)
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(testTimeout))
	io.WriteString(conn, raw)
	br := bufio.NewReader(conn)
	resp, err := http.ReadResponse(br, nil)
	if err == nil && resp.StatusCode == http.StatusContinue {
		resp, err = http.ReadResponse(br, nil)
	}
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	body, _ := io.ReadAll(resp.Body)
	checkResponse(t, name, resp, string(body), 502, "switched protocols")
	if got := resp.Header.Get("Upgrade"); got != "" {
		t.Errorf("%s: got Upgrade %q, want none", name, got)
	}
	if len(heads) != sent {
		t.Errorf("%s: got %d requests at WeChat, want %d", name, len(heads), sent)
	}
	for range len(heads) {
		head := strings.ToLower(<-heads)
		for _, word := range []string{"upgrade", "expect", "sec-", "settings"} {
			if strings.Contains(head, word) {
				t.Errorf("%s: WeChat got %q, want no %s", name, head, word)
			}
		}
	}
}
