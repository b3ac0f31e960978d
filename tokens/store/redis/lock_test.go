//go:build unix

package redis_test

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"wxproxy/tokens/store"
	"wxproxy/tokens/store/redis"
)

// childEnv makes the test binary a child that holds a lock. Its value is the
// length of the lease and the URL of the Redis, with a space between them.
const childEnv = "WXPROXY_TEST_REDIS_HOLDER"

func TestMain(m *testing.M) {
	if lease, url, ok := strings.Cut(os.Getenv(childEnv), " "); ok {
		d, err := time.ParseDuration(lease)
		if err != nil {
			panic(err)
		}
		runHolder(url, d)
	}
	if url := os.Getenv(takerEnv); url != "" {
		runTaker(url)
	}
	// These tests wait for leases and processes more than they compute.
	flag.Parse()
	flag.Set("test.parallel", "8")
	os.Exit(m.Run())
}

// runHolder acquires the lock of "a", prints "held", and saves a record when it
// reads a line. Then it prints the result and exits.
func runHolder(url string, lease time.Duration) {
	s, err := redis.Open(context.Background(), url, withLease(lease))
	if err == nil {
		err = s.Update(context.Background(), "a", func(context.Context, []byte) ([]byte, error) {
			fmt.Println("held")
			bufio.NewReader(os.Stdin).ReadString('\n')
			return []byte("the holder's"), nil
		})
	}
	fmt.Println("ended", errors.Is(err, store.ErrLost), err)
	os.Exit(0)
}

// holder is a child process that runs runHolder.
type holder struct {
	cmd *exec.Cmd
	in  io.Writer
	out *bufio.Reader
}

// startHolder returns when the child holds the lock.
func startHolder(t *testing.T, url string, lease time.Duration) *holder {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	h := &holder{cmd: exec.Command(self)}
	h.cmd.Env = append(os.Environ(), childEnv+"="+lease.String()+" "+url)
	h.cmd.Stderr = os.Stderr
	out, err := h.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if h.in, err = h.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	h.out = bufio.NewReader(out)
	if err := h.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		h.cmd.Process.Signal(syscall.SIGCONT)
		h.cmd.Process.Kill()
		h.cmd.Wait()
	})
	h.wantLine(t, "held\n")
	return h
}

func (h *holder) wantLine(t *testing.T, want string) {
	t.Helper()
	if line, err := h.out.ReadString('\n'); line != want {
		t.Fatalf("output of the holder: got %q, error %v, want %q", line, err, want)
	}
}

// TestLockOfKilledProcessExpires: a living holder keeps its lock for longer
// than a lease, a killed one does not.
func TestLockOfKilledProcessExpires(t *testing.T) {
	t.Parallel()
	r := start(t)
	s := open(t, r.url(), patient)
	tryLeases(t, func(lease time.Duration) error {
		put(t, s, "a", "before")
		h := startHolder(t, r.url(), lease)
		done := make(chan error, 1)
		go func() {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			done <- s.Update(ctx, "a", replaceWith("after"))
		}()
		select {
		case err := <-done:
			return fmt.Errorf("update while the lock is held: got result %v, want it to wait", err)
		case <-time.After(3 * lease / 2):
		}
		if err := h.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Errorf("update after the holder was killed: %v", err)
		}
		want(t, s, "a", "after")
		return nil
	})
}

// TestSuspendedHolderOverwritesNothing: a holder that was suspended for longer
// than its lease does not overwrite what was written meanwhile, and gets
// ErrLost.
func TestSuspendedHolderOverwritesNothing(t *testing.T) {
	t.Parallel()
	r := start(t)
	s := open(t, r.url(), patient)
	for _, meanwhile := range []string{"written", "being written", "deleted"} {
		put(t, s, "a", "before")
		h := startHolder(t, r.url(), shortLease.Lease)
		if err := h.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		resume := func() {
			io.WriteString(h.in, "\n")
			if err := h.cmd.Process.Signal(syscall.SIGCONT); err != nil {
				t.Fatal(err)
			}
			h.wantLine(t, "ended true Redis at "+r.addr()+": "+store.ErrLost.Error()+"\n")
		}
		err := s.Update(t.Context(), "a", func(_ context.Context, old []byte) ([]byte, error) {
			switch meanwhile {
			case "being written":
				resume()
			case "deleted":
				return nil, nil
			}
			return append(old, " and after"...), nil
		})
		if err != nil {
			t.Errorf("%s: update after the lease expired: %v", meanwhile, err)
		}
		if meanwhile != "being written" {
			resume()
		}
		if meanwhile == "deleted" {
			wantNone(t, s, "a")
		} else {
			want(t, s, "a", "before and after")
		}
	}
}

// TestSuspendedHolderSavesUnchangedRecord: if no other process has written, the
// record of a suspended holder is saved although its lease expired.
func TestSuspendedHolderSavesUnchangedRecord(t *testing.T) {
	t.Parallel()
	r := start(t)
	s := open(t, r.url(), patient)
	put(t, s, "a", "before")
	h := startHolder(t, r.url(), shortLease.Lease)
	if err := h.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the lease expires", func() bool { return r.do("KEYS *lock*") == "" })
	io.WriteString(h.in, "\n")
	h.cmd.Process.Signal(syscall.SIGCONT)
	h.wantLine(t, "ended false <nil>\n")
	want(t, s, "a", "the holder's")
}

