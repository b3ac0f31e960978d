package callback

import (
	"context"
	"errors"
	"strconv"
	"testing"
	"testing/synctest"
	"time"
)

// handleOnce begins and ends, and reports whether there was anything to handle.
func handleOnce(t *testing.T, r *replays, signature string, success bool) bool {
	t.Helper()
	end, fresh, err := r.begin(t.Context(), signature)
	if err != nil {
		t.Fatal(err)
	}
	if fresh {
		end(success)
	}
	return fresh
}

func TestReplaysAreForgottenAfterAnHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReplays()
		handleOnce(t, r, "a", true)
		time.Sleep(replayAge - time.Nanosecond)
		if handleOnce(t, r, "a", true) {
			t.Error("forgotten before its time")
		}
		time.Sleep(time.Nanosecond)
		if !handleOnce(t, r, "a", true) {
			t.Error("not forgotten")
		}
		if len(r.handled) != 1 || len(r.order) != 1 || len(r.underway) != 0 {
			t.Errorf("%d, %d and %d are kept", len(r.handled), len(r.order), len(r.underway))
		}
	})
}

func TestReplaysAreBounded(t *testing.T) {
	r := newReplays()
	for i := range 3 * replayCount {
		handleOnce(t, r, strconv.Itoa(i), true)
	}
	if len(r.handled) != replayCount || len(r.order) != replayCount || len(r.underway) != 0 || cap(r.order) > 4*replayCount {
		t.Errorf("%d, %d (room for %d) and %d are kept", len(r.handled), len(r.order), cap(r.order), len(r.underway))
	}
	if handleOnce(t, r, strconv.Itoa(2*replayCount), true) || !handleOnce(t, r, strconv.Itoa(2*replayCount-1), true) {
		t.Error("not the oldest were forgotten")
	}
}

// The interleaving feared: the copy looks, the first one ends, and the copy finds neither that
// it is under way nor that it was handled.
func TestCopyWaitsForTheFirst(t *testing.T) {
	for _, success := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			r := newReplays()
			end, _, _ := r.begin(t.Context(), "a")
			decided := false
			go func() {
				fresh := handleOnce(t, r, "a", true)
				if fresh == success {
					t.Errorf("the first one's success was %v, and the copy is fresh: %v", success, fresh)
				}
				decided = true
			}()
			synctest.Wait()
			if decided {
				t.Error("the copy did not wait")
			}
			if !handleOnce(t, r, "another", true) {
				t.Error("another push had to wait as well")
			}
			end(success)
			synctest.Wait()
			if !decided {
				t.Error("the copy waits on")
			}
		})
	}
}

func TestCopyWaitsNoLongerThanItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReplays()
		end, _, _ := r.begin(t.Context(), "a")
		defer end(true)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, fresh, err := r.begin(ctx, "a"); fresh || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("fresh %v, %v", fresh, err)
		}
	})
}
