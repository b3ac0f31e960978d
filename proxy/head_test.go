package proxy_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"wxproxy/proxy"
)

func TestBodyLimit(t *testing.T) {
	var hits atomic.Int32
	up := wechatServer(t, func(w http.ResponseWriter, r *http.Request) {
		hits.Add(1)
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprintf(w, `{"n":%d}`, n)
	})
	_, addr := start(t, up, func(c *proxy.Config) { c.MaxBody = 1 << 20 })
	post := func(n int, chunked bool) (int, string) {
		t.Helper()
		var r io.Reader = bytes.NewReader(make([]byte, n))
		if chunked {
			r = io.MultiReader(r)
		}
		resp, err := http.Post("http://"+addr+"/"+account+"/cgi-bin/media/upload", "application/octet-stream", r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(b)
	}
	for _, chunked := range []bool{false, true} {
		if s, b := post(1<<20, chunked); s != 200 || b != `{"n":1048576}` {
			t.Errorf("body at the limit, chunked %v: got %d %s, want 200 and all bytes forwarded", chunked, s, b)
		}
		hits.Store(0)
		for _, n := range []int{1<<20 + 1, 20 << 20} {
			if s, b := post(n, chunked); s != 413 || !strings.Contains(b, `"errcode":-413`) {
				t.Errorf("body of %d bytes, chunked %v: got %d %s, want 413", n, chunked, s, b)
			}
		}
		if n := hits.Load(); n != 0 {
			t.Errorf("bodies over the limit: got %d requests at WeChat, want 0", n)
		}
	}
}

// TestSlowUploadIsNotPartOfTheTimeout checks that the time of a call, which its
// timeout bounds, starts once the body has been received.
func TestSlowUploadIsNotPartOfTheTimeout(t *testing.T) {
	up := wechatServer(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, `{}`) })
	calls := make(chan proxy.Call, 1)
	_, addr := start(t, up, func(c *proxy.Config) { c.Watch = func(c proxy.Call) { calls <- c } })
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(testTimeout))
	const size = 20_000 // more than is read before the call starts
	fmt.Fprintf(conn, "POST /%s/cgi-bin/a HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s",
		account, size, make([]byte, size-1))
	time.Sleep(300 * time.Millisecond)
	sent := time.Now()
	conn.Write([]byte{0})
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("got %v, error %v, want 200", resp, err)
	}
	if call, took := <-calls, time.Since(sent); call.Took > took {
		t.Errorf("got a call of %v, want at most the %v since the end of the upload", call.Took, took)
	}
}

// TestExpectContinue checks that a body is asked for if it is within the limit,
// and that the request is rejected before the body otherwise.
func TestExpectContinue(t *testing.T) {
	up := wechatServer(t, func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprintf(w, `{"n":%d}`, n)
	})
	_, addr := start(t, up, func(c *proxy.Config) { c.MaxBody = 1 << 20 })
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(testTimeout))
	br := bufio.NewReader(conn)
	io.WriteString(conn, "POST /"+account+"/cgi-bin/a HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
	if line, err := br.ReadString('\n'); err != nil || !strings.HasPrefix(line, "HTTP/1.1 100") {
		t.Fatalf("got %q, error %v, want HTTP/1.1 100", line, err)
	}
	br.ReadString('\n')
	io.WriteString(conn, "hello")
	resp, err := http.ReadResponse(br, nil)
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := io.ReadAll(resp.Body); string(b) != `{"n":5}` {
		t.Errorf("got %s, want the body forwarded", b)
	}
	raw := "POST /" + account + "/cgi-bin/a HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n" +
		"Content-Length: 9999999\r\n\r\n"
	rejected, body := send(t, addr, raw)
	checkResponse(t, raw, rejected, body, 413, `"errcode":-413`)
	for _, name := range []string{"X-Request-Id", "X-Wxproxy-Token"} {
		if rejected.Header.Get(name) == "" {
			t.Errorf("%s: got no header %s, want one", raw, name)
		}
	}
}

