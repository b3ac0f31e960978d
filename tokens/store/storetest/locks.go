package storetest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"wxproxy/tokens/store"
)

// noUpdateIsLost: 100 goroutines add one each to a counter under one key.
func noUpdateIsLost(s suite) {
	const n = 100
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			err := s.Update(s.ctx, "n", func(_ context.Context, old []byte) ([]byte, error) {
				var i int
				if old != nil {
					var err error
					if i, err = strconv.Atoi(string(old)); err != nil {
						return nil, err
					}
				}
				return []byte(strconv.Itoa(i + 1)), nil
			})
			s.noError("update", err)
		})
	}
	all.Wait()
	s.want("n", strconv.Itoa(n))
}

// keysHaveSeparateLocks: 200 updates of as many keys wait for each other inside
// fn. With fewer locks than keys, two of them would share a lock and the test
// would never end.
func keysHaveSeparateLocks(s suite) {
	const n = 200
	var all, inside sync.WaitGroup
	inside.Add(n)
	met := make(chan struct{}) // closed when all are inside fn
	go func() { inside.Wait(); close(met) }()
	for i := range n {
		all.Go(func() {
			err := s.Update(s.ctx, fmt.Sprint("key/", i), func(ctx context.Context, _ []byte) ([]byte, error) {
				inside.Done()
				select {
				case <-met:
					return []byte("met"), nil
				case <-ctx.Done():
					return nil, ctx.Err()
				}
			})
			s.noError("update", err)
		})
	}
	all.Wait()
}

// hold locks key in another goroutine. release lets fn run, and returns the
// error of the update.
func (s suite) hold(key string, fn store.UpdateFunc) (release func() error) {
	s.Helper()
	// held: fn runs and has the lock. free: fn may return. done: its result.
	held, free, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		done <- s.Update(s.ctx, key, func(ctx context.Context, old []byte) ([]byte, error) {
			close(held)
			<-free
			return fn(ctx, old)
		})
	}()
	select {
	case <-held:
	case err := <-done:
		s.Fatalf("update ended before fn ran: %v", err)
	}
	return func() error { close(free); return <-done }
}

// replaceWith returns a [store.UpdateFunc] that saves record.
func replaceWith(record string) store.UpdateFunc {
	return func(context.Context, []byte) ([]byte, error) { return []byte(record), nil }
}

// loadDoesNotWait reads a key that is locked: Load, List and Ping return the
// old record at once.
func loadDoesNotWait(s suite) {
	s.putAll("a")
	release := s.hold("a", replaceWith("new"))
	s.want("a", "record of a")
	s.wantKeys("", "", "a")
	s.noError("ping", s.Ping(s.ctx))
	s.noError("update in flight", release())
	s.want("a", "new")
}

// waiterLeaves ends the context of a waiter, by cancellation and by a deadline.
func waiterLeaves(s suite) {
	release := s.hold("a", replaceWith("holder's"))
	for _, end := range []error{context.Canceled, context.DeadlineExceeded} {
		ctx, cancel := context.WithCancel(s.ctx)
		if end == context.DeadlineExceeded {
			cancel()
			ctx, cancel = context.WithTimeout(s.ctx, time.Microsecond)
		}
		left := make(chan error, 1)
		go func() {
			left <- s.Update(ctx, "a", func(context.Context, []byte) ([]byte, error) {
				s.Error("fn of a waiter that left was called")
				return nil, nil
			})
		}()
		// The waiter may or may not have reached the queue by now. The error is
		// the same.
		if end == context.Canceled {
			cancel()
		}
		if err := <-left; !errors.Is(err, end) {
			s.Errorf("waiter: got error %v, want %v", err, end)
		}
		cancel()
	}
	s.noError("update in flight", release())
	s.want("a", "holder's")
	s.put("a", "next") // the waiters that left did not keep the lock
}

