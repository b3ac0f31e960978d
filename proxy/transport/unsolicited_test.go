package transport

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
)

// A response that the server sends without a request, together with one that was
// requested, must not be taken for the response to the next request. With TLS it
// is in a record of its own. Then the bytes are neither in the socket nor in the
// reader, but in the TLS layer.
func TestUnsolicitedResponseIsNotReused(t *testing.T) {
	for _, scheme := range []string{"http", "https"} {
		server := newRawServer(t, scheme, serveHTTP(func(c net.Conn, _ *bufio.Reader, r *http.Request) bool {
			together(c, func() {
				io.WriteString(c, respond(r.URL.Query().Get("n")))
				io.WriteString(c, respond("unsolicited"))
			})
			return true
		}))
		u := server.upstream(t)
		const rounds = 50
		for n := range rounds {
			resp, err := exchange(u, "GET", fmt.Sprintf("/cgi-bin/a?n=%d", n))
			if err != nil || resp.StatusCode() != 200 || string(resp.Body()) != fmt.Sprint(n) {
				t.Fatalf("%s, exchange %d: got %d %q, %v, want 200 and the number",
					scheme, n, resp.StatusCode(), resp.Body(), err)
			}
		}
		if n := server.connections.Load(); n != rounds {
			t.Errorf("%s: got %d connections, want %d: one for each exchange", scheme, n, rounds)
		}
		if n := server.requests.Load(); n != rounds {
			t.Errorf("%s: server got %d requests, want %d", scheme, n, rounds)
		}
	}
}
