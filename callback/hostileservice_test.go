package callback_test

import (
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"wxproxy/callback"
)

// Services that speak HTTP badly: HTTP/1.0, no HTTP, an endless body or head, a
// connection that ends in the middle, a response that never ends × reply, raw.
// WeChat gets a response within the limit, and the service is never obeyed.
func TestHostileServices(t *testing.T) {
	const head = "HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\n"
	const short, encoded = head + "Content-Length: 9\r\n\r\n<xml",
		head + "Content-Encoding: br\r\n\r\nabc"
	for name, tc := range map[string]struct {
		send    string
		endless string // sent again and again after send
		hang    bool   // after send
		status  int
		result  string
	}{
		"HTTP/1.0":      {send: "HTTP/1.0 200 OK\r\n\r\nsuccess", status: 200, result: "ok"},
		"no HTTP":       {send: "SSH-2.0-x\r\n\r\n", status: 500, result: "undelivered"},
		"nothing":       {status: 500, result: "undelivered"},
		"endless body":  {send: head + "\r\n", endless: "<a>", status: 200, result: "bad_reply"},
		"endless head":  {send: head, endless: "A: b\r\n", status: 500, result: "undelivered"},
		"ends early":    {send: short, status: 500, result: "undelivered"},
		"body hangs":    {send: short, hang: true, status: 500, result: "undelivered"},
		"encoded twice": {send: encoded, status: 200, result: "bad_reply"},
	} {
		for _, mode := range []callback.Mode{callback.ModeReply, callback.ModeRaw} {
			t.Run(name+" "+string(mode), func(t *testing.T) {
				addr := rawService(t, tc.send, tc.endless, tc.hang)
				rule := withMode(forwardAll("http://"+addr), mode)
				c := callback.Config{Forwards: []callback.Forward{rule}}
				if tc.hang {
					c.MessageTimeout = time.Second
				}
				w := start(t, c)
				w.wantResponse(w.message(textDoc("hello")), tc.status)
				w.wantCounted("message " + tc.result)
			})
		}
	}
}

// rawService returns the address of a service that reads a request, sends some
// bytes, and closes the connection unless hang is set.
func rawService(t *testing.T, send, endless string, hang bool) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	serve := func(conn net.Conn) {
		defer conn.Close()
		buf := make([]byte, 64<<10)
		_, _ = conn.Read(buf)
		_, err := io.WriteString(conn, send)
		for endless != "" && err == nil {
			_, err = io.WriteString(conn, strings.Repeat(endless, 1000))
		}
		if hang {
			_, _ = io.Copy(io.Discard, conn) // until wxproxy closes it
		}
	}
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go serve(conn)
		}
	}()
	return ln.Addr().String()
}