// TestLongerThanLease: two updates that take three times the lease keep their
// lock all the time.
func TestLongerThanLease(t *testing.T) {
	t.Parallel()
	r := start(t)
	tryLeases(t, func(lease time.Duration) error {
		a, b := open(t, r.url(), withLease(lease)), open(t, r.url(), withLease(lease))
		if err := a.Update(t.Context(), "a", deleteRecord); err != nil {
			t.Fatal(err)
		}
		var inside, overlaps atomic.Int64
		long := func(s *redis.Store) error {
			return s.Update(t.Context(), "a", func(ctx context.Context, old []byte) ([]byte, error) {
				if inside.Add(1) != 1 {
					overlaps.Add(1)
				}
				defer inside.Add(-1)
				select {
				case <-time.After(3 * lease):
				case <-ctx.Done():
					return nil, context.Cause(ctx)
				}
				return append(old, 'x'), nil
			})
		}
		done := make(chan error, 2)
		go func() { done <- long(a) }()
		go func() { done <- long(b) }()
		if err := errors.Join(<-done, <-done); err != nil {
			return err
		}
		if n := overlaps.Load(); n != 0 {
			return fmt.Errorf("the lock had two holders %d times", n)
		}
		want(t, a, "a", "xx")
		return nil
	})
}

// TestTakenLockCancelsTheUpdate takes a lock away from its holder. That cancels
// the update; its record is not saved, and the other lock stays as it is.
func TestTakenLockCancelsTheUpdate(t *testing.T) {
	t.Parallel()
	r := start(t)
	s := open(t, r.url(), withLease(3*time.Second))
	put(t, s, "a", "before")
	failure := errors.New("failure of fn")
	for _, result := range []error{nil, failure} {
		var lockKey string
		err := s.Update(t.Context(), "a", func(ctx context.Context, _ []byte) ([]byte, error) {
			if lockKey = r.do("KEYS *:lock:a"); lockKey == "" {
				t.Fatal("there is no lock in Redis")
			}
			r.do("SET " + lockKey + " another")
			<-ctx.Done()
			if cause := context.Cause(ctx); !errors.Is(cause, store.ErrLost) {
				t.Errorf("cause: got %v, want ErrLost", cause)
			}
			return []byte("late"), result
		})
		wanted := result
		if result == nil {
			wanted = store.ErrLost
		}
		if !errors.Is(err, wanted) {
			t.Errorf("update: got error %v, want %v", err, wanted)
		}
		if owner := r.do("GET " + lockKey); owner != "another" {
			t.Errorf("owner of the lock: got %q, want another", owner)
		}
		want(t, s, "a", "before")
		r.do("DEL " + lockKey)
	}
}

// TestUpdateSavesAfterOutage stops Redis for longer than a lease while an
// update runs. That cancels the update, and its record is saved when Redis is
// back.
func TestUpdateSavesAfterOutage(t *testing.T) {
	t.Parallel()
	r := start(t, "--appendonly", "yes", "--appendfsync", "always")
	s := open(t, r.url(), shortLease)
	put(t, s, "a", "before")
	started := make(chan bool, 1)
	err := s.Update(t.Context(), "a", func(ctx context.Context, _ []byte) ([]byte, error) {
		r.stop()
		<-ctx.Done()
		if cause := context.Cause(ctx); !errors.Is(cause, store.ErrLost) || !mentions(cause, r.addr()) {
			t.Errorf("cause: got %v, want ErrLost with the address", cause)
		}
		go func() { started <- r.run() }()
		return []byte("precious"), nil
	})
	if !<-started {
		t.Fatal("redis-server does not start again")
	}
	if err != nil {
		t.Fatalf("update: %v", err)
	}
	want(t, s, "a", "precious")
}

// TestWaitersLeave: a waiter for a lock of another process leaves when its
// context ends and when the store is closed.
func TestWaitersLeave(t *testing.T) {
	t.Parallel()
	r := start(t)
	a, b := open(t, r.url(), patient), open(t, r.url(), patient)
	err := a.Update(t.Context(), "a", func(context.Context, []byte) ([]byte, error) {
		never := func(context.Context, []byte) ([]byte, error) {
			t.Error("fn of a waiter was called")
			return nil, nil
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if err := b.Update(ctx, "a", never); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("expired context: got error %v, want DeadlineExceeded", err)
		}
		left := make(chan error, 2)
		for range 2 { // one waits for Redis, the other in the queue of the process
			go func() { left <- b.Update(t.Context(), "a", never) }()
		}
		time.AfterFunc(50*time.Millisecond, func() { b.Close() })
		for range 2 {
			if err := <-left; !errors.Is(err, store.ErrClosed) {
				t.Errorf("closed store: got error %v, want ErrClosed", err)
			}
		}
		return []byte("the holder's"), nil
	})
	if err != nil {
		t.Errorf("update of the holder: %v", err)
	}
	want(t, a, "a", "the holder's")
}

// TestProcessesTakeTurns: a long queue in one process does not keep another
// process from the lock.
func TestProcessesTakeTurns(t *testing.T) {
	t.Parallel()
	r := start(t)
	a, b := open(t, r.url(), patient), open(t, r.url(), patient)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var all sync.WaitGroup
	defer all.Wait()
	var done atomic.Bool
	defer done.Store(true)
	working := make(chan struct{}, 1)
	for range 10 {
		all.Go(func() {
			for !done.Load() {
				err := a.Update(t.Context(), "a", func(context.Context, []byte) ([]byte, error) {
					select {
					case working <- struct{}{}:
					default:
					}
					time.Sleep(100 * time.Millisecond) // work under the lock
					return []byte("a"), nil
				})
				if err != nil {
					t.Errorf("update of the busy process: %v", err)
				}
			}
		})
	}
	<-working
	for range 3 {
		if err := b.Update(ctx, "a", replaceWith("b")); err != nil {
			t.Fatalf("update of the other process: %v", err)
		}
	}
}
