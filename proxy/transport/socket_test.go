package transport

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// wires gives the two ends of a TCP connection, ours as a wire.
func wires(t testing.TB) (*socket, *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	ours, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ours.Close(); theirs.Close() })
	for _, c := range []net.Conn{ours, theirs} {
		c.SetDeadline(time.Now().Add(20 * time.Second))
	}
	return newSocket(ours.(*net.TCPConn)), theirs.(*net.TCPConn)
}

func TestSocketHeldRequest(t *testing.T) {
	w, peer := wires(t)
	answer := make([]byte, 16)
	for _, request := range []string{"one", strings.Repeat("two", 2000), "three"} {
		w.deferWrite = true
		if n, err := io.WriteString(w, request); n != len(request) || err != nil {
			t.Fatal(n, err)
		}
		got := make(chan string)
		go func() {
			b := make([]byte, len(request))
			io.ReadFull(peer, b)
			io.WriteString(peer, "answer")
			got <- string(b)
		}()
		n, err := w.Read(answer)
		if string(answer[:n]) != "answer" || err != nil {
			t.Fatalf("%q %v", answer[:n], err)
		}
		if sent := <-got; sent != request {
			t.Fatalf("%.20q was sent as %.20q", request, sent)
		}
	}
}

// An answer that is there before the wait for it begins ends the wait: nothing is sent after it that could.
func TestSocketAnswerAtOnce(t *testing.T) {
	w, peer := wires(t)
	go io.Copy(peer, peer)
	answer := make([]byte, 16)
	for range 20_000 {
		w.deferWrite = true
		w.Write([]byte("ping"))
		if n, err := w.Read(answer); n != 4 || err != nil {
			t.Fatal(n, err)
		}
	}
}

// stuffed is a wire on which there is no room for another byte until the other side reads: so many bytes are on their way.
func stuffed(t *testing.T) (w *socket, peer *net.TCPConn, onTheWay int) {
	w, peer = wires(t)
	filler := bytes.Repeat([]byte("f"), 64<<10)
	w.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
	for {
		n, err := w.Write(filler)
		if onTheWay += n; err != nil {
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatal(err)
			}
			break
		}
	}
	w.SetWriteDeadline(time.Now().Add(20 * time.Second))
	return w, peer, onTheWay
}

// What is held and finds no room waits for it, and what is too much to hold goes out before it is asked for.
func TestSocketNoRoom(t *testing.T) {
	for _, sizes := range [][]int{{4}, {maxPending}, {maxPending, 1}, {2*maxPending + 1}, {3, 2*maxPending + 1}, {maxPending, 2 << 20, 5}} {
		w, peer, onTheWay := stuffed(t)
		var sent []byte
		for i, n := range sizes {
			sent = append(sent, bytes.Repeat([]byte{byte('a' + i)}, n)...)
		}
		go func() {
			b := make([]byte, onTheWay+len(sent))
			if _, err := io.ReadFull(peer, b); err == nil && bytes.Equal(b[onTheWay:], sent) {
				io.WriteString(peer, "all there")
			}
			peer.Close()
		}()
		w.deferWrite = true
		rest := sent
		for _, n := range sizes {
			if m, err := w.Write(rest[:n]); m != n || err != nil {
				t.Fatal(m, err)
			}
			rest = rest[n:]
		}
		answer := make([]byte, 16)
		if n, err := w.Read(answer); string(answer[:n]) != "all there" || err != nil {
			t.Fatalf("%v: %q %v", sizes, answer[:n], err)
		}
	}
}

