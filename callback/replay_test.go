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

func TestReplay(t *testing.T) {
	l := start(t, callback.Config{})
	const told = "authorize " + account + " " + theCode + " 1512631134 1512627534"
	s, moved := splicable(t, l)
	l.is(l.send(s), http.StatusOK)
	l.is(l.send(s), http.StatusConflict)
	l.wants([]string{"authorized ok", "authorized replayed"}, told)
	l.is(l.send(moved), http.StatusConflict)
	l.wants([]string{"authorized ok", "authorized replayed", "authorized replayed"}, told)

	// The same event, pushed anew, is no replay: it has another random
	// beginning.
	l.is(l.push(authorizedDoc("authorized")), http.StatusOK)
	l.wants([]string{"authorized ok", "authorized replayed", "authorized replayed", "authorized ok"}, told, told)
}

// splicable makes a push, and the same with digits of the nonce moved to the
// timestamp, so that the signature stays. Where Encrypt happens to be sorted
// between the two, that is not possible.
func splicable(t *testing.T, l *listener) (s, moved signed) {
	t.Helper()
	for range 1000 {
		s = sealed(l.crypt, authorizedDoc("authorized"))
		envelope, err := wechat.ParseEnvelope(s.body)
		if err != nil {
			t.Fatal(err)
		}
		moved = s
		moved.timestamp, moved.nonce = s.timestamp+s.nonce[:7], s.nonce[7:]
		if l.crypt.Signature(moved.timestamp, moved.nonce, envelope.Encrypt) == s.signature {
			return s, moved
		}
	}
	t.Fatal("no such push was found: this test shows nothing")
	return s, moved
}

// What was answered with success is remembered, whether it changed anything or
// not.
func TestReplayOfWhatChangedNothing(t *testing.T) {
	l := start(t, callback.Config{})
	s := sealed(l.crypt, document(component, "brand_new"))
	l.is(l.send(s), http.StatusOK)
	l.is(l.send(s), http.StatusConflict)
	l.wants([]string{"other ignored", "other replayed"})
}

// many sends one push n times at once, and counts the answers by status.
func (l *listener) many(n int, s signed) map[int]int {
	var (
		mu    sync.Mutex
		count = make(map[int]int)
		all   sync.WaitGroup
		ready = make(chan struct{})
	)
	for range n {
		all.Go(func() {
			<-ready
			r := l.send(s)
			mu.Lock()
			defer mu.Unlock()
			count[r.status]++
		})
	}
	close(ready)
	all.Wait()
	return count
}

func TestEqualPushesAtOnce(t *testing.T) {
	const n = 20
	l := start(t, callback.Config{})
	got := l.many(n, sealed(l.crypt, ticketDoc()))
	if got[http.StatusOK] != 1 || got[http.StatusConflict] != n-1 {
		t.Errorf("answers by status: %v", got)
	}
	if told := l.accounts.told(); len(told) != 1 {
		t.Errorf("the accounts were told %d times", len(told))
	}
}

// The first fails, whichever that is: one of the others takes its place.
func TestEqualPushesAtOnceWhenTheFirstFails(t *testing.T) {
	const n = 20
	l := start(t, callback.Config{})
	var calls atomic.Int32
	l.accounts.answer(func(context.Context) error {
		if calls.Add(1) == 1 {
			return errors.New("disk full")
		}
		return nil
	})
	got := l.many(n, sealed(l.crypt, ticketDoc()))
	if got[http.StatusInternalServerError] != 1 || got[http.StatusOK] != 1 || got[http.StatusConflict] != n-2 {
		t.Errorf("answers by status: %v", got)
	}
}

// Different pushes do not wait for each other: both are with the accounts at
// once.
func TestDifferentPushesAtOnce(t *testing.T) {
	l := start(t, callback.Config{})
	var met sync.WaitGroup
	met.Add(2)
	l.accounts.answer(func(ctx context.Context) error {
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
	var all sync.WaitGroup
	all.Go(func() { l.is(l.push(ticketDoc()), http.StatusOK) })
	all.Go(func() { l.is(l.push(ticketDoc()), http.StatusOK) })
	all.Wait()
}
