package store_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"wxproxy/tokens/store"
)

// nowhere is a Backend that forgets, and counts what it was given.
type nowhere struct{ writes int }

func (*nowhere) Read(string) ([]byte, error)  { return nil, nil }
func (n *nowhere) Write(string, []byte) error { n.writes++; return nil }

// TestLocksAreServedInOrder: who came first is first.
func TestLocksAreServedInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, m := store.NewKeyLocks(), &nowhere{}
		free := make(chan struct{})
		go l.Update(t.Context(), "a", m, func(context.Context, []byte) ([]byte, error) { <-free; return nil, nil })
		synctest.Wait()
		var order []int
		for i := range 100 {
			go l.Update(t.Context(), "a", m, func(context.Context, []byte) ([]byte, error) {
				order = append(order, i)
				return nil, nil
			})
			synctest.Wait()
		}
		close(free)
		synctest.Wait()
		for i, got := range order {
			if i != got {
				t.Fatalf("the order is %v", order)
			}
		}
		if len(order) != 100 {
			t.Errorf("%d had their turn", len(order))
		}
	})
}

// TestLocksForgetKeys: 200,000 keys, which would take some 25 MB, leave nothing behind.
func TestLocksForgetKeys(t *testing.T) {
	l, m := store.NewKeyLocks(), &nowhere{}
	keep := func(context.Context, []byte) ([]byte, error) { return store.Keep, nil }
	heap := func() uint64 {
		runtime.GC()
		var s runtime.MemStats
		runtime.ReadMemStats(&s)
		return s.HeapAlloc
	}
	before := heap()
	for i := range 200_000 {
		if err := l.Update(t.Context(), fmt.Sprint("account/wx", i), m, keep); err != nil {
			t.Fatal(err)
		}
	}
	if after := heap(); after > before+8<<20 {
		t.Errorf("the heap grew by %d bytes", after-before)
	}
	runtime.KeepAlive(l)
}

// TestCloseSendsWaitersAway: they have not begun, and need not be waited for.
func TestCloseSendsWaitersAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, m := store.NewKeyLocks(), &nowhere{}
		free, done, left := make(chan struct{}), make(chan error, 1), make(chan error, 10)
		go func() {
			done <- l.Update(t.Context(), "a", m, func(context.Context, []byte) ([]byte, error) {
				<-free
				return []byte("saved"), nil
			})
		}()
		synctest.Wait()
		for range cap(left) {
			go func() {
				left <- l.Update(t.Context(), "a", m, func(context.Context, []byte) ([]byte, error) {
					t.Error("fn was called")
					return nil, nil
				})
			}()
		}
		synctest.Wait()
		closed := make(chan error, 1)
		go func() { closed <- l.Close() }()
		for range cap(left) {
			if err := <-left; err != store.ErrClosed {
				t.Errorf("sent away with %v", err)
			}
		}
		close(free)
		if err := <-done; err != nil || m.writes != 1 {
			t.Errorf("%d writes, %v", m.writes, err)
		}
		if err := <-closed; err != nil {
			t.Error(err)
		}
	})
}

// TestCloseEndsContexts: an update that waits for WeChat is told to end, and what it brings
// even then is saved.
func TestCloseEndsContexts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, m := store.NewKeyLocks(), &nowhere{}
		done := make(chan error, 1)
		go func() {
			done <- l.Update(context.WithoutCancel(t.Context()), "a", m, func(ctx context.Context, _ []byte) ([]byte, error) {
				<-ctx.Done()
				if context.Cause(ctx) != store.ErrClosed {
					t.Errorf("the cause is %v", context.Cause(ctx))
				}
				return []byte("at the last moment"), nil
			})
		}()
		synctest.Wait()
		begin := time.Now()
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if took := time.Since(begin); took != 25*time.Second {
			t.Errorf("closed after %v", took)
		}
		if err := <-done; err != nil || m.writes != 1 {
			t.Errorf("%d writes, %v", m.writes, err)
		}
	})
}

// TestCloseGivesUp: an update that does not end with its context cannot hold Close up for ever, and
// cannot write to a medium that is gone.
func TestCloseGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, m := store.NewKeyLocks(), &nowhere{}
		done, free := make(chan error, 2), make(chan struct{})
		for _, key := range []string{"a", "b"} {
			go func() {
				done <- l.Update(t.Context(), key, m, func(context.Context, []byte) ([]byte, error) {
					<-free
					return []byte("too late"), nil
				})
			}()
		}
		synctest.Wait()
		begin := time.Now()
		if err := l.Close(); !errors.Is(err, store.ErrLost) || !strings.Contains(err.Error(), "2 updates") {
			t.Errorf("closed with %v", err)
		}
		if took := time.Since(begin); took != 30*time.Second {
			t.Errorf("closed after %v", took)
		}
		close(free)
		for range 2 {
			if err := <-done; !errors.Is(err, store.ErrLost) {
				t.Errorf("ended with %v", err)
			}
		}
		if m.writes != 0 {
			t.Errorf("%d writes after Close", m.writes)
		}
	})
}
