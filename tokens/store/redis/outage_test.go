//go:build unix

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
	"wxproxy/tokens/store/redis"
)

// relay forwards connections between a store and its Redis, and can delay or
// drop the replies.
type relay struct {
	ln          net.Listener
	closed      chan struct{}
	delay       atomic.Int64 // of each reply, in nanoseconds
	dropReplies atomic.Bool  // close the connection instead of forwarding a reply

	mu    sync.Mutex
	conns []net.Conn
}

// startRelay uses TLS towards the store if config is not nil.
func startRelay(t *testing.T, to string, config *tls.Config) *relay {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if config != nil {
		ln = tls.NewListener(ln, config)
	}
	r := &relay{ln: ln, closed: make(chan struct{})}
	t.Cleanup(func() { ln.Close(); close(r.closed); r.reset() })
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
			go r.forwardReplies(in, out)
		}
	}()
	return r
}

func (r *relay) forwardReplies(in, out net.Conn) {
	defer in.Close()
	b := make([]byte, 64<<10)
	for {
		n, err := out.Read(b)
		if err != nil || r.dropReplies.Load() {
			return
		}
		select {
		case <-time.After(time.Duration(r.delay.Load())):
		case <-r.closed:
			return
		}
		if _, err := in.Write(b[:n]); err != nil {
			return
		}
	}
}

// reset closes all connections.
func (r *relay) reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.conns {
		c.Close()
	}
	r.conns = nil
}

func (r *relay) url() string { return "redis://" + r.ln.Addr().String() }

// openImpatient opens a store with timeouts of two seconds, for tests in which
// Redis does not respond. It tries until a busy machine has responded in time.
func openImpatient(t *testing.T, url string) (s *redis.Store) {
	t.Helper()
	eventually(t, "an open store", func() bool {
		var err error
		s, err = redis.Open(t.Context(), url, redis.Options{}.WithTimeout(2*time.Second))
		return err == nil
	})
	t.Cleanup(func() { s.Close() })
	return s
}

// TestSuspendedRedis: while Redis does not respond, everything ends with a
// timeout that names the Redis. Afterwards the store works again.
func TestSuspendedRedis(t *testing.T) {
	t.Parallel()
	r := start(t)
	put(t, open(t, r.url(), patient), "a", "one")
	s := openImpatient(t, r.url())
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
			err := f()
			if err == nil || !strings.Contains(err.Error(), "timeout waiting for a response") ||
				!strings.Contains(err.Error(), r.addr()) {
				t.Errorf("%s: got error %v, want a timeout with the address", name, err)
			}
		})
	}
	all.Wait()
	if took := time.Since(began); took > patience {
		t.Errorf("timeouts of 2s took %v, want less than %v", took, patience)
	}
	// A shorter timeout of the caller is reported as such.
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := s.Load(ctx, "a"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("expired context: got error %v, want DeadlineExceeded", err)
	}
	r.signal(syscall.SIGCONT)
	eventually(t, "Redis responds again", func() bool { return s.Ping(t.Context()) == nil })
	eventually(t, "an update succeeds", func() bool {
		return s.Update(t.Context(), "a", replaceWith("three")) == nil
	})
	want(t, s, "a", "three")
}

func TestStoppedAndRestartedRedis(t *testing.T) {
	t.Parallel()
	// With "everysec" a busy Redis may acknowledge a write before it reaches
	// the file.
	r := start(t, "--appendonly", "yes", "--appendfsync", "always")
	s := open(t, r.url(), patient)
	put(t, s, "a", "one")
	r.stop()
	for name, err := range map[string]error{
		"update": s.Update(t.Context(), "a", replaceWith("two")),
		"ping":   s.Ping(t.Context()),
	} {
		if !mentions(err, "cannot be reached", r.addr()) {
			t.Errorf("%s: got error %v, want one that it cannot be reached, with the address", name, err)
		}
	}
	if !r.run() {
		t.Fatal("redis-server does not start again")
	}
	eventually(t, "Redis responds again", func() bool { return s.Ping(t.Context()) == nil })
	want(t, s, "a", "one")
	put(t, s, "a", "two")
}

// TestLostReplies: nothing is done twice, and what Update reports as saved is
// saved, even if replies of Redis do not arrive.
func TestLostReplies(t *testing.T) {
	t.Parallel()
	r := start(t)
	between := startRelay(t, r.addr(), nil)
	s, direct := open(t, between.url(), shortLease), open(t, r.url(), shortLease)
	put(t, s, "a", "one")

	// The reply to the save is lost: the next attempt finds the saved record.
	err := s.Update(t.Context(), "a", func(_ context.Context, old []byte) ([]byte, error) {
		between.dropReplies.Store(true)
		time.AfterFunc(100*time.Millisecond, func() { between.dropReplies.Store(false) })
		return append(old, " and two"...), nil
	})
	if err != nil {
		t.Errorf("lost reply to the save: got error %v", err)
	}
	want(t, direct, "a", "one and two")

	// The reply to the lock is lost: the same owner asks again, or the lease
	// expires.
	between.dropReplies.Store(true)
	time.AfterFunc(20*time.Millisecond, func() { between.dropReplies.Store(false) })
	if err := s.Update(t.Context(), "a", replaceWith("three")); err == nil {
		want(t, direct, "a", "three")
	}
	put(t, direct, "a", "four")
	want(t, s, "a", "four")

	// Connections are reset during an update: it succeeds nevertheless.
	err = s.Update(t.Context(), "a", func(context.Context, []byte) ([]byte, error) {
		between.reset()
		return []byte("five"), nil
	})
	if err != nil {
		t.Errorf("reset connections: got error %v", err)
	}
	want(t, direct, "a", "five")
}

func TestSlowNetwork(t *testing.T) {
	t.Parallel()
	r := start(t)
	between := startRelay(t, r.addr(), nil)
	slow := open(t, between.url(), patient)
	impatient := openImpatient(t, between.url())
	between.delay.Store(int64(100 * time.Millisecond))
	put(t, slow, "a", "one")
	want(t, slow, "a", "one")
	between.delay.Store(int64(time.Hour))
	if _, err := impatient.Load(t.Context(), "a"); err == nil || errors.Is(err, store.ErrNotFound) {
		t.Errorf("load without a reply: got error %v, want a timeout", err)
	}
}
