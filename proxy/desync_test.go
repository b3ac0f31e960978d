package proxy_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

// An answer with more behind it than there should be: what is too much is nobody's answer, least of all the next caller's.
// A body where there must be none may come at any time later, and a caller can provoke it.
func TestAnswersStayApart(t *testing.T) {
	const foreign = "HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n{\"n\":\"foo\"}"
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	// late sends the body when the connection is used again, at the worst moment, or ends.
	late := func(conn net.Conn, br *bufio.Reader) {
		if _, err := br.Peek(1); err == nil {
			io.WriteString(conn, foreign)
		}
	}
	serve := func(conn net.Conn) {
		defer conn.Close()
		br := bufio.NewReader(conn)
		for {
			req, err := http.ReadRequest(br)
			if err != nil {
				return
			}
			io.Copy(io.Discard, req.Body)
			body := fmt.Sprintf(`{"n":%q}`, req.URL.Query().Get("n"))
			switch {
			case req.Method == http.MethodHead: // with a body, as careless servers have it
				fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", len(foreign))
				late(conn, br)
			case strings.HasSuffix(req.URL.Path, "/unchanged"):
				io.WriteString(conn, "HTTP/1.1 304 Not Modified\r\n\r\n")
				late(conn, br)
			case strings.HasSuffix(req.URL.Path, "/twice"):
				fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s%s", len(body), body, foreign)
			case strings.HasSuffix(req.URL.Path, "/chunked"):
				fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n%s", len(body), body, foreign)
			default:
				fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
			}
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
	_, addr := start(t, "http://"+ln.Addr().String(), nil)
	for _, first := range []string{"HEAD /" + account + "/cgi-bin/a", "GET /" + account + "/cgi-bin/unchanged", "GET /" + account + "/cgi-bin/twice", "GET /" + account + "/cgi-bin/chunked"} {
		for n := range 20 {
			send(t, addr, first+"?n=mine HTTP/1.1\r\nHost: x\r\n\r\n")
			if resp, body := send(t, addr, fmt.Sprintf("GET /%s/cgi-bin/a?n=%d HTTP/1.1\r\nHost: x\r\n\r\n", account, n)); resp.StatusCode != http.StatusOK || body != fmt.Sprintf(`{"n":"%d"}`, n) {
				t.Fatalf("%s, and then another caller: %s %s", first, resp.Status, body)
			}
		}
	}
}
