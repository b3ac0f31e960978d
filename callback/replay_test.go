package callback_test

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"

	"wxproxy/callback"
	"wxproxy/wechat"
)

// A replay is answered like the push, so that WeChat stops to repeat it, and
// changes nothing. Digits that were moved are not a time that is accepted.
func TestReplayChangesNothing(t *testing.T) {
	w := start(t, callback.Config{})
	s, moved := splicable(t, w)
	w.wantResponse(w.send(s), http.StatusOK)
	w.wantResponse(w.send(s), http.StatusOK)
	w.wantResponse(w.send(moved), http.StatusBadRequest)
	w.wantCounted("authorized ok", "authorized replayed", "other bad_message")
	w.wantStored(authorizeStored)

	// The same event in a new push is not a replay: it begins with other random
	// bytes.
	w.wantResponse(w.push(authorizedDoc("authorized")), http.StatusOK)
	w.wantCounted("authorized ok", "authorized replayed", "other bad_message", "authorized ok")
	w.wantStored(authorizeStored, authorizeStored)
}

// splicable returns a push, and the same push with digits moved from the nonce
// to the timestamp, so that the signature stays the same. That is possible
// unless Encrypt is sorted between the two.
func splicable(t *testing.T, w *env) (s, moved signed) {
	t.Helper()
	for range 1000 {
		s = seal(w.crypt, authorizedDoc("authorized"))
		envelope, err := wechat.ParseEnvelope(s.body)
		if err != nil {
			t.Fatal(err)
		}
		moved = s
		moved.timestamp, moved.nonce = s.timestamp+s.nonce[:7], s.nonce[7:]
		if w.crypt.Signature(moved.timestamp, moved.nonce, envelope.Encrypt) == s.signature {
			return s, moved
		}
	}
	t.Fatal("got no push whose digits can be moved in 1,000 tries")
	return s, moved
}

// A push that was answered with success is remembered, even if it changed
// nothing.
func TestReplayOfIgnoredEventIsRecognized(t *testing.T) {
	w := start(t, callback.Config{})
	s := seal(w.crypt, eventDoc(component, "brand_new"))
	w.wantResponse(w.send(s), http.StatusOK)
	w.wantResponse(w.send(s), http.StatusOK)
	w.wantCounted("other ignored", "other replayed")
}

// sendConcurrently sends one push n times and returns the number of responses
// by status.
func (w *env) sendConcurrently(n int, s signed) map[int]int {
	var (
		mu       sync.Mutex
		statuses = make(map[int]int)
		requests sync.WaitGroup
		ready    = make(chan struct{})
	)
	for range n {
		requests.Go(func() {
			<-ready
			r := w.send(s)
			mu.Lock()
			defer mu.Unlock()
			statuses[r.status]++
		})
	}
	close(ready)
	requests.Wait()
	return statuses
}

func TestConcurrentCopiesAreStoredOnce(t *testing.T) {
	const n = 20
	w := start(t, callback.Config{})
	got := w.sendConcurrently(n, seal(w.crypt, ticketDoc()))
	if got[http.StatusOK] != n {
		t.Errorf("got responses by status %v, want %d 200", got, n)
	}
	w.wantStored(ticketStored)
}

// If the first of several copies fails, one of the others takes its place.
func TestCopyReplacesFailedPush(t *testing.T) {
	const n = 20
	w := start(t, callback.Config{})
	var calls atomic.Int32
	w.accounts.setResult(func(context.Context) error {
		if calls.Add(1) == 1 {
			return errors.New("disk full")
		}
		return nil
	})
	got := w.sendConcurrently(n, seal(w.crypt, ticketDoc()))
	if got[http.StatusInternalServerError] != 1 || got[http.StatusOK] != n-1 || calls.Load() != 2 {
		t.Errorf("got responses by status %v and %d calls of the store, want one 500, %d 200 and 2",
			got, calls.Load(), n-1)
	}
}

// Different pushes do not wait for each other: both are being stored at once.
func TestDifferentPushesAreConcurrent(t *testing.T) {
	w := start(t, callback.Config{})
	var met sync.WaitGroup
	met.Add(2)
	w.accounts.setResult(func(ctx context.Context) error {
		met.Done()
		both := make(chan struct{})
		go func() { met.Wait(); close(both) }()
		select {
		case <-both:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	var requests sync.WaitGroup
	for range 2 {
		requests.Go(func() { w.wantResponse(w.push(ticketDoc()), http.StatusOK) })
	}
	requests.Wait()
}