// TestBodyOfRejectedExpectIsNotTheNextRequest checks clients that send the body
// with "Expect: 100-continue" without waiting for the response. A rejection
// reaches them, and the body is not read as another request.
func TestBodyOfRejectedExpectIsNotTheNextRequest(t *testing.T) {
	up, requests := recordingServer(t)
	_, addr := start(t, up, func(c *proxy.Config) { c.Callers = []proxy.Caller{named("orders", ordersKey)} })
	inner := get("/"+account+"/cgi-bin/a", "X-Wxproxy-Key: "+ordersKey)
	for _, padding := range []int{0, 1 << 20} {
		body := inner + strings.Repeat("x", padding)
		for range 10 {
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			conn.SetDeadline(time.Now().Add(testTimeout))
			fmt.Fprintf(conn, "POST /%s/cgi-bin/a HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n%s%s",
				account, len(body), body, inner)
			br := bufio.NewReader(conn)
			resp, err := http.ReadResponse(br, nil)
			if err != nil {
				t.Fatalf("body of %d bytes: got error %v, want a response", len(body), err)
			}
			got, _ := io.ReadAll(resp.Body)
			rest, err := io.ReadAll(br)
			conn.Close()
			if resp.StatusCode != 401 || !resp.Close || len(rest) > 0 || err != nil {
				t.Errorf("body of %d bytes: got %s %s, close %v, then %q, error %v, want 401, close and nothing more",
					len(body), resp.Status, got, resp.Close, rest, err)
			}
		}
	}
	if n := len(requests()); n != 0 {
		t.Errorf("got %d requests at WeChat, want 0", n)
	}
}

// TestMalformedRequestsAreRejected checks requests that could be read in two
// ways, or that are none.
func TestMalformedRequestsAreRejected(t *testing.T) {
	var hits atomic.Int32
	up := wechatServer(t, func(w http.ResponseWriter, r *http.Request) { hits.Add(1); io.WriteString(w, `{}`) })
	_, addr := start(t, up, nil)
	path := "/" + account + "/cgi-bin/a"
	for _, raw := range []string{
		"GET " + path + " HTTP/1.1\r\nHost: x\r\nX-A: b\rX-B: c\r\n\r\n",
		"GET " + path + " HTTP/1.1\r\nHost: x\r\nX-A: b\x00c\r\n\r\n",
		"GET " + path + " HTTP/1.1\r\nHost: x\r\nX A: b\r\n\r\n",
		"GET " + path + " HTTP/1.1\r\nHost: x\r\n: b\r\n\r\n",
		"GET " + path + "?a b HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET " + path + "\x01 HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET " + path + "#frag HTTP/1.1\r\nHost: x\r\n\r\n",
		"POST " + path + " HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
		"POST " + path + " HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
		"POST " + path + " HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
		"POST " + path + " HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n\r\nhello",
		"POST " + path + " HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
		"POST " + path + " HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
		"GET /" + strings.Repeat("a", 20_000) + " HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET " + path + " HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("X-A: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n", 1000) + "\r\n",
		"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
		"CONNECT api.weixin.qq.com:443 HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET http://evil.example/cgi-bin/a HTTP/1.1\r\nHost: evil.example\r\nX-WX-APPID: " + account + "\r\n\r\n",
		"GET " + path + " HTTP/1.1\r\nHost: x\r\nOrigin: http://evil.example\r\n\r\n",
		"POST " + path + " HTTP/1.1\r\nHost: x\r\nSec-Fetch-Site: cross-site\r\nContent-Length: 0\r\n\r\n",
		"GET " + path + " HTTP/1.1\r\nHost: x\r\nX-WX-APPID: " + account + "\r\nX-WX-APPID: wxbbbbbbbbbbbbbbbb\r\n\r\n",
		"GET /cgi-bin/a HTTP/1.1\r\nHost: x\r\nX-WX-APPID: " + other + "\r\nX-WX-APPID: " + account + "\r\n\r\n",
		"GET /cgi-bin/a HTTP/1.1\r\nHost: x\r\nX-WX-APPID: wxAAAAAAAAAAAAAAAA\r\n\r\n",
	} {
		resp, body := send(t, addr, raw)
		if resp.StatusCode < 400 || resp.StatusCode >= 500 || !strings.HasPrefix(body, `{"errcode":-`) {
			t.Errorf("%.100q: got %s %s, want a client error", raw, resp.Status, body)
		}
	}
	if n := hits.Load(); n != 0 {
		t.Errorf("got %d requests at WeChat, want 0", n)
	}
	// The listener still works.
	for _, raw := range []string{
		"GET http://api.weixin.qq.com" + path + " HTTP/1.1\r\nHost: api.weixin.qq.com\r\n\r\n",
		"GET " + path + " HTTP/1.0\r\nHost: x\r\n\r\n",
		"PATCH //" + account + "//cgi-bin/a HTTP/1.1\r\nHost: x\r\n\r\n",
	} {
		if resp, body := send(t, addr, raw); resp.StatusCode != 200 || body != "{}" {
			t.Errorf("%.100q: got %s %s, want 200 {}", raw, resp.Status, body)
		}
	}
}

