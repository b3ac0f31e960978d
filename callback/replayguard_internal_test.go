package callback

import (
	"context"
	"errors"
	"strconv"
	"testing"
	"testing/synctest"
	"time"
)

// handleOnce handles a push with the result success, and reports whether it was
// fresh.
func handleOnce(t *testing.T, g *replayGuard, signature string, success bool) (fresh bool) {
	t.Helper()
	before, end, err := g.begin(t.Context(), signature)
	if err != nil {
		t.Fatal(err)
	}
	if before == nil {
		end(handledIf(signature, success))
	}
	return before == nil
}

// handledIf returns what end expects.
func handledIf(signature string, success bool) *handledPush {
	if !success {
		return nil
	}
	return &handledPush{signature: signature, at: time.Now()}
}

func TestPushIsRememberedForAnHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newReplayGuard(time.Now)
		handleOnce(t, g, "a", true)
		time.Sleep(replayLife - time.Nanosecond)
		if handleOnce(t, g, "a", true) {
			t.Errorf("after %v: the push was fresh, want a replay", replayLife-time.Nanosecond)
		}
		time.Sleep(time.Nanosecond)
		if !handleOnce(t, g, "a", true) {
			t.Errorf("after %v: the push was a replay, want it fresh", replayLife)
		}
		if len(g.handled) != 1 || len(g.order) != 1 || len(g.inFlight) != 0 {
			t.Errorf("got %d, %d and %d pushes in memory, want 1, 1 and 0",
				len(g.handled), len(g.order), len(g.inFlight))
		}
	})
}

func TestReplayGuardIsBounded(t *testing.T) {
	g := newReplayGuard(time.Now)
	for i := range 3 * maxReplays {
		handleOnce(t, g, strconv.Itoa(i), true)
	}
	if len(g.handled) != maxReplays || len(g.order) != maxReplays || len(g.inFlight) != 0 {
		t.Errorf("got %d, %d and %d pushes in memory, want %d, %d and 0",
			len(g.handled), len(g.order), len(g.inFlight), maxReplays, maxReplays)
	}
	if cap(g.order) > 4*maxReplays {
		t.Errorf("got memory for %d pushes, want at most %d", cap(g.order), 4*maxReplays)
	}
	if handleOnce(t, g, strconv.Itoa(2*maxReplays), true) ||
		!handleOnce(t, g, strconv.Itoa(2*maxReplays-1), true) {
		t.Error("the oldest pushes were not forgotten first")
	}
}

// The interleaving that this test is about: the first push ends between two
// looks of its copy, which then finds it neither in flight nor handled.
func TestCopyWaitsForTheFirst(t *testing.T) {
	for _, success := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			g := newReplayGuard(time.Now)
			_, end, _ := g.begin(t.Context(), "a")
			decided := false
			go func() {
				if fresh := handleOnce(t, g, "a", true); fresh == success {
					t.Errorf("the first push ended with success %v: got a copy with fresh %v, want %v",
						success, fresh, !success)
				}
				decided = true
			}()
			synctest.Wait()
			if decided {
				t.Error("the copy did not wait for the first push")
			}
			if !handleOnce(t, g, "another", true) {
				t.Error("another push was taken for a copy")
			}
			end(handledIf("a", success))
			synctest.Wait()
			if !decided {
				t.Error("the copy still waits after the first push has ended")
			}
		})
	}
}

func TestWaitForCopyEndsWithContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newReplayGuard(time.Now)
		_, end, _ := g.begin(t.Context(), "a")
		defer end(nil)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, _, err := g.begin(ctx, "a"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got error %v, want %v", err, context.DeadlineExceeded)
		}
	})
}
