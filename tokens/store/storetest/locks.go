package storetest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"
)

// noUpdateIsLost is the counter: 100 goroutines add one each, to one key.
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
			if err != nil {
				s.Error(err)
			}
		})
	}
	all.Wait()
	s.want("n", strconv.Itoa(n))
}

// keysAreParallel has 200 updates of as many keys meet inside: with fewer locks than keys
// two of them would share one, and the meeting never end.
func keysAreParallel(s suite) {
	const n = 200
	var all, inside sync.WaitGroup
	inside.Add(n)
	met := make(chan struct{})
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
			if err != nil {
				s.Error(err)
			}
		})
	}
	all.Wait()
}

// hold takes key in another goroutine and gives it back by release, which returns the update's error.
func (s suite) hold(key string, fn func(ctx context.Context, old []byte) ([]byte, error)) (release func() error) {
	s.Helper()
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
		s.Fatal("not locked: ", err)
	}
	return func() error { close(free); return <-done }
}

func replaceWith(record string) func(context.Context, []byte) ([]byte, error) {
	return func(context.Context, []byte) ([]byte, error) { return []byte(record), nil }
}

func loadDoesNotWait(s suite) {
	s.putAll("a")
	release := s.hold("a", replaceWith("new"))
	s.want("a", "record of a")
	s.wantKeys("", "", "a")
	if err := s.Ping(s.ctx); err != nil {
		s.Error(err)
	}
	if err := release(); err != nil {
		s.Error(err)
	}
	s.want("a", "new")
}

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
				s.Error("fn was called")
				return nil, nil
			})
		}()
		if end == context.Canceled {
			cancel()
		}
		if err := <-left; !errors.Is(err, end) {
			s.Errorf("left with %v, want %v", err, end)
		}
		cancel()
	}
	if err := release(); err != nil {
		s.Error(err)
	}
	s.want("a", "holder's")
	s.put("a", "next") // those who left have not taken the lock with them
}

// waiterThatLeft lets half of many waiters leave at the moment in which the lock comes free.
// The other half must all have their turn, and of the first each either wrote or got its error.
func waiterThatLeft(s suite) {
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
				s.Errorf("waiter %d, called %v: %v", i, called, err)
			}
		})
	}
	all.Go(cancel)
	if err := release(); err != nil {
		s.Error(err)
	}
	all.Wait()
	s.want("a", strconv.Itoa(wrote))
	if wrote < n/2 {
		s.Errorf("%d of %d who stayed had their turn", wrote, n/2)
	}
}

func callerEndsFn(s suite) {
	type nameKey struct{}
	ctx, cancel := context.WithCancel(context.WithValue(s.ctx, nameKey{}, "mine"))
	mine := errors.New("mine")
	err := s.Update(ctx, "a", func(ctx context.Context, _ []byte) ([]byte, error) {
		if ctx.Value(nameKey{}) != "mine" {
			s.Error("fn's context has not the caller's values")
		}
		cancel()
		select {
		case <-ctx.Done():
		case <-s.ctx.Done():
			s.Error("fn's context does not end with the caller's")
		}
		return nil, mine
	})
	if !errors.Is(err, mine) {
		s.Errorf("the error of fn became %v", err)
	}
	s.wantNone("a")
}

// lateRecordIsSaved: the caller went away while WeChat answered; the refresh token in that
// answer exists once.
func lateRecordIsSaved(s suite) {
	ctx, cancel := context.WithCancel(s.ctx)
	err := s.Update(ctx, "a", func(context.Context, []byte) ([]byte, error) {
		cancel()
		return []byte("precious"), nil
	})
	if err != nil {
		s.Error(err)
	}
	s.want("a", "precious")
}

func panicUnlocks(s suite) {
	s.putAll("a")
	func() {
		defer func() {
			if p := recover(); p != "mine" {
				s.Errorf("recovered %v", p)
			}
		}()
		_ = s.Update(s.ctx, "a", func(_ context.Context, old []byte) ([]byte, error) {
			copy(old, "XXX")
			panic("mine")
		})
	}()
	s.want("a", "record of a")
	s.put("a", "unlocked")
}

// nested is account, then component: the outer record is saved after the inner one and
// without harm to it. The many make sure that no two keys share a lock.
func nested(s suite) {
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
			if err != nil {
				s.Error(err)
			}
			s.want(account, "of "+account)
		})
	}
	all.Wait()
	got, err := s.Load(s.ctx, "component")
	if err != nil || len(got) != 50 {
		s.Errorf("%q, %v", got, err)
	}
}
