package server

import (
	"context"
	"time"

	"wxproxy/callback/queue"
	"wxproxy/internal/clock"
	"wxproxy/metrics"
	"wxproxy/tokens"
	"wxproxy/tokens/store"
)

// queue returns the queue of the store, nil if it has none.
func (s *Server) queue() store.Queue {
	if q, ok := store.As[store.Queuer](s.store); ok {
		return q.Queue()
	}
	return nil
}

// queueLimits returns the limits of the queue of one service. A store that
// processes share is a database of its own, with more room.
func (s *Server) queueLimits() queue.Limits {
	if _, isShared := store.As[store.Watcher](s.store); isShared {
		return queue.SharedLimits
	}
	return queue.Limits{}
}

// storeAhead returns how far the clock of the store is ahead of this machine's.
// While that is unknown it returns 0.
func (s *Server) storeAhead() time.Duration {
	ahead, _ := s.broker.Stats().ClockSkew(tokens.StoreClock)
	return ahead
}

// forwardQueue returns the size of the queue, for metrics.
func (s *Server) forwardQueue() (size metrics.ForwardQueue, known bool) {
	t, known := s.callback.Queue().Totals()
	size = metrics.ForwardQueue{Waiting: t.Waiting, Dead: t.Dead}
	if !t.Oldest.IsZero() {
		size.Oldest = clock.Now().Sub(t.Oldest)
	}
	return size, known
}

// accountChanged queues an event for a change that no push has announced. The
// broker runs before there is a queue, so accountChanged waits for it.
func (s *Server) accountChanged(ctx context.Context, c tokens.Change) error {
	select {
	case <-s.opened:
		return s.callback.AccountChanged(ctx, c)
	case <-ctx.Done():
		return ctx.Err()
	}
}
