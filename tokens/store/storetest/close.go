package storetest

import (
	"context"
	"errors"
	"time"

	"wxproxy/tokens/store"
)

// closedStoreRejects also closes the store twice, which is allowed.
func closedStoreRejects(s suite) {
	s.putAll("a")
	for range 2 {
		s.noError("close", s.Close())
	}
	err := s.Update(s.ctx, "a", func(context.Context, []byte) ([]byte, error) {
		s.Error("fn was called after Close")
		return nil, nil
	})
	_, load := s.Load(s.ctx, "a")
	_, claim := s.Claim(s.ctx, "a", time.Now().Add(time.Hour))
	for name, err := range map[string]error{
		"update":  err,
		"load":    load,
		"claim":   claim,
		"unclaim": s.Unclaim(s.ctx, "a"),
		"list":    s.List(s.ctx, "", "", func(string, []byte) bool { return true }),
		"ping":    s.Ping(s.ctx),
	} {
		if !errors.Is(err, store.ErrClosed) {
			s.Errorf("%s: got error %v, want ErrClosed", name, err)
		}
	}
}

// closeWaits: Close returns only when the update in flight has ended. Meanwhile
// Load works and new updates are rejected.
func closeWaits(s suite) {
	release := s.hold("a", func(ctx context.Context, _ []byte) ([]byte, error) {
		return []byte("saved while closing"), ctx.Err()
	})
	closed := make(chan error, 1)
	go func() { closed <- s.Close() }()
	s.waitUntilClosing()
	// Close cannot have returned: the update still waits for release.
	select {
	case err := <-closed:
		s.Fatalf("Close returned %v with an update in flight", err)
	default:
	}
	s.wantNone("a") // Load still works
	s.noError("update in flight", release())
	s.noError("close", <-closed)
}

// waitUntilClosing returns once Close has begun, which makes updates fail.
func (s suite) waitUntilClosing() {
	s.Helper()
	// Ends at the latest with the context of the test.
	for {
		err := s.Update(s.ctx, "other", replaceWith("x"))
		if errors.Is(err, store.ErrClosed) {
			return
		}
		if err != nil {
			s.Fatalf("update before Close has begun: got error %v", err)
		}
	}
}

// closeRejectsWaiters: updates that wait for a lock when Close begins get
// ErrClosed, and their functions never run.
func closeRejectsWaiters(s suite) {
	release := s.hold("a", replaceWith("holder's"))
	const n = 20
	rejected := make(chan error, n)
	for range n {
		go func() {
			rejected <- s.Update(s.ctx, "a", func(context.Context, []byte) ([]byte, error) {
				s.Error("fn of a waiter was called")
				return nil, nil
			})
		}()
	}
	// Some updates may reach the queue only after Close has begun: they get the
	// same error.
	closed := make(chan error, 1)
	go func() { closed <- s.Close() }()
	for range n {
		if err := <-rejected; !errors.Is(err, store.ErrClosed) {
			s.Errorf("waiter: got error %v, want ErrClosed", err)
		}
	}
	s.noError("update in flight", release())
	s.noError("close", <-closed)
}
