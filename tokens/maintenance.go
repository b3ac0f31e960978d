package tokens

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"
)

// maintenance starts the periodic work, which no call and no push causes:
// requests for tickets that do not arrive, codes that another process left, and
// signing keys that the store has lost. The comparison with WeChat's list takes
// longer, and has a schedule of its own; see syncer.loop.
type maintenance struct {
	interval time.Duration
	tasks    *taskGroup
	log      *slog.Logger

	// enabled reports whether a component is configured. Own accounts need no
	// maintenance.
	enabled func() bool
	// requestTickets asks WeChat for tickets if none arrived for long.
	requestTickets func(ctx context.Context)
	// schedulePending takes over codes that another process has left.
	schedulePending func(ctx context.Context) error
	// restoreKeys writes the signing keys in use to the store if they are
	// missing there. It runs after keysDue was set, until it succeeds.
	restoreKeys func(ctx context.Context) error
	keysDue     atomic.Bool

	wakeUp chan struct{} // buffered; a second signal changes nothing
}

// wake runs the maintenance now.
func (m *maintenance) wake() {
	select {
	case m.wakeUp <- struct{}{}:
	default:
	}
}

// run does the maintenance until the Broker is closed.
func (m *maintenance) run() {
	t := time.NewTicker(m.interval)
	defer t.Stop()
	for {
		m.runOnce()
		select {
		case <-t.C:
		case <-m.wakeUp:
		case <-m.tasks.background.Done():
			return
		}
	}
}

// runOnce checks everything once. A duty that fails, or that waits for a part
// of the store, does not keep the others from being done.
func (m *maintenance) runOnce() {
	if m.keysDue.Swap(false) {
		if !m.do("restoring signing keys", m.restoreKeys) {
			m.keysDue.Store(true)
		}
	}
	if !m.enabled() {
		return
	}
	m.do("requesting tickets", func(ctx context.Context) error {
		m.requestTickets(ctx)
		return nil
	})
	m.do("reading pending authorization codes", m.schedulePending)
}

// do runs one duty. It logs an error, unless the Broker is closing, and reports
// whether there was none.
func (m *maintenance) do(what string, duty func(context.Context) error) (ok bool) {
	err := m.tasks.run(m.tasks.background, taskTimeout, duty)
	if err != nil && m.tasks.background.Err() == nil && !errors.Is(err, ErrClosed) {
		m.log.Warn(what+" failed", "error", err)
	}
	return err == nil
}