// TestAmbiguousRequestEndsConnection checks that a connection is closed after a
// request whose end is not certain. What follows could be its body.
func TestAmbiguousRequestEndsConnection(t *testing.T) {
	up, requests := recordingServer(t)
	_, addr := start(t, up, nil)
	path := "/" + account + "/cgi-bin/a"
	for _, head := range []string{
		"POST " + path + " HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: identity\r\n\r\n",
		"GET " + path + " HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: identity\r\n\r\n",
		"HEAD " + path + " HTTP/1.1\r\nHost: x\r\ntransfer-encoding:Identity\r\n\r\n",
		"POST " + path + " HTTP/1.7\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
	} {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		conn.SetDeadline(time.Now().Add(testTimeout))
		io.WriteString(conn, head+get(path)+strings.Repeat("x", 1<<20))
		br := bufio.NewReader(conn)
		resp, err := http.ReadResponse(br, nil)
		if err != nil {
			t.Fatalf("%q: got error %v, want a response", head, err)
		}
		body, _ := io.ReadAll(resp.Body)
		rest, err := io.ReadAll(br)
		conn.Close()
		if resp.StatusCode != 400 || !resp.Close || len(rest) > 0 || err != nil {
			t.Errorf("%q: got %s %s, close %v, then %q, error %v, want 400, close and nothing more",
				head, resp.Status, body, resp.Close, rest, err)
		}
	}
	if n := len(requests()); n != 0 {
		t.Errorf("got %d requests at WeChat, want 0", n)
	}
}

// TestBodyOfGetIsNotTheNextRequest checks that the body of a GET is forwarded
// with it, and not taken for the next request on the connection.
func TestBodyOfGetIsNotTheNextRequest(t *testing.T) {
	var uris []string
	up := wechatServer(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		uris = append(uris, r.Method+" "+r.URL.Path+" "+string(b))
		io.WriteString(w, `{}`)
	})
	_, addr := start(t, up, nil)
	inner := "GET /" + account + "/cgi-bin/smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
	send(t, addr, "GET /"+account+"/cgi-bin/a HTTP/1.1\r\nHost: x\r\n"+
		"Content-Length: "+strconv.Itoa(len(inner))+"\r\n\r\n"+inner)
	if len(uris) != 1 || uris[0] != "GET /cgi-bin/a "+inner {
		t.Errorf("WeChat got %q, want one request with the body %q", uris, inner)
	}
	// With two lengths the chunks count, and what follows them is not read.
	uris = nil
	resp, _ := send(t, addr, "POST /"+account+"/cgi-bin/b HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n"+
		"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"+inner)
	if len(uris) != 1 || uris[0] != "POST /cgi-bin/b hi" || !resp.Close {
		t.Errorf("WeChat got %q, connection closed %v, want one request and a closed connection", uris, resp.Close)
	}
}