func TestSocketErrors(t *testing.T) {
	b := make([]byte, 1)
	for _, held := range []bool{false, true} {
		prepare := func(w *socket) {
			if w.deferWrite = held; held {
				w.Write([]byte("request"))
			}
		}
		w, peer := wires(t)
		peer.CloseWrite()
		if n, err := w.Read(b); n != 0 || err != io.EOF {
			t.Errorf("at the end: %d %v", n, err)
		}

		w, peer = wires(t)
		prepare(w)
		peer.SetLinger(0)
		peer.Close()
		if _, err := w.Read(b); !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
			t.Errorf("held %t, reset: %v", held, err)
		}
		var timeout net.Error
		w, _ = wires(t)
		prepare(w)
		w.SetDeadline(time.Now().Add(10 * time.Millisecond))
		if _, err := w.Read(b); !errors.Is(err, os.ErrDeadlineExceeded) || !errors.As(err, &timeout) || !timeout.Timeout() {
			t.Errorf("held %t, too late: %v", held, err)
		}
		w, _ = wires(t)
		prepare(w)
		w.Close()
		if _, err := w.Read(b); !errors.Is(err, net.ErrClosed) {
			t.Errorf("held %t, closed before: %v", held, err)
		}
		w, _ = wires(t)
		prepare(w)
		time.AfterFunc(10*time.Millisecond, func() { w.Close() })
		if _, err := w.Read(b); !errors.Is(err, net.ErrClosed) {
			t.Errorf("held %t, closed meanwhile: %v", held, err)
		}
	}
	w, peer := wires(t)
	peer.Close()
	var err error
	for end := time.Now().Add(10 * time.Second); err == nil && time.Now().Before(end); {
		_, err = w.Write(b)
	}
	if !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("written to nobody: %v", err)
	}
}

// BenchmarkSocket is a request and an answer, by net and by the wire, which holds the request or does not. Read it with
// GOMAXPROCS=1, as a proxy with much to do has it: there is always a goroutine that can run meanwhile.
func BenchmarkSocket(b *testing.B) {
	request, answer := bytes.Repeat([]byte("q"), 400), bytes.Repeat([]byte("a"), 300)
	for _, how := range []string{"net", "wire", "wire, held"} {
		b.Run(how, func(b *testing.B) {
			const pairs = 32
			var all sync.WaitGroup
			each := make(chan struct{}, pairs)
			for range pairs {
				w, peer := wires(b)
				all.Go(func() { // WeChat
					in := make([]byte, len(request))
					for {
						if _, err := io.ReadFull(peer, in); err != nil {
							return
						}
						peer.Write(answer)
					}
				})
				all.Go(func() {
					defer w.Close()
					conn := net.Conn(w)
					if how == "net" {
						conn = w.TCPConn
					}
					in := make([]byte, len(answer))
					for range each {
						w.deferWrite = how == "wire, held"
						conn.Write(request)
						if _, err := io.ReadFull(conn, in); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			for b.Loop() {
				each <- struct{}{}
			}
			close(each)
			all.Wait()
		})
	}
}

// busy, in the environment, makes this process the callers of BenchmarkBusy, at that address.
const busy = "WXPROXY_TEST_BUSY"

func TestMain(m *testing.M) {
	if addr := os.Getenv(busy); addr != "" {
		hurry(addr)
		return
	}
	os.Exit(m.Run())
}

const busyMessage = 300

// hurry is 64 callers who have their next call ready as soon as they have their answer.
func hurry(addr string) {
	var all sync.WaitGroup
	for range 64 {
		all.Go(func() {
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				return
			}
			for b := make([]byte, busyMessage); ; {
				conn.Write(b)
				if _, err := io.ReadFull(conn, b); err != nil {
					return
				}
			}
		})
	}
	all.Wait()
}

// BenchmarkBusy is a server of callers in a hurry, who are a process of their own. A connection that lets others in before it
// reads again finds the next call there more often than not, one that reads at once never does. Read it with GOMAXPROCS=1.
func BenchmarkBusy(b *testing.B) {
	for _, how := range []string{"reads at once", "lets others in"} {
		b.Run(how, func(b *testing.B) {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			defer ln.Close()
			callers := exec.Command(os.Args[0])
			callers.Env = append(os.Environ(), busy+"="+ln.Addr().String())
			if err := callers.Start(); err != nil {
				b.Fatal(err)
			}
			defer func() { callers.Process.Kill(); callers.Wait() }()
			var open atomic.Int64
			done := make(chan struct{}, 1024)
			go func() {
				for {
					c, err := ln.Accept()
					if err != nil {
						return
					}
					conn := newCallerConn(c.(*net.TCPConn), &open, time.Minute)
					go func() {
						defer conn.Close()
						for in := make([]byte, busyMessage); ; done <- struct{}{} {
							conn.yield = how == "lets others in"
							if _, err := io.ReadFull(conn, in); err != nil {
								return
							}
							conn.Write(in)
						}
					}()
				}
			}()
			for b.Loop() {
				<-done
			}
			go func() {
				for range done { // until the callers are gone
				}
			}()
		})
	}
}
