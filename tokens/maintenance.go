package tokens

import (
	"context"
	"errors"
	"log/slog"
	"time"
)

// maintenance starts the periodic work, which no call and no push causes: the
// daily comparison with WeChat's list, requests for tickets that do not arrive,
// codes that another process left, and the deletion of old records.
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
	// claimSync reports whether this process has to compare the accounts now.
	claimSync func(ctx context.Context) bool
	sync      func(ctx context.Context) error
	// deleteOldRecords follows a comparison, so that it runs once a day.
	deleteOldRecords func(ctx context.Context) error

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
		if m.enabled() {
			_ = m.tasks.run(m.tasks.background, syncTimeout, func(ctx context.Context) error {
				m.runOnce(ctx)
				return nil
			})
		}
		select {
		case <-t.C:
		case <-m.wakeUp:
		case <-m.tasks.background.Done():
			return
		}
	}
}

// runOnce checks everything once. One duty that fails does not keep the others
// from being done, except that old records are only deleted after a comparison.
func (m *maintenance) runOnce(ctx context.Context) {
	m.requestTickets(ctx)
	if err := m.schedulePending(ctx); err != nil {
		m.warn("reading pending authorization codes failed", err)
	}
	if !m.claimSync(ctx) {
		return
	}
	if err := m.sync(ctx); err != nil {
		m.warn("comparing accounts with WeChat's list failed, retrying in ten minutes", err)
		return
	}
	if err := m.deleteOldRecords(ctx); err != nil {
		m.warn("deleting old records failed", err)
	}
}

// warn logs err unless the Broker is closing.
func (m *maintenance) warn(msg string, err error) {
	if m.tasks.background.Err() == nil && !errors.Is(err, ErrClosed) {
		m.log.Warn(msg, "error", err)
	}
}
