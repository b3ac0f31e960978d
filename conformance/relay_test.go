package conformance_test

import (
	"io"
	"net"
	"regexp"
	"strings"
	"sync"
	"testing"
)

// relay forwards connections of an SDK to wxproxy and records all bytes.
type relay struct {
	addr string

	mu    sync.Mutex
	conns []*tap
}

// tap is one connection of the SDK.
type tap struct {
	relay               *relay
	requests, responses strings.Builder // guarded by relay.mu
}

func newRelay(t *testing.T, to string) *relay {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	r := &relay{addr: ln.Addr().String()}
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go r.serve(c, to)
		}
	}()
	return r
}

func (r *relay) serve(c net.Conn, to string) {
	defer c.Close()
	up, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer up.Close()
	w := &tap{relay: r}
	r.mu.Lock()
	r.conns = append(r.conns, w)
	r.mu.Unlock()
	// Record bytes before passing them on, so that a client that has a response
	// finds it recorded.
	done := make(chan struct{}, 2)
	pass := func(dst, src net.Conn, into *strings.Builder) {
		io.Copy(dst, io.TeeReader(src, locked{r, into}))
		dst.(*net.TCPConn).CloseWrite()
		done <- struct{}{}
	}
	go pass(up, c, &w.requests)
	go pass(c, up, &w.responses)
	<-done
	<-done
}

// locked appends to a builder under the lock of its relay.
type locked struct {
	r    *relay
	into *strings.Builder
}

func (l locked) Write(p []byte) (int, error) {
	l.r.mu.Lock()
	defer l.r.mu.Unlock()
	return l.into.Write(p)
}

// requests and responses return all bytes that the SDK sent and received.
func (r *relay) requests() string  { return r.all(func(w *tap) string { return w.requests.String() }) }
func (r *relay) responses() string { return r.all(func(w *tap) string { return w.responses.String() }) }

// all joins a part of every connection.
func (r *relay) all(of func(*tap) string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var b strings.Builder
	for _, w := range r.conns {
		b.WriteString(of(w) + "\n")
	}
	return b.String()
}

var requestLine = regexp.MustCompile(`(?m)(?:^|\})(GET|POST) (\S+) HTTP/1\.1\r$`)

// count returns the number of requests for path, with any prefix of the base
// URL.
func (r *relay) count(path string) int {
	n := 0
	for _, m := range requestLine.FindAllStringSubmatch(r.requests(), -1) {
		p, _, _ := strings.Cut(m[2], "?")
		if strings.HasSuffix(p, path) {
			n++
		}
	}
	return n
}
