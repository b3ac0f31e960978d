package queue

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"wxproxy/internal/clock"
	"wxproxy/tokens/store"
)

// Pauses of the dispatcher while the store fails.
const (
	firstStorePause = 100 * time.Millisecond
	maxStorePause   = 5 * time.Second
)

// operation is one of those whose failures are logged. The others only read, so
// their success proves little.
type operation int

const (
	opTake operation = iota
	opSettle
)

// storeHealth is whether the store works, and logs when that changes. It is
// safe for concurrent use.
type storeHealth struct {
	log *slog.Logger

	mu       sync.Mutex
	failing  map[operation]bool
	wait     time.Duration // the present pause of the dispatcher
	tryAgain time.Time     // when it ends
}

// note notes the result of an operation.
func (h *storeHealth) note(op operation, err error) {
	if errors.Is(err, context.Canceled) || errors.Is(err, store.ErrClosed) {
		return // the process ends
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	wasDown := len(h.failing) > 0
	if err == nil {
		delete(h.failing, op)
		if wasDown && len(h.failing) == 0 {
			h.log.Info("store available again, events are delivered")
		}
		if op == opTake {
			h.wait, h.tryAgain = 0, time.Time{}
		}
		return
	}
	if !wasDown {
		h.log.Error("store unavailable, events are not delivered", "error", err)
	}
	if h.failing == nil {
		h.failing = map[operation]bool{}
	}
	h.failing[op] = true
	if op == opTake {
		h.wait = min(max(firstStorePause, 2*h.wait), maxStorePause)
		h.tryAgain = clock.Now().Add(h.wait)
	}
}

// pause returns how long the dispatcher is to wait before the next operation.
func (h *storeHealth) pause(now time.Time) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	return min(h.tryAgain.Sub(now), maxStorePause)
}
