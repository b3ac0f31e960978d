package proxy_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"wxproxy/proxy"
)

// TestRequestsDoNotShareMemory checks that nothing of a request shows up in
// another one: neither at WeChat, nor in the response, nor in what Watch has
// kept. The state of requests is pooled, and most of it points into buffers
// that the next request on the connection overwrites. The account of a request
// with a stand-in is in such a buffer, and a streamed response is reported
// after its request has ended.
func TestRequestsDoNotShareMemory(t *testing.T) {
	const clients, requestsEach = 8, 60
	large := strings.Repeat("x", 100<<10)
	up := wechatServer(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %s ", r.Method, r.RequestURI, body)
		if r.URL.Query().Has("large") {
			io.WriteString(w, large)
		}
	})
	var mu sync.Mutex
	watched := map[string]proxy.Call{}
	_, addr := start(t, up, func(c *proxy.Config) {
		c.Tokens, c.StandInKey = tokensByAppID{&fakeTokens{}}, key
		c.Callers = []proxy.Caller{named("orders", ordersKey), named("stock", stockKey)}
		c.Watch = func(call proxy.Call) {
			mu.Lock()
			defer mu.Unlock()
			watched[call.RequestID] = call
		}
	})
	// sent returns what client i sends as request n.
	sent := func(i, n int) (raw string, want proxy.Call, response string) {
		want = proxy.Call{
			RequestID: fmt.Sprintf("id-%d-%d", i, n), AppID: accountNo(i*1000 + n), Status: 200, Token: "hit",
			Method: []string{"GET", "POST", "DELETE", "PUT"}[(i+n)%4], Path: fmt.Sprintf("/cgi-bin/path%d/%d", i, n),
			Caller: []string{"orders", "stock"}[(i+n)%2],
		}
		query, body, prefix, extra := "n=1", "", "", ""
		if n%5 == 0 {
			query, extra = "n=1&large=1", "&large=1"
		}
		headers := "Host: x\r\nX-Request-Id: " + want.RequestID + "\r\n"
		switch (i + n) % 3 {
		case 0: // the stand-in is escaped, so two buffers hold its forms
			token := forge(1, 1, time.Now().Add(time.Hour), want.AppID, want.Caller)
			query += "&access_token=%" + fmt.Sprintf("%x", token[0]) + token[1:]
		case 1:
			prefix = "/" + want.AppID
			headers += "Authorization: " + basic("x", []string{ordersKey, stockKey}[(i+n)%2]) + "\r\n"
		case 2:
			headers += "X-WX-APPID: " + want.AppID + "\r\nX-Wxproxy-Key: " + []string{ordersKey, stockKey}[(i+n)%2] + "\r\n"
		}
		if want.Method == "POST" || want.Method == "PUT" {
			body = strings.Repeat("b", (i*n)%700) + want.AppID
			headers += fmt.Sprintf("Content-Length: %d\r\n", len(body))
		}
		response = fmt.Sprintf("%s %s?access_token=***&n=1%s %s ", want.Method, want.Path, extra, body)
		if extra != "" {
			response += large
		}
		raw = want.Method + " " + prefix + want.Path + "?" + query + " HTTP/1.1\r\n" + headers + "\r\n" + body
		return raw, want, response
	}
	var running sync.WaitGroup
	for i := range clients {
		running.Go(func() {
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(testTimeout))
			br := bufio.NewReader(conn)
			for n := range requestsEach {
				raw, want, response := sent(i, n)
				io.WriteString(conn, raw)
				resp, err := http.ReadResponse(br, nil)
				if err != nil {
					t.Errorf("%.200q: %v", raw, err)
					return
				}
				b, err := io.ReadAll(resp.Body)
				// In a large response the mask is as long as the token.
				b = bytes.Replace(b, []byte("="+strings.Repeat("*", len("T-"+want.AppID))), []byte("=***"), 1)
				if err != nil || string(b) != response || resp.Header.Get("X-Request-Id") != want.RequestID {
					t.Errorf("%.200q: got %.200q, id %s, error %v, want %.200q", raw, b, resp.Header.Get("X-Request-Id"), err, response)
					return
				}
			}
		})
	}
	running.Wait()
	count := func() int { mu.Lock(); defer mu.Unlock(); return len(watched) }
	waitUntil(t, "all requests are reported", func() bool { return count() >= clients*requestsEach || t.Failed() })
	for i := range clients {
		for n := range requestsEach {
			_, want, _ := sent(i, n)
			got := watched[want.RequestID]
			got.Took, got.Upstream = 0, 0
			if got != want {
				t.Errorf("report of client %d, request %d:\ngot  %+v\nwant %+v", i, n, got, want)
			}
		}
	}
}
