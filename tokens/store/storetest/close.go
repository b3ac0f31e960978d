package storetest

import (
	"context"
	"errors"

	"wxproxy/tokens/store"
)

// closedRefuses: and closing twice is no offence.
func closedRefuses(s suite) {
	s.putAll("a")
	for range 2 {
		if err := s.Close(); err != nil {
			s.Fatal(err)
		}
	}
	err := s.Update(s.ctx, "a", func(context.Context, []byte) ([]byte, error) {
		s.Error("fn was called")
		return nil, nil
	})
	_, load := s.Load(s.ctx, "a")
	for name, err := range map[string]error{
		"update": err,
		"load":   load,
		"list":   s.List(s.ctx, "", "", func(string, []byte) bool { return true }),
		"ping":   s.Ping(s.ctx),
	} {
		if !errors.Is(err, store.ErrClosed) {
			s.Errorf("%s of a closed store: %v", name, err)
		}
	}
}

func closeWaits(s suite) {
	release := s.hold("a", func(ctx context.Context, _ []byte) ([]byte, error) {
		return []byte("saved while closing"), ctx.Err()
	})
	closed := make(chan error, 1)
	go func() { closed <- s.Close() }()
	s.refusedSoon()
	select {
	case err := <-closed:
		s.Fatalf("closed (%v) with an update under way", err)
	default:
	}
	s.wantNone("a") // what was asked for before is still answered
	if err := release(); err != nil {
		s.Errorf("the update under way: %v", err)
	}
	if err := <-closed; err != nil {
		s.Error(err)
	}
}

// refusedSoon returns when Close has begun: updates get another error then than that of waiting.
func (s suite) refusedSoon() {
	s.Helper()
	for {
		err := s.Update(s.ctx, "other", replaceWith("x"))
		if errors.Is(err, store.ErrClosed) {
			return
		}
		if err != nil {
			s.Fatalf("an update while the store closes: %v", err)
		}
	}
}

func closeSendsAway(s suite) {
	release := s.hold("a", replaceWith("holder's"))
	const n = 20
	left := make(chan error, n)
	for range n {
		go func() {
			left <- s.Update(s.ctx, "a", func(context.Context, []byte) ([]byte, error) {
				s.Error("fn was called")
				return nil, nil
			})
		}()
	}
	closed := make(chan error, 1)
	go func() { closed <- s.Close() }()
	for range n {
		if err := <-left; !errors.Is(err, store.ErrClosed) {
			s.Errorf("sent away with %v", err)
		}
	}
	if err := release(); err != nil {
		s.Error(err)
	}
	if err := <-closed; err != nil {
		s.Error(err)
	}
}
