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

// Stopping lets calls under way end, and takes no new ones.
func TestShutdown(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	up := wechatServer(t, func(w http.ResponseWriter, r *http.Request) { close(entered); <-leave; io.WriteString(w, `{"done":1}`) })
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
		t.Errorf("%q", body)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

// Whoever calls again and again over one connection loses no call: an answer says that it was the last.
func TestShutdownLosesNoCall(t *testing.T) {
	up := wechatServer(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, `{"errcode":0}`) })
	p, addr := start(t, up, nil)
	var all sync.WaitGroup
	var answered atomic.Int64
	for range 20 {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		all.Go(func() {
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(20 * time.Second))
			r := bufio.NewReader(conn)
			for last := false; !last; answered.Add(1) {
				io.WriteString(conn, "GET /"+account+"/cgi-bin/a HTTP/1.1\r\nHost: x\r\n\r\n")
				resp, err := http.ReadResponse(r, nil)
				if err != nil || resp.StatusCode != 200 {
					t.Error("a call was lost: ", err)
					return
				}
				io.Copy(io.Discard, resp.Body)
				last = resp.Close
			}
		})
	}
	for answered.Load() < 200 {
		time.Sleep(time.Millisecond)
	}
	if err := p.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	all.Wait()
}
