package callback

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// ask has a message answered, and reports whether that was asked for anew.
func ask(t *testing.T, a *answers, doc string, delivered bool) (anew bool) {
	t.Helper()
	_, settle, err := a.do(t.Context(), keyOf("wx", []byte(doc)), func() (serviceAnswer, error) { anew = true; return serviceAnswer{}, nil })
	if err != nil {
		t.Fatal(err)
	}
	settle(delivered)
	return anew
}

func TestAnswersAreKeptForHalfAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a answers
		ask(t, &a, "a", false)
		time.Sleep(answerAge - time.Nanosecond)
		if ask(t, &a, "a", false) {
			t.Error("forgotten before its time")
		}
		time.Sleep(time.Nanosecond)
		if !ask(t, &a, "a", true) || len(a.m) != 0 || len(a.order) != 0 {
			t.Errorf("%d and %d are kept", len(a.m), len(a.order))
		}
	})
}

func TestAnswersAreBounded(t *testing.T) {
	var a answers
	for i := range maxAnswers + 10 {
		ask(t, &a, strconv.Itoa(i), false)
	}
	if len(a.m) != maxAnswers || len(a.order) != maxAnswers {
		t.Errorf("%d and %d are kept", len(a.m), len(a.order))
	}
	if ask(t, &a, strconv.Itoa(maxAnswers), true) || !ask(t, &a, "0", true) {
		t.Error("the oldest must go first")
	}
	_, settle, _ := a.do(t.Context(), keyOf("wx", nil), func() (serviceAnswer, error) { return serviceAnswer{xml: make([]byte, maxKept+1)}, nil })
	settle(false)
	if !ask(t, &a, "", true) {
		t.Error("a large answer was kept")
	}
}

// Of those who wait for one that fails, one tries anew; the others wait for that.
func TestWaitersForAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a answers
		var calls, good atomic.Int32
		var all sync.WaitGroup
		for range 10 {
			all.Go(func() {
				_, settle, err := a.do(t.Context(), keyOf("wx", nil), func() (serviceAnswer, error) {
					n := calls.Add(1)
					time.Sleep(time.Second)
					if n == 1 {
						return serviceAnswer{}, errors.New("down")
					}
					return serviceAnswer{}, nil
				})
				if err == nil {
					good.Add(1)
					settle(true)
				}
			})
		}
		all.Wait()
		if calls.Load() != 2 || good.Load() != 9 || len(a.m) != 0 {
			t.Errorf("%d calls, %d answered, %d kept", calls.Load(), good.Load(), len(a.m))
		}
	})
}

// Nobody waits longer than their own deadline, and nobody gets an answer that is on its way to somebody else.
func TestWaitersHaveDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a answers
		key := keyOf("wx", nil)
		_, settle, _ := a.do(t.Context(), key, func() (serviceAnswer, error) { return serviceAnswer{}, nil })
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, _, err := a.do(ctx, key, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		settle(true)
	})
}

// A job is tried again for a minute, with longer and longer pauses.
func TestJobsEndAfterAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOutbox(nil)
		began, tries := time.Now(), 0
		var ended time.Duration
		o.add(job{
			do:     func(context.Context) error { tries++; return errors.New("down") },
			failed: func(error) { ended = time.Since(began) },
		})
		time.Sleep(2 * jobTime)
		synctest.Wait()
		if ended != jobTime || tries < 6 || tries > 12 {
			t.Errorf("%d tries in %v", tries, ended)
		}
		if o.jobs != 0 || o.bytes != 0 {
			t.Errorf("%d jobs of %d bytes are left", o.jobs, o.bytes)
		}
		if err := o.close(t.Context()); err != nil || o.add(job{}) {
			t.Error("taken after the end")
		}
	})
}

func TestJobsAreBoundedInBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOutbox(nil)
		hold := make(chan struct{})
		j := job{size: maxJobBytes/4 + 1, do: func(context.Context) error { <-hold; return nil }}
		for range 3 {
			if !o.add(j) {
				t.Error("refused too early")
			}
		}
		if o.add(j) {
			t.Error("too much was taken")
		}
		close(hold)
		synctest.Wait()
		if !o.add(j) {
			t.Error("nothing is taken any more")
		}
		_ = o.close(t.Context())
	})
}
