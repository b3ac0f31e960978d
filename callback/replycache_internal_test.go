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

// isNew gets the reply to a document and reports whether the cache had to ask
// for it.
func isNew(t *testing.T, c *replyCache, doc string, delivered bool) (asked bool) {
	t.Helper()
	_, settle, err := c.do(t.Context(), documentIDOf("wx", []byte(doc)), func() (messageReply, error) {
		asked = true
		return messageReply{}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	settle(delivered)
	return asked
}

func TestUndeliveredReplyIsKeptFor30Seconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c replyCache
		isNew(t, &c, "a", false)
		time.Sleep(replyLife - time.Nanosecond)
		if isNew(t, &c, "a", false) {
			t.Errorf("after %v: the reply was forgotten, want it kept", replyLife-time.Nanosecond)
		}
		time.Sleep(time.Nanosecond)
		if !isNew(t, &c, "a", true) {
			t.Errorf("after %v: the reply was kept, want it forgotten", replyLife)
		}
		if len(c.entries) != 0 || len(c.kept) != 0 {
			t.Errorf("got %d entries and %d kept replies at the end, want none", len(c.entries), len(c.kept))
		}
	})
}

func TestReplyCacheIsBounded(t *testing.T) {
	var c replyCache
	for i := range maxReplies + 10 {
		isNew(t, &c, strconv.Itoa(i), false)
	}
	if len(c.entries) != maxReplies || len(c.kept) != maxReplies {
		t.Errorf("got %d entries and %d kept replies, want %d", len(c.entries), len(c.kept), maxReplies)
	}
	if isNew(t, &c, strconv.Itoa(maxReplies), true) || !isNew(t, &c, "0", true) {
		t.Error("the oldest replies were not evicted first")
	}
	large := messageReply{xml: make([]byte, maxReplySize+1)}
	_, settle, _ := c.do(t.Context(), documentIDOf("wx", nil), func() (messageReply, error) { return large, nil })
	settle(false)
	if !isNew(t, &c, "", true) {
		t.Errorf("a reply of %d bytes was kept, want at most %d", len(large.xml), maxReplySize)
	}
}

// One of those that wait for a call that fails tries again, and the others wait
// for that one.
func TestFailureIsRetriedByOneWaiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c replyCache
		var calls, replied atomic.Int32
		var requests sync.WaitGroup
		for range 10 {
			requests.Go(func() {
				_, settle, err := c.do(t.Context(), documentIDOf("wx", nil), func() (messageReply, error) {
					n := calls.Add(1)
					time.Sleep(time.Second)
					if n == 1 {
						return messageReply{}, errors.New("down")
					}
					return messageReply{}, nil
				})
				if err == nil {
					replied.Add(1)
					settle(true)
				}
			})
		}
		requests.Wait()
		if calls.Load() != 2 || replied.Load() != 9 {
			t.Errorf("got %d calls and %d replies, want 2 and 9", calls.Load(), replied.Load())
		}
		if len(c.entries) != 0 {
			t.Errorf("got %d entries at the end, want none", len(c.entries))
		}
	})
}

// A reply that is being delivered is not given to a second request, which waits
// until its own deadline.
func TestWaitForReplyEndsWithContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c replyCache
		key := documentIDOf("wx", nil)
		_, settle, _ := c.do(t.Context(), key, func() (messageReply, error) { return messageReply{}, nil })
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, _, err := c.do(ctx, key, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got error %v, want %v", err, context.DeadlineExceeded)
		}
		settle(true)
	})
}
