package conformance_test

import (
	"io"
	"net"
	"regexp"
	"strings"
	"sync"
	"testing"
)

// relay stands between an SDK and wxproxy, changes nothing, and remembers all bytes of both ways.
type relay struct {
	addr string

	mu    sync.Mutex
	conns []*wire
}

// wire is one connection of the SDK's.
type wire struct {
	relay           *relay
	asked, answered strings.Builder // under relay.mu
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
	w := &wire{relay: r}
	r.mu.Lock()
	r.conns = append(r.conns, w)
	r.mu.Unlock()
	// What was read is remembered before it is passed on: who has the answer finds it here.
	done := make(chan struct{}, 2)
	pass := func(dst, src net.Conn, into *strings.Builder) {
		io.Copy(dst, io.TeeReader(src, locked{r, into}))
		dst.(*net.TCPConn).CloseWrite()
		done <- struct{}{}
	}
	go pass(up, c, &w.asked)
	go pass(c, up, &w.answered)
	<-done
	<-done
}

type locked struct {
	r    *relay
	into *strings.Builder
}

func (l locked) Write(p []byte) (int, error) {
	l.r.mu.Lock()
	defer l.r.mu.Unlock()
	return l.into.Write(p)
}

// asked and answered give what the SDK sent and what it got.
func (r *relay) asked() string    { return r.all(func(w *wire) string { return w.asked.String() }) }
func (r *relay) answered() string { return r.all(func(w *wire) string { return w.answered.String() }) }

func (r *relay) all(of func(*wire) string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var b strings.Builder
	for _, w := range r.conns {
		b.WriteString(of(w) + "\n")
	}
	return b.String()
}

var requestLine = regexp.MustCompile(`(?m)(?:^|\})(GET|POST) (\S+) HTTP/1\.1\r$`)

// count gives how many requests had a path that matches, without what is in front of it in a base URL.
func (r *relay) count(path string) int {
	n := 0
	for _, m := range requestLine.FindAllStringSubmatch(r.asked(), -1) {
		p, _, _ := strings.Cut(m[2], "?")
		if strings.HasSuffix(p, path) {
			n++
		}
	}
	return n
}