// waitersLeaveDuringHandover cancels half of many waiters at the moment in
// which the lock is released. The other half must all get the lock. Each
// canceled one either wrote or got its error.
func waitersLeaveDuringHandover(s suite) {
	const n = 60
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	release := s.hold("a", replaceWith("0"))
	var all sync.WaitGroup
	var mu sync.Mutex
	wrote := 0
	for i := range n {
		ctx := ctx
		if i%2 == 0 {
			ctx = s.ctx
		}
		all.Go(func() {
			called := false
			err := s.Update(ctx, "a", func(_ context.Context, old []byte) ([]byte, error) {
				called = true
				k, err := strconv.Atoi(string(old))
				return []byte(strconv.Itoa(k + 1)), err
			})
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				wrote++
			case i%2 == 0 || called || !errors.Is(err, context.Canceled):
				s.Errorf("waiter %d (fn called: %v): got error %v", i, called, err)
			}
		})
	}
	// The cancellation races with the release on purpose.
	all.Go(cancel)
	s.noError("update in flight", release())
	all.Wait()
	s.want("a", strconv.Itoa(wrote))
	if wrote < n/2 {
		s.Errorf("got %d writes, want those of all %d waiters that stayed", wrote, n/2)
	}
}

// callerCancelsFn: the context of fn carries the caller's values and ends with
// the caller's context.
func callerCancelsFn(s suite) {
	type nameKey struct{}
	ctx, cancel := context.WithCancel(context.WithValue(s.ctx, nameKey{}, "value"))
	failure := errors.New("failure of fn")
	err := s.Update(ctx, "a", func(ctx context.Context, _ []byte) ([]byte, error) {
		if ctx.Value(nameKey{}) != "value" {
			s.Error("the context of fn lacks the caller's values")
		}
		cancel()
		select {
		case <-ctx.Done():
		case <-s.ctx.Done():
			s.Error("the context of fn did not end with the caller's")
		}
		return nil, failure
	})
	if !errors.Is(err, failure) {
		s.Errorf("got error %v, want that of fn", err)
	}
	s.wantNone("a")
}

// lateRecordIsSaved: the caller left while WeChat responded. WeChat issues the
// refresh token in that response only once, so it must be saved.
func lateRecordIsSaved(s suite) {
	ctx, cancel := context.WithCancel(s.ctx)
	err := s.Update(ctx, "a", func(context.Context, []byte) ([]byte, error) {
		cancel()
		return []byte("precious"), nil
	})
	s.noError("update", err)
	s.want("a", "precious")
}

// panicUnlocks: a panic of fn reaches the caller of Update, saves nothing and
// releases the lock.
func panicUnlocks(s suite) {
	s.putAll("a")
	func() {
		defer func() {
			if p := recover(); p != "panic of fn" {
				s.Errorf("recovered: got %v, want the panic of fn", p)
			}
		}()
		_ = s.Update(s.ctx, "a", func(_ context.Context, old []byte) ([]byte, error) {
			copy(old, "XXX") // old is a copy
			panic("panic of fn")
		})
	}()
	s.want("a", "record of a")
	s.put("a", "unlocked")
}

// nestedUpdates updates the component inside the update of an account, as
// renewals do. Both records must be saved. The 50 accounts make sure that no
// two keys share a lock.
func nestedUpdates(s suite) {
	var all sync.WaitGroup
	for i := range 50 {
		all.Go(func() {
			account := fmt.Sprint("account/", i)
			err := s.Update(s.ctx, account, func(ctx context.Context, _ []byte) ([]byte, error) {
				err := s.Update(ctx, "component", func(_ context.Context, old []byte) ([]byte, error) {
					return append(old, 'x'), nil
				})
				return []byte("of " + account), err
			})
			s.noError("update", err)
			s.want(account, "of "+account)
		})
	}
	all.Wait()
	got, err := s.Load(s.ctx, "component")
	if err != nil || len(got) != 50 {
		s.Errorf("component: got %q, error %v, want 50 bytes", got, err)
	}
}
