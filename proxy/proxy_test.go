package proxy_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestShutdownFinishesRequestsInFlight checks that Shutdown waits for requests
// in flight and accepts no new connections.
func TestShutdownFinishesRequestsInFlight(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	up := wechatServer(t, func(w http.ResponseWriter, r *http.Request) {
		close(entered)
		<-leave
		io.WriteString(w, `{"done":1}`)
	})
	p, addr := start(t, up, nil)
	answer := make(chan string, 1)
	go func() {
		_, body := send(t, addr, "GET /"+account+"/cgi-bin/a HTTP/1.1\r\nHost: x\r\n\r\n")
		answer <- body
	}()
	<-entered
	stopped := make(chan error, 1)
	go func() { stopped <- p.Shutdown(context.Background()) }()
	for {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			break
		}
		c.Close()
	}
	close(leave)
	if body := <-answer; body != `{"done":1}` {
		t.Errorf("got %q, want WeChat's response", body)
	}
	if err := <-stopped; err != nil {
		t.Errorf("Shutdown: got error %v, want none", err)
	}
}

// TestShutdownLosesNoRequest checks that clients which send request after
// request on one connection get a response to each, the last of which announces
// the end.
func TestShutdownLosesNoRequest(t *testing.T) {
	up := wechatServer(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, `{"errcode":0}`) })
	p, addr := start(t, up, nil)
	var clients sync.WaitGroup
	var answered atomic.Int64
	for range 20 {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		clients.Go(func() {
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(testTimeout))
			r := bufio.NewReader(conn)
			for last := false; !last; answered.Add(1) {
				io.WriteString(conn, "GET /"+account+"/cgi-bin/a HTTP/1.1\r\nHost: x\r\n\r\n")
				resp, err := http.ReadResponse(r, nil)
				if err != nil || resp.StatusCode != 200 {
					t.Errorf("got error %v, want a response to each request", err)
					return
				}
				io.Copy(io.Discard, resp.Body)
				last = resp.Close
			}
		})
	}
	waitUntil(t, "200 requests are answered", func() bool { return answered.Load() >= 200 })
	if err := p.Shutdown(context.Background()); err != nil {
		t.Errorf("Shutdown: got error %v, want none", err)
	}
	clients.Wait()
}
