package console_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"

	"wxproxy/console"
	"wxproxy/wechat"
)

// listen serves h on a loopback address until the test ends, and returns the
// address.
func listen(t *testing.T, h http.Handler, log *slog.Logger) string {
	t.Helper()
	return serve(t, console.NewServer(h, log))
}

func serve(t *testing.T, server *http.Server) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serveOn(t, server, l)
	return l.Addr().String()
}

func serveOn(t *testing.T, server *http.Server, l net.Listener) {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("Serve: got %v, want ErrServerClosed", err)
		}
	})
}

func start(t *testing.T, c console.Config) string { return listen(t, console.New(c), c.Log) }

type answer struct {
	status int
	header http.Header
	body   string
}

// send writes lines unchanged, so that tests can send what no client would. It
// adds a Host header if there is none.
func send(t *testing.T, address string, lines ...string) answer {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	request := strings.Join(lines, "\r\n")
	if !strings.Contains(request, "\r\nHost:") {
		request += "\r\nHost: " + address
	}
	if _, err := io.WriteString(conn, request+"\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	method, _, _ := strings.Cut(lines[0], " ")
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		t.Fatalf("%s: %v", lines[0], err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s: %v", lines[0], err)
	}
	return answer{resp.StatusCode, resp.Header, string(body)}
}

func get(t *testing.T, address, path string, headers ...string) answer {
	t.Helper()
	return send(t, address, append([]string{"GET " + path + " HTTP/1.1"}, headers...)...)
}

// counted is a fake metrics handler. It writes its body in two parts.
var counted = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4")
	io.WriteString(w, "up ")
	io.WriteString(w, "1\n")
})

// logBuffer collects log output. It is safe for concurrent use.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func (l *logBuffer) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

func TestPathsAreNotNormalized(t *testing.T) {
	address := start(t, console.Config{Metrics: counted})
	for _, c := range []struct {
		request string
		status  int
		body    string
	}{
		{"GET /healthz", 200, "ok"},
		{"HEAD /healthz", 200, ""},
		{"GET /readyz", 200, "ready"},
		{"HEAD /readyz", 200, ""},
		{"GET /readyz?verbose", 200, "ready"},
		{"GET /metrics", 200, "up 1\n"},
		{"HEAD /metrics", 200, ""},
		{"POST /metrics", 405, "method not allowed\n"},
		{"DELETE /healthz", 405, "method not allowed\n"},
		{"OPTIONS /readyz", 405, "method not allowed\n"},
		{"BREW /readyz", 405, "method not allowed\n"},
		// Paths are not normalized, and nothing is redirected.
		{"GET /", 404, "not found\n"},
		{"GET //metrics", 404, "not found\n"},
		{"GET /metrics/", 404, "not found\n"},
		{"GET /./metrics", 404, "not found\n"},
		{"GET /x/../metrics", 404, "not found\n"},
		{"GET /healthz/x", 404, "not found\n"},
		{"GET /Healthz", 404, "not found\n"},
		{"GET /%00%0d%0a<script>", 404, "not found\n"},
		{"GET /cgi-bin/token", 404, "not found\n"},
		{"POST /component/events", 404, "not found\n"},
		{"OPTIONS *", 404, "not found\n"},
		{"CONNECT api.weixin.qq.com:443", 404, "not found\n"},
	} {
		got := send(t, address, c.request+" HTTP/1.1")
		if got.status != c.status || got.body != c.body {
			t.Errorf("%s: got %d %q, want %d %q", c.request, got.status, got.body, c.status, c.body)
		}
		if got.header.Get("X-Content-Type-Options") != "nosniff" || got.header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: got header %v, want nosniff and no-store", c.request, got.header)
		}
		if !strings.HasPrefix(got.header.Get("Content-Type"), "text/plain;") {
			t.Errorf("%s: got Content-Type %s, want text/plain", c.request, got.header.Get("Content-Type"))
		}
		if allow := got.header.Get("Allow"); (c.status == 405) != (allow == "GET, HEAD") {
			t.Errorf("%s: got Allow %q with status %d", c.request, allow, c.status)
		}
	}
}

