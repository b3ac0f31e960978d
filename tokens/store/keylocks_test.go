package store_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"wxproxy/tokens/store"
)

// countingBackend is a Backend that stores nothing and counts the writes.
type countingBackend struct{ writes int }

func (*countingBackend) Read(string) ([]byte, error)     { return nil, nil }
func (b *countingBackend) Write(string, []byte) error    { b.writes++; return nil }
func (b *countingBackend) Quarantine(string) error       { b.writes++; return nil }
func keepRecord(context.Context, []byte) ([]byte, error) { return store.Keep, nil }

func TestLockWaitersAreServedInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		locks, backend := store.NewKeyLocks(), &countingBackend{}
		release := make(chan struct{})
		go locks.Update(t.Context(), "a", backend, func(context.Context, []byte) ([]byte, error) {
			<-release
			return nil, nil
		})
		synctest.Wait()
		var order []int
		for i := range 100 {
			go locks.Update(t.Context(), "a", backend, func(context.Context, []byte) ([]byte, error) {
				order = append(order, i)
				return nil, nil
			})
			synctest.Wait()
		}
		close(release)
		synctest.Wait()
		for i, got := range order {
			if i != got {
				t.Fatalf("got order %v, want that of arrival", order)
			}
		}
		if len(order) != 100 {
			t.Errorf("got %d updates, want 100", len(order))
		}
	})
}

// TestReleasedLocksUseNoMemory locks 200,000 keys, which would take about 25 MB
// if their locks were kept.
func TestReleasedLocksUseNoMemory(t *testing.T) {
	locks, backend := store.NewKeyLocks(), &countingBackend{}
	heap := func() uint64 {
		runtime.GC()
		var s runtime.MemStats
		runtime.ReadMemStats(&s)
		return s.HeapAlloc
	}
	before := heap()
	for i := range 200_000 {
		if err := locks.Update(t.Context(), fmt.Sprint("account/wx", i), backend, keepRecord); err != nil {
			t.Fatal(err)
		}
	}
	if after := heap(); after > before+8<<20 {
		t.Errorf("heap growth: got %d bytes, want less than 8 MiB", after-before)
	}
	runtime.KeepAlive(locks)
}

// TestCloseRejectsWaiters: Close does not wait for updates that have no lock
// yet.
func TestCloseRejectsWaiters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		locks, backend := store.NewKeyLocks(), &countingBackend{}
		release, done, rejected := make(chan struct{}), make(chan error, 1), make(chan error, 10)
		go func() {
			done <- locks.Update(t.Context(), "a", backend, func(context.Context, []byte) ([]byte, error) {
				<-release
				return []byte("saved"), nil
			})
		}()
		synctest.Wait()
		for range cap(rejected) {
			go func() {
				rejected <- locks.Update(t.Context(), "a", backend, func(context.Context, []byte) ([]byte, error) {
					t.Error("fn of a waiter was called")
					return nil, nil
				})
			}()
		}
		synctest.Wait()
		closed := make(chan error, 1)
		go func() { closed <- locks.Close() }()
		for range cap(rejected) {
			if err := <-rejected; err != store.ErrClosed {
				t.Errorf("waiter: got error %v, want ErrClosed", err)
			}
		}
		close(release)
		if err := <-done; err != nil || backend.writes != 1 {
			t.Errorf("update in flight: got error %v and %d writes, want 1 write", err, backend.writes)
		}
		if err := <-closed; err != nil {
			t.Errorf("Close: got error %v", err)
		}
	})
}

// TestCloseCancelsUpdates: after 25 s Close cancels an update that waits for
// WeChat. What that update returns even then is saved.
func TestCloseCancelsUpdates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		locks, backend := store.NewKeyLocks(), &countingBackend{}
		done := make(chan error, 1)
		go func() {
			ctx := context.WithoutCancel(t.Context())
			done <- locks.Update(ctx, "a", backend, func(ctx context.Context, _ []byte) ([]byte, error) {
				<-ctx.Done()
				if cause := context.Cause(ctx); cause != store.ErrClosed {
					t.Errorf("cause: got %v, want ErrClosed", cause)
				}
				return []byte("at the last moment"), nil
			})
		}()
		synctest.Wait()
		begin := time.Now()
		if err := locks.Close(); err != nil {
			t.Errorf("Close: got error %v", err)
		}
		if took := time.Since(begin); took != 25*time.Second {
			t.Errorf("Close took %v, want 25s", took)
		}
		if err := <-done; err != nil || backend.writes != 1 {
			t.Errorf("update: got error %v and %d writes, want 1 write", err, backend.writes)
		}
	})
}

// TestCloseGivesUp: an update that ignores its context neither blocks Close
// forever nor writes to a backend that is closed.
func TestCloseGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		locks, backend := store.NewKeyLocks(), &countingBackend{}
		done, release := make(chan error, 2), make(chan struct{})
		for _, key := range []string{"a", "b"} {
			go func() {
				done <- locks.Update(t.Context(), key, backend, func(context.Context, []byte) ([]byte, error) {
					<-release
					return []byte("too late"), nil
				})
			}()
		}
		synctest.Wait()
		begin := time.Now()
		if err := locks.Close(); !errors.Is(err, store.ErrLost) || !mentions(err, "2 updates") {
			t.Errorf("Close: got error %v, want ErrLost with 2 updates", err)
		}
		if took := time.Since(begin); took != 30*time.Second {
			t.Errorf("Close took %v, want 30s", took)
		}
		close(release)
		for range 2 {
			if err := <-done; !errors.Is(err, store.ErrLost) {
				t.Errorf("update: got error %v, want ErrLost", err)
			}
		}
		if backend.writes != 0 {
			t.Errorf("got %d writes after Close, want none", backend.writes)
		}
	})
}
