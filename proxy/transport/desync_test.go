package transport

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

// What follows a response must not be taken for the response to the next request.
// A body where HTTP allows none can come at any later time, and the sender of a
// request can provoke it.
func TestBytesAfterResponseReachNoOtherRequest(t *testing.T) {
	const foreign = "HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n{\"n\":\"foo\"}"
	// sendLate sends the body when the next request arrives, which is the worst
	// moment.
	sendLate := func(c net.Conn, br *bufio.Reader) {
		if _, err := br.Peek(1); err == nil {
			io.WriteString(c, foreign)
		}
	}
	for _, scheme := range []string{"http", "https"} {
		server := newRawServer(t, scheme, serveHTTP(func(c net.Conn, br *bufio.Reader, r *http.Request) bool {
			body := fmt.Sprintf(`{"n":%q}`, r.URL.Query().Get("n"))
			switch {
			case r.Method == http.MethodHead:
				fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", len(foreign))
				sendLate(c, br)
			case strings.HasSuffix(r.URL.Path, "/unchanged"):
				io.WriteString(c, "HTTP/1.1 304 Not Modified\r\n\r\n")
				sendLate(c, br)
			case strings.HasSuffix(r.URL.Path, "/twice"):
				io.WriteString(c, respond(body)+foreign)
			case strings.HasSuffix(r.URL.Path, "/chunked"):
				fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n%s",
					len(body), body, foreign)
			case strings.HasSuffix(r.URL.Path, "/large"):
				io.WriteString(c, respond(strings.Repeat("x", 2*InspectLimit))+foreign)
			default:
				io.WriteString(c, respond(body))
			}
			return true
		}))
		u := server.upstream(t)
		firsts := []string{
			"HEAD /cgi-bin/a", "GET /cgi-bin/unchanged", "GET /cgi-bin/twice",
			"GET /cgi-bin/chunked", "GET /cgi-bin/large",
		}
		const rounds = 20
		for _, first := range firsts {
			method, path, _ := strings.Cut(first, " ")
			for n := range rounds {
				resp, err := exchange(u, method, path+"?n=mine")
				if err != nil {
					t.Fatalf("%s, %s: %v", scheme, first, err)
				}
				if resp.IsBodyStream() {
					io.Copy(io.Discard, resp.BodyStream())
					resp.CloseBodyStream()
				}
				want := fmt.Sprintf(`{"n":"%d"}`, n)
				resp, err = exchange(u, "GET", fmt.Sprintf("/cgi-bin/a?n=%d", n))
				if err != nil || resp.StatusCode() != http.StatusOK || string(resp.Body()) != want {
					t.Fatalf("%s, after %s: got %d %q, %v, want 200 %q",
						scheme, first, resp.StatusCode(), resp.Body(), err, want)
				}
			}
		}
		// The connection of each first exchange is closed.
		if n, want := int(server.connections.Load()), 1+len(firsts)*rounds; n != want {
			t.Errorf("%s: got %d connections, want %d", scheme, n, want)
		}
	}
}