func TestZeroConfig(t *testing.T) {
	address := start(t, console.Config{})
	if got := get(t, address, "/readyz"); got.status != 200 {
		t.Errorf("readyz: got %d, want 200", got.status)
	}
	if got := get(t, address, "/metrics"); got.status != 404 {
		t.Errorf("/metrics without a handler: got %d, want 404", got.status)
	}
}

func TestReconfigureReplacesTheKey(t *testing.T) {
	h := console.New(console.Config{Key: wechat.NewSecret("first"), Metrics: counted})
	address := listen(t, h, nil)
	try := func(when, key string, want int) {
		t.Helper()
		if got := get(t, address, "/metrics", "Authorization: Bearer "+key); got.status != want {
			t.Errorf("%s, key %q: got %d, want %d", when, key, got.status, want)
		}
	}
	try("before", "first", 200)
	try("before", "second", 401)
	h.Reconfigure(console.Config{Key: wechat.NewSecret("second"), Metrics: counted,
		Ready: func(context.Context) error { return errors.New("not now") }})
	try("after", "first", 401)
	try("after", "second", 200)
	if got := get(t, address, "/readyz"); got.status != 503 || got.body != "not now\n" {
		t.Errorf("readyz: got %d %q, want 503 with the new reason", got.status, got.body)
	}
	h.Reconfigure(console.Config{Metrics: counted})
	try("without a key", "", 200)
}

func TestPanicIsLoggedAndAnswered(t *testing.T) {
	var logged logBuffer
	for _, c := range []struct {
		name   string
		config console.Config
		path   string
	}{
		{"in the metrics", console.Config{Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			w.Header().Set("Content-Length", "1000")
			panic("BUG: metrics")
		})}, "/metrics"},
		{"in the readiness",
			console.Config{Ready: func(context.Context) error { panic("BUG: readiness") }}, "/readyz"},
		{"with anything", console.Config{Ready: func(context.Context) error { panic("hidden ticket") }}, "/readyz"},
		{"with an error", console.Config{
			Metrics: http.HandlerFunc(
				func(http.ResponseWriter, *http.Request) { panic(errors.New("hidden token")) })}, "/metrics"},
		{"of the runtime", console.Config{
			Ready: func(context.Context) error { return []error{}[len(os.Args)] }}, "/readyz"},
	} {
		c.config.Log = logged.logger()
		address := start(t, c.config)
		for range 2 {
			got := get(t, address, c.path, "Authorization: Bearer hidden", "X-Other: hidden")
			if got.status != 500 || got.body != "internal error; the log of wxproxy has the details\n" ||
				got.header.Get("Content-Encoding") != "" {
				t.Errorf("panic %s: got %d %q, want 500", c.name, got.status, got.body)
			}
		}
		if got := get(t, address, "/healthz"); got.status != 200 {
			t.Errorf("healthz after a panic %s: got %d, want 200", c.name, got.status)
		}
	}
	for _, want := range []string{"BUG: metrics", "BUG: readiness", "index out of range",
		"not logged", "console_test.go"} {
		if !strings.Contains(logged.String(), want) {
			t.Errorf("log: got no %q in:\n%s", want, logged.String())
		}
	}
	if strings.Contains(logged.String(), "hidden") {
		t.Errorf("log: got text of the request in:\n%s", logged.String())
	}
}

// Half a response must not look like a whole one.
func TestPanicAfterTheFirstByteClosesTheConnection(t *testing.T) {
	address := start(t, console.Config{Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "up ")
		if err := http.NewResponseController(w).Flush(); err != nil {
			t.Errorf("Flush: %v", err)
		}
		panic("BUG: in the middle")
	})})
	resp, err := http.Get("http://" + address + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err == nil {
		t.Errorf("got the whole response %q, want an error", body)
	}
}

func TestServerLimits(t *testing.T) {
	address := start(t, console.Config{})
	if got := get(t, address, "/healthz", "X-Large: "+strings.Repeat("x", 64<<10)); got.status != 431 {
		t.Errorf("64 KiB of headers: got %d, want 431", got.status)
	}
	s := console.NewServer(http.NotFoundHandler(), nil)
	if s.ReadHeaderTimeout <= 0 || s.ReadTimeout <= 0 || s.WriteTimeout <= 0 || s.IdleTimeout <= 0 {
		t.Errorf("timeouts: got one without a limit in %+v", s)
	}
}
