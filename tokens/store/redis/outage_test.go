package redis_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"wxproxy/tokens/store"
)

// relay stands between a store and its Redis, and spoils what goes through.
type relay struct {
	ln    net.Listener
	delay atomic.Int64 // of each answer
	lose  atomic.Bool  // what Redis answers does not arrive, and the connection is reset

	mu    sync.Mutex
	conns []net.Conn
}

// startRelay listens by TLS where config is given.
func startRelay(t *testing.T, to string, config *tls.Config) *relay {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if config != nil {
		ln = tls.NewListener(ln, config)
	}
	r := &relay{ln: ln}
	t.Cleanup(func() { ln.Close(); r.reset() })
	go func() {
		for {
			in, err := ln.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				in.Close()
				continue
			}
			r.mu.Lock()
			r.conns = append(r.conns, in, out)
			r.mu.Unlock()
			go func() { io.Copy(out, in); out.Close() }()
			go r.answers(in, out)
		}
	}()
	return r
}

func (r *relay) answers(in, out net.Conn) {
	defer in.Close()
	b := make([]byte, 64<<10)
	for {
		n, err := out.Read(b)
		if err != nil || r.lose.Load() {
			return
		}
		time.Sleep(time.Duration(r.delay.Load()))
		if _, err := in.Write(b[:n]); err != nil {
			return
		}
	}
}

// reset cuts all connections.
func (r *relay) reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.conns {
		c.Close()
	}
	r.conns = nil
}

func (r *relay) url() string { return "redis://" + r.ln.Addr().String() }

// A Redis that hangs: everything ends within bounds and with a sentence; and goes on by itself afterwards.
func TestRedisHangs(t *testing.T) {
	t.Parallel()
	r := start(t)
	s := open(t, r.url(), quick)
	put(t, s, "a", "one")
	r.signal(syscall.SIGSTOP)
	began := time.Now()
	var all sync.WaitGroup
	for name, f := range map[string]func() error{
		"load":   func() error { _, err := s.Load(t.Context(), "a"); return err },
		"update": func() error { return s.Update(t.Context(), "a", replaceWith("two")) },
		"ping":   func() error { return s.Ping(t.Context()) },
		"list":   func() error { return s.List(t.Context(), "", "", func(string, []byte) bool { return true }) },
	} {
		all.Go(func() {
			if err := f(); err == nil || !strings.Contains(err.Error(), "does not answer in time") {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
	all.Wait()
	if took := time.Since(began); took > 30*time.Second { // each has 3 s
		t.Errorf("it took %v", took)
	}
	// A caller's own time counts, and its end is told as such.
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := s.Load(ctx, "a"); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	r.signal(syscall.SIGCONT)
	eventually(t, "it answers again", func() bool { return s.Ping(t.Context()) == nil })
	put(t, s, "a", "three")
	want(t, s, "a", "three")
}

func TestRedisRestarts(t *testing.T) {
	t.Parallel()
	r := start(t, "--appendonly", "yes")
	s := open(t, r.url(), quick)
	put(t, s, "a", "one")
	r.stop()
	for name, err := range map[string]error{
		"update": s.Update(t.Context(), "a", replaceWith("two")),
		"ping":   s.Ping(t.Context()),
	} {
		if err == nil || !strings.Contains(err.Error(), "cannot be reached") || !strings.Contains(err.Error(), r.addr()) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if !r.run() {
		t.Fatal("redis-server does not start again")
	}
	eventually(t, "it answers again", func() bool { return s.Ping(t.Context()) == nil })
	want(t, s, "a", "one")
	put(t, s, "a", "two")
}

// Answers that do not arrive: what was done is not done twice, and what is told as saved is.
func TestAnswersLost(t *testing.T) {
	t.Parallel()
	r := start(t)
	between := startRelay(t, r.addr(), nil)
	s, direct := open(t, between.url(), quick), open(t, r.url(), quick)
	put(t, s, "a", "one")

	// The answer to the save is lost; the next try finds that it was saved.
	err := s.Update(t.Context(), "a", func(_ context.Context, old []byte) ([]byte, error) {
		between.lose.Store(true)
		time.AfterFunc(100*time.Millisecond, func() { between.lose.Store(false) })
		return append(old, " and two"...), nil
	})
	if err != nil {
		t.Error(err)
	}
	want(t, direct, "a", "one and two")

	// The answer to the lock is lost: the same owner asks again, or the lease ends.
	between.lose.Store(true)
	time.AfterFunc(20*time.Millisecond, func() { between.lose.Store(false) })
	if err := s.Update(t.Context(), "a", replaceWith("three")); err == nil {
		want(t, direct, "a", "three")
	}
	put(t, direct, "a", "four")
	want(t, s, "a", "four")

	// Cut while it runs: nobody notices.
	err = s.Update(t.Context(), "a", func(context.Context, []byte) ([]byte, error) {
		between.reset()
		return []byte("five"), nil
	})
	if err != nil {
		t.Error(err)
	}
	want(t, direct, "a", "five")
}

func TestSlowNetwork(t *testing.T) {
	t.Parallel()
	r := start(t)
	between := startRelay(t, r.addr(), nil)
	s := open(t, between.url(), quick)
	between.delay.Store(int64(100 * time.Millisecond))
	put(t, s, "a", "one")
	want(t, s, "a", "one")
	between.delay.Store(int64(10 * time.Second))
	if _, err := s.Load(t.Context(), "a"); err == nil || errors.Is(err, store.ErrNotFound) {
		t.Errorf("%v", err)
	}
}
